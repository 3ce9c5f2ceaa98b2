"""The stages of the cascade: what each runs, and on which examples it cannot help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness.activations import mollify, surrogate_gradient, swap_activations
from smoothness.attacks._inward import InwardWalk
from smoothness.attacks.apgd import APGD
from smoothness.attacks.continuation import Continuation
from smoothness.attacks.decision_boundary import DecisionBoundary
from smoothness.attacks.evolution import EvolutionGradient
from smoothness.attacks.fmn import FMN
from smoothness.attacks.noise import Noise
from smoothness.attacks.observing import gradients_through
from smoothness.attacks.result import Attack
from smoothness.attacks.square import Square
from smoothness.attacks.survivors import Survivors
from smoothness.attacks.transfer import Transfer
from smoothness.threat import ThreatModel

# Shapes and widths (units of the pre-activation) of the surrogate backward passes that are screened: from sharper
# than any unit's scale to flatter, since the right one differs between networks by up to 20 points of accuracy.
SURROGATES = (
    ("tanh", 0.25), ("tanh", 1.0), ("mollified", 0.5), ("triangular", 0.5), ("arctan", 0.1), ("mollified", 2.0),
    ("identity", 1.0), ("sigmoid", 0.1),
)  # fmt: skip
PAYS = 0.02  # share of the examples that the brief runs must turn for long ones to follow on all of them
SOURCE_SIGMAS = (0.5, 1.5)  # of the mollified copies that perturbations are carried over from


@dataclass(frozen=True)
class Plan:
    """What the stages need to know.

    Attributes:
        threat, seed, batch_size, source: as the cascade's.
        thorough: the budgets of full effort.
    """

    threat: ThreatModel
    seed: int
    batch_size: int | None
    source: nn.Module | None
    thorough: bool


Stage = Callable[[Survivors, Tensor, Plan], None]


def noise(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Corners of the ball (linf), or uniform points of it."""
    kind: Literal["corner", "uniform"] = "corner" if plan.threat.norm == "linf" else "uniform"
    with pool.stage("noise", rows):
        pool.use(Noise(plan.threat, 10, kind, plan.seed, batch_size=plan.batch_size), rows)


