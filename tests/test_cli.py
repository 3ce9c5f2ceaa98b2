"""The commands as a user types them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from smoothness.activations import list_activations
from smoothness.cli import main
from tests.study.conftest import TINY


def _smoothness(*arguments, cwd, columns=None):
    return subprocess.run(
        [sys.executable, "-m", "smoothness", *map(str, arguments)],
        cwd=cwd,
        env=os.environ if columns is None else {**os.environ, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process, seconds sooner; whatever is raised but an exit fails the test."""

    def run(*arguments, cwd, columns=None):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["smoothness", *map(str, arguments)])
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(arguments, end.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    small = TINY.replace("seed = [0, 1]", "seed = [0]").replace('["mlp", "cnn"]', '["mlp"]')
    (folder / "tiny.toml").write_text(small)
    assert _smoothness("run", "tiny.toml", "--out", "out", cwd=folder).returncode == 0
    (folder / "empty").mkdir()
    shutil.copy(folder / "out" / "study.json", folder / "empty")
    return folder


def test_run_then_report(place):
    done = _smoothness("run", "tiny.toml", "--out", "new", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "3 cells in new" in done.stdout
    assert "[3/3] mlp/softplus(beta=4)/0" in done.stderr  # plain lines when not on a terminal
    done = _smoothness("report", "out", "--out", "page", cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "page" / "index.html").is_file()
    again = _smoothness("run", "tiny.toml", "--out", "out", cwd=place)
    assert again.returncode == 0
    assert "[" not in again.stderr  # nothing left to compute


def test_lists(place):
    done = _smoothness("activations", cwd=place)
    assert done.returncode == 0
    assert "staircase(levels=5)" in done.stdout
    done = _smoothness("studies", cwd=place)
    assert "activation-ablation" in done.stdout


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_table_of_activations_keeps_names_whole(here, tmp_path, columns):
    done = here("activations", cwd=tmp_path, columns=columns)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= max(80, columns)
    assert "…" not in done.stdout
    firsts = [line.split("(")[0].split()[0] for line in lines if line.strip()]
    assert set(list_activations()) <= set(firsts)
    (row,) = [line.split() for line in lines if line.startswith("k_winners")]
    assert row[-4:] == ["-", "-", "no", "no"]
    (row,) = [line.split() for line in lines if line.startswith("relu ")]
    assert row == ["relu", "0", "0", "1", "inf", "0", "1", "no", "yes"]
    assert ("rrelu(lower=0.125, upper=0.333333)" in done.stdout) == (columns == 120)


def test_activations_as_json_is_strict_and_complete(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    done = _smoothness("activations", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    listed = {record["name"]: record for record in json.loads(done.stdout, parse_constant=refuse)}
    assert sorted(listed) == list_activations()
    assert listed["step"]["breakpoints"] == [{"position": 0.0, "order": -1, "jump": 1.0}]
    assert listed["step"]["lipschitz"] == "inf"
    assert listed["k_winners"]["breakpoints"] is None
    assert listed["k_winners"]["parameters"] == {"k": None, "fraction": 0.25, "start_dim": 1}
    assert listed["prelu"]["learnable"] is True


def test_activations_plot_writes_only_its_own_files(tmp_path):
    done = _smoothness("activations", "--plot", "new/page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Catalogue:", "new/page/README.md"]
    names = {path.name for path in (tmp_path / "new" / "page").iterdir()}
    assert {"README.md", "rectifiers.svg", "vector.svg", "waves-and-bumps.svg"} <= names
    (tmp_path / "README.md").write_text("mine")
    done = _smoothness("activations", "--plot", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert "README.md is not from a catalogue and would be replaced" in done.stderr
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "activaton-ablation"], "did you mean 'activation-ablation'"),
        (["run", "absent.toml"], "no such study file"),
        (["report", "nowhere"], "holds no run"),
        (["report", "out", "--out", "tiny.toml"], "the report needs a folder, got the file tiny.toml"),
        (["report", "out", "--out", "tiny.toml/page"], "cannot write the report to tiny.toml/page: Not a directory"),
        (["report", "empty"], "holds no valid measurement (3 cells not finished)"),
        (["activations", "--plot", "tiny.toml"], "the catalogue needs a folder, got the file tiny.toml"),
        (["activations", "--plot", "tiny.toml/page"], "cannot write the catalogue to tiny.toml/page: Not a directory"),
        (["activations", "--plot", "page", "--json"], "give --json or --plot, not both"),
        (["run", "tiny.toml", "--out", "tiny.toml"], "cannot write tiny.toml/study.json"),
        (["run", "tiny.toml", "--out", "out", "--scale", "full"], "holds another run"),
    ],
)
def test_mistakes_are_one_message_and_no_traceback(here, place, arguments, message):
    done = here(*arguments, cwd=place)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
