"""Forward and backward of our activations beside torch's relu, on 10⁶ elements, interleaved, median."""

import statistics
import time

import torch

from smoothness.activations import activation, list_activations, surrogate_gradient
from smoothness.activations.mollification.mollify import mollify

SIZE, REPEATS, ROUNDS = 10**6, 5, 9


def _seconds(module: torch.nn.Module, z: torch.Tensor, ones: torch.Tensor) -> float:
    started = time.perf_counter()
    for _ in range(REPEATS):
        torch.autograd.grad(module(z), z, ones)
    return (time.perf_counter() - started) / REPEATS


def main() -> None:
    """Print the table."""
    z = torch.randn(SIZE, requires_grad=True)
    ones = torch.ones(SIZE)
    modules: dict[str, torch.nn.Module] = {"torch.nn.ReLU": torch.nn.ReLU()}
    modules |= {name: activation(name) for name in list_activations()}
    modules |= {f"mollified {name}, sigma 0.1": mollify(name, 0.1) for name in ("relu", "step", "staircase", "gelu")}
    times: dict[str, list[float]] = {name: [] for name in modules}
    times |= {f"{name}, surrogate tanh": [] for name in ("step", "staircase")}
    for _ in range(ROUNDS):
        for name, module in modules.items():
            times[name].append(_seconds(module, z, ones))
        for name in ("step", "staircase"):
            with surrogate_gradient(modules[name], "tanh"):
                times[f"{name}, surrogate tanh"].append(_seconds(modules[name], z, ones))
    relu = statistics.median(times["torch.nn.ReLU"])
    print(f"{'forward + backward, float32, 10^6 elements':45}{'ms':>8}{'x relu':>9}")
    for name, seconds in times.items():
        print(f"{name:45}{1e3 * statistics.median(seconds):8.2f}{statistics.median(seconds) / relu:9.2f}")


if __name__ == "__main__":
    main()
