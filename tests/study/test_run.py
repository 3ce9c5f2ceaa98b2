"""Runs: reproducible, resumable at any moment, refused where they do not belong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from smoothness.consistency import ConsistencyError, check_frame, check_twins, require
from smoothness.study import ConfigError, StoreError, load_frame, load_run, run_study
from smoothness.study.cells import COLUMNS
from smoothness.training import TrainingDivergedError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study, finished once for all tests of this module."""
    from .conftest import TINY

    folder = tmp_path_factory.mktemp("runs")
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return path, folder / "first", run_study(path, folder / "first")


def test_frame_is_tidy_and_complete(finished):
    _, _, run = finished
    frame = run.frame
    assert tuple(frame.columns) == COLUMNS
    assert run.missing == ()
    assert len(run.cells) == 12
    assert set(frame["activation"]) == {"relu", "step", "softplus(beta=4)"}
    counts = frame.pivot_table(index="cell", columns="quantity", values="example", aggfunc="size")
    assert (counts["clean_accuracy"] == 1).all()
    assert (counts["margin"] == 12).all()
    assert (counts["attack_success"] == 12 * 2 * 3).all()
    assert (counts["kink_density"].dropna() == 4 * 2).all()
    assert counts["kink_density"].notna().groupby(level=0).any().sum() == 6  # the six MLPs
    assert frame["valid"].all()
    assert all(check.passed for check in check_frame(frame))


def test_twice_the_same_and_workers_do_not_matter(finished, tmp_path):
    path, _, run = finished
    again = run_study(path, tmp_path / "again", workers=2)
    pd.testing.assert_frame_equal(run.frame, again.frame, check_exact=True)
    assert run.cells == again.cells


def test_finished_cells_are_skipped_and_damaged_ones_redone(finished, tmp_path):
    path, first, run = finished
    folder = tmp_path / "copy"
    (folder / "cells").mkdir(parents=True)
    (folder / "study.json").write_bytes((first / "study.json").read_bytes())
    names = sorted(p.name for p in (first / "cells").iterdir())
    for name in names:
        (folder / "cells" / name).write_bytes((first / "cells" / name).read_bytes())
    truncated, absent = folder / "cells" / names[0], folder / "cells" / names[1]
    truncated.write_bytes(truncated.read_bytes()[:100])
    absent.unlink()
    (folder / "cells" / ".writing-left.parquet").write_bytes(b"half")
    assert len(load_run(folder).missing) == 2
    seen = []
    resumed = run_study(path, folder, progress=lambda done, total, label: seen.append((done, total)))
    assert seen == [(11, 12), (12, 12)]
    pd.testing.assert_frame_equal(run.frame, resumed.frame, check_exact=True)
    assert sorted(p.name for p in (folder / "cells").iterdir()) == names


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [-1, -8, -12, -20, -200])
def test_a_damaged_footer_counts_as_missing(finished, tmp_path, place):
    _, first, _ = finished
    folder = tmp_path / "copy"
    shutil.copytree(first, folder)
    victim = sorted((folder / "cells").iterdir())[0]
    _flip(victim, place)
    assert len(load_run(folder).missing) <= 1  # no traceback
    victim.write_bytes(victim.read_bytes()[:200] + b"\xff" * 500 + victim.read_bytes()[-8:])
    assert len(load_run(folder).missing) == 1


