"""Statistics against numbers worked by hand: examples within a seed first, then seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from smoothness.report.tables import (
    Spread,
    check_columns,
    differences,
    layer_roughness,
    normalised,
    per_seed,
    split_valid,
    spreads,
    summary_frame,
)
from tests.report.synthetic import Rows

E8 = 8 / 255


def small_frame() -> pd.DataFrame:
    rows = Rows()
    for seed, success in ((0, [1, 0, 0, 0]), (1, [1, 1, 0])):
        count = len(success)
        rows.add("relu", "mlp", seed, "clean_accuracy", 0.8 + 0.1 * seed)
        rows.add("relu", "mlp", seed, "correct", [1] * count)
        rows.add("relu", "mlp", seed, "margin", [2.0] * count)
        rows.add("relu", "mlp", seed, "jacobian_norm", [4.0 * (seed + 1)] * count)
        rows.add("relu", "mlp", seed, "attack_success", success, attack="pgd-ce", epsilon=E8)
        for layer, value in (("1", 1.0), ("2", 3.0)):
            rows.add("relu", "mlp", seed, "kink_density", [value, 2 * value], layer=layer)
            rows.add("relu", "mlp", seed, "slope_jump", [value, value], layer=layer)
            rows.add("relu", "mlp", seed, "value_jump", [0.0, 0.0], layer=layer)
    return rows.frame()


def test_seeds_are_the_replicates_not_the_examples() -> None:
    found = spreads(per_seed(small_frame()))["mlp", "relu"]
    # Robust accuracy 3/4 and 1/3: their mean is not the pooled 4/7.
    assert found["robust_accuracy"].mean == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert found["robust_accuracy"].sd == pytest.approx((3 / 4 - 1 / 3) / math.sqrt(2))
    assert found["robust_accuracy"].seeds == 2
    assert found["union"].mean == pytest.approx((1 / 4 + 2 / 3) / 2)
    assert found["clean_accuracy"].mean == pytest.approx(0.85)


def test_normalised_by_the_margin_and_summed_over_layers() -> None:
    found = spreads(per_seed(small_frame()))["mlp", "relu"]
    assert found["jacobian_normalised"].mean == pytest.approx((2 + 4) / 2)
    assert found["jacobian_raw"].mean == pytest.approx((4 + 8) / 2)
    assert found["kink_density"].mean == pytest.approx((4 + 8) / 2)  # examples 1 + 3 and 2 + 6
    assert found["slope_jump"].mean == pytest.approx((1 + 3) / 2)
    assert found["slope_jump_raw"].mean == pytest.approx(1 + 3)
    assert found["value_jump"].mean == 0


def test_wrong_examples_have_no_normalised_value() -> None:
    rows = Rows()
    rows.add("relu", "mlp", 0, "margin", [2.0, -1.0, 0.0])
    rows.add("relu", "mlp", 0, "jacobian_norm", [6.0, 6.0, 6.0])
    assert normalised(rows.frame(), "jacobian_norm")["value"].tolist() == [3.0]


def test_layers_are_kept_apart() -> None:
    found = layer_roughness(small_frame())
    means = found.groupby(["quantity", "layer"])["value"].mean()
    assert means["kink_density"].tolist() == [1.5, 4.5]
    assert means["slope_jump"].tolist() == [0.5, 1.5]
    assert means["value_jump"].tolist() == [0.0, 0.0]


def test_scaling_the_logits_leaves_normalised_values_alone() -> None:
    frame = small_frame()
    scaled = frame.copy()
    scaled.loc[frame["quantity"].isin(["margin", "jacobian_norm", "slope_jump", "value_jump"]), "value"] *= 7.0
    for name in ("jacobian_normalised", "slope_jump", "value_jump", "kink_density", "robust_accuracy"):
        np.testing.assert_allclose(per_seed(scaled)[name], per_seed(frame)[name])


def test_invalid_and_infinite_rows_are_left_out_and_counted() -> None:
    frame = small_frame()
    norms = frame.index[frame["quantity"] == "jacobian_norm"]
    frame.loc[norms[0], "valid"] = False
    frame.loc[norms[1], "value"] = math.nan
    frame.loc[norms[2], "value"] = math.inf
    valid, excluded = split_valid(frame)
    assert excluded.to_dict("records") == [{"quantity": "jacobian_norm", "excluded": 3, "rows": 7}]
    assert len(valid) == len(frame) - 3


def test_summary_frame_has_means_and_deviations() -> None:
    (row,) = summary_frame(per_seed(small_frame())).to_dict("records")
    assert (row["activation"], row["seeds"], row["smoothness_order"]) == ("relu", 2, 0)
    assert row["clean_accuracy_mean"] == pytest.approx(0.85)
    assert row["clean_accuracy_sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert math.isnan(row["surrogate_mean"])


def test_spread_of_one_seed_and_of_none() -> None:
    assert Spread.of([0.5]).percent() == "50.0"
    assert Spread.of([math.nan]).percent() == Spread.of([]).number() == "–"
    assert Spread.of([1.0, 3.0]).number() == "2.00 ± 1.41"
    assert Spread.of([0.0, 0.0]).number() == "0"
    assert Spread.of([1e-9, 2e-9]).number() == "1.50e-09 ± 7e-10"


def test_paired_intervals_match_the_t_test() -> None:
    seeds = pd.DataFrame(
        {
            "activation": ["relu"] * 4 + ["gelu"] * 4,
            "architecture": "mlp",
            "seed": [0, 1, 2, 3] * 2,
            "robust_accuracy": [0.10, 0.20, 0.15, 0.12, 0.30, 0.35, 0.36, 0.31],
        }
    )
    (found,) = differences(seeds, "mlp", "robust_accuracy", "relu")
    difference = np.array([0.20, 0.15, 0.21, 0.19])
    expected = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert (found.activation, found.seeds) == ("gelu", 4)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match="lacks the columns bound, valid"):
        check_columns(small_frame().drop(columns=["bound", "valid"]))
