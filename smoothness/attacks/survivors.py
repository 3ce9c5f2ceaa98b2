"""The examples that a cascade still has to turn, what is measured of their gradients, and what each stage did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smoothness.attacks._search import Search
from smoothness.attacks.cascade_result import StageRecord
from smoothness.attacks.observing import Observed
from smoothness.attacks.result import Attack, Passes


@dataclass
class Survivors:
    """All examples of one cascade, and which of them are left.

    Attributes:
        search: the best points so far, and the passes.
        seed: of the points at which gradients are looked at.
        records: one per stage done.
        broken_by: stage that turned each example.
        observed: native gradients around every example.
        surrogates: shape, width and where their gradients differ from the native ones, once looked at; or why
            there are none.
    """

    search: Search
    seed: int
    observed: Observed
    records: list[StageRecord] = field(default_factory=list)
    broken_by: dict[int, str] = field(default_factory=dict)
    surrogates: list[tuple[str, float, Tensor]] | str | None = None

    def left(self) -> Tensor:
        """Rows that are classified correctly and not yet turned."""
        return self.search.targets(dropping=True)

    def still(self, rows: Tensor) -> Tensor:
        """Those of the rows that are not yet turned."""
        return rows[self.search.worst[rows] <= 0]

    @contextmanager
    def stage(self, name: str, rows: Tensor, note: str = "") -> Iterator[None]:
        """Record what is done inside on the rows, as one stage; a second time adds to the first."""
        before, start = self.still(rows), (self.search.forward, self.search.backward)
        yield
        turned = before[self.search.worst[before] > 0].tolist()
        self.broken_by |= dict.fromkeys(turned, name)
        passes = Passes(self.search.forward - start[0], self.search.backward - start[1])
        self.record(StageRecord(name, len(before), len(turned), passes, note))

    def record(self, done: StageRecord) -> None:
        """Add a stage, to what it did before on other examples where it did."""
        for place, old in enumerate(self.records):
            if old.name == done.name:
                passes = Passes(*(a + b for a, b in zip(old.passes, done.passes, strict=True)))
                both = StageRecord(
                    old.name, old.tried + done.tried, old.fooled + done.fooled, passes, old.note or done.note
                )
                self.records[place] = both
                return
        self.records.append(done)

    def use(self, attack: Attack, rows: Tensor, times: int = 1, *, beyond: bool = False) -> int:
        """Run an attack on those of the rows that are left, and keep the better points; how many were turned.

        With `times`, on so many copies of each side by side: short runs in place of one long one. Attacks that look
        `beyond` the ball may meet failing outputs there, which are no failures within the threat model.
        """
        rows = self.still(rows)
        if len(rows) == 0:
            return 0
        search = self.search
        repeated = rows.repeat(times)
        found = attack(search.model, search.inputs[repeated], search.labels[repeated])
        search.forward += found.passes.forward
        search.backward += found.passes.backward
        failed = torch.tensor([status == "model_failure" for status in found.status], device=rows.device)
        if not beyond:
            search.spoiled[repeated[failed]] = torch.nan
        for points in found.inputs.view(times, len(rows), *found.inputs.shape[1:]):
            self.offer(points, rows)
        return int((search.worst[rows] > 0).sum())

    def turned_by(self, attack: Attack, rows: Tensor) -> Tensor:
        """Which of the rows an attack of its own turns, whoever else has; the better points are kept."""
        if len(rows) == 0:
            return torch.zeros_like(rows, dtype=torch.bool)
        search = self.search
        found = attack(search.model, search.inputs[rows], search.labels[rows])
        search.forward += found.passes.forward
        search.backward += found.passes.backward
        self.offer(found.inputs, rows)
        return found.success

    def skip(self, name: str, why: str) -> None:
        """Record a stage that was left out."""
        self.record(StageRecord(name, 0, 0, Passes(0, 0), why))

    def offer(self, points: Tensor, rows: Tensor) -> None:
        """Keep the points (one per row) whose margin loss is the highest so far."""
        search = self.search

        def judge(place: Tensor) -> None:
            chunk = rows[place]
            loss = search.look(points[place], search.labels[chunk].unsqueeze(1))[1].to(search.worst.dtype)
            better = loss > search.worst[chunk]  # never for NaN
            search.best[chunk[better]] = points[place][better]
            search.worst[chunk[better]] = loss[better]

        search.in_chunks(torch.arange(len(rows), device=rows.device), judge)
