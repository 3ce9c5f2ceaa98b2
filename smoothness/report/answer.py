"""The answer, from the numbers: what was found, how sure it is, and what it does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from smoothness.analyzers.masking import Masking
from smoothness.report.curves import describe_order, smoothness_order
from smoothness.report.style import order_activations
from smoothness.report.tables import Difference, Spread, differences, spreads

BASELINE = "relu"


@dataclass(frozen=True)
class Answer:
    """What stands first on the page.

    Attributes:
        notice: one line on how far the answer reaches; always shown.
        verdict: whether the scale allows comparisons to be called.
        paragraphs: (architecture, its sentences in one paragraph); the architecture is "" when it is about none.
        comparisons: (architecture, differences from the baseline); empty without a verdict.
    """

    notice: str
    verdict: bool
    paragraphs: list[tuple[str, str]]
    comparisons: list[tuple[str, list[Difference]]]


def answer(
    seeds: pd.DataFrame, masked: dict[tuple[str, str], Masking], *, scale: str, headline: float | None, missing: int
) -> Answer:
    """The answer paragraph from the per-seed statistics.

    Args:
        seeds: of `per_seed`.
        masked: of `masking`.
        scale: "quick" gives no verdict.
        headline: the ε of the robust accuracy; None without attacks.
        missing: how many cells are not finished; with any, no verdict either.
    """
    table = spreads(seeds)
    count = seeds["seed"].nunique()
    verdict = scale != "quick" and not missing and count > 1
    paragraphs, comparisons = [], []
    for architecture in dict.fromkeys(architecture for architecture, _ in table):
        mine = {name: values for (where, name), values in table.items() if where == architecture}
        verdicts = {name: masked[name, architecture] for name in mine if (name, architecture) in masked}
        sentences = [] if headline is None else _robustness(mine, verdicts, headline)
        sentences += [] if headline is None else _classes(seeds[seeds["architecture"] == architecture])
        sentences += [*_jacobians(mine), *_masked(mine, verdicts, headline)]
        if verdict and (found := differences(seeds, architecture, "robust_accuracy", BASELINE)):
            comparisons.append((architecture, found))
            sentences.append(_compared(found))
        if sentences:
            # No line break inside "84.1 ± 0.6 %".
            text = " ".join(sentences).replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
            paragraphs.append((architecture, text))
    if not paragraphs:
        paragraphs = [("", "Nothing that answers the question was measured in this run.")]
    return Answer(_notice(scale, count, missing), verdict, paragraphs, comparisons)


def _notice(scale: str, seeds: int, missing: int) -> str:
    named = plural(seeds, "seed")
    if missing:
        return f"Incomplete run: {plural(missing, 'cell')} not finished. What follows is provisional; no verdict."
    if scale == "quick":
        return f"Quick scale: small data, {named}; a demonstration, no verdict."
    if seeds < 2:
        return f"{named.capitalize()} only: no spread over seeds, so no verdict."
    return (
        f"{scale.capitalize()} scale, {named}. Attacks bound robust accuracy from above; "
        "a verdict on a claim about smoothness also needs certified bounds, which this report does not hold."
    )


def _robustness(table: dict[str, dict[str, Spread]], masked: dict[str, Masking], headline: float) -> list[str]:
    robust = {name: values["robust_accuracy"] for name, values in table.items() if values["robust_accuracy"].seeds}
    if not robust:
        return []
    best, worst = max(robust, key=lambda n: robust[n].mean), min(robust, key=lambda n: robust[n].mean)
    clean = [values["clean_accuracy"].mean for values in table.values() if values["clean_accuracy"].seeds]
    text = ""
    if clean:
        between = f"lies between {100 * min(clean):.1f} and {100 * max(clean):.1f}"
        text = f"Clean accuracy {between if len(clean) > 1 else f'is {100 * clean[0]:.1f}'} %. "
    text += f"Under the strongest of all attacks at ε = {format_255(headline)}, robust accuracy is at most "
    if best == worst:
        text += f"{robust[best].percent()} %"
    else:
        text += f"{robust[best].percent()} % for {best} (highest) and {robust[worst].percent()} % for {worst} (lowest)"
    if BASELINE in robust and BASELINE not in (best, worst):
        text += f", with {robust[BASELINE].percent()} % for {BASELINE}"
    gap = robust[best].mean - robust[worst].mean
    noise = math.hypot(*(s.sd for s in (robust[best], robust[worst]) if math.isfinite(s.sd)))
    if best != worst and gap <= 2 * noise:
        text += "; that gap is within twice the spread over seeds"
    if best in masked and masked[best].masked:
        text += f"; {best} hides its gradients, so its figure is a loose bound and not evidence of robustness"
    return [text + "."]


def _classes(seeds: pd.DataFrame) -> list[str]:
    """Robust accuracy by order of smoothness: mean over a class's activations within a seed, then over seeds."""
    orders = {name: smoothness_order(name) for name in seeds["activation"].unique()}
    known = seeds[seeds["activation"].map(lambda name: orders[name] is not None)].dropna(subset=["robust_accuracy"])
    by_class = known.groupby([known["activation"].map(orders), "seed"])["robust_accuracy"].mean()
    found = [(order, Spread.of(by_class.loc[[order]])) for order in sorted({order for order, _ in by_class.index})]
    if len(found) < 2:
        return []
    parts = []
    for order, spread in found:
        members = order_activations(name for name, theirs in orders.items() if theirs == order)
        parts.append(f"{describe_order(order)} {spread.percent()} % ({', '.join(members)})")
    return [f"By smoothness, robust accuracy is at most: {'; '.join(parts)}."]


