"""The contract of an attack, checked on one model and one batch, with the forward pass as the judge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._norms import NORMS, vector_norm
from smoothness.attacks.result import STATUSES, AttackResult
from smoothness.testing.surroundings import Surroundings, is_frozen
from smoothness.threat import ThreatModel

TOLERANCE = 1e-6


def check_attack(attack: Any, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Check an attack against the contract in `smoothness.attacks.Attack`.

    With the attack's own threat model and with each other norm that it takes (one that it refuses with a ValueError
    is left out): the inputs returned lie in the ball and the bounds; success is what a forward pass of them says;
    distance is theirs; examples wrong before any change count as successes at distance 0 and stay unchanged; a
    second call gives the same; an example alone gets the same status. Model, inputs, random state and grad mode
    stay. Pass a batch in which some examples are misclassified: else the rule on clean errors is not tried.

    Raises:
        AssertionError: with everything found wrong.

    >>> from smoothness.attacks import PGD
    >>> model = nn.Linear(2, 2)
    >>> check_attack(PGD(ThreatModel("linf", 0.1)), model, torch.rand(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    """
    threat = getattr(attack, "threat", None)
    problems = []
    if not is_frozen(attack):
        problems.append("is not a frozen dataclass: its settings can change between two calls")
    if isinstance(threat, ThreatModel):
        problems += _problems(attack, threat, model, x, y)
        for norm in NORMS:
            if norm == threat.norm or not is_frozen(attack):
                continue
            other = replace(threat, norm=norm)  # type: ignore[arg-type]  # a name from NORMS
            try:
                changed: Any = replace(attack, threat=other)
                changed(model, x[:1], y[:1])
            except ValueError:
                continue  # refused, which is honest
            problems += [f"with {norm}: {problem}" for problem in _problems(changed, other, model, x, y)]
    else:
        problems.append("has no `threat` of type ThreatModel")
    if problems:
        raise AssertionError(f"{attack!r}:\n" + "\n".join(f"  {problem}" for problem in dict.fromkeys(problems)))


def _problems(attack: Any, threat: ThreatModel, model: nn.Module, x: Tensor, y: Tensor) -> Iterator[str]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        before = Surroundings(model, x, y)
        found = attack(model, x, y)
        yield from before.changes()
        with torch.no_grad():
            quiet = Surroundings(model, x, y)
            again = attack(model, x, y)
            yield from (f"under torch.no_grad, {change}" for change in quiet.changes())
        single = attack(model, x[:1], y[:1])
        model.eval()
        if not isinstance(found, AttackResult):
            yield f"returns {type(found).__name__}, not an AttackResult"
            return
        with torch.no_grad():
            fits = found.inputs.shape == x.shape and found.inputs.dtype == x.dtype
            clean, outputs = model(x), model(found.inputs) if fits else None
    finally:
        for module, training in modes:
            module.training = training
    n = len(x)
    if outputs is None or found.inputs.requires_grad:
        yield f"inputs must be as x: shape {tuple(x.shape)}, {x.dtype}, without a graph"
        return
    if found.success.shape != (n,) or found.success.dtype != torch.bool or found.distance.shape != (n,):
        yield f"success must be ({n},) bool and distance ({n},)"
        return
    if len(found.status) != n or not set(found.status) <= set(STATUSES):
        yield f"status must hold one of {', '.join(STATUSES)} per example"
        return
    yield from _geometry(found, threat, x)
    yield from _verdicts(found, clean, outputs, x, y)
    if not torch.equal(found.inputs, again.inputs) or not torch.equal(found.success, again.success):
        yield "a second call gives another result"
    if single.status[:1] != found.status[:1]:
        yield f"the first example alone is {single.status[0]}, in the batch {found.status[0]}"
    if found.passes.forward < n:
        yield f"passes counts {found.passes.forward} forward passes for {n} examples"


def _geometry(found: AttackResult, threat: ThreatModel, x: Tensor) -> Iterator[str]:
    lengths = vector_norm((found.inputs - x).double(), threat.norm)
    if threat.epsilon is not None and (lengths > threat.epsilon + TOLERANCE).any():
        yield f"inputs lie {float(lengths.max()):.6g} from x in {threat.norm}, beyond epsilon {threat.epsilon:.6g}"
    if threat.bounds is not None:
        low, high = (torch.as_tensor(bound, dtype=x.dtype) for bound in threat.bounds)
        if ((found.inputs < low - TOLERANCE) | (found.inputs > high + TOLERANCE)).any():
            yield "inputs lie outside the threat model's bounds"
    won = found.success & torch.tensor([status == "fooled" for status in found.status])
    if not torch.allclose(found.distance[won].double(), lengths[won], rtol=1e-4, atol=TOLERANCE):
        yield f"distance is not |inputs - x| in {threat.norm}"
    if not (found.distance[~found.success] == math.inf).all():
        yield "distance must be infinite where there is no success"


def _verdicts(found: AttackResult, clean: Tensor, outputs: Tensor, x: Tensor, y: Tensor) -> Iterator[str]:
    failed = torch.tensor([status == "model_failure" for status in found.status])
    wrong = (outputs.argmax(dim=1) != y) & ~failed
    if not torch.equal(found.success, wrong):
        rows = (found.success != wrong).nonzero().flatten().tolist()
        yield f"success is not what the forward pass says in rows {rows[:5]}"
    errors = (clean.argmax(dim=1) != y) & clean.isfinite().all(dim=1)
    said = torch.tensor([status == "clean_error" for status in found.status])
    if not torch.equal(errors, said):
        yield "clean_error must be the status of what is misclassified before any change, and of nothing else"
    if not found.success[errors].all() or not (found.distance[errors] == 0).all():
        yield "clean errors must count as successes at distance 0"
    if not torch.equal(found.inputs[errors], x[errors]):
        yield "clean errors must stay unchanged"
    fooled = torch.tensor([status == "fooled" for status in found.status])
    if not torch.equal(fooled, found.success & ~said):
        yield 'status must be "fooled" exactly where there is success without a clean error'
