"""`smoothness analyze` on somebody's factory, weights and data."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import smoothness as sm
from smoothness.cli import app

SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def raises():
    raise RuntimeError("no weights here")

def wrong():
    return {"model": 1}

number = 3
ready = build()

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(64, 64)
        self.two = nn.Linear(64, 64)
        self.two.weight = self.one.weight
    def forward(self, x):
        return self.two(self.one(x.flatten(1)).relu())
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(SOURCE)
    (tmp_path / "their_broken.py").write_text("import not_there_at_all\n")
    (tmp_path / "their_exit.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("their_models", "their_broken", "their_exit"):
        sys.modules.pop(name, None)


def run(*arguments: str):
    return CliRunner().invoke(app, ["analyze", *arguments, "--examples", "20"])


def build():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def test_same_as_in_python(here):
    sample = sm.load_dataset("digits").test.balanced(20)
    expected = json.loads(sm.analyze(build(), sample.inputs, sample.labels, examples=20).to_json())
    found = run("their_models:build", "--data", "digits", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == expected
    assert str(here) not in sys.path
    found = run("their_models:ready", "--data", "digits", "--html", "out/p.html", "--epsilon", "0.5", "--norm", "l2")
    assert found.exit_code == 0, found.output
    assert "Attacks, l2 ε = 0.5" in found.stdout
    assert "Hard invariants" in (here / "out" / "p.html").read_text(encoding="utf-8")


def test_weights(here):
    net = build()
    state = {name: 0.5 * value for name, value in net.state_dict().items()}
    save_file(state, "w.safetensors")
    net.load_state_dict(state)
    sample = sm.load_dataset("digits").test.balanced(20)
    expected = json.loads(sm.analyze(net, sample.inputs, sample.labels).to_json())
    found = run("their_models:build", "--data", "digits", "--json", "--weights", "w.safetensors")
    assert json.loads(found.stdout)["summary"] == expected["summary"]
    save_file({"one.weight": torch.eye(64), "one.bias": torch.ones(64), "two.bias": torch.ones(64)}, "t.safetensors")
    assert run("their_models:Tied", "--data", "digits", "--weights", "t.safetensors").exit_code == 0


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_files(here, form):
    sample = sm.load_dataset("digits").test.balanced(20)
    if form == "npz":
        np.savez("d.npz", inputs=sample.inputs.numpy(), labels=sample.labels.numpy(), other=np.array(["x"]))
    else:
        save_file({"inputs": sample.inputs, "labels": sample.labels}, "d.safetensors")
    ours, theirs = (run("their_models:build", "--data", name, "--json").stdout for name in ("digits", f"d.{form}"))
    assert json.loads(ours)["summary"] == json.loads(theirs)["summary"]
    np.savez("u.npz", inputs=sample.inputs.numpy())
    assert "No verdict" in run("their_models:build", "--data", "u.npz").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["their_models", "--data", "digits"], "package.module:factory"),
        (["not_there_at_all:f", "--data", "digits"], "cannot import 'not_there_at_all'"),
        (["their_broken:f", "--data", "digits"], "cannot import 'their_broken': ModuleNotFoundError"),
        (["their_exit:f", "--data", "digits"], "cannot import 'their_exit': SystemExit"),
        (["their_models:nothing", "--data", "digits"], "has no 'nothing'"),
        (["their_models:number", "--data", "digits"], "is a int, not a function"),
        (["their_models:raises", "--data", "digits"], "raised RuntimeError: no weights here"),
        (["their_models:wrong", "--data", "digits"], "returned dict, not an nn.Module"),
        (["their_models:build", "--data", "cifar"], "data must be banking77, clinc150, digits"),
        (["their_models:build", "--data", "gone.npz"], "gone.npz"),
        (["their_models:build", "--data", "pickled.npz"], "cannot be read"),
        (["their_models:build", "--data", "text.npz"], "cannot be read"),
        (["their_models:build", "--data", "text.safetensors"], "not a safetensors file"),
        (["their_models:build", "--data", "images.npz"], "has no array 'inputs'"),
        (["their_models:build", "--data", "bytes.npz"], "floating point"),
        (["their_models:build", "--data", "fashion"], "does not run on inputs of shape (n, 1, 28, 28)"),
        (["their_models:build", "--data", "digits", "--weights", "w.pth"], "safetensors.torch.save_file"),
        (["their_models:build", "--data", "digits", "--weights", "gone.safetensors"], "gone.safetensors"),
        (["their_models:build", "--data", "digits", "--weights", "text.safetensors"], "not a safetensors file"),
        (
            ["their_models:build", "--data", "digits", "--weights", "unfit.safetensors"],
            "missing: 1.bias, 3.weight, 3.bias; unexpected: extra; of another shape: 1.weight 2×2 instead of 16×64",
        ),
        (["their_models:build", "--data", "digits", "--epsilon", "8/0"], "--epsilon must be"),
        (["their_models:build", "--data", "digits", "--epsilon", "-1"], "positive"),
        (["their_models:build", "--data", "digits", "--norm", "l2"], "give --epsilon"),
    ],
)
def test_one_readable_line(here, arguments, message):
    np.savez("pickled.npz", inputs=np.array([object()], dtype=object))
    np.savez("images.npz", images=np.zeros(3))
    np.savez("bytes.npz", inputs=np.zeros((3, 64), dtype=np.uint8))
    for name in ("text.npz", "text.safetensors", "w.pth"):
        (here / name).write_text("hello")
    save_file({"1.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, "unfit.safetensors")
    found = run(*arguments)
    assert found.exit_code == 2
    assert isinstance(found.exception, SystemExit)
    assert "Traceback" not in found.output
    assert len(found.stderr.strip().splitlines()) == 1
    assert message in found.stderr
