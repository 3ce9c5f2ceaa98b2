"""A data set as everything downstream sees it: three splits of tensors, with its origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs (n, *input_shape), floating point, labels (n,), int64, and the sentences behind inputs that are text."""

    inputs: Tensor
    labels: Tensor
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")
        if self.texts is not None and len(self.texts) != len(self.labels):
            raise ValueError(f"{len(self.texts)} texts but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def balanced(self, count: int) -> Split:
        """The first `count` examples when classes take turns: as many of each class as possible."""
        if not 0 < count <= len(self):
            raise ValueError(f"count must be from 1 to {len(self)}, got {count}")
        turn = torch.empty_like(self.labels)
        for label in set(self.labels.tolist()):
            rows = self.labels == label
            turn[rows] = torch.arange(int(rows.sum()))
        order = turn.argsort(stable=True)[:count].sort().values
        texts = None if self.texts is None else tuple(self.texts[row] for row in order.tolist())
        return Split(self.inputs[order], self.labels[order], texts)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named training, validation and test splits.

    Attributes:
        name: as given to `load_dataset`.
        train, validation, test: the splits.
        classes: the classes' names; label k means classes[k].
        bounds: lowest and highest valid input value, or None where there is no valid range.
        source: author, year and licence in one line.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    bounds: tuple[float, float] | None
    source: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    @cached_property
    def version(self) -> str:
        """Hash of every split's content."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for tensor in (split.inputs, split.labels):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def split_by_class(inputs: Tensor, labels: Tensor, last: int) -> tuple[Split, Split]:
    """Two splits: the second takes the last `last` examples of every class."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        held_out[(labels == label).nonzero().flatten()[-last:]] = True
    return Split(inputs[~held_out], labels[~held_out]), Split(inputs[held_out], labels[held_out])
