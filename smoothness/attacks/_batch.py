"""The examples under attack at one moment: where each is, and the best point it has visited."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Rows:
    """A dataclass of tensors with one row per example; `keep` drops rows of all of them at once."""

    def keep(self, index: Tensor) -> None:
        """Keep only the rows at `index`."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name).index_select(0, index))


@dataclass
class Batch(Rows):
    """The examples still in the batch.

    Attributes:
        rows: positions among all the examples.
        column: labels, shape (m, 1).
        clean, lowest, highest: clean inputs, and the limits of each coordinate.
        point: where the attack stands; changed in place.
        best, worst: point of highest margin loss max_{j != y} f_j - f_y so far, and that loss;
            inf once the example is settled as fooled, so that its point stays as it is.
        spoiled: 0, or NaN once a loss was not finite.
    """

    rows: Tensor
    column: Tensor
    clean: Tensor
    lowest: Tensor
    highest: Tensor
    point: Tensor
    best: Tensor
    worst: Tensor
    spoiled: Tensor

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Shape that broadcasts one number per example over the inputs."""
        return (-1,) + (1,) * (self.point.ndim - 1)

    def __len__(self) -> int:
        return len(self.rows)

    def offer(self, loss: Tensor) -> None:
        """Keep the current point of every example whose margin loss is the highest so far."""
        loss = loss.to(self.worst.dtype)  # models may compute in another precision than their inputs'
        better = (loss > self.worst).to(self.point.dtype).view(self.column_shape)
        self.best.lerp_(self.point, better)  # exact at weights 0 and 1, and several times faster than torch.where
        torch.fmax(loss, self.worst, out=self.worst)
        self.spoiled.add_(loss, alpha=0)  # 0 · inf = NaN: one kernel instead of isfinite's three
