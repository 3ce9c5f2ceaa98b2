"""Identical architectures with different activations."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from smoothness._checks import check_choice, check_count
from smoothness.activations import activation
from smoothness.models.cnn import cnn
from smoothness.models.initial import Gain, initialise, resolve_gain
from smoothness.models.mlp import mlp
from smoothness.models.resnet import resnet
from smoothness.models.texts import text_cnn, transformer
from smoothness.models.vit import vit

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "mlp": mlp,
    "resnet": resnet,
    "text_cnn": text_cnn,
    "transformer": transformer,
    "vit": vit,
}

ActivationLike = str | nn.Module | Callable[[], nn.Module]


@dataclass(frozen=True)
class BuildRecord:
    """How a model was built; see `build_record`.

    Attributes:
        architecture, seed, input_shape, classes, options: the arguments.
        activation: the activation module as printed.
        gain: the factor that multiplies every hidden layer's initial weights.
    """

    architecture: str
    activation: str
    gain: float
    seed: int
    input_shape: tuple[int, ...]
    classes: int
    options: tuple[tuple[str, Any], ...]


def architecture_options(architecture: str) -> list[str]:
    """Names of an architecture's own settings.

    >>> architecture_options("mlp")
    ['width', 'depth']
    """
    build = ARCHITECTURES[check_choice("architecture", architecture, ARCHITECTURES)]
    return [name for name, p in inspect.signature(build).parameters.items() if p.default is not p.empty]


def build_model(
    architecture: str,
    activation: ActivationLike = "relu",
    *,
    seed: int = 0,
    input_shape: tuple[int, ...],
    classes: int,
    gain: Gain = 2**0.5,
    **options: Any,
) -> nn.Module:
    """Build a network with the given activation and initial weights that depend on the seed alone.

    Args:
        architecture: "mlp" (width=128, depth=2), "cnn" (width=16, depth=2), "resnet" (width=16, depth=1,
            normalisation="batch") or "vit" (width=64, depth=2, heads=4, patch=4, normalisation="layer"); of
            embedded sentences "text_cnn" (width=128, depth=1) or "transformer" (width=64, depth=1, heads=2).
        activation: a name, a module (copied for each place) or a factory.
        seed: of the initial weights.
        input_shape: of one input, without the batch axis.
        classes: number of logits.
        gain: factor on the hidden layers' initial weights, or "auto" for one that keeps the second
            moment (see `smoothness.models.initial.resolve_gain`).
        options: the architecture's own settings, such as width and depth.

    Raises:
        ValueError: unknown names, sizes below 1, inputs that do not fit the architecture.

    >>> build_model("mlp", "tanh", seed=0, input_shape=(4,), classes=3, width=8, depth=1)
    Sequential(
      (flatten): Flatten(start_dim=1, end_dim=-1)
      (linear1): Linear(in_features=4, out_features=8, bias=True)
      (activation1): Tanh()
      (output): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    known = architecture_options(architecture)
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"architecture {architecture!r} has no option {name!r}; it takes {', '.join(known)}")
        if name != "normalisation":  # a name, which the architecture checks
            check_count(name, value)
    check_count("classes", classes, minimum=2)
    check_count("seed", seed, minimum=0)
    for size in input_shape:
        check_count("input_shape", size)
    make = activation_factory(activation)
    factor = resolve_gain(gain, make())
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights when made; ours replace them
        model = ARCHITECTURES[architecture](make, tuple(input_shape), classes, **options)
    initialise(model, seed, factor)
    record = BuildRecord(
        architecture, repr(make()), factor, seed, tuple(input_shape), classes, tuple(sorted(options.items()))
    )
    object.__setattr__(model, "built", record)
    return model


def build_twins(
    architecture: str,
    activations: Sequence[str] | Mapping[str, ActivationLike],
    *,
    seed: int = 0,
    gain: Gain | Mapping[str, Gain] = 2**0.5,
    **settings: Any,
) -> dict[str, nn.Module]:
    """The same network once per activation: initial weights equal to the bit, up to a declared gain.

    Args:
        architecture: as for `build_model`.
        activations: names, or label -> name, module or factory.
        seed: of the shared initial weights.
        gain: one for all, or one per label; recorded: `build_record(model).gain`.
        settings: passed on to `build_model`.

    Raises:
        ValueError: as `build_model`; also an empty or repeated list, a gain for an unknown label, or an activation
            that pools features among others that do not.

    >>> twins = build_twins("mlp", ["relu", "gelu"], seed=1, input_shape=(4,), classes=3)
    >>> bool((twins["relu"].linear1.weight == twins["gelu"].linear1.weight).all())
    True
    """
    if not isinstance(activations, Mapping):
        if len(set(activations)) != len(activations):
            raise ValueError(f"activations must differ, got {list(activations)}; pass a mapping to label variants")
        activations = {name: name for name in activations}
    if not activations:
        raise ValueError("activations is empty; name at least one, such as ['relu', 'gelu']")
    gains = dict(gain) if isinstance(gain, Mapping) else dict.fromkeys(activations, gain)
    for label in gains:
        check_choice("label in gain", label, activations)
    twins = {
        label: build_model(architecture, kind, seed=seed, gain=gains.get(label, 2**0.5), **settings)
        for label, kind in activations.items()
    }
    shapes = {label: [p.shape for p in twin.parameters() if p.ndim > 1] for label, twin in twins.items()}
    first = next(iter(shapes))
    for label, found in shapes.items():
        if found != shapes[first]:
            raise ValueError(
                f"{label!r} needs other weight shapes than {first!r}, so they cannot share weights; build it alone "
                "with build_model"
            )
    return twins


def build_record(model: nn.Module) -> BuildRecord:
    """How `build_model` made this model.

    Raises:
        TypeError: the model was not made by `build_model`.
    """
    record = getattr(model, "built", None)
    if not isinstance(record, BuildRecord):
        raise TypeError(f"{type(model).__name__} was not made by build_model; it carries no build record")
    return record


def activation_factory(kind: ActivationLike) -> Callable[[], nn.Module]:
    """A function that makes a fresh activation module each time."""
    if isinstance(kind, str):
        activation(kind)  # unknown names fail here, before anything is built
        return lambda: activation(kind)
    if isinstance(kind, nn.Module):
        return lambda: copy.deepcopy(kind)
    return kind
