"""Which examples are measured: the first of what the caller gives, tensors or a loader."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from smoothness._checks import check_inputs, check_labels
from smoothness._model_calls import call_model
from smoothness._state import probing
from smoothness.threat import ThreatModel

DEFAULT_EPSILON = 8 / 255


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one panel.

    Attributes:
        inputs: (n, ...) on the model's device, without a graph.
        labels: (n,), or None.
        source: such as "the first 200 of 1000 examples".
    """

    inputs: Tensor
    labels: Tensor | None
    source: str


def gather(x: Any, y: Any, count: int, device: torch.device) -> Examples:
    """The first `count` examples, checked; batches of a loader beyond them are not asked for.

    Raises:
        TypeError: neither a tensor nor a DataLoader, batches of another form, types that do not fit.
        ValueError: empty, NaN, or labels that do not fit the inputs.

    >>> gather(torch.zeros(5, 2), None, 3, torch.device("cpu")).source
    'the first 3 of 5 examples'
    """
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("x is a DataLoader, which yields its own labels; leave y out")
        inputs, labels, source = _from_loader(x, count)
    else:
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor or a DataLoader, got {type(x).__name__}; use torch.as_tensor(...)")
        check_inputs(x)
        labels = None if y is None else check_labels(y, len(x))[:count]
        inputs = x[:count]
        source = _first(len(inputs), len(x))
    inputs = check_inputs(inputs).detach().clone().to(device)
    return Examples(inputs, None if labels is None else labels.detach().clone().to(device), source)


def _from_loader(loader: DataLoader[Any], count: int) -> tuple[Tensor, Tensor | None, str]:
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    found, before = 0, None if loader.generator is None else loader.generator.get_state()
    for batch in loader:
        here, there = _pair(batch)
        check_inputs(here)
        inputs.append(here[: count - found])
        if there is not None:
            labels.append(check_labels(there, len(here))[: count - found])
        found += len(inputs[-1])
        if found >= count:
            break
    if loader.generator is not None and before is not None:
        loader.generator.set_state(before)
    if not inputs:
        raise ValueError("the DataLoader yields no batch; pass at least one example")
    if labels and len(labels) != len(inputs):
        raise ValueError("some of the DataLoader's batches have labels and some have none")
    if len({part.shape[1:] for part in inputs}) > 1:
        raise ValueError(
            f"the DataLoader's inputs change their shape, from {tuple(inputs[0].shape[1:])} to "
            f"{next(tuple(p.shape[1:]) for p in inputs if p.shape[1:] != inputs[0].shape[1:])}; pad or resize them"
        )
    try:
        total = len(loader.dataset)  # type: ignore[arg-type]  # not every data set has a length
    except TypeError:
        total = None
    return torch.cat(inputs), torch.cat(labels) if labels else None, _first(found, total)


def _pair(batch: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) in (1, 2) and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1] if len(batch) == 2 else None
    shown = f"a {type(batch).__name__}"
    if isinstance(batch, (tuple, list)):
        shown += f" of {len(batch)}: {', '.join(type(part).__name__ for part in batch)}"
    raise TypeError(f"the DataLoader must yield (inputs, labels) tensors, got {shown}; use collate_fn= or a data set")


def _first(count: int, total: int | None) -> str:
    if total == count:
        return f"all {count} examples" if count > 1 else "the only example"
    return f"the first {count} examples" if total is None else f"the first {count} of {total} examples"


def check_runs(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's output for the first example; what its forward raises is said in one sentence.

    Raises:
        ValueError: the model does not take inputs of this shape, or does not give one row of outputs.
        TypeError: outputs that are no floating-point tensor, or weights of another precision.
    """
    try:
        with probing(model), torch.no_grad():
            outputs = call_model(model, inputs[:1].clone())
    except TypeError:
        raise
    except Exception as error:  # anything may be raised by somebody else's forward
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"the model does not run on inputs of shape (n, {', '.join(map(str, inputs.shape[1:]))}): "
            f"{type(error).__name__}: {first}"
        ) from error
    if outputs.ndim < 1 or len(outputs) != 1 or outputs.numel() == 0:
        raise ValueError(f"the model must give one row of outputs per input, got {tuple(outputs.shape)} for one input")
    return outputs


def threat_for(inputs: Tensor, threat: ThreatModel | None) -> ThreatModel:
    """The threat model given, checked; or linf 8/255 inside [0, 1] where that is where the inputs lie.

    Raises:
        ValueError: no threat model and inputs outside [0, 1], no radius, or inputs outside the bounds.
        TypeError: something else than a `ThreatModel`.
    """
    if threat is None:
        low, high = float(inputs.min()), float(inputs.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"inputs span {low:.4g} to {high:.4g}, so the default threat (linf 8/255 inside [0, 1]) does not fit; "
                "pass threat=ThreatModel('linf', epsilon, bounds=(low, high)), or bounds=None where there are none"
            )
        return ThreatModel("linf", DEFAULT_EPSILON)
    if not isinstance(threat, ThreatModel):
        raise TypeError(f"threat must be a ThreatModel, got {type(threat).__name__}; use ThreatModel('linf', 8 / 255)")
    if threat.epsilon is None:
        raise ValueError(f"the panel needs a radius, got epsilon=None; use ThreatModel({threat.norm!r}, epsilon=...)")
    threat.check_inside(inputs)
    return threat


@contextmanager
def random_state_of_its_own(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that somebody's model or loader may use, and put all of them back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one is meant
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices, device_type="cuda"):
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
