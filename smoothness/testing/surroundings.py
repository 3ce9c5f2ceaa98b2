"""What a plug-in must leave as it found it: the model, the inputs, and the process's state."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn


class Surroundings:
    """A copy of everything that a call must not change; `changes` says what differs now.

    >>> layer = nn.Linear(1, 1)
    >>> before = Surroundings(layer, torch.zeros(1, 1))
    >>> _ = layer.eval()
    >>> list(before.changes())
    ["the model's training flags are changed"]
    """

    def __init__(self, model: nn.Module, *tensors: Tensor) -> None:
        self._model, self._tensors = model, tensors
        self._before = self._look()

    def changes(self) -> Iterator[str]:
        """A sentence for each thing that is not as before."""
        for name, now in self._look().items():
            if not _equal(self._before[name], now):
                yield f"{name} {'are' if name.endswith('s') else 'is'} changed"

    def _look(self) -> dict[str, object]:
        model = self._model
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what is guarded
        return {
            "the model's weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
            "the model's training flags": [module.training for module in model.modules()],
            "the model's requires_grad flags": [p.requires_grad for p in model.parameters()],
            "the model's gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            "the model's hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()
            ],
            "the inputs and labels": [(t.detach().clone(), t.requires_grad, t.grad is None) for t in self._tensors],
            "torch's global random state": torch.get_rng_state(),
            "numpy's global random state": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
            "Python's global random state": random.getstate(),
            "the grad mode": torch.is_grad_enabled(),
            "the default dtype": torch.get_default_dtype(),
            "the number of threads": torch.get_num_threads(),
        }


def is_frozen(record: object) -> bool:
    """Whether it is an instance of a frozen dataclass."""
    return bool(getattr(getattr(type(record), "__dataclass_params__", None), "frozen", False))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
