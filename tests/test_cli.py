"""The commands as a user types them."""

import shutil
import subprocess
import sys

import pytest

from tests.study.conftest import TINY


def _smoothness(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "smoothness", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "activaton-ablation"], "did you mean 'activation-ablation'"),
        (["run", "absent.toml"], "no such study file"),
        (["report", "nowhere"], "holds no run"),
        (["report", "out", "--out", "tiny.toml"], "the report needs a folder, got the file tiny.toml"),
        (["report", "out", "--out", "tiny.toml/page"], "cannot write the report to tiny.toml/page: Not a directory"),
        (["report", "empty"], "holds no valid measurement (3 cells not finished)"),
        (["run", "tiny.toml", "--out", "tiny.toml"], "cannot write tiny.toml/study.json"),
        (["run", "tiny.toml", "--out", "out", "--scale", "full"], "holds another run"),
    ],
)
def test_mistakes_are_one_message_and_no_traceback(place, arguments, message):
    done = _smoothness(*arguments, cwd=place)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
