"""Value jumps: step, sign, staircase, quantised_relu, jump_relu; and the smooth sigmoid_staircase."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_count, check_not_negative, check_positive
from smoothness.activations.base import Activation
from smoothness.activations.computed import computed_facts
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts
from smoothness.activations.flat import flat

_MOST_BITS = 16  # float32 tells the thresholds apart, and the facts list every one
_MOST_LEVELS = 2**_MOST_BITS


def _check_levels(levels: int) -> int:
    """A number of levels from 2 to 65536."""
    if check_count("levels", levels, minimum=2) > _MOST_LEVELS:
        raise ValueError(f"levels must lie between 2 and {_MOST_LEVELS}, got {levels}")
    return levels


def _rank(z: Tensor, scale: float, shift: float, top: int) -> Tensor:
    """How many of the equally spaced thresholds lie below z: ceil(scale · z + shift), from 0 to top."""
    return torch.add(z.new_tensor(shift), z, alpha=scale).clamp_(0, top).ceil_()


class Step(Activation):
    """Heaviside step: φ(z) = 1 for z > 0, else 0. Its gradient is 0 everywhere.

    >>> Step()(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        return flat(z, lambda z: z.clamp(0, 1).ceil_())

    def facts(self) -> ActivationFacts:
        """Value jump of 1 at 0."""
        return piecewise_affine_facts("step", (0.0,), ((0.0, 0.0), (0.0, 1.0)))


class Sign(Activation):
    """φ(z) = 1 for z > 0, else -1 (Hubara et al. 2016, arXiv 1602.02830). Its gradient is 0 everywhere.

    >>> Sign()(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-1., -1.,  1.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        return flat(z, lambda z: z.clamp(0, 1).ceil_().mul_(2).sub_(1))

    def facts(self) -> ActivationFacts:
        """Value jump of 2 at 0."""
        return piecewise_affine_facts("sign", (0.0,), ((0.0, -1.0), (0.0, 1.0)))


class Staircase(Activation):
    """Nearest of `levels` values equally spaced in [-1, 1]: a quantised hardtanh.

    Values v_k = -1 + 2k/(levels - 1); jumps of 2/(levels - 1) half-way between them, up to a rounding
    of the input's last bit. Two levels are the sign function, three a ternary one. Its gradient is 0
    everywhere.

    >>> Staircase(3)(torch.tensor([-3.0, 0.2, 0.6]))
    tensor([-1.,  0.,  1.])
    """

    def __init__(self, levels: int = 5) -> None:
        super().__init__()
        self.levels = _check_levels(levels)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Positions of the jumps."""
        return tuple(-1 + (2 * k + 1) / (self.levels - 1) for k in range(self.levels - 1))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        top = self.levels - 1
        return flat(z, lambda z: _rank(z, top / 2, (top - 1) / 2, top).mul_(2 / top).sub_(1))

    def facts(self) -> ActivationFacts:
        """Equal value jumps at the thresholds."""
        values = [-1 + 2 * k / (self.levels - 1) for k in range(self.levels)]
        pieces = tuple((0.0, value) for value in values)
        return piecewise_affine_facts(f"staircase(levels={self.levels})", self.thresholds, pieces)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"levels={self.levels}"


class SigmoidStaircase(Activation):
    """The staircase with soft steps: -1 + 2/(levels - 1) · Σ sigmoid((z - t_k)/temperature) over its thresholds t_k.

    temperature -> 0 is the staircase. The thresholds stay where they are, so this is no change of scale.

    >>> SigmoidStaircase(levels=3, temperature=0.01)(torch.tensor([-3.0, 0.0]))
    tensor([-1.,  0.])
    """

    def __init__(self, levels: int = 5, temperature: float = 0.05) -> None:
        super().__init__()
        self.levels = _check_levels(levels)
        self.temperature = check_positive("temperature", temperature)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        rate = 1 / self.temperature
        value = torch.stack([torch.sigmoid((z - t) * rate) for t in Staircase(self.levels).thresholds]).sum(0)
        return value * (2 / (self.levels - 1)) - 1

    def facts(self) -> ActivationFacts:
        """Slope and curvature found at their turning points, to rounding."""
        return _sigmoid_staircase_facts(self.levels, self.temperature)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"levels={self.levels}, temperature={self.temperature:g}"


@lru_cache(maxsize=64)
def _sigmoid_staircase_facts(levels: int, temperature: float) -> ActivationFacts:
    module = SigmoidStaircase(levels, temperature)
    name = f"sigmoid_staircase({module.extra_repr()})"
    centres = Staircase(levels).thresholds
    return computed_facts(
        name,
        module,
        module.forward,
        limits=(0.0, 0.0),
        width=temperature,
        bounded=True,
        monotone=True,
        centres=centres,
    )


class QuantisedReLU(Activation):
    """Nearest of 2^bits values equally spaced in [0, 1] (Zhou et al. 2016, arXiv 1606.06160).

    Values k / (2^bits - 1); jumps half-way between them. Its gradient is 0 everywhere.

    >>> QuantisedReLU(bits=1)(torch.tensor([-1.0, 0.5, 0.6, 3.0]))
    tensor([0., 0., 1., 1.])
    """

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.bits = check_count("bits", bits)
        if bits > _MOST_BITS:
            raise ValueError(f"bits must lie between 1 and {_MOST_BITS}, got {bits}")

    @property
    def _top(self) -> int:
        return int(2**self.bits - 1)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Positions of the jumps."""
        top = self._top
        return tuple((k + 0.5) / top for k in range(top))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        top = self._top
        return flat(z, lambda z: _rank(z, top, -0.5, top).div_(top))

    def facts(self) -> ActivationFacts:
        """Equal value jumps at the thresholds."""
        top = self._top
        pieces = tuple((0.0, k / top) for k in range(top + 1))
        return piecewise_affine_facts(f"quantised_relu(bits={self.bits})", self.thresholds, pieces)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"bits={self.bits}"


class JumpReLU(Activation):
    """φ(z) = z for z > height, else 0: a value jump of `height` (Erichson et al. 2019, arXiv 1904.03750).

    height = 0 is relu.

    >>> JumpReLU(0.5)(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([0., 0., 2.])
    """

    def __init__(self, height: float = 0.5) -> None:
        super().__init__()
        self.height = check_not_negative("height", height)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        return F.threshold(z, self.height, 0.0)

    def facts(self) -> ActivationFacts:
        """Value jump of `height`, there."""
        return piecewise_affine_facts(f"jump_relu({self.extra_repr()})", (self.height,), ((0.0, 0.0), (1.0, 0.0)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"height={self.height:g}"
