"""The cascade: one evaluation that is right for smooth, kinked, stepped and foreign models alike."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs
from smoothness._model_calls import check_model
from smoothness._state import model_device, probing
from smoothness.attacks import stages
from smoothness.attacks._labels import LabelModel
from smoothness.attacks._search import check_batch_size, check_threat, searching
from smoothness.attacks.cascade_result import CascadeResult, Missed
from smoothness.attacks.counting import lead_chance
from smoothness.attacks.observing import observe
from smoothness.attacks.pgd import PGD
from smoothness.attacks.stages import Plan
from smoothness.attacks.survivors import Survivors
from smoothness.threat import ThreatModel

SAMPLE = 0.1  # share of the survivors that the later stages run on when the first ones pass
FEWEST = 5  # survivors sampled at least
SUBSAMPLE = 50  # correctly classified examples on which attacks with and without native gradients are compared
BLIND = 0.05  # share of zero gradients, and lead of other attacks, from which native gradients do not pass
WORTH = 0.01  # points of robust accuracy that the sample may say are missed

LATER: tuple[stages.Stage, ...] = (stages.surrogate, stages.continuation, stages.transfer, stages.evolution)
LAST: tuple[stages.Stage, ...] = (stages.every_class, stages.square, stages.boundary)


@dataclass(frozen=True)
class Cascade:
    """Attacks of every kind, cheapest first, each on the examples that all before it have left.

    1. noise: corners of the ball (linf) or uniform points; 2. native: `FMN`, and `APGD` with cross-entropy and
    targeted DLR, through the model's own backward pass; 3. surrogate: `APGD` through surrogate backward passes of
    several shapes and widths; 4. continuation: the activations mollified, then sharpened; 5. transfer from mollified
    copies and from `source`; 6. evolution: gradients estimated from scores; 7. square: `Square` of 5,000 queries;
    8. boundary: `DecisionBoundary`, where scores do not move or gradients mislead. Full effort also follows native
    gradients towards every class. The answer is the union. Success is a lower bound on vulnerability (the idea of a
    parameter-free ensemble: Croce and Hein 2020, arXiv 2003.01690).

    One rule for every model, from what is measured on each example, never from an activation's name: a stage leaves
    out an example whose gradients cannot help it (native ones exactly zero at the clean input and at random points
    of the ball; a surrogate's that equal the native ones), and a surrogate is followed at length where the native
    gradient does not explain how the margin changes over short steps, or where brief runs show that it pays.

    effort="full" runs all stages on all survivors. effort="standard" asks first whether native gradients can be
    relied on: on a fixed subsample they must not be zero, and short attacks without them (noise, surrogate, random
    search), run on the whole of it, must not be ahead (by 5 points, or one-sided McNemar p < 0.05). If so, stages 3
    to 8 run on a random tenth of the survivors, and `missed` bounds what they would have turned among the others
    (Clopper and Pearson); all survivors follow when that sample says that more than one point is missed. If not,
    all survivors get everything. Comparisons that include networks with jumps should use "full" for all.

    Args:
        threat: the ball and the bounds, in input units.
        effort: "standard" or "full".
        source: a model whose adversarial examples are tried too, such as a twin with another activation.
        seed: of everything random.
        batch_size: examples at once; all when None.

    Returns (when called): a `CascadeResult`: an `AttackResult` with the stage that turned each example, what each
        stage did and cost, and the bound on what was missed.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`. A model without gradients, or one that gives integer labels (n,)
            alone, is no error: stages that need more are left out, and say so in their `note`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> found = Cascade(ThreatModel("linf", 0.1))(model, x, torch.tensor([0, 0]))
    >>> found.status, found.broken_by[0] in ("noise", "native")
    (('fooled', 'survived'), True)
    """

    threat: ThreatModel
    effort: Literal["standard", "full"] = "standard"
    source: nn.Module | None = None
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_choice("effort", self.effort, ("standard", "full"))
        if self.source is not None and not isinstance(self.source, nn.Module):
            raise TypeError(f"source must be an nn.Module or None, got {type(self.source).__name__}")
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "cascade-standard" or "cascade-full"."""
        return f"cascade-{self.effort}"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> CascadeResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        with searching(_with_scores(model, x, y), x, y, self.threat, self.batch_size) as search:
            search.look_at_clean()
            pool = Survivors(search, self.seed, observe(search, self.seed))
            missed, why_all = None, ""
            stages.noise(pool, pool.left(), self._plan(thorough=False))
            by_noise = search.worst > 0
            stages.native(pool, pool.left(), self._plan(thorough=False))
            if self.effort == "standard":
                why_all = self._doubts(pool, by_noise)
            if self.effort == "standard" and not why_all:
                missed, why_all = self._sample(pool)
            if self.effort == "full" or why_all:
                for stage in (*LATER, *LAST):
                    stage(pool, pool.left(), self._plan(thorough=True))
            found = search.close(x.device)
        turned = [status == "fooled" for status in found.status]
        return CascadeResult(
            **{field.name: getattr(found, field.name) for field in fields(found)},
            broken_by=tuple(pool.broken_by.get(row, "") if turned[row] else "" for row in range(len(turned))),
            stages=tuple(pool.records),
            missed=missed,
            why_all=why_all,
        )

    def _plan(self, *, thorough: bool) -> Plan:
        return Plan(self.threat, self.seed, self.batch_size, self.source, thorough)

    def _order(self, pool: Survivors, shift: int) -> Tensor:
        """A random rank of every example, the same whoever survives."""
        draws = torch.Generator().manual_seed(self.seed + shift)
        return torch.rand(len(pool.search.inputs), generator=draws).to(pool.search.inputs.device)

    def _doubts(self, pool: Survivors, by_noise: Tensor) -> str:
        """Why native gradients cannot be relied on, from a fixed subsample; "" when they can."""
        search = pool.search
        rows = search.attacked.nonzero().flatten()
        rows = rows[self._order(pool, 1)[rows].argsort()[:SUBSAMPLE]].sort().values
        if len(rows) == 0:
            return ""
        blind = int(pool.observed.blind[rows].sum())
        if blind > BLIND * len(rows):
            return f"the native gradient is exactly zero for {blind} of {len(rows)} examples"
        others, native = by_noise[rows], search.worst[rows] > 0
        size = self.batch_size
        with pool.stage("check", rows):
            again = PGD(self.threat, 20, loss="margin", seed=self.seed, batch_size=size)
            native[others.clone()] = pool.turned_by(again, rows[others])  # by the native gradient too?
            others = others | pool.turned_by(stages.scores_alone(self.threat, self.seed + 1, size), rows)
            if isinstance(stages.surrogates_of(pool), list):
                attack = PGD(self.threat, 20, loss="margin", seed=self.seed, surrogate="tanh", batch_size=size)
                others = others | pool.turned_by(attack, rows)
        ahead, behind = int((others & ~native).sum()), int((native & ~others).sum())
        if ahead - behind > BLIND * len(rows) or lead_chance(ahead, behind) < 0.05:
            return f"attacks without the native gradient turn {ahead} of {len(rows)} examples that it does not"
        return ""

    def _sample(self, pool: Survivors) -> tuple[Missed | None, str]:
        """The later stages on a random tenth of the survivors: what may be missed, or why all must follow."""
        left = pool.left()
        count = min(len(left), max(FEWEST, math.ceil(SAMPLE * len(left))))
        rows = left[self._order(pool, 2)[left].argsort()[:count]].sort().values
        for stage in (*LATER, stages.square, stages.boundary):
            stage(pool, rows, self._plan(thorough=False))
        found = count - len(pool.still(rows))
        if count == len(left):
            return None, ""
        if found / count * (len(left) - count) > WORTH * len(pool.search.inputs):
            return None, f"the later stages turned {found} of the {count} survivors sampled"
        return Missed(len(left), count, found), ""


def _with_scores(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """The model, or one with scores of 0 and 1 where it gives labels alone."""
    check_model(model)
    check_inputs(x)
    outputs: object = None
    with suppress(RuntimeError, TypeError), probing(model), torch.no_grad():  # a misfit is told by the search
        outputs = model(x[:1].to(model_device(model)))
    labels = isinstance(outputs, Tensor) and outputs.shape == (1,) and not outputs.is_floating_point()
    return LabelModel(model, y) if labels else model
