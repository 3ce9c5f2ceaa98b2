"""Networks for the benchmark of attacks: trained here on the data that ship with the package, and kept if asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smoothness import __version__
from smoothness.activations import activation
from smoothness.data import load_dataset
from smoothness.models import build_model
from smoothness.threat import ThreatModel
from smoothness.training import Adversarial, Recipe, train

DATA = ("digits", "fashion")
ARCHITECTURES = ("mlp", "cnn")
SMOOTH_AND_KINKED = ("relu", "gelu", "softplus", "tanh")
HARD = ("step", "sign", "staircase", "quantised_relu", "k_winners")
RADIUS = {"standard": {"digits": 0.1, "fashion": 8 / 255}, "pgd-at": {"digits": 0.1, "fashion": 0.05}}
HARD_RADIUS = {"digits": 0.1, "fashion": 0.05}
WIDTH = {"mlp": {"digits": 128, "fashion": 128}, "cnn": {"digits": 16, "fashion": 8}}
EPOCHS = {"digits": 30, "fashion": 6}


@dataclass(frozen=True)
class Case:
    """One network, and the max-norm radius at which it is attacked."""

    data: str
    architecture: str
    activation: str
    training: str  # "standard" or "pgd-at"

    @property
    def name(self) -> str:
        return f"{self.data} {self.architecture} {self.activation} {self.training}"

    @property
    def hard(self) -> bool:
        return self.activation in HARD

    @property
    def threat(self) -> ThreatModel:
        radius = HARD_RADIUS if self.hard else RADIUS[self.training]
        return ThreatModel("linf", radius[self.data])


def smooth_cases() -> list[Case]:
    """The same networks with and without an adversary, for every smooth and kinked activation."""
    return [
        Case(data, architecture, kind, training)
        for data in DATA
        for architecture in ARCHITECTURES
        for kind in SMOOTH_AND_KINKED
        for training in ("standard", "pgd-at")
    ]


def hard_cases() -> list[Case]:
    """Networks whose gradient is zero or jumps, trained through a surrogate."""
    return [Case(data, a, kind, "standard") for data in DATA for a in ARCHITECTURES for kind in HARD]


def pgd_cases() -> list[Case]:
    """Eight networks on which the cost of the steps alone is measured."""
    return [Case(d, a, kind, "standard") for d in DATA for a in ARCHITECTURES for kind in ("relu", "softplus")]


def trained(case: Case, cache: Path | None) -> nn.Module:
    """The network in evaluation mode: from the cache, or trained now and put there."""
    data = load_dataset(case.data)
    width = WIDTH[case.architecture][case.data]
    model = build_model(
        case.architecture, activation(case.activation), input_shape=data.input_shape, classes=10, width=width
    )
    adversary = Adversarial(case.threat, steps=7) if case.training == "pgd-at" else None
    rate = 5e-3 if case.hard and case.data == "digits" else 2e-3 if adversary is None else 1e-3
    recipe = Recipe(EPOCHS[case.data], 50, (rate,), surrogate_width=0.5, adversarial=adversary)
    settings = f"{case} {width} {recipe} {data.version} {__version__} {torch.__version__}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:12]
    path = None if cache is None else cache / f"{case.name.replace(' ', '-')}-{key}.safetensors"
    if path is not None and path.exists():
        model.load_state_dict(load_file(path))
    else:
        train(model, data, recipe)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return model.eval()


def examples(case: Case, count: int) -> tuple[Tensor, Tensor]:
    """Test inputs and labels, as many of each class as possible."""
    test = load_dataset(case.data).test.balanced(count)
    return test.inputs, test.labels
