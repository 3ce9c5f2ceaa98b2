"""The hard invariants of one panel."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from smoothness._norms import vector_norm
from smoothness.consistency import CELL, Check, check_frame
from smoothness.measurement import Measurement
from smoothness.panel.reading import attacks_of
from smoothness.threat import ThreatModel

COLUMNS = ("example", "quantity", "attack", "epsilon", "layer", "value", "bound", "unit", "valid")
TOLERANCE = 2e-6  # in input units: what attacks allow themselves, and rounding to float32


def tidy(found: Mapping[str, Measurement]) -> pd.DataFrame:
    """One row per example, quantity and coordinate, with the columns `COLUMNS`."""
    rows = pd.concat([m.to_frame() for m in found.values()], ignore_index=True)
    rows["epsilon"] = rows.get("epsilon", pd.Series(dtype="float64")).astype("float64")
    for name in ("attack", "layer"):
        rows[name] = rows.get(name, pd.Series(index=rows.index, dtype="object")).fillna("").astype("str")
    return rows[list(COLUMNS)]


def check_panel(found: Mapping[str, Measurement], inputs: Tensor, threat: ThreatModel | None) -> list[Check]:
    """The invariants of every study's frame and, with attacks, that what they found lies in the ball."""
    frame = tidy(found)
    checks = check_frame(frame.assign(**dict.fromkeys(CELL, 0)), None if threat is None else threat.norm)
    return checks if threat is None else [*checks, _inside(found, inputs.cpu(), threat)]


def _inside(found: Mapping[str, Measurement], inputs: Tensor, threat: ThreatModel) -> Check:
    outside = compared = 0
    lowest, highest = threat.limits(inputs)
    for measurement in attacks_of(found).values():
        points = measurement.details["inputs"]
        far = vector_norm(points - inputs, threat.norm) > (threat.epsilon or 0.0) + TOLERANCE
        out = ((points < lowest - TOLERANCE) | (points > highest + TOLERANCE)).flatten(1).any(dim=1)
        outside += int((far | out).sum())
        compared += len(points)
    detail = f"{compared} points compared"
    return Check(
        "adversarial inputs lie in the ball and the bounds",
        outside == 0,
        f"{outside} violations; {detail}" if outside else detail,
    )
