"""Run a model as it is, or with its activations mollified: values and gradients both."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smoothness.activations.base import Activation
from smoothness.activations.families.vector import KWinners
from smoothness.activations.mollification.unknown_modules import frozen_elementwise
from smoothness.activations.surrogates.function_calls import grafted_calls
from smoothness.activations.surrogates.surrogate import _active, _is_candidate, _is_open, _may_call_functions

_REACH = 16.0  # of a table, in standard deviations; straight lines beyond
_SPACING = 8  # points of a table in σ
_FINER = 4  # points of the convolution in one of those
_TAIL = 4.5  # σ at which the Gaussian is cut
_LEVELS = 2  # tables for each doubling of the standard deviation

Key = tuple[object, int]  # what is applied, and which of its applications in one forward pass


@contextmanager
def mollified_forward(model: nn.Module) -> Iterator[MollifiedForward]:
    """Hand out a dial that mollifies the activations of a model; at first they are the real ones.

    Found are the activations of `surrogate_gradient`: modules, function calls, and foreign elementwise leaf
    modules without parameters. k_winners becomes z · Φ((z - t)/σ), with t its threshold as a constant; other
    activations of several features, and modules that treat elements differently, stay.

    σ is in units of the standard deviation of an example's inputs to the activation, over its units: record
    the examples first. φ_σ is read off a table of its values, which costs the same for every activation and is
    right to about 1e-3 of its bends: fit for a search, while `mollify` is exact. Other threads that use
    the model see it as it is.

    Raises:
        ValueError: no activation found.

    >>> from smoothness.models import build_model
    >>> model = build_model("mlp", "step", input_shape=(3,), classes=2, width=8, depth=1)
    >>> x = torch.zeros(1, 3, requires_grad=True)
    >>> with mollified_forward(model) as dial:
    ...     with dial.recording(torch.arange(1), 1):
    ...         real = model(x)
    ...     with dial.turned_to(0.5, torch.arange(1)):
    ...         soft = model(x)
    >>> bool(torch.autograd.grad(soft[0, 0], x)[0].abs().sum() > 0)
    True
    """
    dial, token = MollifiedForward(), object()
    found = [module for module in model.modules() if _is_candidate(module)]
    calling = [m for m in model.modules() if _may_call_functions(m) and all(m is not other for other in found)]
    if not found and not calling:
        raise ValueError("no activation module or function to mollify was found; check the model")

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if token not in _active.get() or not dial.busy or getattr(module, "inplace", False) is not True:
            return None
        dial.overwritten.append(args[0])  # the module will write into a copy instead
        return (args[0].clone(), *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if token not in _active.get() or not dial.busy:
            return None
        if getattr(module, "inplace", False) is not True:
            return dial.apply(module, module, args[0])
        z = dial.overwritten.pop()
        value = dial.apply(module, module, z.clone())
        return z.copy_(output if value is None else value)

    def graft_of(kind: str, module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        what = (kind, repr(module))

        def graft(z: Tensor, value: Tensor) -> Tensor:
            soft = dial.apply(what, module, z)
            return value if soft is None else soft

        return graft

    with ExitStack() as stack:
        for module in found:
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        if calling:
            stack.enter_context(grafted_calls(model, found, graft_of, _is_open(token)))
        reset = _active.set(_active.get() | {token})
        stack.callback(_active.reset, reset)
        yield dial


class MollifiedForward:
    """The dial: σ, for which examples, and what was recorded of them."""

    def __init__(self) -> None:
        self.sigma = 0.0
        self.rows: Tensor | None = None
        self.overwritten: list[Tensor] = []
        self._examples = 0  # recorded at the moment; 0 when not recording
        self._calls: dict[object, int] = {}
        self._deviations: dict[Key, Tensor] = {}
        self._soft: dict[tuple[Key, float], Callable[[Tensor, Tensor], Tensor] | None] = {}

    @property
    def busy(self) -> bool:
        """Whether activations are recorded or mollified now."""
        return self.rows is not None

    @property
    def places(self) -> int:
        """How many applications of activations were recorded."""
        return len(self._deviations)

    @contextmanager
    def recording(self, rows: Tensor, count: int) -> Iterator[None]:
        """Inside, one forward pass of the examples at `rows`, of `count` in all, tells how widely inputs spread."""
        self.rows, self._examples, self._calls = rows, count, {}
        try:
            yield
        finally:
            self.rows, self._examples = None, 0
            self.overwritten.clear()

    @contextmanager
    def turned_to(self, sigma: float, rows: Tensor) -> Iterator[None]:
        """Inside, one forward pass of the examples at `rows` is mollified."""
        self.rows, self.sigma, self._calls = rows, sigma, {}
        try:
            yield
        finally:
            self.rows = None
            self.overwritten.clear()

    def apply(self, what: object, module: nn.Module, z: Tensor) -> Tensor | None:
        """The mollified activation at z; None where the real one is wanted."""
        if self.rows is None or not z.is_floating_point() or z.ndim == 0:
            return None
        key = (what, self._calls.get(what, 0))
        self._calls[what] = key[1] + 1
        if self._examples:
            if key not in self._deviations:
                self._deviations[key] = torch.ones(self._examples, dtype=torch.float64, device=z.device)
            self._deviations[key][self.rows] = _deviation(z.detach(), len(self.rows))
            return None
        if key not in self._deviations:
            return None
        if (key, self.sigma) not in self._soft:
            self._soft[key, self.sigma] = _mollified(module, self.sigma, self._deviations[key], z)
        soft = self._soft[key, self.sigma]
        return None if soft is None else soft(z, self.rows)


def _deviation(z: Tensor, count: int) -> Tensor:
    """Standard deviation of each example's inputs; of all examples together where the first axis is not theirs."""
    flat = z.double().reshape(count, -1) if z.numel() and len(z) % count == 0 else z.double().reshape(1, -1)
    spread = flat.std(dim=1, correction=0)
    size = torch.where(spread > 0, spread, flat.abs().amax(dim=1))
    return torch.where((size > 0) & size.isfinite(), size, 1.0).expand(count)


