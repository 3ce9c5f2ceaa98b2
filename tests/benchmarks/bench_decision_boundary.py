"""`DecisionBoundary`, which reads labels alone, against `ExactDistance`: how much farther is what it finds?

scikit-learn's linear models, one nearest neighbour and a tree on digits (64 features) and the Fashion-MNIST subset
(784). Ratio: distance found / exact distance, over correctly classified examples, seeds pooled. `--part final` takes
test examples; settings were tuned on validation examples, `--part tune`, alone. Queries are those really used, the
checks before and after included; seconds are processor time of one thread for an example.

    python -m tests.benchmarks.bench_decision_boundary [--part final] [--data digits fashion] [--models tree]
        [--norm l2] [--queries 5000] [--examples 30] [--seeds 0 1 2] [--starts 1000]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import smoothness as sm
from smoothness.data import Dataset
from smoothness.estimators import EstimatorModel
from smoothness.models.classical import build_classical

MODELS = ("logistic_regression", "linear_svm", "nearest_neighbour", "decision_tree")
ROWS = 2000  # of the training split


@dataclass(frozen=True)
class Found:
    """Ratios to the exact distance, queries and seconds an example."""

    ratios: Tensor
    queries: float
    seconds: float

    def told(self) -> str:
        median, most = (float(self.ratios.quantile(share)) for share in (0.5, 0.9))
        return f"{len(self.ratios)} | {median:.3f} | {most:.3f} | {self.queries:.0f} | {self.seconds:.2f}"


def examples(data: Dataset, part: str, count: int) -> tuple[Tensor, Tensor]:
    split = (data.validation if part == "tune" else data.test).balanced(count)
    return split.inputs, split.labels


def fitted(name: str, data: Dataset) -> EstimatorModel:
    return build_classical(name, (data.train.inputs[:ROWS], data.train.labels[:ROWS]))


def measured(model: EstimatorModel, data: Dataset, options: argparse.Namespace) -> Found:
    x, y = examples(data, options.part, options.examples)
    exact = sm.ExactDistance(options.norm, data.bounds)(model, x, y)
    right = exact.valid & (exact.values > 0)
    x, y, nearest = x[right], y[right], exact.values[right]
    starts = data.train.balanced(options.starts).inputs if options.starts else None
    ratios, forward, began = [], 0, time.process_time()
    for seed in options.seeds:
        threat = sm.ThreatModel(options.norm, bounds=data.bounds)
        found = sm.DecisionBoundary(threat, options.queries, starts, seed=seed)(model, x, y)
        ratios.append(found.distance / nearest)
        forward += found.passes.forward
    spent, runs = time.process_time() - began, len(x) * len(options.seeds)
    return Found(torch.cat(ratios), forward / runs, spent / runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("tune", "final"), default="final")
    parser.add_argument("--data", nargs="+", default=["digits", "fashion"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--norm", choices=("l2", "linf", "l1"), default="l2")
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--starts", type=int, default=1000, help="training examples to start from; 0 for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.part} examples, {options.norm}, {options.queries} queries, {options.starts} starts")
    print("| data | model | runs | median | 90 % | queries | seconds |\n|---|---|---|---|---|---|---|")
    for name in options.data:
        data = sm.load_dataset(name)
        for kind in options.models:
            print(f"| {name} | {kind} | {measured(fitted(kind, data), data, options).told()} |", flush=True)


if __name__ == "__main__":
    main()
