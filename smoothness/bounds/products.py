"""Products with a constant matrix and with its parts, each part made once: sparse where a convolution leaves zeros."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

# From so many numbers on a matrix is looked at, and kept sparse when at most this share is not zero.
_MANY, _SHARE = 1 << 20, 1 / 16


class _Part(NamedTuple):
    """A matrix and its transpose, ready to multiply from the left."""

    matrix: Tensor
    transposed: Tensor


class Product:
    """W (outputs, inputs), |W|, and W's positive and negative parts, applied to vectors from either side."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        many = weight.numel() >= _MANY
        self.sparse = many and int(weight.count_nonzero()) <= _SHARE * weight.numel()

    @cached_property
    def plain(self) -> _Part:
        """W."""
        return self._part(self.weight)

    @cached_property
    def size(self) -> _Part:
        """|W|."""
        return self._part(self.weight.abs())

    @cached_property
    def positive(self) -> _Part:
        """Max(W, 0)."""
        return self._part(self.weight.clamp_min(0))

    @cached_property
    def negative(self) -> _Part:
        """Min(W, 0)."""
        return self._part(self.weight.clamp_max(0))

    def apply(self, part: _Part, values: Tensor) -> Tensor:
        """Values (n, inputs) -> (n, outputs)."""
        return (part.matrix @ values.T).T if self.sparse else values @ part.transposed

    def back(self, part: _Part, rows: Tensor) -> Tensor:
        """Rows (..., outputs) -> (..., inputs)."""
        if not self.sparse:
            return rows @ part.matrix
        flat = rows.reshape(-1, rows.shape[-1])
        return (part.transposed @ flat.T).T.reshape(*rows.shape[:-1], self.weight.shape[1])

    def _part(self, matrix: Tensor) -> _Part:
        if not self.sparse:
            return _Part(matrix, matrix.T)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return _Part(matrix.to_sparse_csr(), matrix.T.to_sparse_csr())
