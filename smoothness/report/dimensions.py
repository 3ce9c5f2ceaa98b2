"""Distance to the boundary against the number of input dimensions: slopes, with a verdict on the claim."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smoothness.report.displays import Cell, Table
from smoothness.study.slopes import LINE, Slope

_TONES = {"supported": "good", "not supported": "bad", "inconclusive": "warn"}


def primary(slopes: Sequence[Slope]) -> list[Slope]:
    """Those in the norm that the study names first: theirs are the verdicts."""
    return [slope for slope in slopes if slope.norm == slopes[0].norm]


def dimension_answer(slopes: Sequence[Slope], *, whole: bool) -> str:
    """The verdict way by way and on all of them, and the slopes in both norms."""
    spans = [
        f"{way} {_span([s.mean for s in slopes if (s.norm, s.way) == (norm, way)])} ({norm})"
        for norm, way in dict.fromkeys((s.norm, s.way) for s in slopes)
    ]
    below, counted = sum(slope.high < 0 for slope in primary(slopes)), len(primary(slopes))
    return (
        f"{_verdict(slopes, whole=whole)} Slopes of log distance on log n, over the networks: {'; '.join(spans)}. In "
        f"{slopes[0].norm}, their 95 % interval lies below 0 for {below} of {counted}."
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):+.2f}", f"{max(values):+.2f}"
    return low if low == high else f"{low} to {high}"


def _verdict(slopes: Sequence[Slope], *, whole: bool) -> str:
    if not whole:
        return "No verdict on dimensions: it needs full scale and every cell."
    by_way: dict[str, list[str]] = {}
    for slope in primary(slopes):
        by_way.setdefault(slope.way, []).append(slope.verdict)
    parts = [f"{way}: {_summed(found)} ({_counted(found)})" for way, found in by_way.items()]
    general = _summed([verdict for found in by_way.values() for verdict in found])
    return f"Claim that the distance shrinks with the dimension: {general}. By way of adding it, {'; '.join(parts)}."


def _summed(verdicts: Sequence[str]) -> str:
    """Supported if all are; not supported if any is not; else inconclusive."""
    return next(word for word in ("not supported", "inconclusive", "supported") if word in verdicts)


def _counted(verdicts: Sequence[str]) -> str:
    counts = {word: verdicts.count(word) for word in _TONES}
    found = ", ".join(f"{word} for {count}" for word, count in counts.items() if count)
    return f"{found} of {len(verdicts)} networks"


def slope_table(slopes: Sequence[Slope], claim: str | None, *, whole: bool) -> Table | None:
    """One row per way, network and norm; None where nothing was measured."""
    if not slopes:
        return None
    rows = []
    for slope in slopes:
        counts = slope.norm == slopes[0].norm
        interval = f"{slope.low:+.2f} to {slope.high:+.2f}" if math.isfinite(slope.low) else "–"
        p = slope.p_adjusted
        shown = "–" if not counts or math.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
        verdict = Cell(slope.verdict, _TONES[slope.verdict]) if whole and counts else Cell("–")
        texts = [
            " ".join(str(n) for n in slope.dimensions),
            " ".join(f"{d:.3g}" for d in np.median(slope.distances, axis=0)),
            " ".join(f"{100 * a:.0f}" for a in slope.accuracies),
            f"{slope.mean:+.2f}",
            interval,
            shown,
        ]
        heads = [slope.way, f"{slope.network} {slope.activation}", slope.norm]
        rows.append([*map(Cell, heads), *map(Cell, texts), verdict])
    caption = (
        "Distance to the nearest misclassified input (an upper bound by attack, or exact where the model has an exact "
        "method; input units), at each number of dimensions n: median over correctly classified examples, then over "
        f"{len(slopes[0].slopes)} seeds; clean accuracy in %. Slope of log distance on log n: mean over seeds and "
        f"95 % interval (Student's t); p of a slope of {LINE:g}, Holm-adjusted over the rows of the first norm, whose "
        "verdicts count. "
    )
    columns = ["way", "network", "norm", "n", "distance", "clean, %", "slope", "95 % interval", "p", "verdict"]
    return Table(caption + (claim or ""), columns, rows, 3, (3, 4, 5, 9))


def slopes_in_words(slopes: Sequence[Slope]) -> str:
    """Each slope, for readers who cannot see the figure."""
    return "; ".join(f"{s.way} {s.network} {s.activation} ({s.norm}) {s.mean:+.2f}" for s in slopes)
