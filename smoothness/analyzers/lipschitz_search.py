"""The search for the steepest pair of points in a ball: directions by power iteration, middles uphill."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._model_calls import call_model
from smoothness._norms import Norm, project_to_ball, random_in_ball, steepest_direction, vector_norm
from smoothness.analyzers.lipschitz_target import Bounds, layer_name

# Pairs end at this share of the radius; jumps are halved down to it.
_NEAREST = {torch.float64: 1e-5, torch.float32: 1e-2}
_CANDIDATES = 24


@dataclass(frozen=True, eq=False)
class Outputs:
    """What is measured: the outputs, the margin or a layer, as (k, features) of k points."""

    function: Callable[[Tensor], Tensor]
    of: str
    dtype: torch.dtype

    def of_examples(self, x: Tensor, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of points (k, ...) and the example (k,) that each belongs to."""
        if self.of != "margin":
            return lambda points, rows: self.function(points)
        with torch.no_grad():
            here = self.function(x)
        if here.shape[1] < 2:
            raise ValueError(f"a margin needs at least 2 classes, the model has {here.shape[1]}; use of='logits'")
        if labels is not None and int(labels.max()) >= here.shape[1]:
            raise ValueError(f"labels must be below the model's {here.shape[1]} classes, got {int(labels.max())}")
        y = here.argmax(dim=1) if labels is None else labels

        def margin(points: Tensor, rows: Tensor) -> Tensor:
            scores = self.function(points)
            own = y[rows].unsqueeze(1)
            others = scores.scatter(1, own, -torch.inf).amax(dim=1, keepdim=True)
            return scores.gather(1, own) - others

        return margin


@contextmanager
def readable_outputs(model: nn.Module, example: Tensor, of: str) -> Iterator[Outputs]:
    """Outputs of a float64 copy where one can be made, else of the model; a layer's are caught by a hook."""
    try:
        running: nn.Module = copy.deepcopy(model).double()
        with torch.no_grad():
            if call_model(running, example.double()).dtype != torch.float64:
                running = model
    except (RuntimeError, AttributeError, TypeError):  # a tensor with a graph inside; x.float() in its forward pass
        running = model
    dtype = example.dtype if running is model else torch.float64
    caught: list[Tensor] = []
    handle = None
    if (name := layer_name(of)) is not None:
        modules = dict(running.named_modules())
        if name not in modules:
            raise ValueError(f"the model has no layer {name!r}; known: {', '.join(filter(None, modules))}")

        def catch(module: nn.Module, arguments: Any, result: Any) -> None:
            caught.append(result)

        handle = modules[name].register_forward_hook(catch)

    def function(points: Tensor) -> Tensor:
        caught.clear()
        outputs = call_model(running, points)
        result = outputs if handle is None else caught[-1]
        if result.shape[:1] != points.shape[:1] or result.numel() == 0:
            raise ValueError(
                f"the model must return one row of outputs per input, got shape {tuple(result.shape)} "
                f"for {len(points)} inputs; wrap it in a module that returns the logits"
            )
        return result.reshape(len(points), -1).to(points.dtype)

    try:
        yield Outputs(function, of, dtype)
    finally:
        if handle is not None:
            handle.remove()


