"""What a cascade returns beside an attack's answer: who broke what, at which cost, and what may have been missed."""

from __future__ import annotations

from dataclasses import dataclass

from smoothness.attacks.counting import highest_share
from smoothness.attacks.result import AttackResult, Passes


@dataclass(frozen=True)
class StageRecord:
    """One stage of a cascade.

    Attributes:
        name: "noise", "native", "check", "surrogate", "continuation", "transfer", "evolution", "every-class",
            "square" or "boundary".
        tried: examples that it worked on.
        fooled: those of them that it turned.
        passes: forward and backward example-passes spent.
        note: why it was left out, for some or all examples; empty otherwise.
    """

    name: str
    tried: int
    fooled: int
    passes: Passes
    note: str = ""


@dataclass(frozen=True)
class Missed:
    """What the later stages would have turned had they run on all survivors, seen on a random sample of them.

    Attributes:
        survivors: examples that the first stages left.
        sampled: how many of them the later stages ran on.
        found: how many of those they turned.
        confidence: of the bound.
    """

    survivors: int
    sampled: int
    found: int
    confidence: float = 0.95

    @property
    def highest_share(self) -> float:
        """One-sided exact binomial bound on the share of survivors that the later stages turn.

        >>> round(Missed(survivors=100, sampled=10, found=0).highest_share, 4)  # 1 - 0.05^(1/10)
        0.2589
        """
        return highest_share(self.found, self.sampled, self.confidence)

    @property
    def most(self) -> float:
        """Bound on the number of examples missed: `highest_share` of the survivors not sampled."""
        return self.highest_share * (self.survivors - self.sampled)


@dataclass(frozen=True, eq=False)
class CascadeResult(AttackResult):
    """An `AttackResult` that also says how it was found.

    Attributes:
        broken_by: the stage that turned each example; "" for clean errors, survivors and failures.
        stages: what each stage did, in order.
        missed: what the later stages may have missed; None when they ran on every survivor.
        why_all: why the later stages ran on all survivors although effort is "standard"; "" otherwise.
    """

    broken_by: tuple[str, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    missed: Missed | None = None
    why_all: str = ""

    @property
    def robust_accuracy(self) -> tuple[float, float]:
        """Share of the examples without model failure that survived: as bounded by sampling, and as attacked.

        The attacked share is an upper bound on robust accuracy. The lower end is what the attacked share would at
        least be had every stage run on every survivor; it is no certificate. NaN when every example failed.
        """
        valid = sum(status != "model_failure" for status in self.status)
        left = sum(status == "survived" for status in self.status)
        if not valid:
            return float("nan"), float("nan")
        return (left - (self.missed.most if self.missed else 0.0)) / valid, left / valid