def _mollified(
    module: nn.Module, sigma: float, deviations: Tensor, like: Tensor
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """φ_σ as a function of z and of the rows it belongs to; None for what is left as it is."""
    if isinstance(module, KWinners):
        widths = (sigma * deviations).to(like.dtype)
        return lambda z, rows: z * torch.special.ndtr((z - module.threshold(z)) / _per_row(widths[rows], z))
    if isinstance(module, Activation) and not module.elementwise:
        return None
    try:
        function = frozen_elementwise(copy.deepcopy(module).cpu()).forward
    except TypeError:
        return None
    return _Tables(function, sigma, deviations, like)


class _Tables:
    """φ_σ by linear interpolation, one table for each half octave of the standard deviation.

    A table for standard deviation d has its points at d · u for fixed u in [-16, 16]; so has every example,
    whatever else is in the batch.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], sigma: float, deviations: Tensor, like: Tensor) -> None:
        levels, self.level = torch.unique((_LEVELS * deviations.log2()).round(), return_inverse=True)
        sizes = 2 ** (levels.double() / _LEVELS)
        self.per_unit = (1 / sizes[self.level]).to(like.dtype)
        self.spacing = sigma / _SPACING
        self.count = math.ceil(2 * _REACH / self.spacing) + 1
        tail = math.ceil(_TAIL * _SPACING) * _FINER
        fine = self.spacing / _FINER
        points = fine * torch.arange(-tail, (self.count - 1) * _FINER + tail + 1, dtype=torch.float64) - _REACH
        weights = torch.exp(-0.5 * (fine / sigma * torch.arange(-tail, tail + 1, dtype=torch.float64)) ** 2)
        period = 2 ** math.ceil(math.log2(len(points)))
        with torch.no_grad():
            values = torch.stack([function(points * size).double() for size in sizes.tolist()]).nan_to_num(0)
            product = torch.fft.rfft(values, period) * torch.fft.rfft(weights / weights.sum(), period)
            soft = torch.fft.irfft(product, period)[:, 2 * tail : len(points) : _FINER]  # where the ends are not felt
        self.values = soft[:, :-1].flatten().to(like)
        self.rises = soft.diff(dim=1).flatten().to(like)

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        scale = _per_row(self.per_unit[rows], z) / self.spacing
        position = z * scale + _REACH / self.spacing
        index = position.detach().nan_to_num(0).clamp(0, self.count - 2).long()
        beyond = position - index
        place = index + _per_row(self.level[rows] * (self.count - 1), z)
        return torch.addcmul(self.values[place], self.rises[place], beyond)


def _per_row(numbers: Tensor, z: Tensor) -> Tensor:
    """One number per example, shaped to broadcast with z, whose first axis may hold several rows of each."""
    if len(z) != len(numbers):
        numbers = numbers.repeat_interleave(len(z) // len(numbers)) if len(z) % len(numbers) == 0 else numbers[:1]
    return numbers.view(-1, *[1] * (z.ndim - 1))
