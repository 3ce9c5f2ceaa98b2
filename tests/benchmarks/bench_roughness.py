"""Processor time of the roughness analyzers, with ratios to the targets and to peers that are installed: one thread.

Run: python tests/benchmarks/bench_roughness.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smoothness.analyzers import (
    GradientVariation,
    InputCurvature,
    SmoothnessProbe,
    kinks_on_segments,
    linear_regions,
)

NETWORKS = Path(__file__).parents[1] / "reference" / "networks.npz"


def network(dims: str, make: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    stored = np.load(NETWORKS)
    layers: list[nn.Module] = []
    for k in range(dims.count("-")):
        weight, bias = (torch.from_numpy(stored[f"{dims}/{name}{k}"]).double() for name in ("weight", "bias"))
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, make()]
    return nn.Sequential(*layers[:-1])


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Best processor time of several runs, after one that warms up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        run()
        best = min(best, time.process_time() - begin)
    return best


def line(what: str, took: float, target: float | None, note: str = "") -> None:
    ratio = "" if target is None else f"  {took / target:6.2f} of the target {target * 1e3:.1f} ms"
    print(f"{what:52s} {took * 1e3:9.2f} ms{ratio}  {note}", flush=True)


def kinks() -> None:
    stored = np.load(NETWORKS)
    for dims, target in (("16-64-64-64-1", 0.8e-3), ("64-128-128-128-1", 2.0e-3)):
        model = network(dims)
        start, end = (torch.from_numpy(stored[f"{dims}/{name}"]) for name in ("start", "end"))
        pieces = int(kinks_on_segments(model, start, end).piece_counts().sum())
        took = seconds(lambda m=model, a=start, b=end: kinks_on_segments(m, a, b), 3) / len(start)  # type: ignore[misc]
        line(f"kinks and jumps a segment, {dims}", took, target, f"{pieces} pieces")


def regions() -> None:
    e = torch.eye(2, dtype=torch.float64)
    for dims, target in (("2-16-16-16-1", 0.25), ("2-32-32-1", 0.6)):
        model = network(dims)
        found = linear_regions(model, torch.zeros(2), *e, bounds=(-3, 3, -3, 3))
        took = seconds(lambda m=model: linear_regions(m, torch.zeros(2), *e, bounds=(-3, 3, -3, 3)))  # type: ignore[misc]
        line(f"linear regions, {dims}", took, target, f"{len(found)} regions")


def curvature() -> None:
    model = network("64-128-128-10", nn.Softplus)
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line("input curvature, 32 points, d = 64", seconds(lambda: InputCurvature()(model, x)), 0.03)
    if find_spec("curvlinops"):
        line("  the same, curvlinops", seconds(lambda: _by_curvlinops(model, x), 1), None)


def _by_curvlinops(model: nn.Module, x: Tensor) -> list[float]:
    """Top eigenvalue of each input Hessian: the input as the only parameter of a module."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    class AtInput(nn.Module):
        def __init__(self, point: Tensor) -> None:
            super().__init__()
            self.point = nn.Parameter(point[None].clone())

        def forward(self, _: Tensor) -> Tensor:
            out: Tensor = model(self.point)
            two = out.topk(2, dim=1).values
            return two[:, :1] - two[:, 1:]

    values = []
    for point in x:
        module = AtInput(point)
        data = [(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))]
        operator = HessianLinearOperator(module, lambda a, _: a.sum(), [module.point], data)
        operator = operator.to_scipy() if hasattr(operator, "to_scipy") else operator
        values.append(float(eigsh(operator, k=1, which="LM", return_eigenvectors=False)[0]))
    return values


def others() -> None:
    relu, soft = network("64-128-128-10"), network("64-128-128-10", nn.Softplus)
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line("gradient variation a segment, relu", seconds(lambda: GradientVariation(segments=4)(relu, x), 1) / 16, None)
    line(
        "gradient variation a segment, softplus", seconds(lambda: GradientVariation(segments=4)(soft, x), 1) / 16, None
    )
    line("probe a segment, softplus", seconds(lambda: SmoothnessProbe(segments=2)(soft, x), 1) / 8, None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in (kinks, regions, curvature, others):
        part()
