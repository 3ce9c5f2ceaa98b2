"""The plane that every network of a study was shown: pictures side by side, and a film along the dial."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from smoothness.report.figures.slices import (
    Planes,
    Scales,
    Slice,
    common_scales,
    draw_bends,
    draw_slices,
    picture_png,
    show_bends,
    show_slope,
)
from smoothness.report.plate import Plate, plate
from smoothness.report.style import figure_style, on_dial, order_activations

_NEEDED = ("slice_classes", "slice_slope", "slice_corners", "slice_bounds")
_PLANE = (
    "The plane through three test examples (circles), the same for every network: what follows is the logit of the "
    "first one's class minus that of another's, divided by the network's median margin."
)


@dataclass(frozen=True)
class Picture:
    """A picture as PNG, what it shows, and the end of its file's name."""

    name: str
    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class Frame:
    """One place of a film's slider: what the slider says there, and the pictures."""

    label: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Film:
    """One activation from smooth to sharp.

    Attributes:
        slug: anchor, and stem of the files.
        title, caption: what it is; what to see, with units.
        frames: from the largest σ down to 0.
    """

    slug: str
    title: str
    caption: str
    frames: tuple[Frame, ...]


def slices(
    cells: Sequence[Mapping[str, Any]],
    examples: Mapping[str, Mapping[str, Tensor]],
    frame: pd.DataFrame,
    names: Mapping[str, str],
) -> dict[str, list[Slice]]:
    """Setting -> the slices of its networks of the first seed, from the roughest activation.

    Args:
        cells: facts of the cells, with "cell", "activation", "setting", "seed" and "classes", their names.
        examples: cell label -> its tensors; those of `smoothness.study.slices.slice_of` among them.
        frame: the valid rows, for the margins.
        names: label of an activation -> as it is shown; itself where left out.
    """
    margins = frame[(frame["quantity"] == "margin") & (frame["value"] > 0)].groupby("cell")["value"].median()
    counted = frame[frame["quantity"] == "slice_regions"].groupby("cell")["value"].first()
    found: dict[str, dict[str, tuple[int, Slice]]] = {}
    for facts in cells:
        cell, tensors = str(facts["cell"]), examples.get(str(facts["cell"]), {})
        if not all(name in tensors for name in _NEEDED) or cell not in margins.index:
            continue
        label, seed = names.get(str(facts["activation"]), str(facts["activation"])), int(facts["seed"])
        classes, slope, corners, bounds = (tensors[name].numpy() for name in _NEEDED)
        low_u, high_u, low_v, high_v = map(float, bounds)
        one = Slice(
            label,
            classes,
            slope.astype(float) / float(margins[cell]),
            corners,
            (low_u, high_u, low_v, high_v),
            tuple(map(str, facts["classes"])),
            int(counted[cell]) if cell in counted.index else None,
        )
        kept = found.setdefault(str(facts["setting"]), {})
        if label not in kept or seed < kept[label][0]:
            kept[label] = (seed, one)
    return {setting: [kept[label][1] for label in order_activations(kept)] for setting, kept in found.items()}


def slice_plates(found: Mapping[str, Sequence[Slice]]) -> list[Plate]:
    """For each setting the slope and the bends of its networks; levels of a dial are left to the film."""
    plates = []
    for number, (setting, several) in enumerate(sorted(found.items(), key=lambda item: (item[0] != "mlp", item[0]))):
        shown = [one for one in several if on_dial(one.label) is None] or list(several)
        scales = common_scales(several)
        flat = ", ".join(f"{one.label} {100 * one.flat:.0f} %" for one in shown)
        classes = ", ".join(f"{one.label} {len(set(one.classes.flat))}" for one in shown)
        end = "" if len(found) == 1 else f"-{number + 1}"
        plates.append(
            plate(
                f"slices{end}",
                f"The same plane through every network: slope ({setting})",
                f"{_PLANE} Colour: its slope in the plane by central differences, hue the direction, strength the "
                "size (1 / input l2; an estimate at the grid's pitch), one scale for all. A patch of one colour is "
                "a linear region, a gradual change curvature; without colour it is a plateau, and on its edge the "
                f"value jumps. Lines with names on their sides: the decision boundary.{_counted(shown)}",
                f"Maps of one square for each activation. Share with a slope of exactly 0: {flat}. Classes met: "
                f"{classes}.",
                draw_slices,
                Planes(shown, scales),
            )
        )
        plates.append(
            plate(
                f"bends{end}",
                f"The same plane through every network: where the slope changes ({setting})",
                f"{_PLANE} Shade: the change of its slope over the pitch of the grid (1 / input l2², logarithmic, an "
                "estimate), one scale for all. Kinks stand as lines, edges of plateaus as stronger ones, curvature "
                "as a haze; empty where the slope does not change. Orange lines: the decision boundary.",
                f"Maps of one square for each activation, from the roughest: {', '.join(o.label for o in shown)}. "
                "Lines where the network has kinks or jumps, a haze where it is smooth.",
                draw_bends,
                Planes(shown, scales),
            )
        )
    return plates


def _counted(shown: Sequence[Slice]) -> str:
    words = [f"{one.label} {one.regions:,}" for one in shown if one.regions is not None]
    return f" Affine pieces of the square, counted exactly: {', '.join(words)}." if words else ""


def films(found: Mapping[str, Sequence[Slice]]) -> list[Film]:
    """For each setting and activation on the dial its slices from the largest σ to the sharp one, on one scale."""
    made: list[Film] = []
    for setting, several in found.items():
        scales = common_scales(several)
        by_label = {one.label: one for one in several}
        turned: dict[str, dict[float, Slice]] = {}
        for label, one in by_label.items():
            if dial := on_dial(label):
                turned.setdefault(dial[0], {})[dial[1]] = one
        for name, levels in sorted(turned.items()):
            if name in by_label:
                levels[0.0] = by_label[name]
            if len(levels) > 1:
                made.append(_film(f"film-{len(made) + 1}", setting, name, levels, scales))
    return made


def _film(slug: str, setting: str, name: str, levels: Mapping[float, Slice], scales: Scales) -> Film:
    frames = []
    for sigma in sorted(levels, reverse=True):
        one, label = levels[sigma], f"σ = {sigma:g}" + ("" if sigma else f" ({name} itself)")
        with figure_style():
            slope, bends = (picture_png(one, scales, show) for show in (show_slope, show_bends))
        pictures = (
            Picture("slope", f"{name} at {label}: slope in the plane, exactly 0 on {100 * one.flat:.0f} % of it; "
                    f"{len(set(one.classes.flat))} classes.", slope),
            Picture("bends", f"{name} at {label}: where the slope changes.", bends),
        )  # fmt: skip
        frames.append(Frame(label, pictures))
    caption = (
        f"{_PLANE} First its slope: hue is the direction, strength the size, full at {scales.full:.2g} per unit of "
        "input l2; without colour it is a plateau. Then where that slope changes, stronger the more. One scale for "
        f"all pictures, that of the figures of {setting} above. Each is a network of its own, trained with the "
        "activation smoothed by a Gaussian of width σ, from the same initial weights."
    )
    return Film(slug, f"From smooth to sharp: {name} ({setting})", caption, tuple(frames))
