"""Where each example of an APGD run stands: its step size, its momentum and the best point to go back to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._norms import Norm, project_to_ball, steepest_direction
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks._crossing import to_size_1
from smoothness.attacks._l1 import project_to_l1_box, sparse_direction

MOMENTUM = 0.25
RISING = 0.75  # share of the steps that must raise the loss for the step size to stay
ROUNDING = 256  # units in the last place of the largest loss so far that count as no difference
FIRST_SHARE = 0.2  # of the coordinates that an l1 step moves before the first checkpoint


def checkpoints(steps: int, norm: Norm) -> dict[int, int]:
    """Steps after which progress is reviewed, each with the steps since the review before.

    >>> checkpoints(100, "linf")
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    if norm == "l1":
        period = max(steps // 25, 1)
        return dict.fromkeys(range(period, steps, period), period)
    found: dict[int, int] = {}
    place, window = 0, max(22 * steps // 100, 1)
    while (place := place + window) < steps:
        found[place] = window
        window = max(window - max(3 * steps // 100, 1), 6 * steps // 100, 1)
    return found


@dataclass
class Climb(Rows):
    """State of one run, a row per example in the batch; beside `Batch`, which knows the points and the answer.

    Attributes:
        previous: the point before the present one.
        heading: what the next step follows: the gradient's sign (linf), unit gradient (l2), or gradient of
            size 1 without the coordinates that cannot move (l1); always finite.
        latest: the loss at the present point.
        leader, leader_heading, leader_value: the point of highest loss, with its heading and its loss.
        size: step size η.
        rises: steps that raised the loss since the last checkpoint.
        halved, value_then: whether the last checkpoint cut the step, and the highest loss at that time.
        rounding: by how much the loss must differ to be higher.
        moving: l1, the number of coordinates that a step moves.
        differing: l1, the number in which the leader differed from the clean input at the last checkpoint.
    """

    previous: Tensor
    heading: Tensor
    latest: Tensor
    leader: Tensor
    leader_heading: Tensor
    leader_value: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor
    value_then: Tensor
    rounding: Tensor
    moving: Tensor
    differing: Tensor

    @staticmethod
    def start(batch: Batch, norm: Norm, epsilon: float) -> Climb:
        """At the batch's points, before any step."""
        point, one = batch.point, batch.worst
        features = point[0].numel() if len(point) else 0
        return Climb(
            previous=point.clone(),
            heading=torch.zeros_like(point),
            latest=torch.full_like(one, torch.inf),
            leader=point.clone(),
            leader_heading=torch.zeros_like(point),
            leader_value=torch.full_like(one, -torch.inf),
            size=torch.full_like(one, epsilon if norm == "l1" else 2 * epsilon),
            rises=torch.zeros_like(one),
            halved=torch.ones_like(one, dtype=torch.bool),
            value_then=torch.full_like(one, -torch.inf),
            rounding=torch.zeros_like(one),
            moving=torch.full_like(batch.rows, max(1, round(FIRST_SHARE * features))),
            differing=torch.full_like(batch.rows, features),
        )

    def take(self, batch: Batch, values: Tensor, gradient: Tensor, norm: Norm) -> None:
        """Note the loss and the gradient at the batch's points."""
        self.heading = _heading(batch, gradient, norm)
        values = values.to(self.latest.dtype)
        # Rounding, which depends on the batch size, must not decide what counts as a rise.
        self.rounding = torch.fmax(self.rounding, ROUNDING * torch.finfo(values.dtype).eps * values.abs())
        self.rises += values > self.latest + self.rounding
        higher = values > self.leader_value + self.rounding
        better = higher.to(batch.point.dtype).view(batch.column_shape)
        self.leader.lerp_(batch.point, better)
        self.leader_heading.lerp_(self.heading, better)
        self.leader_value = torch.where(higher, values, self.leader_value)
        self.latest = values

    def review(self, batch: Batch, window: int, norm: Norm, epsilon: float) -> None:
        """At a checkpoint: cut the steps of examples that make no progress, and send them back to their best point."""
        if norm == "l1":
            back = self._sparsen(batch, epsilon)
        else:
            back = (self.rises < RISING * window) | (~self.halved & (self.leader_value <= self.value_then))
            self.size = torch.where(back, self.size / 2, self.size)
        self.halved, self.value_then = back, self.leader_value.clone()
        self.rises.zero_()
        weight = back.to(batch.point.dtype).view(batch.column_shape)
        batch.point.lerp_(self.leader, weight)
        self.heading.lerp_(self.leader_heading, weight)
        self.previous.lerp_(self.leader, weight)

    def _sparsen(self, batch: Batch, epsilon: float) -> Tensor:
        """Steps as sparse as the best point; their size falls while the sparsity stays, and starts anew after."""
        count = (self.leader != batch.clean).flatten(1).sum(dim=1)
        back = count < 0.95 * self.differing
        self.size = torch.where(back, epsilon, (self.size / 1.5).clamp_min(epsilon / 10))
        self.moving, self.differing = (count / 1.5).long().clamp_min(1), count
        return back

    def move(self, batch: Batch, norm: Norm, epsilon: float) -> None:
        """One step from the batch's points, which it replaces."""
        size = self.size.view(batch.column_shape)
        if norm == "l1":
            step = sparse_direction(self.heading, self.moving).mul_(size)
            offset = (batch.point - batch.clean).add_(step)
            self.previous, batch.point = batch.point, _settle(batch, offset, norm, epsilon)
            return
        target = torch.addcmul(batch.point, self.heading, size)
        if norm != "linf":
            target = _settle(batch, target.sub_(batch.clean), norm, epsilon)
        target.clamp_(batch.lowest, batch.highest)
        # x + 0.75 (z - x) + 0.25 (x - x_previous)
        target.mul_(1 - MOMENTUM).add_(batch.point, alpha=2 * MOMENTUM).sub_(self.previous, alpha=MOMENTUM)
        if norm != "linf":
            target = _settle(batch, target.sub_(batch.clean), norm, epsilon)
        self.previous, batch.point = batch.point, target.clamp_(batch.lowest, batch.highest)


def _heading(batch: Batch, gradient: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    gradient, _ = to_size_1(gradient)
    if norm == "l2":
        return steepest_direction(gradient, "l2")
    stuck = torch.where(gradient > 0, batch.point >= batch.highest, batch.point <= batch.lowest)
    return gradient.masked_fill(stuck, 0)


def _settle(batch: Batch, offset: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """The point of the ball, and for l1 of the box too, nearest to clean + offset."""
    if norm == "l1":
        lowest, highest = batch.lowest - batch.clean, batch.highest - batch.clean
        return (
            project_to_l1_box(offset, lowest, highest, epsilon).add_(batch.clean).clamp_(batch.lowest, batch.highest)
        )
    return project_to_ball(offset, norm, epsilon).add_(batch.clean)
