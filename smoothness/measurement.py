"""What an analyzer found: the records that flow from analyzers to studies and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from smoothness._checks import check_choice

if TYPE_CHECKING:
    import pandas as pd

BoundKind = Literal["exact", "lower", "upper", "estimate"]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Values of one quantity, with their unit, their kind of bound and every setting used.

    Attributes:
        quantity: what was measured, such as "jacobian_norm".
        values: shape (n, *coordinates), on the CPU; without the example axis for global quantities.
        coords: name -> labels of each axis after the example axis; empty for plain per-example values.
        unit: such as "logit / input l2".
        bound: "exact", "lower", "upper" or "estimate".
        settings: every setting, defaults included.
        valid: (n,) bool, or a scalar for global quantities; all true when left out.
            Reasons stand in details["reason"], one string per example ("" where valid).
        details: witness points, tables, cost in passes; never part of the frame.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown kind of bound.

    >>> m = Measurement("margin", torch.tensor([1.0, 2.0]), unit="logit", bound="exact")
    >>> m.to_frame()[["example", "quantity", "value"]].values.tolist()
    [[0, 'margin', 1.0], [1, 'margin', 2.0]]
    """

    quantity: str
    values: Tensor
    unit: str
    bound: BoundKind
    coords: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    valid: Tensor = None  # type: ignore[assignment]  # filled in below, so that readers never meet None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("bound", self.bound, get_args(BoundKind))
        axes = tuple(len(labels) for labels in self.coords.values())
        values = self.values.detach().cpu()
        if values.ndim not in (len(axes), len(axes) + 1) or values.shape[values.ndim - len(axes) :] != axes:
            raise ValueError(f"values of shape {tuple(values.shape)} do not end in the coordinates' {axes}")
        examples = values.shape[: values.ndim - len(axes)]
        valid = torch.ones(examples, dtype=torch.bool) if self.valid is None else self.valid.detach().cpu()
        if valid.shape != examples:
            raise ValueError(f"valid must have shape {tuple(examples)}, got {tuple(valid.shape)}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "valid", valid)

    @property
    def per_example(self) -> bool:
        """Whether the first axis runs over examples."""
        return self.values.ndim > len(self.coords)

    def to_frame(self) -> pd.DataFrame:
        """One row per example and coordinate: example, quantity, coordinates, value, bound, unit, valid.

        `example` is -1 for a global quantity.
        """
        import pandas as pd

        values = self.values if self.per_example else self.values.unsqueeze(0)
        valid = self.valid if self.per_example else self.valid.unsqueeze(0)
        first = range(values.shape[0]) if self.per_example else [-1]
        index = pd.MultiIndex.from_product([first, *self.coords.values()], names=["example", *self.coords])
        frame = index.to_frame(index=False)
        frame.insert(1, "quantity", self.quantity)
        frame["value"] = values.reshape(-1).to(torch.float64).numpy()
        frame["bound"] = self.bound
        frame["unit"] = self.unit
        frame["valid"] = valid.repeat_interleave(len(frame) // len(valid)).numpy() if len(frame) else valid.numpy()
        return frame


@dataclass(frozen=True, eq=False)
class Bracket:
    """Lower and upper side of one quantity: the truth lies between them, example by example."""

    lower: Measurement
    upper: Measurement
