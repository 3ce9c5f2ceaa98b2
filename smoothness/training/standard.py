"""The standard training recipe: the same batches for every twin, bit-reproducible."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._state import model_device, probing, thread_count
from smoothness.activations import activation_facts, is_activation, surrogate_gradient
from smoothness.activations.surrogates import SHAPES
from smoothness.data import Dataset, Split
from smoothness.training.adversarial import Adversarial, collapsed_at, held_out_accuracies, warn_of_collapse

_STARTS = 0x5EED  # sets the adversary's draws apart from those of the batches


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs, batch_size: passes over the training split, and examples a step.
        learning_rates: Adam's step sizes to try, each with the full budget; the one with the best
            validation accuracy is kept (the first of equals); against an adversary, the best robust one.
        weight_decay: decoupled (AdamW; Loshchilov and Hutter 2019, arXiv 1711.05101).
        surrogate, surrogate_width: backward pass of activations with value jumps, whose own gradient
            is zero; others train through their true gradient.
        seed: of the order of the batches. It does not depend on the activation.
        threads: torch threads; results depend on the number.
        adversarial: train against this adversary; on clean examples when None.
    """

    epochs: int = 6
    batch_size: int = 100
    learning_rates: tuple[float, ...] = (2e-3,)
    weight_decay: float = 1e-4
    surrogate: str = "tanh"
    surrogate_width: float = 0.25
    seed: int = 0
    threads: int = 1
    adversarial: Adversarial | None = None

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_count("threads", self.threads)
        check_count("seed", self.seed, minimum=0)
        check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        if not isinstance(self.adversarial, Adversarial | None):
            raise TypeError(
                f"adversarial must be an Adversarial or None, got {type(self.adversarial).__name__}; "
                "use Adversarial(ThreatModel('linf', 8 / 255))"
            )
        if not self.learning_rates:
            raise ValueError("learning_rates is empty; give at least one, such as (0.002,)")
        for rate in self.learning_rates:
            check_positive("learning_rates", rate)
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay!r}")


@dataclass(frozen=True)
class TrainingResult:
    """What training gave.

    Attributes:
        learning_rate: the one kept.
        validation_accuracy: of each learning rate tried, in the recipe's order.
        losses: mean training loss of each epoch, for the learning rate kept.
        attacked_accuracy: after each epoch, of up to 200 validation examples under the training attack; empty
            without an adversary.
        robust_accuracy: of the same examples, under PGD of 20 steps too; likewise.
        collapsed_at: epoch, from 1, from which on the network withstands the training attack and no stronger one
            (`smoothness.training.adversarial.collapsed_at`); None without.
    """

    learning_rate: float
    validation_accuracy: tuple[float, ...]
    losses: tuple[float, ...]
    attacked_accuracy: tuple[float, ...] = ()
    robust_accuracy: tuple[float, ...] = ()
    collapsed_at: int | None = None


def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> TrainingResult:
    """Train `model` in place on the training split.

    Cross-entropy, or the adversary's loss, and Adam with a learning rate that falls to zero along a half cosine.
    Deterministic given seed and thread count; no global random state is used. The batches are the same with and
    without an adversary.

    Args:
        model: returns (n, classes).
        data: its training split is used for steps, its validation split to choose the learning rate.
        recipe: defaults to `Recipe()`.
        on_epoch: called with (epochs done, epochs in all, mean loss) after each epoch.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite, with the step and the remedy.

    Warns:
        CatastrophicOverfittingWarning: the network kept resists the training attack alone; see
            `TrainingResult.collapsed_at`.

    >>> from smoothness.data import load_dataset
    >>> from smoothness.models import build_model
    >>> data = load_dataset("gaussians", dimensions=4)
    >>> model = build_model("mlp", input_shape=(4,), classes=2, width=8)
    >>> train(model, data, Recipe(epochs=2)).learning_rate
    0.002
    """
    recipe = recipe or Recipe()
    initial = copy.deepcopy(model.state_dict())
    best: tuple[float, dict[str, Tensor], float, _Progress] | None = None
    scores: list[float] = []
    with thread_count(recipe.threads):
        for trial, rate in enumerate(recipe.learning_rates):
            model.load_state_dict(initial)

            def report(epoch: int, loss: float, done: int = trial * recipe.epochs) -> None:
                if on_epoch is not None:
                    on_epoch(done + epoch, recipe.epochs * len(recipe.learning_rates), loss)

            progress = _fit(model, data, rate, recipe, report)
            scores.append(accuracy(model, data.validation))
            score = progress.robust[-1] if progress.robust else scores[-1]
            if best is None or score > best[0]:
                best = (score, copy.deepcopy(model.state_dict()), rate, progress)
    if best is None:  # Recipe guarantees a learning rate
        raise AssertionError
    _, state, rate, progress = best
    model.load_state_dict(state)
    attacked, robust = tuple(progress.attacked), tuple(progress.robust)
    collapsed = collapsed_at(attacked, robust)
    if collapsed is not None and recipe.adversarial is not None:
        warn_of_collapse(attacked[-1], robust[-1], collapsed, recipe.adversarial)
    return TrainingResult(rate, tuple(scores), tuple(progress.losses), attacked, robust, collapsed)


