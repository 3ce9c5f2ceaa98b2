"""Continuation: from a smoothed network to the network itself, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_positive
from smoothness._norms import random_in_ball
from smoothness.activations.surrogates.mollified_forward import MollifiedForward, mollified_forward
from smoothness.attacks._climb import Climb, checkpoints
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.losses import OBJECTIVES, Aim, logit_scale
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

_SIGMAS = (0.5, 0.25, 0.125, 0.0625, 0.03125)
_TARGETS = 3  # restarts that aim at a class, between two that aim at any
_SOFTER = 0.4  # of the usual scale of logits in the cross-entropy: those of a mollified network are smaller
_SHRINK_AT = 0.9


@dataclass(frozen=True)
class Continuation:
    """The same weights with all activations mollified, sharpened step by step from large σ to the real ones.

    At each σ, APGD (Croce and Hein 2020, arXiv 2003.01690) climbs the loss of the network whose activations are
    φ_σ(z) = E φ(z + σu), u standard normal, from where the σ before it left off; every point it visits is judged
    by the real network, and the point of lowest real margin is kept. Far from the boundary a wide σ gives a
    gradient where the real one is zero or misleads; a narrow one is exact where it matters. One rule for
    steps, kinks, smooth activations and foreign elementwise modules: nothing depends on an activation's name,
    and σ is in units of the standard deviation of each example's inputs to the activation. Success is a lower
    bound on vulnerability.

    Activations found are those of `surrogate_gradient`. k_winners fades features in around its threshold; other
    activations of several features stay as they are.

    Args:
        threat: the ball and the bounds, in input units.
        sigmas: falling widths; 1/2, 1/4, 1/8, 1/16, 1/32 when None.
        steps: gradient steps at each σ. A step costs a forward and a backward pass of the mollified network and
            a forward pass of the real one.
        restarts: runs from independent random starts, by turns with the cross-entropy and with the margin towards
            the likeliest, second and third likeliest wrong class.
        targeted: y is the class to reach, and success is its being predicted.
        seed: of the random starts; drawn for all examples, so that the batch size does not matter.
        batch_size: examples at once; all when None. Halved, with a warning, when memory runs out.

    Raises:
        ValueError: as `PGD`; widths that do not fall; a model without activations to mollify.
        TypeError, RuntimeError: as `PGD`.

    >>> step = nn.Sequential(nn.Linear(2, 2), nn.Threshold(0, 0), nn.Linear(2, 2))
    >>> _ = [layer.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)}) for layer in (step[0], step[2])]
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> Continuation(ThreatModel("linf", 0.1))(step, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    sigmas: tuple[float, ...] | None = None
    steps: int = 24
    restarts: int = 1
    targeted: bool = False
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        if self.sigmas is not None:
            widths = tuple(check_positive("sigmas", sigma) for sigma in self.sigmas)
            if not widths or any(after >= before for before, after in pairwise(widths)):
                raise ValueError(f"sigmas must fall, and there must be at least one, got {self.sigmas!r}")
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "continuation"."""
        return "continuation"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        generator = torch.Generator().manual_seed(self.seed)
        with searching(model, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            search.look_at_clean(keep_logits=True)
            with mollified_forward(model) as dial:
                search.in_chunks(search.targets(dropping=True), partial(_record, search, dial))
                if not dial.places and bool(search.attacked.any()):
                    raise ValueError("Continuation found no activation to mollify; use APGD or Square")
                for restart in range(self.restarts):
                    offsets = random_in_ball(search.inputs, self.threat.norm, search.epsilon, generator)
                    rows = search.targets(dropping=True)
                    search.in_chunks(rows, partial(self._sharpen, search, dial, offsets, restart % (_TARGETS + 1)))
            return search.close(x.device)

    def _sharpen(self, search: Search, dial: MollifiedForward, offsets: Tensor, turn: int, rows: Tensor) -> None:
        """One run: all steps at all widths from one start."""
        batch = search.batch(rows, offsets)
        loss, aim = self._aim(search, turn, rows)
        norm, epsilon, reviews = self.threat.norm, search.epsilon, checkpoints(self.steps, self.threat.norm)
        for sigma in self.sigmas or _SIGMAS:
            climb = Climb.start(batch, norm, epsilon)
            for step in range(self.steps):
                with dial.turned_to(sigma, batch.rows):
                    leaf, outputs = search.record(batch.point)
                values, ascent = OBJECTIVES[loss](outputs.detach(), batch.column, aim)
                climb.take(batch, search.signed(values), search.pull_back(leaf, outputs, search.signed(ascent)), norm)
                if step in reviews:
                    climb.review(batch, reviews[step], norm, epsilon)
                climb.move(batch, norm, epsilon)
                search.judge(batch)
                if search.retire_fooled(batch, _SHRINK_AT, climb, aim) and len(batch) == 0:
                    return
        search.store(batch)

    def _aim(self, search: Search, turn: int, rows: Tensor) -> tuple[str, Aim]:
        assert search.clean_logits is not None  # kept by the look at the clean inputs
        logits, column = search.clean_logits[rows], search.labels[rows].unsqueeze(1)
        scale = logit_scale(logits)
        if turn == 0 or self.targeted:
            return ("margin" if turn % 2 else "ce"), Aim(scale * _SOFTER, column)
        order = logits.scatter(1, column, -torch.inf).argsort(dim=1, descending=True)
        place = min(turn, logits.shape[1] - 1) - 1
        return "dlr-targeted", Aim(scale, order[:, place : place + 1])


def _record(search: Search, dial: MollifiedForward, rows: Tensor) -> None:
    with dial.recording(rows, len(search.inputs)):
        search.look(search.inputs[rows], search.labels[rows].unsqueeze(1))