def _jacobians(table: dict[str, dict[str, Spread]]) -> list[str]:
    norms = {n: v["jacobian_normalised"] for n, v in table.items() if v["jacobian_normalised"].mean > 0}
    if len(norms) < 2:
        return []
    steepest, flattest = max(norms, key=lambda n: norms[n].mean), min(norms, key=lambda n: norms[n].mean)
    return [
        f"The median Jacobian norm per margin runs from {norms[flattest].number()} ({flattest}) to "
        f"{norms[steepest].number()} ({steepest}) per unit of input l2."
    ]


def _masked(table: dict[str, dict[str, Spread]], masked: dict[str, Masking], headline: float | None) -> list[str]:
    sentences = []
    for name, values in table.items():
        verdict = masked.get(name)
        if verdict is None or not verdict.masked:
            continue
        text = f"For {name}, native gradients are masked"
        if verdict.zero_share > 0:
            text += f" (exactly zero for {100 * verdict.zero_share:.0f} % of examples)"
        parts = [
            f"{label} {values[key].percent()} %"
            for key, label in (
                ("native", "native"),
                ("surrogate", "surrogate"),
                ("noise", "noise"),
                ("other", "other"),
            )
            if values[key].seeds
        ]
        if parts and headline is not None:
            text += f": success at {format_255(headline)} is {', '.join(parts)}; the headline uses the union"
            text += f", {values['union'].percent()} %"
        sentences.append(text + ".")
    return sentences


def _compared(found: list[Difference]) -> str:
    apart = [d for d in found if d.low > 0 or d.high < 0]
    if not apart:
        return f"No activation differs from {BASELINE} beyond its 95 % interval."
    named = ", ".join(f"{d.activation} ({100 * d.mean:+.1f} points, {d.seeds} seeds)" for d in apart)
    return f"The 95 % interval of the difference from {BASELINE} excludes 0 for {named}."


def format_255(epsilon: float) -> str:
    """ε as a fraction of an image's range, or as it is where it is none of an 8-bit image's.

    >>> format_255(8 / 255), format_255(0.25), format_255(0.0625)
    ('8/255', '0.25', '0.0625')
    """
    return f"{epsilon * 255:.3g}/255" if of_images(epsilon) else f"{epsilon:.4g}"


def of_images(epsilon: float) -> bool:
    """Whether a radius below a quarter is a multiple of a quarter of 1/255, the step of an 8-bit image."""
    return epsilon < 0.25 and abs(epsilon * 1020 - round(epsilon * 1020)) < 1e-4


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
