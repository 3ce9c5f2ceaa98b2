"""`DecisionBoundary` beside foolbox's and ART's attacks by labels alone, at equal queries: median distances.

Every attack gets the same wrapped model, which counts the inputs sent, and ends the attack once its queries are spent.
The nearest misclassified input among those counted is the answer, so that no attack suffers from where it was ended.
One example at a time, as ART does; the same start for all of them, the nearest of 500 training examples that is
misclassified; inputs in [0, 1]. Libraries not installed are skipped.

    python -m tests.benchmarks.boundary_peers [--data digits fashion] [--models nearest_neighbour mlp] [--queries 5000]
        [--examples 10] [--norm l2] [--attacks 'ours|HopSkipJump']
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import math
import re
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import smoothness as sm
from smoothness._norms import Norm, vector_norm
from smoothness.data import Dataset
from smoothness.models.classical import build_classical
from smoothness.training import Recipe, train
from tests.benchmarks.attack_peers import installed

CLASSICAL = (
    "logistic_regression", "linear_svm", "nearest_neighbour", "decision_tree", "rbf_svm", "random_forest",
    "gradient_boosting",
)  # fmt: skip
SMALLER = {"random_forest": {"trees": 30}, "gradient_boosting": {"rounds": 30}}
NETWORKS = ("mlp", "cnn")
ROWS, STARTS = 2000, 500


class SpentError(RuntimeError):
    """The queries are used up."""


class Counted(nn.Module):
    """Labels of a model, one-hot, for one example under attack; keeps the nearest misclassified input."""

    def __init__(self, model: nn.Module, x: Tensor, label: int, norm: Norm, queries: int) -> None:
        super().__init__()
        self.model, self.x, self.label, self.norm, self.queries = model, x, label, norm, queries
        self.spent, self.least = 0, math.inf

    def forward(self, x: Tensor) -> Tensor:
        if self.spent >= self.queries:
            raise SpentError
        x = x.to(self.x)
        with torch.no_grad():
            labels = self.model(x).argmax(dim=1)
        counted = x[: self.queries - self.spent]
        outside = ((counted < -1e-6) | (counted > 1 + 1e-6)).flatten(1).any(dim=1)
        far = vector_norm(counted - self.x, self.norm)
        missed = (labels[: len(counted)] == self.label) | outside
        self.least = min(self.least, float(far.masked_fill(missed, math.inf).min()))
        self.spent += len(counted)
        return nn.functional.one_hot(labels, 10).float()


Run = Callable[[Counted, Tensor, Tensor, Tensor, argparse.Namespace], object]  # model, x, y, start, options


def ours(model: Counted, x: Tensor, y: Tensor, start: Tensor, options: argparse.Namespace) -> object:
    return sm.DecisionBoundary(sm.ThreatModel(options.norm), options.queries, start)(model, x, y)


def _foolbox(name: str, steps: int) -> Run:
    def run(model: Counted, x: Tensor, y: Tensor, start: Tensor, options: argparse.Namespace) -> object:
        foolbox = installed()["foolbox"]
        wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
        settings = {"constraint": options.norm} if name == "HopSkipJumpAttack" else {}
        attack = getattr(foolbox.attacks, name)(steps=steps, **settings)
        return attack.run(wrapped, x, foolbox.criteria.Misclassification(y), starting_points=start)

    return run


def _art(name: str, settings: dict[str, object]) -> Run:
    def run(model: Counted, x: Tensor, y: Tensor, start: Tensor, options: argparse.Namespace) -> object:
        estimators = importlib.import_module("art.estimators.classification")
        wrapped = estimators.BlackBoxClassifier(
            lambda points: model(torch.from_numpy(np.asarray(points))).numpy(), tuple(x.shape[1:]), 10, (0.0, 1.0)
        )
        own = {"norm": 2 if options.norm == "l2" else np.inf} if name == "HopSkipJump" else {}
        attack = getattr(installed()["ART"], name)(wrapped, targeted=False, verbose=False, **settings, **own)
        return attack.generate(x.numpy(), y=y.numpy(), x_adv_init=start.numpy())

    return run


def attacks() -> dict[str, Run]:
    """Ours, and those of the libraries installed, with steps enough to spend all queries."""
    found: dict[str, Run] = {"ours": ours}
    if "foolbox" in installed():
        found["foolbox HopSkipJump"] = _foolbox("HopSkipJumpAttack", 1000)
        found["foolbox BoundaryAttack"] = _foolbox("BoundaryAttack", 100_000)
    if "ART" in installed():
        found["ART HopSkipJump"] = _art("HopSkipJump", {"max_iter": 1000})
        found["ART BoundaryAttack"] = _art("BoundaryAttack", {"max_iter": 100_000})
    return found


def model_of(name: str, data: Dataset) -> nn.Module:
    if name not in NETWORKS:
        return build_classical(name, (data.train.inputs[:ROWS], data.train.labels[:ROWS]), **SMALLER.get(name, {}))
    model = sm.build_model(name, "relu", input_shape=data.input_shape, classes=10, width=64 if name == "mlp" else 8)
    train(model, data, Recipe(15 if data.input_shape[-1] < 16 else 4, 50, (2e-3,)))
    return model.eval()


def nearest_start(model: nn.Module, starts: Tensor, x: Tensor, label: int, norm: Norm) -> Tensor:
    with torch.no_grad():
        wrong = starts[model(starts).argmax(dim=1) != label]
    return wrong[vector_norm(wrong - x, norm).argmin()][None]


def compared(model: nn.Module, data: Dataset, options: argparse.Namespace) -> None:
    split = data.test.balanced(options.examples)
    with torch.no_grad():
        right = model(split.inputs).argmax(dim=1) == split.labels
    x, y, starts = split.inputs[right], split.labels[right], data.train.balanced(STARTS).inputs
    for name, run in attacks().items():
        if not re.search(options.attacks, name):
            continue
        least, spent, began = [], 0, time.process_time()
        for row in range(len(x)):
            one, label = x[row : row + 1], y[row : row + 1]
            start = nearest_start(model, starts, one, int(label), options.norm)
            counted = Counted(model, one, int(label), options.norm, options.queries)
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002, ART draws from it
            with contextlib.suppress(SpentError):
                run(counted, one, label, start, options)
            least.append(counted.least)
            spent += counted.spent
        took = (time.process_time() - began) / len(x)
        print(f"{name} {np.median(least):.4f} ({spent / len(x):.0f}, {took:.2f} s)", end=" | ", flush=True)
    print(f"n = {len(x)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "fashion"])
    parser.add_argument("--models", nargs="+", default=[*CLASSICAL, *NETWORKS])
    parser.add_argument("--norm", choices=("l2", "linf"), default="l2")
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--attacks", default=".", help="regular expression of names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the libraries' own
    logging.disable(logging.WARNING)
    print(f"{options.norm}, {options.queries} queries: median distance (queries used, processor seconds an example)")
    for name in options.data:
        data = sm.load_dataset(name)
        for kind in options.models:
            print(f"| {name} {kind}", end=" | ", flush=True)
            compared(model_of(kind, data), data, options)


if __name__ == "__main__":
    main()
