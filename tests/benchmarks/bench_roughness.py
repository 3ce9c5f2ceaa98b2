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
    found = InputCurvature()(model, x).curvature.values
    error = float(((found - _by_whole_hessians(model, x)) / found).abs().max())
    took = seconds(lambda: InputCurvature()(model, x))
    line("input curvature, 32 points, d = 64", took, 0.03, f"largest relative error {error:.0e}")
    peers = {"curvlinops": _by_curvlinops, "pyhessian": _by_pyhessian, "hessian_eigenthings": _by_eigenthings}
    for peer, run in peers.items():
        if find_spec(peer):
            values = torch.tensor(run(model, x), dtype=torch.float64).abs()
            error = float(((values - found) / found).abs().max())
            took = seconds(lambda run=run: run(model, x), 1)  # type: ignore[misc]
            line(f"  the same, {peer}", took, None, f"largest relative difference {error:.0e}")


def _by_whole_hessians(model: nn.Module, x: Tensor) -> Tensor:
    """Largest |eigenvalue| of each Hessian of the margin of the two classes ahead."""
    values = []
    for point in x:
        pair = model(point[None])[0].topk(2).indices.tolist()

        def margin(at: Tensor, pair: list[int] = pair) -> Tensor:
            out: Tensor = model(at[None])[0]
            return out[pair[0]] - out[pair[1]]

        hessian = torch.autograd.functional.hessian(margin, point)
        values.append(torch.linalg.eigvalsh(hessian).abs().max())
    return torch.stack(values)


class _AtInput(nn.Module):
    """The margin at one point, as a function of its only parameter, the point."""

    def __init__(self, model: nn.Module, point: Tensor) -> None:
        super().__init__()
        self.point = nn.Parameter(point[None].clone())
        self.body = [model]  # not a submodule: its weights are constants
        self.pair = model(point[None])[0].topk(2).indices.tolist()

    def forward(self, _: Tensor) -> Tensor:
        out: Tensor = self.body[0](self.point)
        return out[:, self.pair[:1]] - out[:, self.pair[1:]]


class _Plain(nn.Module):
    """The output itself as a loss."""

    reduction = "sum"

    def forward(self, output: Tensor, _: Tensor) -> Tensor:
        return output.sum()


_NOTHING = (torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))


def _by_curvlinops(model: nn.Module, x: Tensor) -> list[float]:
    """Eigenvalue of largest magnitude of each input Hessian, by scipy."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    values = []
    for point in x:
        module = _AtInput(model, point)
        operator = HessianLinearOperator(module, _Plain(), [module.point], [_NOTHING]).to_scipy()
        values.append(float(eigsh(operator, k=1, which="LM", return_eigenvectors=False)[0]))
    return values


def _by_pyhessian(model: nn.Module, x: Tensor) -> list[float]:
    """The same by PyHessian's power iteration, with its default settings (100 steps, tolerance 1e-3)."""
    from pyhessian import hessian

    return [
        float(hessian(_AtInput(model, point), _Plain(), data=_NOTHING, cuda=False).eigenvalues()[0][0]) for point in x
    ]


def _by_eigenthings(model: nn.Module, x: Tensor) -> list[float]:
    """The same by hessian-eigenthings' Lanczos, with its default settings."""
    from hessian_eigenthings import HessianOperator, lanczos

    values = []
    for point in x:
        module = _AtInput(model, point)
        operator = HessianOperator(module, [_NOTHING], lambda model, batch: model(batch[0]).sum())
        values.append(float(lanczos(operator, k=1).eigenvalues[0]))
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
