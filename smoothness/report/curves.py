"""Activations as curves: from a study's label to the module, its order of smoothness, and points to draw."""

from __future__ import annotations

import ast
import functools
import math
import re
from itertools import pairwise

import pandas as pd
import torch

from smoothness.activations import Activation, activation, list_activations, mollify
from smoothness.activations.dials import dial

SPAN = 3.0
_POINTS = 121


def spec_of(label: str) -> str:
    """The catalogue's spelling within a label: what stands in brackets at its end, or else all of it.

    >>> spec_of("sharp [softplus(beta=8)]"), spec_of("relu")
    ('softplus(beta=8)', 'relu')
    """
    match = re.fullmatch(r".*\[(.*)\]", label.strip(), flags=re.DOTALL)
    return match[1] if match else label.strip()


@functools.lru_cache(maxsize=256)
def module_of(label: str) -> Activation | None:
    """The module of a label such as "relu", "softplus(beta=4)", "relu@sigma=0.1" or "elu(alpha=1; mean of relu)".

    None when it stands for none of the catalogue's.

    >>> module_of("softplus(beta=4)")
    Softplus(beta=4)
    >>> module_of("somebody's own") is None
    True
    """
    spec = spec_of(label)
    try:
        if smoothed := re.fullmatch(r"(.+)@sigma=([^@]+)", spec):
            base = module_of(smoothed[1])
            return None if base is None else mollify(base, float(smoothed[2]))
        if held := re.fullmatch(r"(\w+)\(\w+=([^;,]+); ([\w+]+) of (\w+)\)", spec):
            return dial(held[1], float(held[2]), hold=held[3].split("+"), reference=held[4])
        match = re.fullmatch(r"(\w+)(?:\((.*)\))?", spec)
        if match is None or match[1] not in list_activations():
            return None
        call = ast.parse(f"f({match[2] or ''})", mode="eval").body
        keywords = call.keywords if isinstance(call, ast.Call) else []
        return activation(match[1], **{str(k.arg): ast.literal_eval(k.value) for k in keywords})
    except (SyntaxError, ValueError, TypeError):
        return None


def smoothness_order(label: str) -> float | None:
    """Order of the roughest breakpoint (-1 value jump, 0 kink, ..., infinity), None for a foreign label.

    >>> smoothness_order("staircase"), smoothness_order("tanh")
    (-1, inf)
    """
    module = module_of(label)
    return None if module is None else module.facts().smoothness_class


def describe_order(order: float | None) -> str:
    """The order of smoothness in words."""
    if order is None:
        return "not in the catalogue"
    return {-1.0: "value jumps", 0.0: "kinks", 1.0: "curvature jumps", math.inf: "smooth"}.get(
        float(order), f"order {order:g}"
    )


def activation_curves(labels: list[str]) -> pd.DataFrame:
    """Points of φ and φ' on [-3, 3], piece by piece, so that no line crosses a jump.

    Columns: activation, order, curve ("value" or "slope"), piece, z, y, end ("" inside a piece;
    "closed" or "open" at a piece's end where the curve jumps: closed where φ takes that value). φ' has no
    value where φ has a kink or a jump: both ends are open. Labels outside the catalogue are left out.
    """
    rows: list[tuple[object, ...]] = []
    for label in labels:
        module = module_of(label)
        if module is None:
            continue
        facts = module.facts()
        breaks = [b for b in facts.breakpoints if b.order <= 0 and abs(b.position) < SPAN]
        edges = [-SPAN, *(b.position for b in breaks), SPAN]
        for piece, (low, high) in enumerate(pairwise(edges)):
            count = max(3, math.ceil(_POINTS * (high - low) / (2 * SPAN)))
            z = torch.linspace(low, high, count, dtype=torch.float64)
            # One-sided limits: a hair inside the piece; 1e-9 is far below what a figure resolves.
            inside = z.clamp(low + 1e-9, high - 1e-9).requires_grad_()
            value = module(inside)
            (slope,) = torch.autograd.grad(value.sum(), inside)
            orders = (breaks[piece - 1].order if piece else None, breaks[piece].order if piece < len(breaks) else None)
            at_edges = module(torch.tensor([low, high], dtype=torch.float64)).tolist()
            for curve, y in (("value", value.detach().tolist()), ("slope", slope.tolist())):
                ends = [_end(curve, orders[side], y[-side], at_edges[side]) for side in (0, 1)]
                marks = [ends[0], *[""] * (count - 2), ends[1]]
                rows += [
                    (label, float(facts.smoothness_class), curve, piece, *point)
                    for point in zip(z.tolist(), y, marks, strict=True)
                ]
    return pd.DataFrame(rows, columns=["activation", "order", "curve", "piece", "z", "y", "end"])


def _end(curve: str, order: int | None, limit: float, value: float) -> str:
    """How the end of a piece is marked: "" where the curve runs on without a jump."""
    if order is None or (curve == "value" and order != -1):
        return ""
    return "closed" if curve == "value" and abs(limit - value) < 1e-6 else "open"
