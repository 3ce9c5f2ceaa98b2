"""Two concentric spheres: a problem in any dimension whose true classifier and its distances are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._checks import check_count, check_positive
from smoothness._norms import Norm
from smoothness.data.dataset import Dataset, Split


@dataclass(frozen=True, eq=False)
class Spheres(Dataset):
    """Points uniform on two concentric spheres (Gilmer et al. 2018, arXiv 1801.02774), which are the two classes.

    The classifier that stays furthest from both asks whether ‖x‖₂ exceeds `threshold`; it makes no error.

    Attributes:
        inner, outer: the radii, l2.
    """

    inner: float
    outer: float

    @property
    def threshold(self) -> float:
        """Radius of the true classifier's boundary, midway between the two."""
        return (self.inner + self.outer) / 2

    def best_label(self, inputs: Tensor) -> Tensor:
        """Label of the true classifier: 1 where ‖x‖₂ exceeds the threshold."""
        length: Tensor = torch.linalg.vector_norm(inputs, dim=1)
        return (length > self.threshold).long()

    def minimal_distance(self, inputs: Tensor, norm: Norm = "l2") -> Tensor:
        """Distance of each point to the sphere of radius `threshold`, in the given norm: exact.

        With r the threshold and a = |x|: l2 |‖x‖₂ - r|. From inside, linf is the root of ‖a + t‖₂ = r (every
        coordinate grows alike) and l1 that of ‖a + t e‖₂ = r with e at the largest. From outside, linf is the root of
        ‖max(a - t, 0)‖₂ = r, and l1 is Σ max(a - c, 0) for the cap c with ‖min(a, c)‖₂ = r. All are roots of
        quadratic equations. On the spheres, linf is about l2 / √n from inside: the max-norm distance falls with the
        dimension n while the classes stay where they are.

        Args:
            inputs: (n, dimensions).
            norm: "linf", "l2" or "l1".

        Returns:
            (n,), float64.
        """
        a = inputs.double().abs().sort(dim=1, descending=True).values
        length: Tensor = torch.linalg.vector_norm(a, dim=1)
        r = self.threshold
        if norm == "l2":
            return (length - r).abs()
        outside = length > r
        inner, outer = (_linf_inside, _linf_outside) if norm == "linf" else (_l1_inside, _l1_outside)
        result = torch.empty_like(length)
        result[~outside], result[outside] = inner(a[~outside], r), outer(a[outside], r)
        return result


def load_spheres(
    dimensions: int = 20,
    inner: float = 1.0,
    outer: float = 1.3,
    train: int = 2000,
    test: int = 1000,
    seed: int = 0,
) -> Spheres:
    """Draw points on two concentric spheres with equal shares in `dimensions` dimensions; no input bounds.

    Gilmer et al. used 500 dimensions and radii 1 and 1.3.

    Raises:
        ValueError: sizes that are no whole numbers, an outer radius that does not exceed the inner one.

    >>> data = load_spheres(dimensions=100)
    >>> data.minimal_distance(data.test.inputs[:2]).round(decimals=4)
    tensor([0.1500, 0.1500], dtype=torch.float64)
    >>> bool((data.minimal_distance(data.test.inputs, "linf") < 0.03).all())
    True
    """
    check_count("dimensions", dimensions, 2)
    if not check_positive("outer", outer) > check_positive("inner", inner):
        raise ValueError(f"outer must exceed inner, got {outer} and {inner}; Gilmer et al. took 1.3 and 1.0")
    generator = torch.Generator().manual_seed(check_count("seed", seed, 0))

    def draw(count: int) -> Split:
        labels = torch.arange(count) % 2
        direction = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
        direction /= torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        radius = torch.where(labels == 0, inner, outer).double()
        return Split((direction * radius.unsqueeze(1)).float(), labels)

    return Spheres(
        "spheres",
        draw(check_count("train", train, 2)),
        draw(max(train // 4, 2)),
        draw(check_count("test", test, 2)),
        classes=("inner", "outer"),
        bounds=None,
        source="drawn on two spheres as in Gilmer et al. 2018 (arXiv 1801.02774); no licence needed",
        inner=float(inner),
        outer=float(outer),
    )


def _linf_inside(a: Tensor, r: float) -> Tensor:
    """The t >= 0 with Σ (a + t)² = r²."""
    n, s = a.shape[1], a.sum(dim=1)
    gap = (r * r - a.square().sum(dim=1)).clamp(min=0)
    return gap / (s + (s * s + n * gap).sqrt())  # the positive root, without cancellation


def _linf_outside(a: Tensor, r: float) -> Tensor:
    """The t >= 0 with Σ max(a - t, 0)² = r², a descending: k terms are left where t lies in [a_{k+1}, a_k]."""
    k = torch.arange(1, a.shape[1] + 1, dtype=a.dtype)
    s1, s2 = a.cumsum(dim=1), a.square().cumsum(dim=1)
    # At t = a_k the sum over those before it; the first k at which it reaches r² has k terms left.
    following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
    left = s2 - 2 * following * s1 + k * following.square()
    place = (left >= r * r).to(torch.int8).argmax(dim=1, keepdim=True)
    s1, s2, count = s1.gather(1, place), s2.gather(1, place), (place + 1).to(a.dtype)
    root = (s1.square() - count * (s2 - r * r)).clamp(min=0).sqrt()
    return ((s2 - r * r) / (s1 + root)).squeeze(1)


def _l1_inside(a: Tensor, r: float) -> Tensor:
    """The t >= 0 with (a_1 + t)² + Σ_{i > 1} a_i² = r²."""
    gap = (r * r - a.square().sum(dim=1)).clamp(min=0)
    largest = a[:, 0]
    return gap / (largest + (largest.square() + gap).sqrt())


def _l1_outside(a: Tensor, r: float) -> Tensor:
    """Σ max(a - c, 0) for the cap c with Σ min(a, c)² = r²: k terms are capped where c lies in [a_{k+1}, a_k]."""
    k = torch.arange(1, a.shape[1] + 1, dtype=a.dtype)
    squares = a.square()
    tail = squares.sum(dim=1, keepdim=True) - squares.cumsum(dim=1)  # of those after k
    following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
    capped = k * following.square() + tail  # at c = a_{k+1}: falls with k
    place = (capped <= r * r).to(torch.int8).argmax(dim=1, keepdim=True)
    count = (place + 1).to(a.dtype)
    cap = ((r * r - tail.gather(1, place)).clamp(min=0) / count).sqrt()
    return (a - cap).clamp(min=0).sum(dim=1)
