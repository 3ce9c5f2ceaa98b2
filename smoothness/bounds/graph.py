"""A network as layers of affine maps and elementwise activations, in float64: what every bound works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.bounds.products import Product


@dataclass(frozen=True, eq=False)
class AffineSum:
    """z = Σ_j W_j h_j + b, with h_0 the input and h_j the features of hidden layer j.

    Attributes:
        sources: pairs (j, W_j), j ascending; W_j has shape (width, width of h_j), float64.
        bias: (width,).
    """

    sources: tuple[tuple[int, Tensor], ...]
    bias: Tensor

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.bias)

    @cached_property
    def products(self) -> tuple[tuple[int, Product], ...]:
        """The sources, ready to multiply with."""
        return tuple((j, Product(weight)) for j, weight in self.sources)

    def __call__(self, features: Sequence[Tensor]) -> Tensor:
        """Values at features [h_0, h_1, ...], each (n, width of h_j): (n, width)."""
        total = self.bias.expand(len(features[0]), -1)
        for j, product in self.products:
            total = total + product.apply(product.plain, features[j])
        return total


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """h = φ(z) for z an affine sum of earlier features.

    Attributes:
        name: of the module, or of the function called.
        affine: z.
        facts: of φ.
    """

    name: str
    affine: AffineSum
    facts: ActivationFacts

    @property
    def width(self) -> int:
        """Number of units."""
        return self.affine.width

    def values(self, z: Tensor) -> Tensor:
        """φ(z)."""
        assert self.facts.function is not None  # reading refuses facts without it
        return self.facts.function(z)


@dataclass(frozen=True, eq=False)
class Network:
    """A feed-forward network: hidden layers in order, then an affine output; residual sums are affine.

    Attributes:
        inputs: number of input features, flattened.
        hidden: the layers; layer k (from 1) reads features 0 to k - 1.
        output: the outputs, flattened.
    """

    inputs: int
    hidden: tuple[HiddenLayer, ...]
    output: AffineSum

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return sum(layer.width for layer in self.hidden)

    @property
    def maps(self) -> tuple[AffineSum, ...]:
        """The affine sums: of every hidden layer, then of the output."""
        return (*(layer.affine for layer in self.hidden), self.output)

    @property
    def entry(self) -> int:
        """How many linear functions of the input all that reads it is made of: at most so many."""
        return min(self.inputs, sum(affine.width for affine in self.maps if any(j == 0 for j, _ in affine.sources)))

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return 8 * sum(weight.numel() for affine in self.maps for _, weight in affine.sources)

    def run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Pre-activations of every hidden layer, and the outputs, at points (n, inputs) in float64."""
        features, before = [x], []
        for layer in self.hidden:
            before.append(layer.affine(features))
            features.append(layer.values(before[-1]))
        return before, self.output(features)
