"""Runs: reproducible, resumable at any moment, refused where they do not belong."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from smoothness.consistency import ConsistencyError, check_frame, check_twins, require
from smoothness.study import ConfigError, StoreError, load_frame, load_run, run_study
from smoothness.study.cells import COLUMNS, CellResult, grid, measure_cell, train_cell
from smoothness.study.folder import RunFolder
from smoothness.study.log import read_events
from smoothness.training import TrainingDivergedError

from .conftest import TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study, finished once for all tests of this module."""
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


def test_measuring_stored_weights_gives_the_rows_of_the_trained_model_to_the_bit(finished):
    _, _, run = finished
    for cell in grid(run.config)[:6]:
        model, facts = train_cell(run.config, cell)
        expected = measure_cell(run.config, cell, model, facts).rows
        stored = run.frame[run.frame["cell"] == cell.label].reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, expected, check_exact=True, check_dtype=False)


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _copy(folder, to):
    shutil.copytree(folder, to)
    return to


def _finished_labels(path, folder, **settings):
    """Labels computed by one more run, and the run."""
    seen = []
    run = run_study(path, folder, progress=lambda event: seen.append(event), **settings)
    return [event.label for event in seen if event.kind == "finished"], run


def test_finished_cells_are_skipped_and_damaged_ones_redone(finished, tmp_path):
    path, first, run = finished
    folder = _copy(first, tmp_path / "copy")
    names = sorted(p.name for p in (folder / "cells").iterdir())
    truncated, absent, flipped = (folder / "cells" / name for name in names[:3])
    truncated.write_bytes(truncated.read_bytes()[:100])
    absent.unlink()
    chunks = pq.read_metadata(flipped).row_group(0)
    column = next(c for c in map(chunks.column, range(chunks.num_columns)) if c.path_in_schema == "value")
    _flip(flipped, column.data_page_offset + column.total_compressed_size // 2)
    (folder / "cells" / f".writing-{names[0].split('.')[0]}.x.parquet").write_bytes(b"half")
    incomplete = load_run(folder)  # a report says what is missing
    assert len(incomplete.missing) == 3
    assert len(incomplete.damaged) == 2
    assert len(incomplete.cells) == 9
    computed, resumed = _finished_labels(path, folder)
    assert sorted(computed) == sorted(incomplete.missing)
    pd.testing.assert_frame_equal(run.frame, resumed.frame, check_exact=True)
    assert sorted(p.name for p in (folder / "cells").iterdir()) == names
    events = [event["event"] for event in read_events(folder / "log.jsonl")]
    assert events.count("network trained") == 12  # those of the first run


def test_damaged_weights_are_noticed_and_trained_again(finished, tmp_path):
    path, first, run = finished
    folder = _copy(first, tmp_path / "copy")
    one, other, third = sorted((folder / "weights").iterdir())[:3]
    _flip(one, -5)
    other.write_bytes(third.read_bytes())  # whole, but of another network
    assert load_run(folder).missing == ()  # the rows are sound
    computed, resumed = _finished_labels(path, folder)
    assert len(computed) == 2
    pd.testing.assert_frame_equal(run.frame, resumed.frame, check_exact=True)
    events = [event["event"] for event in read_events(folder / "log.jsonl")]
    assert events.count("network trained") == 14


def test_a_changed_study_keeps_what_fits(finished, tmp_path):
    path, first, run = finished
    folder = _copy(first, tmp_path / "copy")
    changed = tmp_path / "tiny.toml"
    changed.write_text(path.read_text().replace('"step", ', "").replace("[0, 1]", "[1, 2]"))
    computed, narrower = _finished_labels(changed, folder)
    assert set(computed) == {f"{a}/{n}/2" for a in ("mlp", "cnn") for n in ("relu", "softplus(beta=4)")}
    assert set(narrower.frame["seed"]) == {1, 2}
    assert "step" not in set(narrower.frame["activation"])
    changed.write_text(path.read_text().replace("steps = 3", "steps = 2"))
    trained = len(list((folder / "weights").iterdir()))
    computed, measured = _finished_labels(changed, folder)
    assert len(computed) == 12
    assert measured.cells != run.cells  # other counts of passes
    assert len(list((folder / "weights").iterdir())) == trained  # no network was trained again
    computed, back = _finished_labels(path, folder)
    assert computed == []
    pd.testing.assert_frame_equal(run.frame, back.frame, check_exact=True)


UNFIT = [
    ("examples = 12", "examples = 12\noptions = {size = 3}", "data set 'digits' has no option 'size'"),
    ('kind = "fgsm"', 'kind = "noise"', "attacks lists noise-corner more than once"),
    ('norm = "linf"', 'norm = "l2"', "kind='corner' needs norm 'linf'"),
    ('"digits"', '"gaussians"', "cnn needs input_shape"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), UNFIT)
def test_settings_that_do_not_fit_are_refused_before_any_training(tiny, tmp_path, monkeypatch, right, wrong, message):
    monkeypatch.setattr("smoothness.study.cells.train", lambda *_: pytest.fail("trained"))
    text = tiny.read_text()
    assert right in text
    tiny.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ConfigError, match=rf"(?s)tiny\.toml: .*{message}"):
        run_study(tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failing_cell_is_recorded_and_tried_again(tiny, tmp_path, monkeypatch):
    tiny.write_text(tiny.read_text().replace('["mlp", "cnn"]', '["mlp"]'))

    def diverge(config, cell):
        if cell.label == "mlp/step/0":
            raise TrainingDivergedError(f"{cell.label}: see {tmp_path}/secret/net.py")
        return train_cell(config, cell)

    monkeypatch.setattr("smoothness.study.compute.train_cell", diverge)
    run = run_study(tiny, tmp_path / "out")
    assert run.failed == {"mlp/step/0": "mlp/step/0: see net.py"}
    assert run.missing == ("mlp/step/0",)
    assert len(run.cells) == 5
    (record,) = (tmp_path / "out" / "failures").iterdir()
    text = record.read_text()
    assert json.loads(text)["type"] == "TrainingDivergedError"
    assert "compute.py" in text
    assert str(tmp_path) not in text
    assert "/smoothness/study" not in text
    assert str(tmp_path) not in (tmp_path / "out" / "log.jsonl").read_text()
    assert load_run(tmp_path / "out").failed == run.failed
    monkeypatch.undo()
    computed, again = _finished_labels(tiny, tmp_path / "out")
    assert computed == ["mlp/step/0"]
    assert again.failed == {}
    assert not list((tmp_path / "out" / "failures").iterdir())


def test_examples_are_kept_and_their_damage_is_noticed(tiny, tmp_path, monkeypatch):
    tiny.write_text(tiny.read_text().replace('["mlp", "cnn"]', '["mlp"]').replace("[0, 1]", "[0]"))

    def measure(config, cell, model, facts):
        result = measure_cell(config, cell, model, facts)
        return CellResult(
            result.rows, result.facts, {"adversarial": torch.arange(12.0)} if "relu" in cell.label else {}
        )

    monkeypatch.setattr("smoothness.study.compute.measure_cell", measure)
    run = run_study(tiny, tmp_path / "out")
    assert torch.equal(run.examples("mlp/relu/0")["adversarial"], torch.arange(12.0))
    assert run.examples("mlp/step/0") == {}
    (file,) = (tmp_path / "out" / "examples").iterdir()
    _flip(file, -3)
    with pytest.raises(StoreError, match="is damaged"):
        run.examples("mlp/relu/0")
    assert load_run(tmp_path / "out").damaged == ("mlp/relu/0",)
    computed, again = _finished_labels(tiny, tmp_path / "out")
    assert computed == ["mlp/relu/0"]
    assert torch.equal(again.examples("mlp/relu/0")["adversarial"], torch.arange(12.0))


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


def _children(pid):
    """Processes that a process started; the workers are those that run multiprocessing's spawn_main."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_the_frame_is_the_same(tmp_path, workers):
    """Twenty kills of the driver or one of its workers, at moments when files are being made."""
    study = tmp_path / "tiny.toml"
    study.write_text(TINY.replace("[0, 1]", "[0, 1, 2, 3, 4, 5, 6, 7]"))
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "smoothness", "run", str(study), "--out", str(folder), "--workers", str(workers)]
    rng, kills, process = np.random.default_rng(workers), 0, None
    while kills < 20:
        if process is None or process.poll() is not None:
            if process is not None and process.returncode == 0:  # too fast: something is left to do again
                for path in [*(folder / "cells").iterdir(), *(folder / "weights").iterdir()]:
                    path.unlink()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            process.stderr.readline()  # the first cell of this driver
        time.sleep(rng.uniform(0.0, 1.5))
        workers_now = _children(process.pid)
        driver = workers == 1 or not workers_now or rng.random() < 0.4
        os.kill(process.pid if driver else int(rng.choice(workers_now)), signal.SIGKILL)
        kills += 1
        if driver:
            process.communicate()
            deadline = time.monotonic() + 10
            while any(map(_alive, workers_now)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(map(_alive, workers_now))
    if process.poll() is None:
        process.communicate()
    resumed = run_study(study, folder)
    assert resumed.failed == {}
    undisturbed = run_study(study, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(undisturbed.frame, resumed.frame, check_exact=True)
    assert not list(folder.rglob(".writing-*"))


@pytest.mark.slow
def test_two_drivers_share_the_work(finished, tmp_path):
    path, _, run = finished
    folder = tmp_path / "shared"
    command = [sys.executable, "-m", "smoothness", "run", str(path), "--out", str(folder), "--workers"]
    drivers = [
        subprocess.Popen([*command, count], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for count in ("1", "2")
    ]
    for driver in drivers:
        assert driver.wait(timeout=120) == 0, driver.stderr.read()
        driver.stderr.close()
    pd.testing.assert_frame_equal(run.frame, load_run(folder).frame, check_exact=True)
    events = read_events(folder / "log.jsonl")
    for kind in ("cell finished", "network trained"):
        cells = [event["cell"] for event in events if event["event"] == kind]
        assert len(cells) == len(set(cells)) == 12
    assert not list(folder.rglob(".writing-*"))


def test_a_locked_cell_is_left_to_its_holder(finished, tmp_path):
    path, first, run = finished
    folder = _copy(first, tmp_path / "copy")
    victims = sorted((folder / "cells").iterdir())[:2]
    content = [victim.read_bytes() for victim in victims]
    for victim in victims:
        victim.unlink()
    seen = []

    def progress(event):
        seen.append(event.kind)
        if seen.count("busy") == 2 and "finished" in seen:
            victims[0].write_bytes(content[0])
            held.close()

    with contextlib.ExitStack() as held:
        assert held.enter_context(RunFolder(folder).lock(victims[0].stem))
        shared = run_study(path, folder, progress=progress)
    assert seen.count("finished") == 2
    pd.testing.assert_frame_equal(run.frame, shared.frame, check_exact=True)
    assert [e["event"] for e in read_events(folder / "log.jsonl")].count("cell finished") == 13


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
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(StoreError, match=r"cannot write .*study\.json \(Read-only file system\)"):
        run_study(path, tmp_path / "read-only")
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
