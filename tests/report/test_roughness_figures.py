"""The figures of roughness: what they reduce a frame to, and what they draw of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from smoothness.report.figures.attribution import draw_attribution, stabilities
from smoothness.report.figures.cells import percent_text
from smoothness.report.figures.curvature import curvatures, draw_curvature
from smoothness.report.figures.dials import dial_scale, draw_roughness_dial, roughness_dial
from smoothness.report.figures.plateaus import draw_plateaus, plateau_shares
from smoothness.report.figures.probe import contradictions, draw_probe, probed_orders
from smoothness.report.figures.variation import (
    concentration_curves,
    draw_concentration,
    draw_concentration_dial,
    draw_variation,
    variation_parts,
)
from smoothness.report.roughness import roughness_plates
from smoothness.report.roughness_methods import measured_at, roughness_methods
from smoothness.report.style import figure_style, strokes
from tests.report.synthetic import Rows, synthetic_config, synthetic_run

NETWORKS = ("step", "relu", "gelu", "relu@sigma=0.5", "relu@sigma=0.1")
SCALES = (0.25, 1.0, 4.0)
TURNED = {"relu": 1.0, "relu@sigma=0.1": 0.6, "relu@sigma=0.5": 0.1, "gelu": 0.2}  # share within the largest h


def rough_frame(seeds: int = 2) -> pd.DataFrame:
    """Four examples of each network, the last one classified wrongly, with round numbers."""
    rows = Rows()
    for name in NETWORKS:
        for seed in range(seeds):
            where = (name, "mlp", seed)
            rows.add(*where, "margin", [1.0, 2.0, 3.0, -1.0])
            rows.add(*where, "correct", [1.0, 1.0, 1.0, 0.0])
            rows.add(*where, "attack_success", [1.0, 0.0, 0.0, 0.0], attack="pgd-ce", epsilon=8 / 255)
            jumps = [0.0, 3.0, 3.0, 50.0] if name == "step" else np.zeros(4)
            rows.add(*where, "value_jump_part", jumps)
            rows.add(*where, "value_variation", np.asarray(jumps) + (name != "step"))
            rows.add(*where, "value_jump_share", [1.0 if name == "step" else 0.0] * 4)
            if name != "step":
                kinked = name == "relu"
                rows.add(*where, "gradient_kink_part", [2.0, 4.0, 6.0, 90.0] if kinked else np.zeros(4))
                rows.add(*where, "gradient_curvature_part", np.zeros(4) if kinked else [0.5, 0.5, 0.5, 90.0])
                for h in SCALES:
                    share = 1.0 if kinked else TURNED[name] * (h == SCALES[-1])
                    rows.add(*where, "gradient_concentration", [share] * 4, epsilon=h)
                    rows.add(*where, "layer_gradient_concentration", [share] * 4, epsilon=h, layer="activation1")
            else:  # the one example without a jump has a gradient, and must not speak for the network
                rows.add(*where, "gradient_kink_part", [0.0])
                rows.add(*where, "gradient_curvature_part", [0.0])
            for layer in ("activation1", "activation2"):
                rows.add(*where, "saturation", [1.0 if name == "step" else 0.25] * 4, layer=layer)
                rows.add(*where, "layer_value_jump_share", [1.0 if name == "step" else 0.0] * 4, layer=layer)
                rows.add(*where, "layer_value_jump_part", jumps, layer=layer)
            rows.add(*where, "flat_fraction", [1.0 if name == "step" else 0.0] * 4)
            rows.add(*where, "zero_gradient_fraction", [{"step": 1.0, "relu": 0.5}.get(name, 0.0)] * 4)
            bend = 0.0 if name in ("step", "relu") else 0.5
            rows.add(*where, "normalised_curvature", [bend] * 4)
            rows.add(*where, "finite_normalised_curvature", [0.0, 1e-14, 1.0, 2.0] if name == "relu" else [8.0] * 4)
            rows.add(*where, "local_linearity_error", [1.0, 1.0, 1.0, 1.0])
            rows.add(*where, "probe_value_jumps", [2.0 if name == "step" else 0.0, 0.0])
            rows.add(*where, "probe_kinks", [2.0 if name in ("step", "relu") else 0.0, 0.0])
            rows.add(*where, "probe_curvature_jumps", [0.0, 0.0])
            rows.add(*where, "probe_finds_none", [0.0 if name in ("step", "relu") else 1.0, 1.0])
            if name != "step":
                rows.add(*where, "attribution_sensitivity", [0.1, 0.2, 0.3, 0.4])
                rows.add(*where, "attribution_infidelity", [1.0, 4.0, 9.0, 1.0])
    return rows.frame()


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with figure_style():
        yield


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return rough_frame()


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_variation_is_of_correct_examples_per_margin_and_adds_up(frame: pd.DataFrame) -> None:
    parts = variation_parts(frame).groupby(["activation", "of", "part"])["value"].mean()
    assert parts["relu", "gradient", "sudden"] == pytest.approx((2 + 4 + 6) / (1 + 2 + 3))
    assert parts["gelu", "gradient", "gradual"] == pytest.approx(1.5 / 6)
    assert parts["step", "value", "sudden"] == pytest.approx(6 / 6)
    assert parts["gelu", "value", "gradual"] == pytest.approx(3 / 6)
    assert ("step", "gradient") not in {key[:2] for key in parts.index}  # infinite, although one example has none


def test_variation_draws_both_parts_of_every_bar(frame: pd.DataFrame) -> None:
    figure = draw_variation(variation_parts(frame))
    gradient, value = figure.axes
    assert "infinite: the value jumps" in [text.get_text() for text in gradient.texts]
    widths = {round(bar.get_y() + bar.get_height() / 2): 0.0 for bar in gradient.patches}
    for bar in gradient.patches:
        widths[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    assert widths == pytest.approx({1: 2.0, 2: 0.25})  # relu and gelu; step is row 0, the dial is left out
    assert len(value.patches) == 6
    ends = {}  # of the bars already seen: the second part of each begins where the first ends
    for bar in (*gradient.patches, *value.patches):
        row = bar.axes is value, round(bar.get_y() + bar.get_height() / 2)
        assert bar.get_x() == pytest.approx(ends.get(row, 0.0))
        ends[row] = bar.get_x() + bar.get_width()
    assert len(draw_variation(variation_parts(frame), narrow=True).axes) == 2


def test_concentration_has_a_panel_for_each_place_and_leaves_jumps_out(frame: pd.DataFrame) -> None:
    curves = concentration_curves(frame)
    assert set(curves["place"]) == {"margin", "activation1"}
    assert "step" not in set(curves["activation"])
    figure = draw_concentration(curves)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["mlp: margin", "mlp: output of activation1"]
    lines = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {(1.0, 1.0, 1.0), (0.0, 0.0, 0.2)}


def test_the_dial_stands_from_sharp_to_smooth(frame: pd.DataFrame) -> None:
    (ax,) = draw_concentration_dial(concentration_curves(frame)).axes
    assert ax.get_title(loc="left") == "mlp: relu, smoothed"
    assert sorted(line.get_ydata()[-1] for line in ax.lines) == [0.1, 0.6, 1.0]
    assert dial_scale(frame) == SCALES[-1]
    found = roughness_dial(frame, 8 / 255)
    assert set(found["name"]) == {"relu"}  # nothing turns the others
    share = found[found["quantity"] == "concentration"].groupby("sigma")["value"].mean()
    assert share.to_dict() == {0.0: 1.0, 0.1: 0.6, 0.5: 0.1}
    robust = found[found["quantity"] == "robust_accuracy"]["value"]
    assert robust.to_numpy() == pytest.approx(0.5)  # one of four is wrong, one is fooled
    figure = draw_roughness_dial(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Gradient turned within h = 4", "Curvature over a distance", "Robust accuracy"
    ]  # fmt: skip
    smooth = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_marker() == "o")
    assert list(smooth.get_xdata()) == [0.1, 0.5]
    assert roughness_dial(frame[~frame["activation"].str.contains("@")], None).empty


def test_curvature_writes_zeros_out_to_rounding(frame: pd.DataFrame) -> None:
    found = curvatures(frame)
    linear = found[found["quantity"] == "local_linearity_error"]
    assert sorted(set(linear["value"])) == pytest.approx([1 / 3, 1 / 2, 1])  # per margin, correct examples alone
    figure = draw_curvature(found)
    said = texts(figure)
    assert said.count("0 for all examples") == 2  # Hessians of step and relu
    assert "0 for 50 %" in said
    medians = [tuple(line.get_xdata()) for line in figure.axes[1].lines if line.get_markersize() == 8]
    assert medians == [(8.0, 8.0), pytest.approx((0.5, 0.5)), (8.0, 8.0)]  # relu's of all four, zeros included
    assert "not measured" not in said


def test_plateaus_by_layer(frame: pd.DataFrame) -> None:
    shares = plateau_shares(frame).groupby(["activation", "of", "place"])["value"].mean()
    assert shares["step", "jumps", "margin"] == shares["step", "ball", "flat"] == 1
    assert shares["gelu", "saturation", "activation2"] == 0.25
    figure = draw_plateaus(plateau_shares(frame))
    assert all(ax.yaxis_inverted() for ax in figure.axes)  # rows are named from the top
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Standing still", "Saturated units", "Variation in jumps"]
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["act. 1", "act. 2", "margin"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["100 %"] * 2 + ["25 %"] * 4
    only = draw_plateaus(plateau_shares(frame[frame["quantity"] == "saturation"]))
    assert len(only.axes) == 1  # what was not measured has no panel


def test_shares_are_never_rounded_to_certainty() -> None:
    assert [percent_text(share) for share in (0.004, 0.996, 0.5)] == ["<1 %", ">99 %", "50 %"]


def test_the_probe_beside_the_facts(frame: pd.DataFrame) -> None:
    orders = probed_orders(frame)
    assert orders.groupby("activation")["order"].min().to_dict() == {
        "step": -1, "relu": 0, "gelu": math.inf, "relu@sigma=0.1": math.inf, "relu@sigma=0.5": math.inf
    }  # fmt: skip
    assert contradictions(orders) == []
    false = orders.assign(order=orders["order"].where(orders["activation"] != "gelu", 0.0))
    assert contradictions(false) == ["gelu"]
    (ax,) = draw_probe(orders).axes
    rows = [label.get_text() for label in ax.get_yticklabels()]
    framed = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    place = {rows[round(p.get_y() + 0.44)]: round(p.get_x() + 0.48) for p in framed}
    assert place == {"step": 0, "relu": 1, "gelu": 3, "relu@sigma=0.1": 3, "relu@sigma=0.5": 3}


def test_explanations_per_squared_margin_and_none_for_plateaus(frame: pd.DataFrame) -> None:
    found = stabilities(frame)
    infidelity = found[found["quantity"] == "attribution_infidelity"]
    assert infidelity["value"].to_numpy() == pytest.approx(1.0)
    assert "no value" in texts(draw_attribution(found))  # the step network's
    assert stabilities(frame, "saliency").empty


def test_every_plate_has_words_and_only_what_was_measured_a_plate(frame: pd.DataFrame) -> None:
    plates = {plate.slug: plate for plate in roughness_plates(frame, 8 / 255)}
    assert list(plates) == [
        "variation", "concentration", "curvature", "plateaus", "probe", "explanations", "concentration-dial",
        "roughness-dial",
    ]  # fmt: skip
    for plate in plates.values():
        assert plate.wide.startswith(b"<?xml")
        assert plate.wide != plate.narrow
        assert len(plate.alt) > 40
    assert "mlp: step 1, relu 0.5" in plates["variation"].alt
    assert "Nowhere did it find" in plates["probe"].caption
    assert "Flat share of the ball: mlp: step 100 %, relu 0 %, gelu 0 %." in plates["plateaus"].alt
    assert "Gradient exactly 0: mlp: step 100 %, relu 50 %, gelu 0 %." in plates["plateaus"].alt
    config = synthetic_config(analyzers=(
        {"kind": "variation", "radius": 2.0, "architectures": ["mlp"]}, {"kind": "plateaus", "norm": "linf"},
        {"kind": "curvature"}, {"kind": "probe", "label": "long"}, {"kind": "attribution"},
    ))  # fmt: skip
    told = {one.slug: one for one in roughness_plates(frame, 8 / 255, measured_at(config.analyzers))}
    assert told["variation"].caption.endswith(" Measured over segments of half-length 2 in input l2 (mlp).")
    assert told["plateaus"].caption.endswith(" Measured over max-norm balls of radius 0.1.")
    assert told["explanations"].caption.endswith(" By integrated gradients, max-norm balls of radius 0.0314.")
    assert told["probe"].caption == plates["probe"].caption  # a labelled one is in no figure
    base = frame[frame["quantity"].isin(["margin", "correct", "attack_success"])]
    assert roughness_plates(base, 8 / 255) == []


def test_levels_of_a_dial_are_paler_than_the_sharp_activation() -> None:
    found = strokes(["relu", "relu@sigma=0.1", "relu@sigma=2", "tanh"])
    light = [int(found[label].colour[1:3], 16) for label in ("relu", "relu@sigma=0.1", "relu@sigma=2")]
    assert light == sorted(set(light))
    assert {found[label].marker for label in found if label.startswith("relu")} == {"o"}


def test_methods_explain_every_quantity_in_the_figures() -> None:
    config = synthetic_config(analyzers=(
        {"kind": "variation", "segments": 3}, {"kind": "variation", "of": "layers"}, {"kind": "plateaus"},
        {"kind": "curvature", "label": "wide"}, {"kind": "probe"}, {"kind": "regions"},
        {"kind": "attribution", "method": "saliency", "label": "saliency"},
    ))  # fmt: skip
    run = dataclasses.replace(synthetic_run(("relu",), ("mlp",), seeds=1, examples=4), config=config)
    said = " ".join(roughness_methods(run, ["value_variation"]))
    for part in ("3 random segments", "each activation's output", "Plateaus: at 32 points", "The probe saw values",
                 "160 × 160 points", "Explanations by saliency"):  # fmt: skip
        assert part in said
    assert said.count("The gradient's variation on a segment is") == 1
    assert "Curvature" not in said  # labelled: in no figure
    assert roughness_methods(run, ["jacobian_norm"]) == []
