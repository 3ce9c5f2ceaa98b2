"""Peak memory of the kinks of convolutional networks, and time per vertex as their number grows: one thread.

Run: python tests/benchmarks/bench_kink_scaling.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from smoothness.analyzers import kinks_on_segments, linear_regions

CASES = ("stride", "padding", "max pooling", "max pooling, stride 1")


def cnn(case: str, channels: int) -> nn.Sequential:
    """A 28x28 network of two convolutions and one hidden layer."""
    torch.manual_seed(0)
    stride = 2 if case == "stride" else 1
    padding = 1 if case == "padding" else 0
    pools = {"max pooling": nn.MaxPool2d(2), "max pooling, stride 1": nn.MaxPool2d(3, stride=1, padding=1)}
    pool = pools.get(case, nn.AvgPool2d(2))
    body = [
        nn.Conv2d(1, channels, 5, stride=2, padding=padding), nn.ReLU(), pool,
        nn.Conv2d(channels, channels, 3, stride=stride, padding=padding), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
    ]  # fmt: skip
    with torch.no_grad():
        features = nn.Sequential(*body)(torch.zeros(1, 1, 28, 28)).shape[1]
    return nn.Sequential(*body, nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 10))


def one(case: str, channels: int, segments: int) -> None:
    """Print a line of JSON: in a process of its own, whose largest memory is this case's."""
    torch.set_num_threads(1)
    model = cnn(case, channels)
    starts = torch.rand(segments, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    ends = (starts + 0.1 * torch.randn(starts.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    table = kinks_on_segments(model, starts, ends)
    spent = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": len(table), "seconds": spent, "peak": peak / 2**20, "before": before / 2**20}))


def memory(segments: int = 64) -> None:
    print(
        "| network | channels | segments | kinks | processor s | ms a kink | peak GiB |\n|---|---|---|---|---|---|---|"
    )
    for channels in (32, 64):
        for case in CASES:
            command = [sys.executable, __file__, case, str(channels), str(segments)]
            out = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
            per = out["seconds"] / out["rows"] * 1e3
            print(
                f"| {case} | {channels} | {segments} | {out['rows']} | {out['seconds']:.1f} | {per:.3f} "
                f"| {out['peak']:.2f} |",
                flush=True,
            )


def mlp(inputs: int, width: int, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [inputs, *[width] * depth]
    layers = [m for k in range(depth) for m in (nn.Linear(sizes[k], sizes[k + 1]), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 1)).double()


def scaling() -> None:
    """The same network, more and longer segments; and larger squares of a plane."""
    print("\n| what | number | processor s | µs each |\n|---|---|---|---|")
    model = mlp(16, 64)
    for count in (2, 20, 200, 2000):
        starts, ends = 3 * torch.randn(2, count, 16, generator=torch.Generator().manual_seed(0)).double()
        _row("vertices, 16-64-64-1, more segments", lambda a=starts, b=ends: len(kinks_on_segments(model, a, b)))
    for depth in (7, 10, 13, 16):
        tooth = sawtooth(depth)
        ends = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
        _row(f"vertices, one segment, sawtooth {depth}", lambda m=tooth, e=ends: len(kinks_on_segments(m, *e)))
    plane = torch.eye(2).double()
    for width, half in [(w, 3.0) for w in (8, 24, 80, 250)] + [(250, h) for h in (0.1, 0.3, 1.0)]:
        model = mlp(2, width, 2)
        bounds = (-half, half, -half, half)
        _row(
            f"regions, 2-{width}-{width}-1, half-width {half:g}",
            lambda m=model, b=bounds: len(linear_regions(m, torch.zeros(2), *plane, bounds=b)),
        )


def sawtooth(depth: int) -> nn.Sequential:
    """2^depth pieces on [0, 1] (Telgarsky 2015, arXiv 1509.08101)."""
    layers: list[nn.Module] = []
    for k in range(depth):
        linear = nn.Linear(1 if k == 0 else 2, 2).double()
        weight = torch.ones(2, 1) if k == 0 else torch.tensor([[2.0, -4.0], [2.0, -4.0]])
        linear.load_state_dict({"weight": weight, "bias": torch.tensor([0.0, -0.5])})
        layers += [linear, nn.ReLU()]
    last = nn.Linear(2, 1).double()
    last.load_state_dict({"weight": torch.tensor([[2.0, -4.0]]), "bias": torch.zeros(1)})
    return nn.Sequential(*layers, last)


def _row(what: str, run) -> None:  # type: ignore[no-untyped-def]
    begin = time.process_time()
    number = run()
    spent = time.process_time() - begin
    print(f"| {what} | {number} | {spent:.3f} | {spent / number * 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        torch.set_num_threads(1)
        scaling()
        memory()
