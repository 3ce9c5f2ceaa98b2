"""Mollifying a module that we know nothing about: is it elementwise, where is it rough, how exact is the result?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from smoothness.activations.mollification.quadrature import Panels
from smoothness.activations.probing import PROBED, probe_breakpoints

_PANELS = (18, 36, 72, 144, 288)
_SETTLED = 1e-12


def frozen_elementwise(module: nn.Module) -> nn.Module:
    """A frozen float64 copy in evaluation mode, checked to apply one function to each element.

    Raises:
        TypeError: elements are mixed, treated by position or by chance, or the output is no tensor of the
            input's shape.
    """
    frozen = copy.deepcopy(module).double().eval().requires_grad_(False)
    z = torch.linspace(-4.1, 3.9, 48, dtype=torch.float64).roll(17)
    other = torch.where(torch.arange(48) % 3 == 0, z, z.flip(0) * 1.7)
    first = _apply(module, frozen, z.reshape(4, 12))
    again = _apply(module, frozen, z.flip(0).reshape(6, 8)).flip(0)
    changed = _apply(module, frozen, other.reshape(4, 12))
    single = _apply(module, frozen, z[5:6])
    same = torch.allclose(first, again, rtol=1e-9, atol=1e-12) and torch.allclose(first[5:6], single, rtol=1e-9)
    if not (same and torch.allclose(first[::3], changed[::3], rtol=1e-9, atol=1e-12)):
        raise TypeError(
            f"mollify needs an elementwise activation; an output of {type(module).__name__} depends on other "
            "elements, on their position or on chance"
        )
    return frozen


def foreign_expectation(frozen: nn.Module, sigma: float) -> tuple[Panels, float, bool]:
    """The quadrature between probed breakpoints, and its estimated error.

    Panels are doubled until value and slope (times σ) settle; the error is the last change, relative to
    1 + |φ_σ|, over 33 points in [-8, 8] and points beside up to 16 breakpoints.

    Returns:
        The rule, its error, and whether probing found all: no breakpoint from there to ±96.
    """
    breakpoints = probe_breakpoints(frozen)
    near = sorted(breakpoints, key=abs)[:16]
    beside = [t + k * sigma for t in near for k in (-1.0, -0.1, 0.0, 0.3)]
    beyond = [probe_breakpoints(lambda z, s=s: frozen(z + s)) for s in (-2 * PROBED, 2 * PROBED)]  # type: ignore[misc]
    points = torch.cat([torch.linspace(-8, 8, 33, dtype=torch.float64), torch.tensor(beside, dtype=torch.float64)])
    rule = Panels(frozen, sigma, breakpoints, _PANELS[0])
    error = float("inf")
    for panels in _PANELS[1:]:
        finer = Panels(frozen, sigma, breakpoints, panels)
        error = max(_change(rule, finer, points), sigma * _change(rule.derivative, finer.derivative, points))
        if error <= _SETTLED:
            break
        rule = finer
    return rule, max(error, 1e-14 / min(sigma, 1.0)), not any(beyond)


def _change(rule: Panels, finer: Panels, points: Tensor) -> float:
    better = finer(points)
    change = float(((rule(points) - better).abs() / (1 + better.abs())).max())
    return change if change == change else float("inf")


def _apply(module: nn.Module, frozen: nn.Module, z: Tensor) -> Tensor:
    with torch.no_grad():
        try:
            output = frozen(z.clone())
        except Exception as error:
            raise TypeError(
                f"mollify needs an elementwise activation; {type(module).__name__} failed on a float64 tensor of "
                f"shape {tuple(z.shape)}: {error}"
            ) from error
    if not isinstance(output, Tensor) or output.shape != z.shape:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(
            f"mollify needs an elementwise activation; {type(module).__name__} turned shape {tuple(z.shape)} "
            f"into {got}"
        )
    return output.flatten().double()
