"""Counts of affine pieces on segments, and of linear regions, beside affinitree's on 20 random networks.

affinitree (0.23, Apache-2.0) distils a network to a decision tree and drops infeasible paths by linear programming: no
line of code or method in common with ours. It is no dependency: install it into an environment of its own beside this
package. `tests/reference/affinitree.json` holds its counts.

Run: python tests/benchmarks/roughness_peers.py [FILE.json]
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from smoothness.analyzers import kinks_on_segments, linear_regions

SHAPES = ((2, 8, 8, 2), (3, 12, 12, 1), (5, 16, 16, 3), (8, 24, 24, 24, 2))
SEEDS = range(5)
BOX = 2.0


def random_network(widths: tuple[int, ...], seed: int) -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """A He-initialised ReLU network, the ends of 4 segments, and a plane's origin and two directions; float64."""
    drawn = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs, dtype=torch.float64)
        weight = torch.randn(outputs, inputs, generator=drawn, dtype=torch.float64) * (2 / inputs) ** 0.5
        bias = torch.randn(outputs, generator=drawn, dtype=torch.float64) * 0.3
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    starts, ends = 2 * torch.randn(2, 4, widths[0], generator=drawn, dtype=torch.float64)
    plane = torch.randn(3, widths[0], generator=drawn, dtype=torch.float64)
    return nn.Sequential(*layers[:-1]), starts, ends, plane


def ours(widths: tuple[int, ...], seed: int) -> dict[str, list[int] | int]:
    """{"pieces": activation patterns on each segment, "regions": on the square of the plane}."""
    model, starts, ends, plane = random_network(widths, seed)
    pieces = kinks_on_segments(model, starts, ends).piece_counts("merged").tolist()
    return {"pieces": pieces, "regions": len(linear_regions(model, *plane, bounds=(-BOX, BOX, -BOX, BOX)))}


def theirs(widths: tuple[int, ...], seed: int) -> dict[str, list[int] | int]:
    """The same by affinitree: leaves of the tree of the network restricted to the segment, or to the plane."""
    model, starts, ends, plane = random_network(widths, seed)
    pieces = [leaves(model, (b - a)[:, None], a, (0.0, 1.0)) for a, b in zip(starts, ends, strict=True)]
    return {"pieces": pieces, "regions": leaves(model, plane[1:].T, plane[0], (-BOX, BOX))}


def leaves(model: nn.Sequential, directions: Tensor, origin: Tensor, interval: tuple[float, float]) -> int:
    from affinitree import AffFunc, AffTree, Architecture, Polytope, builder  # type: ignore[import-not-found]

    dim = directions.shape[1]
    arch = Architecture(dim)
    for layer in model:
        if isinstance(layer, nn.ReLU):
            arch.relu()
            continue
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if layer is model[0]:
            weight, bias = weight @ directions, bias + weight @ origin
        arch.linear(AffFunc.from_mats(weight.numpy(), bias.numpy()))
    identity = AffFunc.identity(dim)
    box = AffTree.from_poly(Polytope.hyperrectangle(dim, [interval] * dim), identity, None)
    tree = builder.from_layers(arch, precondition=box)
    return int(tree.num_terminals())


def main(path: Path | None = None) -> None:
    torch.set_num_threads(1)
    stored: dict[str, object] = {}
    spent = [0.0, 0.0]
    for widths in SHAPES:
        for seed in SEEDS:
            counts = []
            for side, count in enumerate((ours, theirs)):
                begin = time.process_time()
                counts.append(count(widths, seed))
                spent[side] += time.process_time() - begin
            name = "-".join(map(str, widths)) + f"/{seed}"
            print(name, *counts, "equal" if counts[0] == counts[1] else "DIFFERENT", flush=True)
            stored[name] = counts[1]
    print(f"processor time: ours {spent[0]:.2f} s, affinitree {spent[1]:.2f} s")
    if path is not None:
        rows = (f' "{name}": {json.dumps(counts)}' for name, counts in stored.items())
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