def accuracy(model: nn.Module, split: Split, batch_size: int = 1000) -> float:
    """Share of the split that the model, in evaluation mode, labels correctly."""
    right = 0
    with probing(model), torch.no_grad():
        for start in range(0, len(split), batch_size):
            outputs = model(split.inputs[start : start + batch_size])
            right += int((outputs.argmax(dim=1) == split.labels[start : start + batch_size]).sum())
    return right / len(split)


@dataclass
class _Progress:
    """Per epoch: mean loss and, against an adversary, the two accuracies of `held_out_accuracies`."""

    losses: list[float]
    attacked: list[float]
    robust: list[float]


def _fit(
    model: nn.Module, data: Dataset, rate: float, recipe: Recipe, report: Callable[[int, float], None]
) -> _Progress:
    split, adversary = data.train, recipe.adversarial
    generator = torch.Generator().manual_seed(recipe.seed)
    starts = torch.Generator().manual_seed(recipe.seed ^ _STARTS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=recipe.weight_decay)
    batches = math.ceil(len(split) / recipe.batch_size)
    steps = batches * recipe.epochs
    progress = _Progress([], [], [])
    was_training = model.training
    with ExitStack() as stack:
        if _jumps(model):
            where = _has_jump
            stack.enter_context(surrogate_gradient(model, recipe.surrogate, width=recipe.surrogate_width, where=where))
        stack.enter_context(_seeded(model, recipe.seed))  # rrelu and dropout draw from torch's own generator
        model.train()
        stack.callback(model.train, was_training)
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(split), generator=generator)
            total = 0.0
            for batch, rows in enumerate(torch.split(order, recipe.batch_size)):
                step = epoch * batches + batch
                for group in optimiser.param_groups:
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                x, y = split.inputs[rows], split.labels[rows]
                loss = F.cross_entropy(model(x), y) if adversary is None else adversary.loss(model, x, y, starts)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingDivergedError(
                        f"the training loss became {value} at step {step + 1} of {steps} with learning rate {rate:g}; "
                        f"try a smaller learning rate (such as {rate / 10:g}) or a smaller gain"
                    )
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimiser.step()
                total += value * len(rows)
            progress.losses.append(total / len(split))
            if adversary is not None:
                attacked, robust = held_out_accuracies(model, data.validation, adversary)
                progress.attacked.append(attacked)
                progress.robust.append(robust)
            report(epoch + 1, progress.losses[-1])
    for parameter in model.parameters():
        parameter.grad = None
    return progress


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Torch's generator for the model's device, seeded inside and as it was afterwards."""
    device = model_device(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _jumps(model: nn.Module) -> Sequence[str]:
    return [name for name, module in model.named_modules() if _has_jump(name, module)]


def _has_jump(_: str, module: nn.Module) -> bool:
    return is_activation(module) and activation_facts(module).smoothness_class == -1


__all__ = ["Recipe", "TrainingDivergedError", "TrainingResult", "accuracy", "train"]
