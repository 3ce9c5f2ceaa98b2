"""What PGD-40 costs above 40 bare forward and backward passes of the same batch.

Eight models (MLP and CNN, digits and fashion, relu and softplus) are trained here; every variant is timed in
turn, five times over, on one thread, and the median taken. The batch is the first test examples as they are:
misclassified ones, which an attack need not touch, are part of the floor too, so `--correct` leaves them out.

    python tests/benchmarks/bench_attacks.py [--examples 300] [--repeats 5] [--correct] [--peers] [--thresholds]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._state import probing
from smoothness.attacks import PGD, pgd
from smoothness.data import load_dataset
from smoothness.models import build_model
from smoothness.threat import ThreatModel
from smoothness.training import Recipe, train

EPSILON = 0.1
STEPS = 40
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)

Variant = Callable[[nn.Module, Tensor, Tensor], object]


def trained_models() -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Name, model, test inputs and labels."""
    for dataset in ("digits", "fashion"):
        data = load_dataset(dataset)
        epochs = 30 if dataset == "digits" else 6
        for architecture in ("mlp", "cnn"):
            for activation in ("relu", "softplus"):
                model = build_model(architecture, activation, input_shape=data.input_shape, classes=10)
                train(model, data, Recipe(epochs=epochs))
                balanced = data.test.balanced(len(data.test))
                yield f"{dataset} {architecture} {activation}", model, balanced.inputs, balanced.labels


def floor(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The passes alone: loss and gradient at the input, nothing done with it."""
    with probing(model):
        for _ in range(STEPS):
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)


def own_variants() -> dict[str, PGD]:
    threat = ThreatModel("linf", EPSILON)
    return {"all steps": PGD(threat, drop_fooled=False), "dropping": PGD(threat)}


def peer_variants() -> dict[str, Variant]:
    """Side-by-side peers that are installed, with the same steps, step size and radius."""
    size = 2.5 * EPSILON / STEPS
    found: dict[str, Variant] = {}
    with contextlib.suppress(ImportError):
        import torchattacks

        found["torchattacks"] = lambda m, x, y: torchattacks.PGD(m, eps=EPSILON, alpha=size, steps=STEPS)(x, y)
    with contextlib.suppress(ImportError):
        import foolbox

        attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS)
        found["foolbox"] = lambda m, x, y: attack(
            foolbox.PyTorchModel(m.eval(), (0, 1)), x, foolbox.criteria.Misclassification(y), epsilons=EPSILON
        )
    with contextlib.suppress(ImportError):
        from adv_lib.attacks import pgd_linf

        found["adv-lib"] = lambda m, x, y: pgd_linf(
            m, x, y, ε=EPSILON, steps=STEPS, absolute_step_size=size, loss_function="ce"
        )
    return found


def timed(variants: dict[str, Variant], model: nn.Module, x: Tensor, y: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of each variant, interleaved so that a busy machine slows all alike."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run(model, x, y)
            if turn:  # the first turn warms up
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def with_threshold(share: float) -> Variant:
    attack = PGD(ThreatModel("linf", EPSILON))

    def run(model: nn.Module, x: Tensor, y: Tensor) -> None:
        before, pgd.SHRINK_AT = pgd.SHRINK_AT, share
        try:
            attack(model, x, y)
        finally:
            pgd.SHRINK_AT = before

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--correct", action="store_true", help="only examples that the model gets right")
    parser.add_argument("--peers", action="store_true", help="add installed libraries")
    parser.add_argument("--thresholds", action="store_true", help="when does shrinking the batch pay?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    variants: dict[str, Variant] = dict(own_variants())
    if options.peers:
        variants |= peer_variants()
    if options.thresholds:
        variants = {f"at {share:g}": with_threshold(share) for share in THRESHOLDS}
    print(f"{'model':24}{'clean %':>9}{'robust %':>10}{'floor s':>10}" + "".join(f"{name:>14}" for name in variants))
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    for name, model, x, y in trained_models():
        with probing(model), torch.no_grad():
            right = model(x).argmax(dim=1) == y
        if options.correct:
            x, y, right = x[right], y[right], right[right]
        x, y, right = x[: options.examples], y[: options.examples], right[: options.examples]
        result = own_variants()["dropping"](model, x, y)
        seconds = timed({"floor": floor, **variants}, model, x, y, options.repeats)
        for variant in variants:
            ratios[variant].append(seconds[variant] / seconds["floor"])
        clean, robust = 100 * right.double().mean(), 100 * (~result.success).double().mean()
        row = f"{name:24}{clean:9.1f}{robust:10.1f}{seconds['floor']:10.3f}"
        print(row + "".join(f"{ratios[variant][-1]:14.3f}" for variant in variants), flush=True)
    print(f"{'median':53}" + "".join(f"{statistics.median(values):14.3f}" for values in ratios.values()))


if __name__ == "__main__":
    main()
