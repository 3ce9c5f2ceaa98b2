"""Milliseconds per segment of `kinks_on_segments`, jumps included: one thread, float64.

Run: python tests/benchmarks/bench_kinks.py
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smoothness.analyzers.kinks import kinks_on_segments

NETWORKS = Path(__file__).parents[1] / "reference" / "networks.npz"


def segment_network(dims: str) -> tuple[nn.Sequential, Tensor, Tensor]:
    stored = np.load(NETWORKS)
    layers: list[nn.Module] = []
    for k in range(dims.count("-")):
        weight, bias = (torch.from_numpy(stored[f"{dims}/{name}{k}"]) for name in ("weight", "bias"))
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    start, end = (torch.from_numpy(stored[f"{dims}/{name}"]) for name in ("start", "end"))
    return nn.Sequential(*layers[:-1]), start, end


def main(repeats: int = 7) -> None:
    torch.set_num_threads(1)
    for dims in ("16-64-64-64-1", "64-128-128-128-1"):
        model, start, end = segment_network(dims)
        table = kinks_on_segments(model, start, end)
        durations = []
        for _ in range(repeats):
            begin = time.perf_counter()
            kinks_on_segments(model, start, end)
            durations.append((time.perf_counter() - begin) / len(start) * 1e3)
        pieces = int(table.piece_counts().sum())
        print(f"{dims}: {pieces} pieces, median {np.median(durations):.3f}, best {min(durations):.3f} ms a segment")


if __name__ == "__main__":
    main()
