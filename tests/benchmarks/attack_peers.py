"""Other libraries' attacks under one signature, for those that are installed; max norm, inputs in [0, 1]."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

Peer = Callable[[nn.Module, Tensor, Tensor, float], Tensor]  # model, inputs, labels, radius -> adversarial inputs

PGD_STEPS = 40
PACKAGES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "ART": "art.attacks.evasion",
    "captum": "captum.robust",
    "pyautoattack": "pyautoattack",
}


def installed() -> dict[str, ModuleType]:
    """Library -> its module."""
    found = {}
    for name, module in PACKAGES.items():
        with contextlib.suppress(ImportError):
            found[name] = importlib.import_module(module)
    return found


def missing() -> list[str]:
    """Libraries that are skipped."""
    return sorted(PACKAGES.keys() - installed().keys())


def pgd_peers() -> dict[str, Peer]:
    """PGD of 40 steps from a random start, with one step size for all."""
    kinds = {"torchattacks": _torchattacks, "foolbox": _foolbox, "ART": _art, "captum": _captum}
    return {name: kinds[name](module) for name, module in installed().items() if name in kinds}


def autoattack(attacks: tuple[str, ...] | None = None) -> Peer | None:
    """pyautoattack's "standard" version, or some of its attacks one after the other; None where not installed.

    As there, each attack sees the examples that those before it have left.
    """
    module = installed().get("pyautoattack")
    if module is None:
        return None

    def run(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with frozen(model):
            attack = module.AutoAttack(model, eps=epsilon, seed=0, device=x.device)
            attack.verbose = False
            attack.logger.setLevel(logging.ERROR)  # it tells of every zero gradient
            attack.attacks_to_run = list(attacks or attack.attacks_to_run)
            found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return found

    return run


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the weights: the libraries do not switch them off, and they cost time."""
    needs = [(p, p.requires_grad) for p in model.parameters()]
    for p, _ in needs:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, needed in needs:
            p.requires_grad_(needed)


def _torchattacks(module: ModuleType) -> Peer:
    def run(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with frozen(model):
            found: Tensor = module.PGD(model, eps=epsilon, alpha=2.5 * epsilon / PGD_STEPS, steps=PGD_STEPS)(x, y)
        return found

    return run


def _foolbox(module: ModuleType) -> Peer:
    def run(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with frozen(model):
            attack = module.attacks.LinfPGD(abs_stepsize=2.5 * epsilon / PGD_STEPS, steps=PGD_STEPS)
            wrapped = module.PyTorchModel(model, bounds=(0, 1), device=x.device)
            found: Tensor = attack(wrapped, x, module.criteria.Misclassification(y), epsilons=epsilon)[1]
        return found

    return run


def _art(module: ModuleType) -> Peer:
    estimators = importlib.import_module("art.estimators.classification")

    def run(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with frozen(model):
            classifier = estimators.PyTorchClassifier(
                model,
                loss=nn.CrossEntropyLoss(),
                input_shape=tuple(x.shape[1:]),
                nb_classes=10,
                clip_values=(0.0, 1.0),
                device_type="gpu" if x.is_cuda else "cpu",
            )
            attack = module.ProjectedGradientDescent(
                classifier,
                norm=np.inf,
                eps=epsilon,
                eps_step=2.5 * epsilon / PGD_STEPS,
                max_iter=PGD_STEPS,
                num_random_init=1,
                batch_size=len(x),
                verbose=False,
            )
            found = attack.generate(x.cpu().numpy(), y.cpu().numpy())
        return torch.from_numpy(found).to(x)

    return run


def _captum(module: ModuleType) -> Peer:
    def run(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with frozen(model):
            attack = module.PGD(model, nn.CrossEntropyLoss(reduction="none"), lower_bound=0.0, upper_bound=1.0)
            found: Tensor = attack.perturb(
                x,
                radius=epsilon,
                step_size=2.5 * epsilon / PGD_STEPS,
                step_num=PGD_STEPS,
                target=y,
                random_start=True,
                norm="Linf",
            )
        return found.detach()

    return run


def share_left(model: nn.Module, x: Tensor, y: Tensor, points: Tensor, epsilon: float) -> Tensor:
    """Which examples are classified correctly at both ends; a library's points are held to the same ball as ours."""
    excess = float(torch.maximum((points - x).abs().max() - epsilon, (points - points.clamp(0, 1)).abs().max()))
    if not excess <= 1e-5 or math.isnan(excess):
        raise RuntimeError(f"a library's points leave the ball or the bounds by {excess:.2g}")
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y) & (model(points).argmax(dim=1) == y)
