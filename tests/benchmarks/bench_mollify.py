"""What mollified activations cost beside torch.relu: forward and backward on a million elements.

Best and median of interleaved runs, on one thread by default.

    python tests/benchmarks/bench_mollify.py [--threads 1] [--repeats 25]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from smoothness.activations import mollify

SIGMA = 0.1
NAMES = ("step", "relu", "sign", "leaky_relu", "hardtanh", "hardswish", "staircase", "gelu", "elu", "tanh")


def seconds(function: Callable[[Tensor], Tensor], z: Tensor, gradient: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(function(z), z, gradient)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    functions: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "gelu": torch.nn.functional.gelu}
    functions |= {f"{name}@sigma={SIGMA}": mollify(name, SIGMA) for name in NAMES}
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(10**6, dtype=dtype).requires_grad_()
        gradient = torch.ones_like(z)
        spent: dict[str, list[float]] = {name: [] for name in functions}
        for turn in range(arguments.repeats + 2):
            for name, function in functions.items():
                taken = seconds(function, z, gradient)
                if turn > 1:  # the first turns warm up
                    spent[name].append(taken)
        base = min(spent["relu"])
        print(f"{dtype}: best and median in ms, best as a multiple of relu")
        for name, times in spent.items():
            row = f"{1e3 * min(times):8.2f} {1e3 * statistics.median(times):8.2f} {min(times) / base:6.1f}x"
            print(f"  {name:24s}{row}")


if __name__ == "__main__":
    main()
