"""CPU seconds of certified local constants against width, depth and batch, with fitted exponents.

Run: python -m tests.benchmarks.lipschitz_scaling [--activation tanh]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

import smoothness as sm


def network(activation: str, width: int, depth: int) -> nn.Sequential:
    """64 inputs, `depth` hidden layers of `width` units, 10 outputs, He-initialised, float64."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else 64, width), sm.activation(activation)]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers, nn.Linear(width, 10)).double()


def seconds(activation: str, effort: str, width: int, depth: int, batch: int) -> float:
    """Of the quicker of two runs, after one to warm up."""
    model = network(activation, width, depth)
    x = torch.randn(batch, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound, times = sm.LipschitzUpperBound(norm="l2", radius=0.1, effort=effort), []
    bound(model, x[:1])
    for _ in range(2):
        start = time.process_time()
        bound(model, x)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """A line for each factor: its levels, seconds, and the exponent of a least-squares line in logarithms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--activation", default="tanh")
    activation = parser.parse_args().activation
    torch.set_num_threads(1)
    for effort in ("fast", "standard"):
        factors = {
            "width (2 layers)": [(w, 2, 1) for w in (32, 64, 128, 256, 512)],
            "depth (64 wide)": [(64, k, 1) for k in (1, 2, 4, 8)],
            "batch (64-128-128-10)": [(128, 2, n) for n in (1, 4, 16, 32)],
        }
        for (name, levels), column in zip(factors.items(), range(3), strict=True):
            took = [seconds(activation, effort, *level) for level in levels]
            sizes = [level[column] for level in levels]
            exponent = np.polyfit(np.log(sizes), np.log(took), 1)[0]
            row = ", ".join(f"{size}: {t:.3f}" for size, t in zip(sizes, took, strict=True))
            print(f"{activation} {effort:8} {name:22} | {row} | exponent {exponent:.2f}", flush=True)


if __name__ == "__main__":
    main()
