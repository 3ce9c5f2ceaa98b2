"""Run by `make wheel` in a fresh environment that holds the built wheel alone, outside the checkout."""

import importlib.resources
import sys
import tempfile
from pathlib import Path

import torch

import smoothness as sm

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = Path(sm.__file__).resolve().parent

TINY = """
name = "tiny"
title = "Tiny"
question = "Does the wheel work alone?"
factors = {activation = ["relu", "step"], architecture = ["mlp"], seed = [0, 1]}
data = {name = "fashion", examples = 10}
training = {epochs = 1}
threat = {norm = "linf", epsilons = ["8/255"]}
attacks = [{kind = "pgd", steps = 2}]
analyzers = [{kind = "jacobian"}]
"""


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    sample = sm.load_dataset("digits").test.balanced(20)
    return sample.inputs.flatten(1), sample.labels


def main() -> None:
    assert CHECKOUT / "smoothness" != PACKAGE, "the checkout is imported, not the wheel"
    assert "activation-ablation" in sm.list_studies(), "shipped studies are missing"
    assert importlib.resources.files("smoothness").joinpath("py.typed").is_file(), "py.typed is missing"
    assert len(sm.load_dataset("fashion").train) == 7000
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "tiny.toml"
        study.write_text(TINY)
        run = sm.run_study(study, Path(folder) / "run")
        assert not run.missing
        page = sm.write_report(Path(folder) / "run", Path(folder) / "report")
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>"), "no page"
        panel = sm.analyze(sm.build_model("mlp", "gelu", input_shape=(64,), classes=10), *digits())
        assert all(check.passed for check in panel.checks)
        assert "<table" in panel.to_html()
    print(f"wheel {sm.__version__} works alone on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
