"""How steep can the network be anywhere at all?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._model_calls import check_model
from smoothness._norms import Norm
from smoothness._state import model_device
from smoothness.analyzers.lipschitz_target import (
    EFFORTS,
    Bounds,
    check_target,
    field_values,
    network_of,
    plain_settings,
    unit_of,
)
from smoothness.bounds.balls import Ball
from smoothness.bounds.lipschitz import constants_of_sectors, global_sectors
from smoothness.measurement import Measurement


@dataclass(frozen=True)
class GlobalLipschitz:
    """Certified Lipschitz constant on the whole space: sup |f(a) - f(b)| / |a - b|_p over all a and b.

    The smallest of the quadratic form with each activation's global slopes (LipSDP-neuron: Fazlyab et al. 2019,
    arXiv 1906.04893), the interval Jacobian and the product of the layers' norms. Convolutions enter with their exact
    norms, zero padding and strides included. Infinite for activations that jump.

    Args:
        norm, of, effort, memory_gib: as in `LipschitzUpperBound`; of="margin" is the largest over all pairs of
            classes.
        input_shape: of one input, without the batch axis; read from the first linear layer, or from how
            `build_model` made the model, when None.

    Raises:
        TypeError, ValueError: as in `LipschitzUpperBound`; an input shape that is needed and not given.

    Returns (when called): a global Measurement "global_lipschitz", unit "logit / input l2" (or the norm chosen),
        bound "upper"; details as in `LipschitzUpperBound`.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> GlobalLipschitz(norm="linf")(layer).values
    tensor(4.0000, dtype=torch.float64)
    """

    norm: Norm = "l2"
    of: str = "logits"
    effort: Literal["fast", "standard", "tight"] = "standard"
    input_shape: tuple[int, ...] | None = None
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        check_target(self)
        check_choice("effort", self.effort, EFFORTS)
        check_positive("memory_gib", self.memory_gib)
        for size in self.input_shape or ():
            check_count("input_shape", size)

    @property
    def bounds(self) -> Bounds | None:
        """None: the whole space."""
        return None

    @property
    def batch_size(self) -> int | None:
        """None: there are no examples."""
        return None

    def __call__(self, model: nn.Module, inputs: Tensor | None = None, labels: Tensor | None = None) -> Measurement:
        """Bound the model; `inputs` give the input shape alone and may be left out."""
        check_model(model)
        shape = tuple(inputs.shape[1:]) if inputs is not None else self.input_shape or _input_shape(model)
        with torch.no_grad():
            network = network_of(model, self, torch.zeros(1, *shape, device=model_device(model)), self.memory_gib)
            centre = torch.zeros(1, network.inputs, dtype=torch.float64, device=network.output.bias.device)
            ball = Ball(centre, self.norm, torch.full_like(centre[:, :1], torch.inf))
            mix = _class_pairs(network.output.width).to(centre).unsqueeze(0) if self.of == "margin" else None
            found = constants_of_sectors(
                network, global_sectors(network), ball, mix=mix, separate=mix is not None, effort=self.effort
            )
        return Measurement(
            "global_lipschitz",
            found.values[0],
            unit=unit_of(self.of, self.norm),
            bound="upper",
            settings=plain_settings("GlobalLipschitz", field_values(self)),
            details={
                "reason": "",
                "winner": found.winners[0],
                "crossed": found.crossed[0],
                "candidates": {name: float(values[0]) for name, values in found.candidates.items()},
                "certificates": found.certificates,
            },
        )


def _class_pairs(classes: int) -> Tensor:
    if classes < 2:
        raise ValueError(f"a margin needs at least 2 classes, the model has {classes}; use of='logits'")
    rows = torch.zeros(classes * (classes - 1) // 2, classes)
    for row, (i, j) in enumerate(combinations(range(classes), 2)):
        rows[row, i], rows[row, j] = 1.0, -1.0
    return rows


def _input_shape(model: nn.Module) -> tuple[int, ...]:
    built = getattr(getattr(model, "built", None), "input_shape", None)
    if built is not None:
        return tuple(built)
    first = next((m for m in model.modules() if hasattr(m, "weight") and getattr(m, "weight", None) is not None), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise ValueError(
        f"the input shape cannot be read from {type(model).__name__}; give it, as in "
        "GlobalLipschitz(input_shape=(1, 28, 28))"
    )
