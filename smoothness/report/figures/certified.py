"""Figure: certified beside attacked accuracy: the truth lies between."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.style import NARROW, WIDE, empty_figure, order_activations, panels, strokes
from smoothness.study.reductions import KEYS, robust_curves


def certified_curves(frame: pd.DataFrame, norm: str) -> pd.DataFrame:
    """Certified accuracy and robust accuracy under the union of attacks, per network and tested ε.

    Certified: the share of attacked examples that are classified correctly and whose certified radius reaches ε: a
    lower bound on the true robust accuracy, as robust accuracy under attacks is an upper one.

    Args:
        frame: the valid rows.
        norm: of the attacks; radii in another one do not count.

    Returns:
        KEYS, epsilon, certified, robust_accuracy.
    """
    attacked = frame.loc[frame["quantity"] == "attack_success", [*KEYS, "example"]].drop_duplicates()
    own = (frame["quantity"] == "certified_radius") & (frame["unit"] == f"input {norm}")
    radii = frame.loc[own, [*KEYS, "example", "value"]].merge(attacked, on=[*KEYS, "example"])
    curves = robust_curves(frame)
    parts = []
    for epsilon in sorted(curves["epsilon"].unique()):
        held = radii.assign(certified=(radii["value"] >= epsilon) & (radii["value"] > 0), epsilon=epsilon)
        parts.append(held.groupby([*KEYS, "epsilon"], as_index=False)["certified"].mean())
    if radii.empty:
        return pd.DataFrame(columns=[*KEYS, "epsilon", "certified", "robust_accuracy"])
    found = pd.concat(parts, ignore_index=True).merge(curves, on=[*KEYS, "epsilon"])
    return pd.DataFrame(found[[*KEYS, "epsilon", "certified", "robust_accuracy"]])


def draw_certified(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """One row an activation and ε: a bar from certified to attacked accuracy; means over seeds.

    Args:
        frame: of `certified_curves`.
        narrow: lay out for a small screen.
    """
    frame = frame[frame["epsilon"] > 0]
    if frame.empty:
        return empty_figure("No radius was certified in the attacks' norm.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    epsilons = sorted(frame["epsilon"].unique())
    rows, columns = (len(architectures), 1) if narrow else (1, len(architectures))
    width = NARROW if narrow else WIDE * max(0.72, min(1.0, columns / 2))
    figure, axes = panels(rows, columns, width=width, row_height=0.36 * len(labels) + 1.0, sharey=not narrow)
    places = np.linspace(-0.28, 0.28, len(epsilons)) if len(epsilons) > 1 else np.zeros(1)
    for ax, architecture in zip(axes, architectures, strict=True):
        own = frame[frame["architecture"] == architecture]
        means = own.groupby(["activation", "epsilon"], as_index=False)[["certified", "robust_accuracy"]].mean()
        for activation, epsilon, low, high in means.itertuples(index=False):
            y = labels.index(activation) + places[epsilons.index(epsilon)]
            colour = strokes(labels)[activation].colour
            ax.plot([low, high], [y, y], color=colour, linewidth=3, alpha=0.35, solid_capstyle="butt")
            ax.plot([low], [y], marker="|", color=colour, markersize=6)
            ax.plot([high], [y], marker=".", color=colour, markersize=6)
        ax.set_title(architecture)
        ax.set_yticks(range(len(labels)), labels)
        ax.set(ylim=(len(labels) - 0.4, -0.6), xlim=(-0.02, 1.02), xlabel="accuracy: certified | to attacked ●")
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    return figure
