"""Is a level of a factor different from the baseline? Paired by seed, and no more said than the seeds carry."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from smoothness._checks import check_choice
from smoothness.analyzers.masking import family
from smoothness.study import statistics
from smoothness.study.cells import FACTORS
from smoothness.study.comparison import COORDINATES, Comparison
from smoothness.study.per_network import chosen_attacks, chosen_quantities, one_number_each
from smoothness.study.reductions import masking, round_epsilon
from smoothness.study.run import Run, load_frame

Source = pd.DataFrame | Run | str | Path
Method = Literal["t", "bootstrap-t"]
Test = Literal["t", "bootstrap-t", "permutation"]

_NEEDED = ("activation", "architecture", "seed", "example", *COORDINATES, "value", "bound", "unit", "valid")
_ALWAYS = ("run", "activation", "architecture")  # compared within, whether they vary or not
_BOOTSTRAP_PAIRS = 5  # below, over 1 % of the resamples have no spread and the ends run away


def compare(
    source: Source | Sequence[Source] | Mapping[str, Source],
    baseline: str | None = None,
    *,
    factor: str | None = None,
    quantity: str | Sequence[str] | None = None,
    attack: str | Sequence[str] | None = None,
    epsilon: float | None = None,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
    method: Method = "t",
    test: Test | None = None,
) -> Comparison:
    r"""Compare levels of one factor, or several runs, with a baseline.

    Each network gives one number per quantity, attack, epsilon and layer first: the mean over its valid examples
    (they are crossed with the seeds, and no replicates). Then networks of equal seed are paired, and the
    differences d = level - baseline over the seeds give the mean, an interval and a p. All p are adjusted by
    Holm's method over every row returned, so that asking for less shows more: choose the quantity before looking.

    "attack_success" is the share of the correctly classified examples that an attack fooled at this epsilon or a
    smaller one, for each attack and for their "union". Where the native gradients of either side are masked, native
    attacks are not compared: the union is. Also on request: "robust_accuracy" (the union), and any quantity with
    "/margin", such as "jacobian_norm/margin": divided by the example's margin, over correctly classified examples,
    median. Only so are quantities in logits comparable across activations.

    Refused, with the reason in `note`: an interval from fewer than 2 pairs, a verdict from fewer than 3, a t or
    bootstrap-t from differences without spread, a bootstrap-t from fewer than 5 pairs, and a verdict where even the
    most extreme outcome could not reach 1 - confidence after the adjustment.

    Args:
        source: a study's frame, a run, its folder; or several, in a list (labelled by folder) or a mapping.
        baseline: a level of the factor; "relu", or the first run of several, when None.
        factor: column whose levels are compared; "activation", or "run" for several runs, when None.
        quantity: names; every one in the frame when None.
        attack: labels of attacks, "union" included; all when None.
        epsilon: the one radius; all when None.
        by: columns within whose equal values networks are compared; when None the activation and the architecture
            (unless that is the factor), and every other factor that is needed to tell the networks of one seed apart.
        confidence: of each interval, between 0.5 and 1.
        method: "t" (Student 1908) or "bootstrap-t" (Hall 1992, Efron & Tibshirani 1993); see
            `smoothness.study.statistics`.
        test: "t", "bootstrap-t" or "permutation" (sign flips, exact up to 20 pairs); the method's when None.

    Raises:
        ValueError: an unknown name, or networks that the columns in `by` do not tell apart.

    >>> rows = [("relu", s, 0.80 + 0.01 * s) for s in range(5)] + [("gelu", s, 0.83 + 0.012 * s) for s in range(5)]
    >>> frame = pd.DataFrame(rows, columns=["activation", "seed", "value"]).assign(
    ...     architecture="mlp", example=-1, quantity="clean_accuracy", attack=None, epsilon=math.nan, layer=None,
    ...     bound="exact", unit="1", valid=True)
    >>> found = compare(frame)
    >>> print("\n".join(str(found).splitlines()[2:5]))
    architecture mlp, quantity clean_accuracy
                           diff.        95 % interval   n  p adj.
      gelu                +0.034     [0.0301, 0.0379]   5 1.8e-05 higher
    >>> compare(frame, test="permutation").smallest_adjusted_p  # 2 / 2^5: five seeds cannot show more
    0.0625
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must lie between 0.5 and 1, got {confidence!r}")
    check_choice("method", method, get_args(Method))
    test = method if test is None else test
    check_choice("test", test, get_args(Test))
    frame, labels = _pooled(source)
    factor = factor or ("run" if labels else "activation")
    baseline = baseline or (labels[0] if factor == "run" and labels else "relu")
    by = _columns(frame, factor, by)
    check_choice(factor, baseline, frame[factor].map(str))
    networks, groups = _relabelled(frame, factor, by)
    usable = networks[networks["valid"].astype(bool) & np.isfinite(networks["value"].astype(float))]
    numbers = one_number_each(usable, chosen_quantities(frame, quantity))
    numbers = chosen_attacks(numbers, attack, epsilon)
    masked = _masked(usable, networks) if (numbers["quantity"] == "attack_success").any() else set()
    rows = []
    for where, values in _paired(numbers, baseline, list(dict.fromkeys(networks["activation"]))):
        group = dict(zip(by, groups[where["architecture"]], strict=True))
        sides = [side for side in (where["level"], baseline) if (side, where["architecture"]) in masked]
        if family(where["attack"]) == "native" and where["quantity"] == "attack_success" and sides:
            found = _numbers(values) | {"note": f"native gradients of {' and '.join(sides)} are masked; see the union"}
        else:
            found = _numbers(values) | _inference(values, confidence, method, test)
        rows.append({**group, **{k: v for k, v in where.items() if k != "architecture"}, **found})
    if not rows:
        raise ValueError(f"nothing to compare: {baseline!r} is the only level of {factor} with such measurements")
    table = pd.DataFrame(rows)
    for name, default in (("low", math.nan), ("high", math.nan), ("p", math.nan), ("floor", math.nan), ("note", "")):
        table[name] = table[name].fillna(default) if name in table else default
    _judge(table, 1 - confidence)
    columns = [
        *by, "level", *COORDINATES, "unit", "bound", "mean", "baseline_mean", "difference", "low", "high", "p",
        "p_adjusted", "smallest_p_adjusted", "pairs", "unpaired", "verdict", "note",
    ]  # fmt: skip
    smallest = float(table["smallest_p_adjusted"].min())
    return Comparison(table[columns], factor, baseline, by, confidence, method, test, len(table), smallest)


