"""Lines of a panel on roughness, of made-up measurements: which number is shown, of which examples, beside what."""

import math

import pytest
import torch

from smoothness.measurement import Measurement
from smoothness.panel.rough_rows import curvature_rows, plateau_rows, probe_rows, variation_rows
from smoothness.panel.uses import ActivationUse


def made(quantity, values, *, valid=None, bound="estimate", coords=None, settings=None, **details):
    values = torch.tensor(values, dtype=torch.float64)
    valid = None if valid is None else torch.tensor(valid)
    return Measurement(
        quantity, values, unit="1", bound=bound, valid=valid, coords=coords or {}, settings=settings or {},
        details=details,
    )  # fmt: skip


def numbers(rows):
    return {row.name: row.number for row in rows}


def use(name, order):
    return ActivationUse(name, ("0",), True, order, None, None, "")


PROBED = {
    "smoothness_order": made(
        "smoothness_order", [math.inf, 0.0, -1.0], valid=[True, True, False], settings={"radius": 0.5},
        exhausted=torch.tensor([False, False, False]), reason=("", "", "not finite"),
    ),
    "probe_value_jumps": made("probe_value_jumps", [0.0, 0.0, 9.0], valid=[True, True, False]),
    "probe_kinks": made("probe_kinks", [0.0, 4.0, 9.0], valid=[True, True, False]),
    "probe_curvature_jumps": made("probe_curvature_jumps", [0.0, 0.0, 0.0]),
}  # fmt: skip


def test_the_probe_shows_the_roughest_break_beside_the_roughest_activation():
    first, *kinds = probe_rows(PROBED, (use("gelu", math.inf), use("step", -1)))
    assert (first.number, first.value) == (0.0, "0: kinks")
    assert "by the activations' facts: -1: value jumps" in first.note
    assert "1 of 3 without a value: not finite" in first.note
    assert "a budget ended the search" not in first.note
    assert numbers(kinds) == {"… kinks, density, mean": 2.0}  # of valid examples; what was not seen has no line
    unknown, *_ = probe_rows(PROBED, (use("gelu", math.inf), use("other", None)))
    assert "facts" not in unknown.note
    spent = {**PROBED, "smoothness_order": made(
        "smoothness_order", [math.inf], settings={"radius": 0.5}, exhausted=torch.tensor([True])
    )}  # fmt: skip
    first, *_ = probe_rows(spent, ())
    assert first.value == "none"
    assert "a budget ended the search: there may be more" in first.note


@pytest.mark.parametrize(
    ("zero", "said"), [([0.5, 0.5, 0.0], False), ([0.5, 0.6, 0.0], True), ([0.5, 0.5, 1.0], False)]
)
def test_plateaus_are_means_of_valid_examples(zero, said):
    where = {"radius": 0.1}
    found = {
        "flat_fraction": made("flat_fraction", [0.5, 0.5, 0.5], valid=[True, True, False], settings=where),
        "zero_gradient_fraction": made("zero_gradient_fraction", zero, valid=[True, True, False], settings=where),
        "saturation": made(
            "saturation", [[0.0, 1.0], [0.5, 1.0], [9.0, 9.0]], valid=[True, True, False],
            coords={"layer": ("a", "b")},
        ),
    }  # fmt: skip
    rows = list(plateau_rows(found))
    assert numbers(rows) == pytest.approx({
        "flat by its values": 0.5, "gradient exactly 0 in the ball": (zero[0] + zero[1]) / 2,
        "saturated units of a": 0.25, "saturated units of b": 1.0,
    })  # fmt: skip
    assert ("values and gradients disagree" in rows[1].note) == said


@pytest.mark.parametrize(
    ("values", "flat"), [([0.0, 0.0, 5.0], True), ([0.0, 0.0, 1.0], True), ([0.0, 2.0, 5.0], False)]
)
def test_only_a_curvature_of_zero_everywhere_is_said_to_be_no_smoothness(values, flat):
    point = made("normalised_curvature", values, valid=[True, True, False], bound="lower")
    finite = made("finite_normalised_curvature", [1.0, 2.0, 90.0], settings={"scale": 0.25})
    one, two = curvature_rows({"normalised_curvature": point, "finite_normalised_curvature": finite})
    assert one.number == sum(values[:2]) / 2
    assert one.kind == "lower bound"
    assert ("not smoothness" in one.note) == flat
    assert two.number == 2.0


def test_the_scale_in_the_middle_is_shown():
    settings = {"segments": 2}
    shares = made("gradient_concentration", [[0.0, 0.5, 1.0], [0.0, 0.7, 1.0]], coords={"epsilon": (0.1, 0.4, 1.6)})
    plain = {"value_jump_share": [0.0, 0.5], "gradient_kink_part": [1.0, 3.0], "gradient_curvature_part": [4.0, 6.0]}
    found = {name: made(name, values) for name, values in plain.items()}
    found |= {
        "value_variation": made("value_variation", [1.0, 2.0], settings=settings),
        "gradient_concentration": shares,
    }
    assert numbers(variation_rows(found)) == pytest.approx({
        "value variation, mean": 1.5, "… in jumps": 0.25, "gradient variation in kinks, mean": 2.0,
        "… in curvature, mean": 5.0, "… turned within 0.4 (l2)": 0.6,
    })  # fmt: skip
