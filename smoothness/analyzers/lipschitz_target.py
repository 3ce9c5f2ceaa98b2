"""Which constant is asked of a model: of its logits, its margin or a layer, on which ball."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs, check_labels, check_positive
from smoothness._model_calls import check_model
from smoothness._norms import NORMS, Norm
from smoothness.bounds.balls import Ball
from smoothness.bounds.graph import Network
from smoothness.bounds.reading import read_network
from smoothness.threat import ThreatModel

Bounds = tuple[Tensor | float, Tensor | float]
PAIRS = ("ball", "centre")
EFFORTS = ("fast", "standard", "tight")


class _Settings(Protocol):
    @property
    def norm(self) -> Norm: ...
    @property
    def of(self) -> str: ...
    @property
    def bounds(self) -> Bounds | None: ...
    @property
    def batch_size(self) -> int | None: ...


def check_target(settings: _Settings) -> None:
    """Check the settings that all analyzers of Lipschitz constants share."""
    check_choice("norm", settings.norm, NORMS)
    if not (isinstance(settings.of, str) and (settings.of.startswith("layer:") and len(settings.of) > 6)):
        check_choice("of", settings.of, ("logits", "margin", "layer:NAME"))
    if settings.of == "layer:NAME":
        raise ValueError("of='layer:NAME' needs a module's name, such as of='layer:activation1'")
    ThreatModel(settings.norm, bounds=settings.bounds)
    if settings.batch_size is not None:
        check_count("batch_size", settings.batch_size)


def check_radius(radius: float) -> None:
    """A positive finite number."""
    check_positive("radius", radius)


def checked_batch(
    model: nn.Module, settings: _Settings, inputs: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Inputs and labels that fit."""
    check_model(model)
    check_inputs(inputs)
    ThreatModel(settings.norm, bounds=settings.bounds).check_inside(inputs)
    return inputs, None if labels is None else check_labels(labels, len(inputs))


def layer_name(of: str) -> str | None:
    """NAME of of="layer:NAME"."""
    return of.removeprefix("layer:") if of.startswith("layer:") else None


def network_of(model: nn.Module, settings: _Settings, inputs: Tensor, memory_gib: float) -> Network:
    """The network that is bounded."""
    return read_network(model, inputs[:1], layer_name(settings.of), memory=memory_gib * 2**30)


def ball_around(inputs: Tensor, norm: Norm, radius: float, bounds: Bounds | None) -> Ball:
    """One ball an input, in float64."""
    x = inputs.detach().flatten(1).double()
    radii = torch.full((len(x), 1), radius, dtype=torch.float64, device=x.device)
    if bounds is None:
        return Ball(x, norm, radii)
    ends = [torch.as_tensor(b, dtype=torch.float64, device=x.device).expand_as(inputs).flatten(1) for b in bounds]
    return Ball(x, norm, radii, torch.minimum(ends[0], x), torch.maximum(ends[1], x))


def class_differences(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """(n, classes - 1, classes): rows e_y - e_j of all other classes, y the label or the predicted class."""
    n, classes = outputs.shape
    if classes < 2:
        raise ValueError(f"a margin needs at least 2 classes, the model has {classes}; use of='logits'")
    if labels is not None and int(labels.max()) >= classes:
        raise ValueError(f"labels must be below the model's {classes} classes, got {int(labels.max())}")
    y = outputs.argmax(dim=1) if labels is None else labels.to(outputs.device)
    others = torch.arange(classes, device=outputs.device).expand(n, -1)
    others = others[others != y.unsqueeze(1)].view(n, classes - 1)
    mix = torch.zeros(n, classes - 1, classes, dtype=outputs.dtype, device=outputs.device)
    mix.scatter_(2, others.unsqueeze(2), -1.0)
    return mix.scatter_(2, y.view(n, 1, 1).expand(n, classes - 1, 1), 1.0)


def plain_settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON knows them."""
    found: dict[str, Any] = {"analyzer": name}
    for key, value in settings.items():
        if isinstance(value, tuple):
            found[key] = [part.tolist() if isinstance(part, Tensor) else part for part in value]
        else:
            found[key] = value
    return found


def field_values(record: Any) -> dict[str, Any]:
    """A dataclass's fields, tensors not copied."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def unit_of(of: str, norm: str) -> str:
    """Such as "logit / input l2"."""
    return f"{'feature' if layer_name(of) else 'logit'} / input {norm}"
