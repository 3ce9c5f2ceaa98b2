"""Lines and rectifiers: identity, relu, leaky_relu, prelu, rrelu, relu6, relu_squared, kinked_linear."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._checks import check_finite, check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, piecewise_polynomial_facts


class Identity(Activation):
    """φ(z) = z: the network without activations, the arm every other one is compared with.

    >>> Identity()(torch.tensor([-1.0, 2.0]))
    tensor([-1.,  2.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise, on a tensor of its own."""
        return z.clone()

    def facts(self) -> ActivationFacts:
        """Slope 1 everywhere."""
        return piecewise_affine_facts("identity", (), ((1.0, 0.0),))


class ReLU(Activation):
    """φ(z) = max(z, 0): continuous, 1-Lipschitz, one kink at 0.

    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.relu(z)

    def facts(self) -> ActivationFacts:
        """Kink of 1 at 0."""
        return piecewise_affine_facts("relu", (0.0,), ((0.0, 0.0), (1.0, 0.0)))


class LeakyReLU(Activation):
    """φ(z) = max(z, 0) + negative_slope · min(z, 0) (Maas et al. 2013).

    >>> LeakyReLU(0.1)(torch.tensor([-1.0, 2.0]))
    tensor([-0.1000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = check_finite("negative_slope", negative_slope)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.leaky_relu(z, self.negative_slope)

    def facts(self) -> ActivationFacts:
        """Kink of 1 - negative_slope at 0."""
        name = f"leaky_relu(negative_slope={self.negative_slope:g})"
        return piecewise_affine_facts(name, (0.0,), ((self.negative_slope, 0.0), (1.0, 0.0)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"negative_slope={self.negative_slope:g}"


class PReLU(Activation):
    """φ(z) = max(z, 0) + a · min(z, 0) with one learnable slope a (He et al. 2015, arXiv 1502.01852).

    The facts are those of the present slope.

    >>> PReLU(0.5)(torch.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000], grad_fn=<WhereBackward0>)
    """

    def __init__(self, init: float = 0.25) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), check_finite("init", init)))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.where(z > 0, z, self.weight.squeeze() * z)  # F.prelu fails in vmap of jacrev

    def facts(self) -> ActivationFacts:
        """Kink of 1 - a at 0."""
        slope = self.weight.item()
        return piecewise_affine_facts(f"prelu(slope={slope:g})", (0.0,), ((slope, 0.0), (1.0, 0.0)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"slope={self.weight.item():g}"


class RReLU(Activation):
    """max(z, 0) + a · min(z, 0), a drawn from [lower, upper] in training, their mean after (Xu et al. 2015).

    arXiv 1505.00853. The facts are those in evaluation mode.

    >>> RReLU(0.25, 0.75).eval()(torch.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000])
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        self.lower, self.upper = check_finite("lower", lower), check_finite("upper", upper)
        if self.lower > self.upper:
            raise ValueError(f"lower must not exceed upper, got lower = {lower!r} and upper = {upper!r}")

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise, with a slope of its own for each element in training mode."""
        if self.training:
            return F.rrelu(z, self.lower, self.upper, True)
        return F.leaky_relu(z, (self.lower + self.upper) / 2)  # the same; rrelu knows no vmap

    def facts(self) -> ActivationFacts:
        """Kink of 1 - (lower + upper)/2 at 0."""
        slope = (self.lower + self.upper) / 2
        return piecewise_affine_facts(f"rrelu({self.extra_repr()})", (0.0,), ((slope, 0.0), (1.0, 0.0)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"lower={self.lower:g}, upper={self.upper:g}"


class ReLU6(Activation):
    """φ(z) = min(max(z, 0), 6) (Krizhevsky 2010; Howard et al. 2017, arXiv 1704.04861).

    >>> ReLU6()(torch.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.relu6(z)

    def facts(self) -> ActivationFacts:
        """Kinks of 1 at 0 and -1 at 6."""
        return piecewise_affine_facts("relu6", (0.0, 6.0), ((0.0, 0.0), (1.0, 0.0), (0.0, 6.0)))


class ReLUSquared(Activation):
    """φ(z) = max(z, 0)² (So et al. 2021, arXiv 2109.08668): the slope is continuous and unbounded.

    >>> ReLUSquared()(torch.tensor([-1.0, 3.0]))
    tensor([0., 9.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.relu(z).square()

    def facts(self) -> ActivationFacts:
        """φ'' jumps by 2 at 0."""
        return piecewise_polynomial_facts("relu_squared", (0.0,), ((0.0,), (0.0, 0.0, 1.0)))


class KinkedLinear(Activation):
    """φ(z) = s z + kink · |z|/2 + offset with s = √(chi - kink²/4): kinks of any size at one χ.

    For normal inputs of mean 0 and any scale E φ'(u)² is chi whatever the kink and the offset, so arms differ in
    roughness (kink, at 0) or in the mean of their outputs (offset) while signals and gradients keep their size.
    Kink 1 is relu, 0 a line, √2 the absolute value, the last two times √½.

    >>> KinkedLinear(kink=1.0)(torch.tensor([-1.0, 2.0]))
    tensor([-0., 2.])
    """

    def __init__(self, kink: float = 1.0, offset: float = 0.0, chi: float = 0.5) -> None:
        super().__init__()
        self.chi = check_positive("chi", chi)
        self.kink, self.offset = check_finite("kink", kink), check_finite("offset", offset)
        limit = 2 * math.sqrt(self.chi)
        if abs(self.kink) > limit:
            raise ValueError(f"kink must lie in [-{limit:.6g}, {limit:.6g}] (2 √chi), got {kink!r}")

    @property
    def slopes(self) -> tuple[float, float]:
        """Slope left and right of 0."""
        s = math.sqrt(max(0.0, self.chi - self.kink**2 / 4))
        return s - self.kink / 2, s + self.kink / 2

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        left, right = self.slopes
        value = torch.where(z > 0, right * z, left * z)
        return value + self.offset if self.offset else value

    def facts(self) -> ActivationFacts:
        """A kink of `kink` at 0."""
        left, right = self.slopes
        pieces = ((left, self.offset), (right, self.offset))
        return piecewise_affine_facts(f"kinked_linear({self.extra_repr()})", (0.0,), pieces)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"kink={self.kink:g}, offset={self.offset:g}, chi={self.chi:g}"