def native(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """FMN and APGD through the model's own backward pass, where it is not zero wherever it was looked at."""
    sighted = rows[~pool.observed.blind[rows]]
    with pool.stage("native", sighted, _left_out(pool, len(rows) - len(sighted))):
        pool.use(FMN(plan.threat, batch_size=plan.batch_size), sighted, beyond=True)
        pool.use(_apgd(plan, "ce", 1), sighted)
        pool.use(_apgd(plan, "dlr-targeted", 2, target_classes=3), sighted)


def surrogate(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """APGD through surrogate backward passes: all of them briefly, then the best ones at length.

    A surrogate whose gradient is the native one's on an example has nothing to add to it there.
    """
    opened = surrogates_of(pool) if not pool.observed.missing else "no gradients"
    if isinstance(opened, str):
        pool.skip("surrogate", opened)
        return
    with pool.stage("surrogate", rows):
        scores, before = [], len(pool.still(rows))
        for place, (shape, width, differs) in enumerate(opened):
            here = pool.still(rows[differs[rows]])
            turned = pool.use(_apgd(plan, "margin", 10 + place, steps=25, surrogate=(shape, width)), here)
            scores.append((turned / max(1, len(here)), -place))
        rows = pool.still(rows)
        if before - len(rows) <= PAYS * before:  # it pays where the native gradient misleads, or hardly anywhere
            rows = rows[~pool.observed.truthful[rows]]
        best = [opened[-place] for _, place in sorted(scores, reverse=True)[: 4 if plan.thorough else 2]]
        for turn, loss in enumerate(("ce", "dlr")[: 2 if plan.thorough else 1]):
            for place, (shape, width, differs) in enumerate(best):
                shift, restarts = 30 + 10 * turn + place, 2 if plan.thorough else 1
                attack = _apgd(plan, loss, shift, surrogate=(shape, width), restarts=restarts)
                pool.use(attack, rows[differs[rows]])


def continuation(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """The activations mollified and sharpened step by step."""
    useful = _where_surrogates_differ(pool, rows)
    if isinstance(useful, str):
        pool.skip("continuation", useful)
        return
    with pool.stage("continuation", useful):
        steps = 24 if plan.thorough else 12
        brief = Continuation(plan.threat, steps=steps, restarts=1, seed=plan.seed + 90, batch_size=plan.batch_size)
        pool.use(brief, useful)
        if plan.thorough:
            misled = useful[~pool.observed.truthful[useful]]
            pool.use(Continuation(plan.threat, restarts=4, seed=plan.seed + 91, batch_size=plan.batch_size), misled)


def transfer(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Perturbations of mollified copies, and of the source that was given."""
    sources = [] if plan.source is None else [plan.source]
    useful = rows
    if not pool.observed.missing:
        differing = _where_surrogates_differ(pool, rows)
        if not isinstance(differing, str) and len(differing):
            useful = rows if plan.source is not None else differing
            for sigma in SOURCE_SIGMAS if plan.thorough else SOURCE_SIGMAS[:1]:
                copied = mollified_copy(pool.search.model, sigma)
                sources += [] if copied is None else [copied]
    if not sources:
        pool.skip("transfer", "no source was given, and the activations cannot be mollified or need not be")
        return
    with pool.stage("transfer", useful):
        for place, source in enumerate(sources):
            attack = _apgd(plan, "margin", 100 + place, steps=40 if plan.thorough else 20, drop_fooled=False)
            pool.use(Transfer(plan.threat, source, attack, batch_size=plan.batch_size), useful)


def evolution(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Gradients estimated from scores alone."""
    with pool.stage("evolution", rows):
        pool.use(EvolutionGradient(plan.threat, seed=plan.seed + 110, batch_size=plan.batch_size), rows)


def scores_alone(threat: ThreatModel, seed: int, batch_size: int | None) -> Attack:
    """A brief attack that asks for scores alone."""
    if threat.norm == "l1":
        return EvolutionGradient(threat, 10, 20, seed=seed, batch_size=batch_size)
    return Square(threat, 200, seed=seed, batch_size=batch_size)


def every_class(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Native gradients again, from fresh starts and towards every class; only at full effort."""
    sighted = rows[~pool.observed.blind[rows]]
    with pool.stage("every-class", sighted):
        pool.use(_apgd(plan, "ce", 115, restarts=3), sighted)
        pool.use(_apgd(plan, "dlr-targeted", 120, target_classes=9), sighted)


def square(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Random search with 5,000 queries: in one run at full effort, else spread over 10 runs side by side."""
    if plan.threat.norm == "l1":
        pool.skip("square", "random search takes norm linf or l2")
        return
    with pool.stage("square", rows):
        if plan.thorough:
            pool.use(Square(plan.threat, 5_000, seed=plan.seed + 130, batch_size=plan.batch_size), rows)
            return
        pool.use(Square(plan.threat, 500, seed=plan.seed + 130, batch_size=plan.batch_size), rows, times=10)


def _left_out(pool: Survivors, count: int) -> str:
    if pool.observed.missing:
        return f"the model has no gradient: {pool.observed.missing}"
    return f"the gradient is exactly zero, wherever looked at, for {count} examples" if count else ""


def _apgd(
    plan: Plan,
    loss: str,
    shift: int,
    *,
    steps: int = 100,
    restarts: int = 1,
    target_classes: int = 9,
    surrogate: tuple[str, float] | None = None,
    drop_fooled: bool = True,
) -> APGD:
    shape, width = surrogate or (None, 0.25)
    return APGD(
        plan.threat,
        steps=steps,
        loss=loss,  # type: ignore[arg-type]  # one of its names
        restarts=restarts,
        target_classes=target_classes,
        seed=plan.seed + shift,
        drop_fooled="auto" if drop_fooled else False,
        surrogate=shape,
        surrogate_width=width,
        batch_size=plan.batch_size,
    )


def surrogates_of(pool: Survivors) -> list[tuple[str, float, Tensor]] | str:
    """Shape, width, and where its gradient differs from the native one; or why there are none."""
    if pool.surrogates is None:
        opened: list[tuple[str, float, Tensor]] = []
        for shape, width in SURROGATES:
            try:
                backward = surrogate_gradient(pool.search.model, shape, width=width)
                gradients = gradients_through(pool.search, pool.seed, backward)
            except (ValueError, TypeError) as error:
                if not opened and shape != "mollified":
                    pool.surrogates = str(error)
                    return pool.surrogates
                continue  # some activations cannot be mollified
            opened.append((shape, width, pool.observed.differs(gradients)))
        pool.surrogates = opened
    return pool.surrogates


def _where_surrogates_differ(pool: Survivors, rows: Tensor) -> Tensor | str:
    opened = surrogates_of(pool) if not pool.observed.missing else "no gradients"
    if isinstance(opened, str):
        return opened
    return rows[torch.stack([differs for _, _, differs in opened]).any(dim=0)[rows]]


def mollified_copy(model: nn.Module, sigma: float) -> nn.Module | None:
    """The same weights with every activation that can be mollified so; None when there is none."""

    def soft(there: nn.Module) -> nn.Module | None:
        try:
            return mollify(there, sigma)
        except TypeError:  # mixes elements, or depends on chance
            return None

    try:
        return swap_activations(model, to=soft)
    except (ValueError, TypeError):
        return None


def boundary(pool: Survivors, rows: Tensor, plan: Plan) -> None:
    """Walks into the ball and along the boundary by labels, where scores stand still or gradients mislead."""
    useful = pool.observed.flat if not plan.thorough else pool.observed.flat | ~pool.observed.truthful
    rows = rows[useful[rows]]
    with pool.stage("boundary", rows):
        for attack in (
            InwardWalk(plan.threat, seed=plan.seed + 141, batch_size=plan.batch_size),
            DecisionBoundary(plan.threat, method="hop", seed=plan.seed + 140, batch_size=plan.batch_size),
        ):
            pool.use(attack, rows, beyond=True)
