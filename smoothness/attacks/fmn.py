"""Fast minimum norm: a small perturbation in any norm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import Norm, project_to_ball
from smoothness.activations.surrogates import SHAPES
from smoothness.attacks._descent import descend
from smoothness.attacks._nearest import backward_pass, put_back_beyond, without_radius
from smoothness.attacks._search import check_batch_size, searching
from smoothness.attacks.losses import LOSSES
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class FMN:
    """Closest adversarial input by a fast minimum-norm search (Pintor et al. 2021, arXiv 2102.12827).

    Repeats δ <- P(δ + α ρ d) with d the steepest direction of cross-entropy, α falling from 1 along a cosine and
    P the projection onto the ball of radius ρ in the threat's norm. ρ is where the linearised margin vanishes
    until an adversarial point is found; then it shrinks by the factor 1 - γ while x + δ is adversarial, never
    above the best distance, and grows by 1 + γ while it is not, γ falling with α. Departures from the paper are
    those of `DDN`: starts at the nearest linearised boundaries, steps in rounds, and the line search. The
    distance found is an upper bound on the smallest one. The closest adversarial point is returned, and the
    clean input where there is none, or none within epsilon.

    Args:
        threat: norm "linf", "l2" or "l1", and the bounds; epsilon, in input units, may be None: any distance
            counts as success.
        steps: gradient steps, at most; examples whose distance has settled stop before.
        restarts: starts, at most, at the boundaries of as many classes; those of classes clearly farther than the
            nearest are left out. All count towards `steps`, of which there must be 10 (l2), 12 (linf) or 16 (l1) for
            each. When None 3, but 1 in l1, where the closest after one round is as often as not the wrong choice.
        gamma: by which the radius changes in the first step, between 0 and 1.
        targeted: y is the class to reach, and success is its being predicted; what is predicted so from the
            start counts as "clean_error" at distance 0.
        surrogate: shape of the activations' backward pass (`surrogate_gradient`); the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once, each with all its starts; all when None. Halved, with a warning, when memory
            runs out.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`, except that epsilon may be None.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "bias": torch.zeros(2)})
    >>> x, y = torch.tensor([[0.5, 0.25]]), torch.tensor([0])
    >>> [round(float(FMN(ThreatModel(norm))(model, x, y).distance), 3) for norm in ("linf", "l2", "l1")]
    [0.071, 0.1, 0.125]
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int | None = None
    gamma: float = 0.05
    targeted: bool = False
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        without_radius(self.threat)
        check_count("steps", self.steps)
        if self.restarts is not None:
            check_count("restarts", self.restarts)
        if check_positive("gamma", self.gamma) >= 1:
            raise ValueError(f"gamma must be below 1, got {self.gamma!r}")
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name, such as "fmn" or "fmn-tanh"."""
        return "-".join(["fmn", *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        threat = without_radius(self.threat)
        with searching(model, x, y, threat, self.batch_size, targeted=self.targeted) as search:
            with backward_pass(model, self.surrogate, self.surrogate_width):
                search.look_at_clean(LOSSES["margin"], keep_logits=True)
                starts = self.restarts or (1 if self.threat.norm == "l1" else 3)
                work = partial(descend, search, partial(_project, self.threat.norm), self.steps, starts, self.gamma)
                search.in_chunks(search.targets(dropping=False), work)
            put_back_beyond(search, self.threat.epsilon)
            return search.close(x.device)


def _project(norm: Norm, offsets: Tensor, radius: Tensor) -> Tensor:
    """Offsets in the ball of each one's `radius`."""
    smallest = torch.finfo(radius.dtype).tiny
    return project_to_ball(offsets.flatten(1), norm, radius.flatten(1).clamp_min(smallest)).view_as(offsets)
