"""Points made for one model, tried on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness._model_calls import check_model
from smoothness._state import probing
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.apgd import APGD
from smoothness.attacks.result import Attack, AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class Transfer:
    """Attack a source model, and see which of the points fool the target (Papernot et al. 2016, arXiv 1605.07277).

    With `guided`, each attack first follows the source's gradient while the target's scores set the loss and judge
    every point visited: it ends where the target is fooled, not where the source is. Then, on the examples
    left, each attack runs on the source alone and its last points are tried. Success is read on the
    target, and is a lower bound on its vulnerability.

    Args:
        threat: the ball and the bounds, in input units.
        source: the model that is attacked: same inputs and classes as the target, and it has a gradient.
        attack: one attack or several, with the same threat; by default 50 steps of APGD with the cross-
            entropy and with the margin, run to the end. Attacks that stop at a first success stop at points that
            hardly fool the source and transfer badly: pass drop_fooled=False.
        guided: False for plain transfer: only the last points count.
        seed: of the default attacks.
        batch_size: examples at once where points are tried, and in the default attacks; all when None.

    Raises:
        ValueError: an attack with another norm, radius or bounds, or attacks of which only some are targeted; outputs
            of the two models that differ in shape; as the attacks.
        TypeError: a source that is no module; as the attacks.
        RuntimeError: as the attacks.

    >>> weights = {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)}
    >>> source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> for model, factor in ((source, 1.0), (target, 5.0)):
    ...     _ = model.load_state_dict({name: factor * value for name, value in weights.items()})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> Transfer(ThreatModel("linf", 0.1), source)(target, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    source: nn.Module = field(repr=False)
    attack: Attack | Sequence[Attack] | None = None
    guided: bool = True
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_model(self.source)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)
        if not self.attacks:
            raise ValueError("attack is empty; give at least one attack, or None for the default ones")
        for attack in self.attacks:
            if attack.threat.key() != self.threat.key():
                raise ValueError(
                    f"the threat of {type(attack).__name__}, {attack.threat!r}, is not Transfer's {self.threat!r}; "
                    "give both the same"
                )
        if len({_is_targeted(attack) for attack in self.attacks}) > 1:
            raise ValueError("some attacks are targeted and some are not; run them in a Transfer each")

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks that run on the source."""
        if self.attack is None:
            return tuple(
                APGD(self.threat, steps=50, loss=loss, seed=self.seed, drop_fooled=False, batch_size=self.batch_size)
                for loss in ("ce", "margin")
            )
        return tuple(self.attack) if isinstance(self.attack, Sequence) else (self.attack,)

    @property
    def label(self) -> str:
        """Readable name: "transfer", or "transfer-plain" when not guided."""
        return "transfer" if self.guided else "transfer-plain"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        targeted = _is_targeted(self.attacks[0])
        with searching(model, x, y, self.threat, self.batch_size, targeted=targeted) as search:
            search.look_at_clean()
            self._check_outputs(search)
            if self.guided:
                guided = _SourceGradient(self.source, model)
                for attack in self.attacks:
                    self._try(search, attack, guided, forwards=2)
            for attack in self.attacks:
                self._try(search, attack, self.source, forwards=1)
            return search.close(x.device)

    def _check_outputs(self, search: Search) -> None:
        with torch.no_grad(), probing(self.source):
            ours, theirs = search.run(search.inputs[:1]), self.source(search.inputs[:1])
        if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
            got = tuple(theirs.shape) if isinstance(theirs, Tensor) else type(theirs).__name__
            raise ValueError(
                f"the source must give outputs of the target's shape {tuple(ours.shape)} for one example, got {got}"
            )

    def _try(self, search: Search, attack: Attack, model: nn.Module, forwards: int) -> None:
        """Run one attack on the examples left, and see which points fool the target."""
        rows = search.targets(dropping=True)
        if len(rows) == 0:
            return
        found = attack(model, search.inputs, _labels_to_attack(search, model, rows))
        search.forward += forwards * found.passes.forward
        search.backward += found.passes.backward
        search.in_chunks(rows, partial(_offer, search, found.inputs.to(search.inputs) - search.inputs))


def _labels_to_attack(search: Search, model: nn.Module, rows: Tensor) -> Tensor:
    """The labels at `rows`; elsewhere such that the attack takes the example for settled, and leaves it alone.

    All examples go to each attack, so that the random start of one does not depend on which others have fallen.
    """
    predicted = torch.zeros_like(search.labels)

    def predict(part: Tensor) -> None:
        with torch.no_grad(), probing(model):
            outputs = model(search.inputs[part])
        wanted = outputs.argmax(dim=1)
        predicted[part] = wanted if search.targeted else (wanted + 1) % outputs.shape[1]

    search.in_chunks(torch.arange(len(predicted), device=predicted.device), predict)
    predicted[rows] = search.labels[rows]
    return predicted


def _offer(search: Search, offsets: Tensor, rows: Tensor) -> None:
    batch = search.batch(rows, offsets)
    search.judge(batch)
    search.store(batch)


def _is_targeted(attack: Attack) -> bool:
    return getattr(attack, "targeted", False) is True


class _SourceGradient(nn.Module):
    """The target's scores to the bit, with the source's gradient."""

    def __init__(self, source: nn.Module, target: nn.Module) -> None:
        super().__init__()
        self.source, self.target = source, target

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the target."""
        with torch.no_grad():
            scores: Tensor = self.target(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return scores
        source = self.source(x)
        following: Tensor = (source - source.detach()).nan_to_num(0)
        return scores + following
