"""Figures 2 and 5: robust accuracy against ε, and against clean accuracy."""

from __future__ import annotations

import textwrap

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smoothness.report.answer import of_images
from smoothness.report.style import (
    NARROW,
    WIDE,
    empty_figure,
    legend_below,
    order_activations,
    panels,
    strokes,
)

MOST_COLUMNS = 4
_TITLE = 22  # characters of a panel title that fit beside three others


def format_epsilon(epsilon: float) -> str:
    """ε as a multiple of 1/255, the step of an 8-bit image.

    >>> format_epsilon(8 / 255), format_epsilon(0.5 / 255)
    ('8', '0.5')
    """
    return f"{epsilon * 255:.3g}"


def architectures_of(frame: pd.DataFrame) -> list[str]:
    """Architectures in reading order."""
    return sorted(set(frame["architecture"]), key=lambda name: (name != "mlp", name))


def draw_robust_accuracy(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Robust accuracy against ε: mean and ± one standard deviation over seeds, one panel per architecture.

    Args:
        frame: of `robust_curves`, with a column "norm": the norm of the ball in words.
        narrow: lay out for a small screen.
    """
    if frame.empty:
        return empty_figure("No attack was run.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    style = strokes(labels)
    epsilons = sorted(frame["epsilon"].unique())
    images = any(epsilon > 0 and of_images(epsilon) for epsilon in epsilons)
    places = {epsilon: place for place, epsilon in enumerate(epsilons)}
    columns = 1 if narrow else min(len(architectures), MOST_COLUMNS)
    word = "ε" if columns > 2 else "perturbation ε"
    figure, axes = panels(
        -(-len(architectures) // columns),
        columns,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, len(architectures) / 2)),
        row_height=2.6 if narrow or len(architectures) > columns else 3.5,
        sharey=True,
    )
    for ax, architecture in zip(axes, architectures, strict=False):
        rows = frame[frame["architecture"] == architecture]
        sns.lineplot(
            data=rows.assign(place=rows["epsilon"].map(places)), x="place", y="robust_accuracy", errorbar="sd",
            hue="activation", style="activation", hue_order=labels, style_order=labels,
            palette={k: s.colour for k, s in style.items()}, dashes={k: s.dashes or "" for k, s in style.items()},
            markers={k: s.marker for k, s in style.items()}, legend=False, ax=ax,
            err_kws={"alpha": 0.15, "linewidth": 0},
        )  # fmt: skip
        ax.set_title(textwrap.fill(architecture, _TITLE))
        ax.set_xticks(range(len(epsilons)), [format_epsilon(e) if images else f"{e:.4g}" for e in epsilons])
        ax.set(
            xlabel=f"{word}{', in 1/255' if images else ''} ({frame['norm'].iloc[0]})",
            ylabel="",
            ylim=(-0.02, 1.0),
        )
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes[0].set_ylabel("robust accuracy (upper bound)")
    for ax in axes[len(architectures) :]:
        ax.set_visible(False)
    legend_below(figure, labels, narrow=narrow)
    return figure


def draw_tradeoff(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Clean against robust accuracy on the same examples: small points are seeds, large ones their mean.

    Args:
        frame: of `per_seed`.
        narrow: lay out for a small screen.
    """
    frame = frame.dropna(subset=["clean_accuracy_attacked", "robust_accuracy"])
    if frame.empty:
        return empty_figure("No attack was run.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    style = strokes(labels)
    columns = 1 if narrow else min(len(architectures), MOST_COLUMNS)
    figure, axes = panels(
        -(-len(architectures) // columns),
        columns,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, len(architectures) / 2)),
        row_height=2.6 if narrow or len(architectures) > columns else 3.3,
    )
    means = frame.groupby(["architecture", "activation"], as_index=False)[
        ["clean_accuracy_attacked", "robust_accuracy"]
    ].mean()
    for ax, architecture in zip(axes, architectures, strict=False):
        for data, size, alpha, edge in ((frame, 22, 0.55, 0.0), (means, 95, 1.0, 1.0)):
            sns.scatterplot(
                data=data[data["architecture"] == architecture], x="clean_accuracy_attacked", y="robust_accuracy",
                hue="activation", style="activation", hue_order=labels, style_order=labels, s=size, alpha=alpha,
                palette={k: s.colour for k, s in style.items()}, markers={k: s.marker for k, s in style.items()},
                linewidth=edge, edgecolor="white", legend=False, ax=ax, zorder=3 if edge else 2,
            )  # fmt: skip
        ax.set_title(textwrap.fill(architecture, _TITLE))
        ax.set(xlabel="clean accuracy" if columns > 2 else "clean accuracy, attacked examples", ylabel="")
        ax.set(xlim=_limits(frame["clean_accuracy_attacked"]), ylim=_limits(frame["robust_accuracy"]))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes[0].set_ylabel("robust accuracy (upper bound)")
    legend_below(figure, labels, narrow=narrow, lines=False)
    return figure


def _limits(values: pd.Series) -> tuple[float, float]:
    """Limits with room for the largest marker; at least ten points wide."""
    low, high = float(values.min()), float(values.max())
    pad = max(0.12 * (high - low), (0.1 - (high - low)) / 2, 0.02)
    return max(low - pad, -0.025), min(high + pad, 1.025)
