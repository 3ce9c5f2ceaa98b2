"""Lines that readers see: a value with its unit and what kind of number it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.measurement import Measurement
from smoothness.panel.reading import percent

KINDS = {"exact": "exact", "lower": "lower bound", "upper": "upper bound", "estimate": "estimate"}


@dataclass(frozen=True)
class Row:
    """One line: `value` is `number` as readers see it; `share` is set for shares, which can be drawn."""

    name: str
    value: str
    unit: str
    kind: str
    number: float = math.nan
    note: str = ""
    share: bool = False


def order_in_words(order: float | None) -> str:
    """The order of smoothness.

    >>> order_in_words(-1), order_in_words(math.inf), order_in_words(None)
    ('-1: value jumps', 'inf: smooth', 'unknown')
    """
    if order is None:
        return "unknown"
    words = {-1.0: "value jumps", 0.0: "kinks", 1.0: "curvature jumps", math.inf: "smooth"}.get(float(order), "")
    return f"{order:g}: {words}" if words else f"{order:g}"


def share(name: str, value: float, unit: str, kind: str, note: str = "") -> Row:
    """A line with a share, in percent."""
    return Row(name, percent(value), unit, KINDS[kind], value, note, True)


def number(name: str, value: float, unit: str, kind: str, note: str = "") -> Row:
    """A line with a number of three digits."""
    return Row(name, "–" if math.isnan(value) else f"{value:.3g}", unit, KINDS[kind], value, note)


def median(values: Tensor) -> float:
    """The middle value, the mean of both middle ones for an even number; NaN without any."""
    return float(torch.quantile(values.double(), 0.5)) if len(values) else math.nan


def invalid(found: Measurement) -> str:
    """How many examples have no valid value, and the reasons."""
    count = int((~found.valid).sum())
    if count == 0:
        return ""
    reasons = dict.fromkeys(reason for reason in found.details.get("reason", ()) if reason)
    return f"{count} of {len(found.valid)} without a value{': ' if reasons else ''}{'; '.join(reasons)}"


def joined(notes: list[str]) -> str:
    """Notes that are not empty, one after the other."""
    return "; ".join(note for note in notes if note)
