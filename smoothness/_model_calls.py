"""Calling somebody else's model: what does not fit is said in words, before any work."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

_PRECISIONS = (torch.float32, torch.float64)


def check_model(model: nn.Module) -> nn.Module:
    """Return `model` when it is an nn.Module.

    >>> check_model(len)
    Traceback (most recent call last):
        ...
    TypeError: model must be an nn.Module, got builtin_function_or_method; pass smoothness.wrap(model)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}; pass smoothness.wrap(model)")
    return model


def call_model(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's outputs, float32 or float64.

    Raises:
        TypeError: weights of another precision than the inputs, where the model does not convert them itself;
            outputs that are no tensor, or of another type.

    >>> call_model(nn.Linear(2, 2).double(), torch.zeros(1, 2))
    Traceback (most recent call last):
        ...
    TypeError: the model's weights are float64 and the inputs float32; use model.to(torch.float32) or ...
    """
    try:
        outputs = model(inputs)
    except RuntimeError as error:
        own = _precision(model)
        if own in (None, inputs.dtype) or "type" not in str(error):
            raise
        remedy = f"model.to({inputs.dtype})" + (f" or inputs.to({own})" if own in _PRECISIONS else "")
        raise TypeError(
            f"the model's weights are {_name(own)} and the inputs {_name(inputs.dtype)}; use {remedy}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model must return a tensor of shape (n, classes), got {type(outputs).__name__}; "
            "wrap it in a module that returns the logits"
        )
    if outputs.dtype not in _PRECISIONS:
        labels = "" if outputs.is_floating_point() else " if these are scores; DecisionBoundary works on labels alone"
        raise TypeError(
            f"the model must return float32 or float64 scores, got {_name(outputs.dtype)}; "
            f"wrap it in a module that returns outputs.float(){labels}"
        )
    return outputs


def _precision(model: nn.Module) -> torch.dtype | None:
    """Of the first floating-point weight; None without any."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
