"""Argument checks shared by everything: each error names the argument, the value and the remedy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` when it is one of `choices`; else name the nearest ones.

    >>> check_choice("activation", "rellu", ["relu", "gelu", "tanh"])
    Traceback (most recent call last):
        ...
    ValueError: unknown activation 'rellu'; did you mean 'relu' or 'gelu'? Known: gelu, relu, tanh
    """
    known = sorted(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    raise ValueError(f"unknown {name} {value!r}{hint} Known: {', '.join(known)}")


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float when it is a finite number above zero.

    >>> check_positive("radius", -0.1)
    Traceback (most recent call last):
        ...
    ValueError: radius must be a positive finite number, got -0.1
    """
    number = _as_number(name, value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return number


def check_finite(name: str, value: Any) -> float:
    """Return `value` as a float when it is a finite number.

    >>> check_finite("offset", float("nan"))
    Traceback (most recent call last):
        ...
    ValueError: offset must be a finite number, got nan
    """
    number = _as_number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


def check_not_negative(name: str, value: Any) -> float:
    """Return `value` as a float when it is a finite number of at least zero.

    >>> check_not_negative("height", -0.1)
    Traceback (most recent call last):
        ...
    ValueError: height must be finite and at least 0, got -0.1
    """
    number = _as_number(name, value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return number


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` when it is a whole number of at least `minimum`.

    >>> check_count("steps", 0)
    Traceback (most recent call last):
        ...
    ValueError: steps must be a whole number of at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return value


def check_inputs(inputs: Tensor) -> Tensor:
    """Return `inputs` when they are a non-empty batch of finite float32 or float64 values.

    Raises:
        TypeError: not a tensor, integers (images not yet scaled), or a half-precision type.
        ValueError: no batch axis, an empty batch, NaN or infinite values (their rows are named).
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a torch.Tensor, got {type(inputs).__name__}; use torch.as_tensor(...)")
    if not inputs.is_floating_point():
        raise TypeError(
            f"inputs must be floating point, got {inputs.dtype}; for 8-bit images use inputs.float() / 255"
        )
    if inputs.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"inputs must be float32 or float64, got {inputs.dtype}; use inputs.float() and model.float()")
    if inputs.ndim < 2:
        raise ValueError(
            f"inputs need a batch axis and at least one feature axis, got shape {tuple(inputs.shape)}; "
            "use inputs.unsqueeze(0) for one example"
        )
    if inputs.numel() == 0:
        raise ValueError(f"inputs are empty: shape {tuple(inputs.shape)}; pass at least one example")
    finite = inputs.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"inputs hold NaN or infinite values in rows {_some(rows)}; drop or repair them first")
    return inputs


def check_labels(labels: Tensor, count: int) -> Tensor:
    """Return `labels` as int64 when they are `count` non-negative class indices."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(labels).__name__}; use torch.as_tensor(...)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}; use labels.long()")
    if labels.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), one per input, got {tuple(labels.shape)}")
    if (labels < 0).any():
        rows = (labels < 0).nonzero().flatten().tolist()
        raise ValueError(f"labels must be at least 0; negative in rows {_some(rows)}")
    return labels.long()


def check_class_outputs(outputs: Any, count: int, labels: Tensor | None = None) -> Tensor:
    """Return `outputs` when they are (count, classes) scores that cover all `labels`."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model must return a tensor of shape (n, classes), got {type(outputs).__name__}; "
            "wrap it in a module that returns the logits"
        )
    if outputs.ndim != 2 or outputs.shape[0] != count or outputs.shape[1] < 2:
        raise ValueError(
            f"the model must return shape ({count}, classes) with at least 2 classes, got {tuple(outputs.shape)}"
        )
    if labels is not None and int(labels.max()) >= outputs.shape[1]:
        rows = (labels >= outputs.shape[1]).nonzero().flatten().tolist()
        raise ValueError(
            f"labels must be below the model's {outputs.shape[1]} classes; "
            f"too large in rows {_some(rows)} (largest {int(labels.max())})"
        )
    return outputs


def _as_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    return float(value)


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
