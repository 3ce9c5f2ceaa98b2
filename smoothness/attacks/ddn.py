"""Decoupled direction and norm: a small l2 perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import vector_norm
from smoothness.activations.surrogates import SHAPES
from smoothness.attacks._descent import descend
from smoothness.attacks._nearest import backward_pass, put_back_beyond, without_radius
from smoothness.attacks._search import check_batch_size, searching
from smoothness.attacks.losses import LOSSES
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class DDN:
    """Closest adversarial input in l2, by decoupled direction and norm (Rony et al. 2019, arXiv 1811.09600).

    Repeats δ <- ρ (δ + α ρ g) / |δ + α ρ g| with g the unit gradient of cross-entropy and α falling from 1 along
    a cosine; ρ shrinks by the factor 1 - γ while x + δ is adversarial and grows by 1 + γ while it is not, γ
    falling with α. Departures from the paper: δ starts at the nearest linearised boundaries, as in DeepFool, and
    the start that comes closest goes on alone; steps come in rounds of 10, of which the last three project
    the clean input onto the boundary linearised at the best point; the best point is drawn in by line search; and
    examples whose distance has settled to a thousandth leave. The distance found is an upper bound on the
    smallest one. The closest adversarial point is returned, and the clean input where there is none, or none
    within epsilon.

    Args:
        threat: norm "l2" and the bounds; epsilon, in input units, may be None: any distance counts as success.
        steps: gradient steps, at most; examples whose distance has settled stop before.
        restarts: starts, at most, at the boundaries of as many classes; those of classes clearly farther than the
            nearest are left out. All count towards `steps`, of which there must be 10 for each.
        gamma: by which the radius changes in the first step, between 0 and 1.
        targeted: y is the class to reach, and success is its being predicted; what is predicted so from the
            start counts as "clean_error" at distance 0.
        surrogate: shape of the activations' backward pass (`surrogate_gradient`); the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once, each with all its starts; all when None. Halved, with a warning, when memory
            runs out.

    Raises:
        ValueError: a norm other than "l2", or settings out of range; when called, as `PGD`.
        TypeError, RuntimeError: as `PGD`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "bias": torch.zeros(2)})
    >>> result = DDN(ThreatModel("l2"))(model, torch.tensor([[0.5, 0.25]]), torch.tensor([0]))
    >>> print(f"{float(result.distance):.3f}")  # margin 0.5 over |(3, -4)|
    0.100
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 3
    gamma: float = 0.05
    targeted: bool = False
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        without_radius(self.threat)
        if self.threat.norm != "l2":
            raise ValueError(f"DDN needs norm 'l2', got {self.threat.norm!r}; use FMN")
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        if check_positive("gamma", self.gamma) >= 1:
            raise ValueError(f"gamma must be below 1, got {self.gamma!r}")
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name, such as "ddn" or "ddn-tanh"."""
        return "-".join(["ddn", *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        threat = without_radius(self.threat)
        with searching(model, x, y, threat, self.batch_size, targeted=self.targeted) as search:
            with backward_pass(model, self.surrogate, self.surrogate_width):
                search.look_at_clean(LOSSES["margin"], keep_logits=True)
                work = partial(descend, search, _rescale, self.steps, self.restarts, self.gamma)
                search.in_chunks(search.targets(dropping=False), work)
            put_back_beyond(search, self.threat.epsilon)
            return search.close(x.device)


def _rescale(offsets: Tensor, radius: Tensor) -> Tensor:
    """Offsets of length `radius`; zero where an offset is zero."""
    length = vector_norm(offsets, "l2").view_as(radius)
    return offsets * (radius / length.clamp_min(torch.finfo(length.dtype).tiny))
