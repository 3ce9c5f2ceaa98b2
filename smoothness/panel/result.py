"""What a panel found: numbers, activations, invariants and the verdict; as text, frame, JSON and page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothness.analyzers.masking import Masking
from smoothness.consistency import Check
from smoothness.measurement import Measurement
from smoothness.panel.uses import ActivationUse
from smoothness.threat import ThreatModel

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True, eq=False)
class Panel:
    """The standard panel of one model: `print(panel)`, `panel.frame`, `panel.to_html("panel.html")`.

    Attributes:
        measurements: by quantity ("correct", "margin", "jacobian_norm", "jacobian_norm_per_margin",
            "kink_density", "slope_jump", "value_jump", "local_lipschitz_lower", "..._upper",
            "local_oscillation_lower", "..._upper", each of these also "..._per_margin", "certified_radius", and those
            of the analyzers of roughness, as studies have them),
            attacks by their label ("pgd-ce").
        activations: which the model uses, with their facts.
        left_out: (what, why) of everything that was not measured.
        checks: the hard invariants with their outcome; a violation is a bug in smoothness.
        verdict: in words.
        masking: what the verdict on masked gradients rests on; None without labels.
        threat: what the adversary was allowed; None without labels.
        about: the model, the examples, the seed and the versions, as text.
    """

    measurements: Mapping[str, Measurement]
    activations: tuple[ActivationUse, ...]
    left_out: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    verdict: str
    masking: Masking | None
    threat: ThreatModel | None
    about: Mapping[str, str]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per example, quantity and coordinate: value, bound, unit, valid."""
        from smoothness.panel.checks import tidy

        return tidy(self.measurements)

    def __rich__(self) -> RenderableType:
        from smoothness.panel.text import renderable

        return renderable(self)

    def __str__(self) -> str:
        from smoothness.panel.text import as_text

        return as_text(self)

    def __repr__(self) -> str:
        examples = len(next(iter(self.measurements.values())).values)
        return f"<Panel of {self.about['model']!r}: {examples} examples, {len(self.measurements)} measurements>"

    def _repr_html_(self) -> str:
        from smoothness.panel.page import fragment

        return fragment(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """A page of its own, without scripts and without requests; also written to `path` when given."""
        from smoothness.panel.page import page

        text = page(self)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_json(self) -> str:
        """The summary as JSON: what the tables show, and the settings of every measurement."""
        from smoothness.panel.summary import sections

        record = {
            "about": dict(self.about),
            "verdict": self.verdict,
            "masking": None if self.masking is None else {**asdict(self.masking), "masked": self.masking.masked},
            "summary": [
                {"section": part.title, "name": row.name, "value": row.number, "shown": row.value, "unit": row.unit,
                 "kind": row.kind, "note": row.note}
                for part in sections(self) for row in part.rows
            ],
            "activations": [asdict(use) for use in self.activations],
            "left_out": [{"what": what, "why": why} for what, why in self.left_out],
            "checks": [asdict(check) for check in self.checks],
            "settings": {name: dict(m.settings) for name, m in self.measurements.items()},
        }  # fmt: skip
        return json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value as JSON knows it: NaN is null, infinity the text "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
