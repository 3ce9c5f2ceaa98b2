"""How steep is the network somewhere around an input? From below, with the pair of points that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count
from smoothness._norms import Norm
from smoothness._state import model_device, probing
from smoothness.analyzers.lipschitz_search import Outputs, Search, readable_outputs
from smoothness.analyzers.lipschitz_target import (
    PAIRS,
    Bounds,
    check_radius,
    check_target,
    checked_batch,
    field_values,
    plain_settings,
    unit_of,
)
from smoothness.measurement import Measurement


@dataclass(frozen=True)
class LipschitzLowerBound:
    """The largest quotient |f(a) - f(b)| / |a - b|_p found around each input: a lower bound on its supremum.

    Pairs and balls as in `LipschitzUpperBound`. The search moves pairs (y + h v, y - h v): the direction v by power
    iteration with the gradients at both ends, the middle y uphill by their difference (which sees kinks within h,
    where the Jacobian is constant), while h shrinks; from several starts. Then it climbs by random steps through
    neighbouring activation patterns, and halves every pair towards its steeper half, which finds jumps. Works with
    any module and any activation; missing gradients count as zero.

    The pair is kept as witness and its quotient computed again on the forward pass, less what rounding could add.
    Where the model can be copied, everything is computed in float64.

    Args:
        norm, radius, of, pairs, bounds: as in `LipschitzUpperBound`. The margin is f_y - max over j ≠ y of f_j.
        starts: pairs that start at once, the first at the input itself.
        steps: of each; as many rounds of random climbing follow.
        batch_size: examples at once; all by default.
        seed: of the starts and the random steps, the same for every example.

    Raises:
        TypeError, ValueError: as in `LipschitzUpperBound`, but any module will do.

    Returns (when called): a Measurement "local_lipschitz", values (n,), unit "logit / input l2" (or the norm
        chosen), bound "lower". details: "first" and "second", the points of the witness pairs, and "reason".

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> LipschitzLowerBound(norm="l2", radius=0.1)(layer, torch.zeros(1, 2)).values
    tensor([4.0000], dtype=torch.float64)
    """

    norm: Norm = "l2"
    radius: float = 0.1
    of: str = "logits"
    pairs: Literal["ball", "centre"] = "ball"
    bounds: Bounds | None = None
    starts: int = 8
    steps: int = 60
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_radius(self.radius)
        check_target(self)
        check_choice("pairs", self.pairs, PAIRS)
        check_count("starts", self.starts)
        check_count("steps", self.steps)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Search around every input; `labels` are used for of="margin" alone."""
        inputs, labels = checked_batch(model, self, inputs, labels)
        with probing(model), torch.enable_grad():
            found = list(self._parts(model, inputs.detach().to(model_device(model)), labels))
        values, first, second = (torch.cat(part) for part in zip(*found, strict=True))
        valid = values.isfinite()
        return Measurement(
            "local_lipschitz",
            torch.where(valid, values, torch.nan),
            unit=unit_of(self.of, self.norm),
            bound="lower",
            settings=plain_settings("LipschitzLowerBound", field_values(self)),
            valid=valid,
            details={
                "reason": tuple("" if ok else "the model's output is NaN or infinite" for ok in valid.tolist()),
                "first": first,
                "second": second,
            },
        )

    def _parts(
        self, model: nn.Module, inputs: Tensor, labels: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        size = self.batch_size or len(inputs)
        with readable_outputs(model, inputs[:1], self.of) as outputs:
            for start in range(0, len(inputs), size):
                rows = slice(start, start + size)
                x = inputs[rows].to(outputs.dtype)
                y = None if labels is None else labels[rows].to(x.device)
                yield self._search(outputs, x, y)

    def _search(self, outputs: Outputs, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        search = Search(outputs.of_examples(x, y), x, self.norm, self.radius, self.bounds, self.pairs == "centre")
        generator = torch.Generator().manual_seed(self.seed)
        search.ascend(self.starts, self.steps, generator)
        search.climb(self.steps, generator)
        search.halve()
        values = search.proved()
        return values.cpu(), search.first.detach().cpu(), search.second.detach().cpu()
