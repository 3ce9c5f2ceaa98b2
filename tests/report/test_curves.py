"""The points of figure 1 against the activations' definitions."""

from __future__ import annotations

import pytest

from smoothness.report.curves import activation_curves, module_of, smoothness_order
from smoothness.report.style import order_activations, strokes


def test_a_jump_is_two_pieces_with_a_closed_and_an_open_end() -> None:
    curves = activation_curves(["step"])
    ends = curves[(curves["curve"] == "value") & (curves["end"] != "")]
    assert ends[["z", "y", "end"]].values.tolist() == [[0, 0, "closed"], [0, 1, "open"]]
    assert set(curves.loc[curves["curve"] == "slope", "y"]) == {0.0}
    for _, piece in curves[curves["curve"] == "value"].groupby("piece"):
        assert piece["y"].nunique() == 1


def test_a_kink_breaks_only_the_slope() -> None:
    curves = activation_curves(["relu"])
    assert (curves.loc[curves["curve"] == "value", "end"] == "").all()
    ends = curves[(curves["curve"] == "slope") & (curves["end"] != "")]
    assert ends[["y", "end"]].values.tolist() == [[0, "open"], [1, "open"]]


def test_smooth_curves_have_one_piece() -> None:
    curves = activation_curves(["tanh", "softplus", "elu"])
    assert (curves["end"] == "").all()
    assert set(curves["piece"]) == {0}


def test_labels_with_parameters_and_in_brackets() -> None:
    assert module_of("staircase(levels=9)").levels == 9  # type: ignore[union-attr]
    assert module_of("coarse [staircase(levels=3)]").levels == 3  # type: ignore[union-attr]
    assert smoothness_order("leaky_relu(negative_slope=0.1)") == 0


@pytest.mark.parametrize("label", ["<script>", "relu(", "relu(slope=1)", "=cmd()", "tanh]", "softplus(beta=-1)", ""])
def test_foreign_labels_have_no_curve(label: str) -> None:
    assert module_of(label) is None
    assert activation_curves([label]).empty


def test_colours_are_fixed_by_name() -> None:
    some, more = strokes(["relu", "tanh"]), strokes(["relu", "tanh", "<b>", "gelu", "softplus(beta=4)", "softplus"])
    assert some["relu"] == more["relu"]
    assert some["tanh"] == more["tanh"]
    assert len({s.colour for s in more.values()}) == 6
    assert order_activations(["zzz", "tanh", "step"]) == ["step", "tanh", "zzz"]