def _pooled(source: Source | Sequence[Source] | Mapping[str, Source]) -> tuple[pd.DataFrame, list[str]]:
    """One frame, and the runs' labels in a column "run" when there are several."""
    if isinstance(source, (pd.DataFrame, Run, str, Path)):
        return _frame(source), []
    if isinstance(source, Mapping):
        labelled = list(source.items())
    else:
        labelled = [(_label(one, place), one) for place, one in enumerate(source, start=1)]
    labels = [label for label, _ in labelled]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"each run needs a label of its own, got {labels}; pass a mapping of labels to runs")
    return pd.concat([_frame(one).assign(run=label) for label, one in labelled], ignore_index=True), labels


def _label(source: Source, place: int) -> str:
    return (Path(source).name or str(source)) if isinstance(source, (str, Path)) else f"run {place}"


def _frame(source: Source) -> pd.DataFrame:
    frame = source if isinstance(source, pd.DataFrame) else source.frame if isinstance(source, Run) else None
    frame = load_frame(source) if frame is None and isinstance(source, (str, Path)) else frame
    if frame is None or not len(frame):
        raise ValueError("the run holds no finished cell; run the study first")
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise ValueError(f"the frame lacks the columns {', '.join(missing)}")
    return frame


def _columns(frame: pd.DataFrame, factor: str, by: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of `by`, once it is sure that they, the factor and the seed tell all networks apart."""
    design = [name for name in ("run", *FACTORS) if name in frame and name != "seed"]
    check_choice("factor", factor, design)
    others = [name for name in design if name != factor]
    cells = frame.drop_duplicates([*others, factor, "seed"])
    if by is None:
        by = [name for name in _ALWAYS if name in others]
        for name in others:
            if name not in by and cells.groupby([*by, factor, "seed"], dropna=False)[name].nunique().max() > 1:
                by.append(name)
    for name in by:
        check_choice("column of by", name, others)
    if cells.groupby([*by, factor, "seed"], dropna=False).size().max() > 1:
        varying = [name for name in others if name not in by and len(set(cells[name])) > 1]
        raise ValueError(f"networks of equal {factor} and seed differ in {', '.join(varying)}; add that to by")
    return tuple(by)


def _relabelled(
    frame: pd.DataFrame, factor: str, by: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[str, tuple[Any, ...]]]:
    """The factor's level as `activation` and the group as `architecture`, which is what the reductions know."""
    keys = list(zip(*(frame[name] for name in by), strict=True)) if by else [()] * len(frame)
    names = {key: f"{place:06d}" for place, key in enumerate(dict.fromkeys(keys))}
    relabelled = frame.assign(
        activation=frame[factor].map(str),
        architecture=[names[key] for key in keys],
        attack=frame["attack"].astype(object).where(frame["attack"].notna(), ""),
        layer=frame["layer"].astype(object).where(frame["layer"].notna(), ""),
        epsilon=round_epsilon(frame["epsilon"]),
    )
    return relabelled, {name: key for key, name in names.items()}


def _masked(usable: pd.DataFrame, everything: pd.DataFrame) -> set[tuple[str, str]]:
    return {where for where, verdict in masking(usable, everything).items() if verdict.masked}


def _paired(numbers: pd.DataFrame, baseline: str, levels: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Where, and the columns "level" and "baseline" with a row per seed of either; NaN where one is missing."""
    names = ["architecture", *COORDINATES]
    for key, rows in numbers.groupby(names, dropna=False, sort=False):
        wide = rows.pivot_table(index="seed", columns="activation", values="value")
        for level in levels:
            if level == baseline or level not in wide:
                continue
            own = wide[baseline] if baseline in wide else pd.Series(math.nan, index=wide.index)
            pairs = pd.DataFrame({"level": wide[level], "baseline": own}).dropna(how="all")
            where = dict(zip(names, key, strict=True))
            yield {**where, "level": level, "unit": rows["unit"].iloc[0], "bound": rows["bound"].iloc[0]}, pairs


def _numbers(values: pd.DataFrame) -> dict[str, Any]:
    """The means and the difference, and which seeds had a partner."""
    both = values.dropna()
    return {
        "mean": float(both["level"].mean()),
        "baseline_mean": float(both["baseline"].mean()),
        "difference": float((both["level"] - both["baseline"]).mean()),
        "pairs": len(both),
        "unpaired": " ".join(str(seed) for seed in values.index.difference(both.index)),
    }


def _inference(values: pd.DataFrame, confidence: float, method: Method, test: Test) -> dict[str, Any]:
    """Interval, p and its floor as far as the pairs carry them; `note` says what they do not."""
    both = values.dropna()
    d = (both["level"] - both["baseline"]).to_numpy(dtype=float)
    n = len(d)
    if n < 2:
        seeds = "1 seed has" if n == 1 else "no seed has"
        return {"note": f"{seeds} both sides: an interval needs 2 pairs, a verdict 3"}
    found: dict[str, Any] = {}
    notes = ["2 pairs: a verdict needs 3"] if n == 2 else []
    same = statistics.spread_is_zero(d, float(both.abs().to_numpy().max()))
    if same:
        notes.append(f"all {n} differences are {d[0]:.3g}: without spread there is no interval")
    if "bootstrap-t" in (method, test) and not same and n < _BOOTSTRAP_PAIRS:
        notes.append(f"{n} pairs: the bootstrap-t needs {_BOOTSTRAP_PAIRS}")
    usable = {"t": not same, "bootstrap-t": not same and n >= _BOOTSTRAP_PAIRS, "permutation": True}
    resampled = (
        statistics.bootstrap_t(d, confidence) if "bootstrap-t" in (method, test) and usable["bootstrap-t"] else None
    )
    if usable[method]:
        low, high = statistics.t_interval(d, confidence) if resampled is None or method == "t" else resampled[:2]
        if math.isfinite(low) and math.isfinite(high):
            found |= {"low": low, "high": high}
        else:
            notes.append("too many resamples have no spread: the bootstrap-t has no finite end")
    if usable[test] and n > 2:
        if test == "permutation":
            p = statistics.sign_flip_test(d)
        else:
            p = statistics.t_test(d) if resampled is None or test == "t" else resampled[2]
        found |= {"p": p, "floor": statistics.smallest_p(test, n)}
    return found | {"note": "; ".join(notes)}


def _judge(table: pd.DataFrame, alpha: float) -> None:
    """Holm's adjustment over all rows, and the verdicts; in place."""
    table["p_adjusted"] = statistics.holm(table["p"].tolist())
    # The adjustment is monotone in every p: adjusting the floors gives each row's own floor.
    table["smallest_p_adjusted"] = statistics.holm(table["floor"].tolist())
    verdicts = []
    for place, row in enumerate(table.to_dict("records")):
        if math.isnan(row["p"]):
            verdicts.append("no verdict")
        elif row["smallest_p_adjusted"] > alpha * (1 + 1e-12):
            verdicts.append("no verdict")
            reason = f"even the most extreme outcome gives an adjusted p of {row['smallest_p_adjusted']:.3g}"
            table.loc[table.index[place], "note"] = "; ".join(filter(None, [row["note"], reason]))
        elif row["p_adjusted"] <= alpha and row["difference"] != 0:
            verdicts.append("higher" if row["difference"] > 0 else "lower")
        else:
            verdicts.append("not told apart")
    table["verdict"] = verdicts
