"""Division by the example's margin: what makes constants of two networks comparable."""

from __future__ import annotations

from dataclasses import replace

import torch

from smoothness.measurement import Measurement


def per_margin(found: Measurement, margin: Measurement) -> Measurement:
    """Values divided by the example's margin: q(x) / (f_y - max over j ≠ y of f_j), unchanged by f -> c f.

    For slopes, Lipschitz constants of either side and oscillations. The kind of bound stays: the margin is a number
    of the forward pass, not a bound. Valid for correctly classified examples alone: the others have no margin to lose.

    Args:
        found: values (n, ...) whose unit starts with "logit".
        margin: of the same examples or of more, the first n of which are used.

    Raises:
        ValueError: another unit, or fewer margins than values.

    Returns:
        A Measurement "..._per_margin", unit "1 / input l2" (or the norm chosen; "1" of an oscillation).

    >>> norm = Measurement("jacobian_norm", torch.tensor([4.0, 4.0]), "logit / input l2", "exact")
    >>> per_margin(norm, Measurement("margin", torch.tensor([2.0, -1.0]), "logit", "exact")).values
    tensor([2., nan])
    """
    n = len(found.values)
    if not found.unit.startswith("logit"):
        raise ValueError(f"only logits are divided by a margin, got the unit {found.unit!r}; use of='margin'")
    if len(margin.values) < n:
        raise ValueError(f"one margin per example is needed, got {len(margin.values)} for {n}")
    margins = margin.values[:n].double()
    right = margin.valid[:n] & (margins > 0)
    valid = found.valid & right
    reasons = found.details.get("reason", ("",) * n)
    column = (n, *[1] * (found.values.ndim - 1))
    values = found.values.double() / margins.view(column)
    return replace(
        found,
        quantity=f"{found.quantity}_per_margin",
        values=values.masked_fill(~valid.view(column), torch.nan).to(found.values.dtype),
        unit=found.unit.replace("logit", "1", 1),
        valid=valid,
        details={
            "reason": tuple(
                "" if fine else reason or "not classified correctly"
                for fine, reason in zip(valid.tolist(), reasons, strict=True)
            )
        },
    )
