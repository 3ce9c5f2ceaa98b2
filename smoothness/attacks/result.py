"""What an attack is and what it returns: the contract every attack keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from smoothness.threat import ThreatModel

STATUSES = ("clean_error", "fooled", "survived", "model_failure")


class Passes(NamedTuple):
    """Cost in example-passes: one example sent once through the model counts one.

    >>> Passes(forward=30, backward=10).total
    40
    """

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward passes together."""
        return self.forward + self.backward


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Adversarial inputs, example by example, checked on the real forward pass.

    Attributes:
        inputs: shape of x, on x's device. Fooled examples hold the adversarial input, survivors the visited
            input of lowest margin (of minimal-norm attacks, the clean one); clean errors and model failures
            stay unchanged.
        success: (n,) bool; the model misclassifies `inputs`, or a targeted attack's class is predicted.
            Clean errors count, model failures do not.
        distance: (n,) float64 |inputs - x| in the threat's norm; 0 for clean errors, infinite where
            there is no success.
        passes: forward and backward example-passes spent, the checks included.
        status: one of `STATUSES` per example: "clean_error" (misclassified before any change, or predicted
            as a targeted attack's class already), "fooled", "survived", "model_failure" (NaN or infinite
            outputs on the clean input, on the input found, or at any point visited by an example that was
            not fooled).
        zero_gradient: (n,) bool; the gradient that the attack followed is exactly zero (or missing)
            at the clean input. With a surrogate this is the surrogate's gradient. None for attacks
            without gradients.
    """

    inputs: Tensor
    success: Tensor
    distance: Tensor
    passes: Passes
    status: tuple[str, ...]
    zero_gradient: Tensor | None = None


class Attack(Protocol):
    """Anything that looks for misclassified inputs within a threat model.

    An attack is a frozen dataclass with `threat` first and every setting a field. Called with a model
    that gives (n, classes) scores, floating inputs x of shape (n, ...) and labels y of shape (n,), it
    returns an `AttackResult` and keeps these promises:

    - inputs returned lie inside the ball and the bounds; violations beyond 1e-6 raise RuntimeError;
    - success is read from a last forward pass of exactly the inputs returned;
    - the model is attacked in evaluation mode; its mode and its parameters' gradients and flags are as
      before, also after an exception; no global random state is used, only `seed`;
    - examples do not influence each other: the result does not depend on the batch size beyond rounding;
    - missing gradients count as zero.

    Success is a lower bound on the vulnerability: another attack may find more.
    """

    @property
    def threat(self) -> ThreatModel:
        """What the adversary may do."""
        ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Look for inputs within the threat model that the model misclassifies."""
        ...
