"""Two Gaussian classes whose best classifier and distances to its boundary are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._checks import check_count, check_positive
from smoothness._norms import DUAL, Norm
from smoothness.data.dataset import Dataset, Split


@dataclass(frozen=True, eq=False)
class Gaussians(Dataset):
    """Class y of N(±separation/2 · direction, I): the truth of the problem beside the sample.

    The best classifier is linear: label 1 where `direction` · x > 0.

    Attributes:
        direction: unit vector (l2) from the mean of class 0 to that of class 1.
        separation: l2 distance between the means, in units of the standard deviation.
    """

    direction: Tensor
    separation: float

    @property
    def best_accuracy(self) -> float:
        """Accuracy of the best classifier: cdf(separation / 2)."""
        return 0.5 * (1 + math.erf(self.separation / 2 / math.sqrt(2)))

    def best_label(self, inputs: Tensor) -> Tensor:
        """Label of the best classifier."""
        return (inputs @ self.direction.to(inputs.dtype) > 0).long()

    def minimal_distance(self, inputs: Tensor, norm: Norm = "l2") -> Tensor:
        """Distance to the best classifier's boundary: |direction · x| over direction's dual norm."""
        direction = self.direction.to(inputs.dtype)
        order = {"linf": math.inf, "l2": 2.0, "l1": 1.0}[DUAL[norm]]
        length: Tensor = torch.linalg.vector_norm(direction, ord=order)
        return (inputs @ direction).abs() / length


def load_gaussians(
    dimensions: int = 20, separation: float = 4.0, train: int = 2000, test: int = 1000, seed: int = 0
) -> Gaussians:
    """Draw two Gaussian classes with equal shares in `dimensions` dimensions; no input bounds.

    >>> data = load_gaussians(dimensions=5, separation=4.0)
    >>> round(data.best_accuracy, 4)
    0.9772
    >>> data.minimal_distance(data.test.inputs, "linf").shape
    torch.Size([1000])
    """
    check_count("dimensions", dimensions)
    check_positive("separation", separation)
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(dimensions, generator=generator, dtype=torch.float64)
    direction = direction / torch.linalg.vector_norm(direction)

    def draw(count: int) -> Split:
        labels = torch.arange(count) % 2
        noise = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
        inputs = noise + (labels * 2 - 1).unsqueeze(1) * (separation / 2) * direction
        return Split(inputs.float(), labels)

    return Gaussians(
        "gaussians",
        draw(check_count("train", train, 2)),
        draw(max(train // 4, 2)),
        draw(check_count("test", test, 2)),
        classes=("below", "above"),
        bounds=None,
        source="drawn from two normal distributions; no licence needed",
        direction=direction,
        separation=separation,
    )