class Search:
    """The best pair of every example so far, improved by each method.

    Attributes:
        first, second: (n, ...) points of the pair.
        best: (n,) its quotient.
    """

    def __init__(
        self,
        outputs: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        norm: Norm,
        radius: float,
        bounds: Bounds | None,
        centred: bool,
    ) -> None:
        self.outputs, self.x, self.norm, self.radius, self.centred = outputs, x, norm, radius, centred
        self.bounds = None if bounds is None else [torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in bounds]
        self.first, self.second = x.clone(), x.clone()
        self.best = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self.failed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.inside = radius * (1 - 1e-9)  # so that rounding leaves points in the ball

    def ascend(self, starts: int, steps: int, generator: torch.Generator) -> None:
        """Gradient steps from several starts; the distance of the pairs shrinks from the radius on."""
        x, shape = self.x, self.x.shape[1:]
        drawn = random_in_ball(torch.zeros(starts, *shape, dtype=torch.float64), self.norm, 1.0, generator).to(x)
        turns = steepest_direction(torch.randn(starts, *shape, generator=generator, dtype=torch.float64), "l2").to(x)
        drawn[0] = 0
        rows = torch.arange(len(x), device=x.device).repeat_interleave(starts)
        base = x[rows]
        middle = base + 0.5 * self.inside * drawn.repeat(len(x), *[1] * len(shape))
        direction = turns.repeat(len(x), *[1] * len(shape))
        direction = self._unit(direction)
        for k in range(steps):
            share = 10.0 ** (-3.5 * k / max(1, steps - 1))
            h = self.inside * share * (1.0 if self.centred else 0.5)
            if self.centred:
                a, b = base, self._into(base, base + h * direction, rows)
            else:
                middle = base + project_to_ball(middle - base, self.norm, self.inside - h)
                a, b = self._into(base, middle + h * direction, rows), self._into(base, middle - h * direction, rows)
            up, down = self._gradients(a, b, rows)
            turned = steepest_direction(down if self.centred else up + down, self.norm)
            still = vector_norm(turned, self.norm) == 0
            turned = torch.where(self._column(still), direction, turned)
            if self.centred:
                direction = self._unit(direction + turned)  # half way, so that it does not swing
            else:
                direction = turned
                uphill = steepest_direction(up - down, self.norm if self.norm != "l1" else "l2")
                middle = middle + 0.3 * self.inside * share**0.5 * uphill

    def climb(self, rounds: int, generator: torch.Generator) -> None:
        """Random steps of the pair's middle that are kept when the quotient rises: through neighbouring patterns."""
        n, shape = len(self.x), self.x.shape[1:]
        rows = torch.arange(n, device=self.x.device).repeat_interleave(_CANDIDATES)
        base = self.x[rows]
        for k in range(rounds):
            sigma = 0.3 * 0.01 ** (k / rounds)
            drawn = torch.randn(_CANDIDATES, *shape, generator=generator, dtype=torch.float64).to(self.x)
            drawn = self._unit(drawn).repeat(n, *[1] * len(shape))
            first, second = self.first[rows], self.second[rows]
            sizes = torch.rand(_CANDIDATES, generator=generator, dtype=torch.float64).to(self.x).repeat(n)
            move = drawn * self._column(self.inside * sigma * (0.05 + sizes))
            if self.centred:
                a, b = base, self._into(base, second + move, rows)
            else:
                middle, half = (first + second) / 2, (first - second) / 2
                # Half of the candidates also halve the distance.
                half = torch.where(self._column(sizes > 0.5), half, half / 2)
                long = vector_norm(half, self.norm)
                floor = self._nearest() * self.radius
                half = half * self._column((floor / long.clamp_min(1e-300)).clamp(min=1.0))
                middle = middle + move
                a, b = self._into(base, middle + half, rows), self._into(base, middle - half, rows)
            up, down = self._gradients(a, b, rows)
            if not self.centred and k % 3 == 2:  # the direction follows
                turned = steepest_direction(up + down, self.norm)
                still = self._column(vector_norm(turned, self.norm) == 0)
                half_size = self._column(vector_norm(a - b, self.norm) / 2)
                middle = (a + b) / 2
                turned = torch.where(still, self._unit(a - b), turned) * half_size
                a, b = self._into(base, middle + turned, rows), self._into(base, middle - turned, rows)
                self._offer(a, b, rows)

    def halve(self) -> None:
        """Towards the steeper half of each pair: its quotient is at least that of the whole."""
        if self.centred:
            return
        rows = torch.arange(len(self.x), device=self.x.device)
        for _ in range(40):
            far = vector_norm(self.first - self.second, self.norm) > self._nearest() * self.radius
            if not bool(far.any()):
                break
            a, b = self.first, self.second
            middle = (a + b) / 2
            self._offer(torch.cat([a, middle]), torch.cat([middle, b]), torch.cat([rows, rows]))
            same = (self.first == a).flatten(1).all(dim=1) & (self.second == b).flatten(1).all(dim=1)
            if bool(same.all()):
                break

    def proved(self) -> Tensor:
        """(n,) quotients computed again, less what rounding could add; NaN where they fail.

        Rounding is counted as 64 units in the last place of the outputs and of the inputs, the latter carried through
        the quotient itself: a margin may be far smaller than the scores that it is the difference of.
        """
        rows = torch.arange(len(self.x), device=self.x.device)
        with torch.no_grad():
            f, g = self.outputs(self.first, rows), self.outputs(self.second, rows)
        distance = vector_norm(self.first - self.second, self.norm).double()
        rise = vector_norm((f - g).double(), self.norm)
        fine = (distance > 0) & rise.isfinite()
        apart = torch.where(fine, distance, 1.0)
        size = (vector_norm(self.first, self.norm) + vector_norm(self.second, self.norm)).double()
        noise = 64 * torch.finfo(self.x.dtype).eps * ((f.abs() + g.abs()).amax(dim=1).double() + rise / apart * size)
        values = torch.where(fine, (rise - noise) / apart, 0.0).clamp_min(0)
        return torch.where(self.failed | ~f.isfinite().all(dim=1), torch.nan, values * (1 - 1e-12))

    def _gradients(self, a: Tensor, b: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of |f(a) - f(b)| in a and (with its sign turned) in b; the pairs are offered."""
        points = torch.cat([a, b]).requires_grad_()
        with torch.enable_grad():
            outputs = self.outputs(points, torch.cat([rows, rows]))
            change = outputs[: len(a)] - outputs[len(a) :]
            self._keep(a, b, rows, change.detach())
            dual = _dual_direction(change.detach(), self.norm)
            signs = torch.cat([dual, dual])
            if not outputs.requires_grad:
                return torch.zeros_like(a), torch.zeros_like(b)
            (gradient,) = torch.autograd.grad((outputs * signs).sum(), points, allow_unused=True)
        gradient = torch.zeros_like(points) if gradient is None else gradient.nan_to_num()
        if self.centred:  # from b's side only, towards larger changes
            return gradient[: len(a)], -gradient[len(a) :]
        return gradient[: len(a)], gradient[len(a) :]

    def _offer(self, a: Tensor, b: Tensor, rows: Tensor) -> None:
        with torch.no_grad():
            outputs = self.outputs(torch.cat([a, b]), torch.cat([rows, rows]))
        self._keep(a, b, rows, outputs[: len(a)] - outputs[len(a) :])

    def _keep(self, a: Tensor, b: Tensor, rows: Tensor, change: Tensor) -> None:
        distance = vector_norm(a - b, self.norm)
        quotient = vector_norm(change, self.norm) / distance.clamp_min(1e-300)
        self.failed |= torch.zeros_like(self.failed).index_put((rows,), ~change.isfinite().all(dim=1), accumulate=True)
        usable = (distance >= self._nearest() * self.radius * 0.3) & quotient.isfinite()
        quotient = torch.where(usable, quotient, 0.0)
        top = torch.zeros_like(self.best).scatter_reduce(0, rows, quotient, "amax")
        better = top > self.best
        places = torch.where(quotient == top[rows], torch.arange(len(rows), device=rows.device), len(rows))
        winner = torch.full_like(rows[: len(top)], len(rows)).scatter_reduce(0, rows, places, "amin")
        chosen = better.nonzero().squeeze(1)
        self.first[chosen] = a.detach()[winner[chosen]]
        self.second[chosen] = b.detach()[winner[chosen]]
        self.best = torch.where(better, top, self.best)

    def _into(self, base: Tensor, points: Tensor, rows: Tensor) -> Tensor:
        points = base + project_to_ball(points - base, self.norm, self.inside)
        if self.bounds is not None:
            points = torch.minimum(torch.maximum(points, self.bounds[0]), self.bounds[1])
        return points.detach()

    def _unit(self, direction: Tensor) -> Tensor:
        return direction / self._column(vector_norm(direction, self.norm).clamp_min(1e-300))

    def _column(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self.x.ndim - 1))

    def _nearest(self) -> float:
        return _NEAREST[self.x.dtype]


def _dual_direction(change: Tensor, norm: Norm) -> Tensor:
    """U with |u| = 1 in the dual norm and u · change = |change|."""
    if norm == "l2":
        return steepest_direction(change, "l2")
    return steepest_direction(change, "l1" if norm == "linf" else "linf")
