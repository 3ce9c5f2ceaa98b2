"""Files of a run folder: any damage is noticed, and nothing is ever half written."""

import numpy as np
import pandas as pd
import pytest
import torch

from smoothness.study.folder import RunFolder
from smoothness.study.log import append_event, read_events
from smoothness.study.store import StoredCell, StoreError, read_cell, write_cell
from smoothness.study.tensors import read_tensors, write_tensors

ROWS = pd.DataFrame({"cell": ["a", "b", "b"], "value": [0.1, np.nan, np.inf], "valid": [True, False, True]})
TENSORS = {
    "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 2),
}


def _every_flip(path, read):
    """What `read` gives for the file with one bit flipped, byte after byte."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        yield place, read(path)
    for length in (0, 1, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read(path) is None
    path.write_bytes(whole)
    assert read(path) is not None


def test_a_flipped_bit_anywhere_in_a_cell_is_noticed_or_harmless(tmp_path):
    path, facts = tmp_path / "cell.parquet", {"gain": 0.1, "losses": [1.0, 0.5]}
    write_cell(path, StoredCell("k", ROWS, facts, ""))
    noticed = 0
    for place, found in _every_flip(path, read_cell):
        noticed += found is None
        if found is not None:
            assert (found.key, found.facts, found.examples) == ("k", facts, ""), place
            pd.testing.assert_frame_equal(found.rows, ROWS, check_exact=True)
    assert noticed > 100


def test_a_flipped_bit_anywhere_in_tensors_is_noticed(tmp_path):
    path, note = tmp_path / "net.safetensors", {"key": "k", "facts": {"gain": 0.1, "losses": (1.0, float("nan"))}}
    digest = write_tensors(path, note, TENSORS)
    found = read_tensors(path)
    assert found is not None
    assert found[0]["facts"]["gain"] == 0.1
    assert found[2] == digest
    for name, tensor in TENSORS.items():
        assert found[1][name].dtype == tensor.dtype
        assert torch.equal(found[1][name], tensor)
    for place, damaged in _every_flip(path, read_tensors):
        if damaged is not None:  # white space that fills the header up
            assert all(torch.equal(damaged[1][name], tensor) for name, tensor in TENSORS.items()), place


def test_tied_weights_are_stored(tmp_path):
    layer = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), layer)
    write_tensors(tmp_path / "tied.safetensors", {}, model.state_dict())
    found = read_tensors(tmp_path / "tied.safetensors")
    assert found is not None
    model.load_state_dict(found[1])


def test_foreign_files_are_not_taken_for_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    assert read_tensors(tmp_path / "foreign.safetensors") is None
    ROWS.to_parquet(tmp_path / "foreign.parquet")
    assert read_cell(tmp_path / "foreign.parquet") is None
    folder = RunFolder(tmp_path)
    write_cell(folder.cell("relu-k1"), StoredCell("k2", ROWS, {}, ""))  # renamed by hand
    assert folder.read_result("relu-k1") is None
    folder.write_weights("relu-k1", "k1", {"gain": 1.0}, {"weight": torch.ones(2)})
    assert folder.read_weights("k1") is not None
    (tmp_path / "weights" / "relu-k1.safetensors").rename(tmp_path / "weights" / "relu-k2.safetensors")
    assert folder.read_weights("k2") is None


def test_leftovers_go_unless_their_writer_lives(tmp_path):
    folder = RunFolder(tmp_path)
    folder.cell("x").parent.mkdir()
    dead, alive = (folder.cell("x").parent / f".writing-{name}.abc.parquet" for name in ("dead-1", "alive-2"))
    dead.touch()
    alive.touch()
    with folder.lock("alive-2") as held:
        assert held
        folder.remove_leftovers()
        assert alive.exists()
        assert not dead.exists()
    folder.remove_leftovers()
    assert not alive.exists()


def test_events_survive_a_line_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    append_event(path, "cell finished", cell="relu\n", seconds=1.5)
    path.write_bytes(path.read_bytes() + b'{"event": "cu\n')
    append_event(path, "run finished")
    first, last = read_events(path)
    assert (first["event"], first["cell"], first["seconds"]) == ("cell finished", "relu\n", 1.5)
    assert first["time"].endswith("+00:00")
    assert last["event"] == "run finished"
    with pytest.raises(StoreError, match="cannot write"):
        append_event(path / "below", "run started")