def test_a_damaged_byte_in_the_rows_is_noticed(finished, tmp_path):
    path, first, run = finished
    folder = tmp_path / "copy"
    shutil.copytree(first, folder)
    victim = sorted((folder / "cells").iterdir())[0]
    chunks = pq.read_metadata(victim).row_group(0)
    column = next(c for c in map(chunks.column, range(chunks.num_columns)) if c.path_in_schema == "value")
    _flip(victim, column.data_page_offset + column.total_compressed_size // 2)
    with pytest.raises(StoreError, match=r"is damaged .* run the study again to redo it"):
        load_run(folder)
    seen = []
    again = run_study(path, folder, progress=lambda done, total, label: seen.append(done))
    assert seen == [12]
    pd.testing.assert_frame_equal(run.frame, again.frame, check_exact=True)


UNFIT = [
    ("examples = 12", "examples = 12\noptions = {size = 3}", "data set 'digits' has no option 'size'"),
    ('kind = "fgsm"', 'kind = "noise"', "attacks lists noise-corner more than once"),
    ('norm = "linf"', 'norm = "l2"', "kind='corner' needs norm 'linf'"),
    ("segments = 2", 'segments = 2\narchitectures = ["cnn"]', r"module 'conv1' \(Conv2d\) cannot be read"),
    ('"digits"', '"gaussians"', "cnn needs input_shape"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), UNFIT)
def test_settings_that_do_not_fit_are_refused_before_any_training(tiny, tmp_path, monkeypatch, right, wrong, message):
    monkeypatch.setattr("smoothness.study.cells.train", lambda *_: pytest.fail("trained"))
    text = tiny.read_text()
    assert right in text
    tiny.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ConfigError, match=rf"tiny\.toml: .*{message}"):
        run_study(tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverging_cell_is_named(tiny, tmp_path):
    tiny.write_text(tiny.read_text().replace("epochs = 1", "learning_rates = [1e30]"))
    with pytest.raises(TrainingDivergedError, match="mlp/relu/0: the training loss became"):
        run_study(tiny, tmp_path / "out")


def test_hostile_labels_stay_inside_the_run_folder(tiny, tmp_path):
    labels = ["<script>alert(1)</script>", "=cmd()", "../../x", "\u00e9" * 60]
    levels = ", ".join(f'{{name = "relu", label = "{label}"}}' for label in labels)
    text = tiny.read_text().replace('["mlp", "cnn"]', '["mlp"]').replace("[0, 1]", "[0]")
    tiny.write_text(text.replace('"relu", "step"', levels))
    run = run_study(tiny, tmp_path / "out")
    assert set(labels) < set(run.frame["activation"])
    names = [path.name for path in (tmp_path / "out" / "cells").iterdir()]
    assert len(names) == 5
    assert all(re.fullmatch(r"[\w-]+\.parquet", name, flags=re.ASCII) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_says_how_to_go_on(finished, tmp_path, workers):
    path, _, run = finished
    folder = tmp_path / "interrupted"
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import smoothness.cli as c; c.main()"
    )
    command = [sys.executable, "-c", code, "run", str(path), "--out", str(folder), "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    first = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert first.startswith("[1/12]")
    assert process.returncode == 130
    assert "Interrupted; finished cells are kept. Run the same command again to continue." in rest
    assert "Traceback" not in rest
    assert load_run(folder).missing
    pd.testing.assert_frame_equal(run.frame, run_study(path, folder).frame, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_the_frame_is_the_same(finished, tmp_path, workers):
    path, _, run = finished
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "smoothness", "run", str(path), "--out", str(folder), "--workers", str(workers)]
    rng, kills = np.random.default_rng(workers), 0
    for _ in range(20):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(timeout=rng.uniform(2.5, 6.0))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 1
    time.sleep(0.1)
    resumed = run_study(path, folder)
    pd.testing.assert_frame_equal(run.frame, resumed.frame, check_exact=True)
    assert not list(folder.rglob(".writing-*"))


def test_another_studys_folder_is_refused(finished, tmp_path):
    path, first, _ = finished
    with pytest.raises(StoreError, match="holds another run: study 'tiny' at scale 'quick'"):
        run_study(path, first, scale="full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="is not empty and holds no run"):
        run_study(path, tmp_path / "full")
    with pytest.raises(StoreError, match="holds no run"):
        load_frame(tmp_path)


def test_other_schemas_and_broken_manifests_are_refused(finished, tmp_path):
    _, first, _ = finished
    manifest = json.loads((first / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(StoreError, match="written with schema 99"):
        load_run(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        load_run(tmp_path)


def test_nothing_personal_is_stored(finished, tmp_path_factory):
    _, first, run = finished
    text = (first / "study.json").read_text() + json.dumps(run.cells)
    assert str(first.parent) not in text
    assert run.command == "smoothness run tiny.toml --scale quick --out runs/tiny --report reports/tiny"


def test_unwritable_folder(finished, monkeypatch, tmp_path):
    path, _, _ = finished

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(StoreError, match=r"cannot write .* \(No space left on device\); finished cells are kept"):
        run_study(path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".writing-*"))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        run_study(path, file / "below")


def test_violations_fail_the_run(finished):
    _, _, run = finished
    frame = run.frame.copy()
    wrong = frame[(frame["quantity"] == "correct") & (frame["value"] == 0)].iloc[0]
    same = (frame[["cell", "example"]] == wrong[["cell", "example"]]).all(axis=1)
    frame.loc[same & (frame["quantity"] == "attack_success"), "value"] = 0.0
    with pytest.raises(ConsistencyError, match="robust accuracy never exceeds clean accuracy"):
        require(check_frame(frame))
    with pytest.raises(ConsistencyError, match="counted twice"):
        require(check_frame(pd.concat([run.frame, run.frame.head(1)])))
    cells = [dict(cell) for cell in run.cells]
    cells[1]["initial_weights"] = [value * 1.01 for value in cells[1]["initial_weights"]]
    assert check_twins(run.cells).passed
    assert not check_twins(cells).passed
    margin = run.frame.assign(value=run.frame["value"].where(run.frame["quantity"] != "margin", -run.frame["value"]))
    with pytest.raises(ConsistencyError, match="margin is positive exactly"):
        require(check_frame(margin))
    negative = run.frame.assign(value=run.frame["value"].where(run.frame["quantity"] != "jacobian_norm", -1.0))
    with pytest.raises(ConsistencyError, match="norms and densities"):
        require(check_frame(negative))
