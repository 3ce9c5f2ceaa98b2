"""Union of attacks, carrying successes forward, and the masking rule, against small frames worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothness.report.success import (
    attack_rates,
    first_success,
    masking,
    nearest_epsilon,
    robust_curves,
    success_rates,
)
from tests.report.synthetic import Rows

E2, E4, E8 = 2 / 255, 4 / 255, 8 / 255


def add_attack(rows: Rows, attack: str, table: dict[float, list[int]], name: str = "relu", seed: int = 0) -> None:
    for epsilon, success in table.items():
        rows.add(name, "mlp", seed, "attack_success", success, attack=attack, epsilon=epsilon, bound="lower")


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = Rows()
    # Five examples; the last is wrong without any attack and counts as a success of every attack.
    rows.add("relu", "mlp", 0, "correct", [1, 1, 1, 1, 0])
    add_attack(rows, "noise-corner", {E2: [0, 0, 0, 0, 1], E4: [0, 0, 1, 0, 1], E8: [0, 0, 0, 0, 1]})
    add_attack(rows, "pgd-ce", {E2: [1, 0, 0, 0, 1], E4: [0, 1, 0, 0, 1], E8: [1, 1, 0, 0, 1]})
    return rows.frame()


def test_successes_are_carried_forward(frame: pd.DataFrame) -> None:
    first = first_success(frame).pivot_table(index="example", columns="attack", values="first", dropna=False)
    assert first["noise-corner"].tolist() == [math.inf, math.inf, pytest.approx(E4), math.inf]
    assert first["pgd-ce"].tolist() == [pytest.approx(E2), pytest.approx(E4), math.inf, math.inf]


def test_union_counts_each_correct_example_once(frame: pd.DataFrame) -> None:
    rates = success_rates(frame).set_index(["family", "epsilon"])["success"]
    assert rates["union"].tolist() == [1 / 4, 3 / 4, 3 / 4]
    assert rates["native"].tolist() == [1 / 4, 2 / 4, 2 / 4]
    assert rates["noise"].tolist() == [0, 1 / 4, 1 / 4]


def test_robust_accuracy_counts_all_attacked_examples(frame: pd.DataFrame) -> None:
    curve = robust_curves(frame).set_index("epsilon")["robust_accuracy"]
    assert curve.index[0] == 0
    assert curve.tolist() == [4 / 5, 3 / 5, 1 / 5, 1 / 5]


def test_examples_without_an_attack_do_not_count(frame: pd.DataFrame) -> None:
    extra = frame[(frame["quantity"] == "correct") & (frame["example"] == 0)].assign(example=99)
    curve = robust_curves(pd.concat([frame, extra])).set_index("epsilon")["robust_accuracy"]
    assert curve.tolist() == [4 / 5, 3 / 5, 1 / 5, 1 / 5]


def test_single_attacks(frame: pd.DataFrame) -> None:
    rates = attack_rates(frame).set_index(["attack", "epsilon"])["success"]
    assert rates["pgd-ce"].tolist() == [1 / 4, 2 / 4, 2 / 4]
    assert set(rates.index.get_level_values(0)) == {"pgd-ce", "noise-corner"}


def masked_rows(gradient: list[float], native: list[int], surrogate: list[int], name: str = "relu") -> pd.DataFrame:
    rows = Rows()
    rows.add(name, "mlp", 0, "correct", [1] * len(native))
    rows.add(name, "mlp", 0, "jacobian_norm", gradient)
    add_attack(rows, "pgd-ce", {E8: native}, name)
    add_attack(rows, "pgd-ce-tanh", {E8: surrogate}, name)
    return rows.frame()


def test_masked_when_most_gradients_are_zero() -> None:
    verdict = masking(masked_rows([0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]))["relu", "mlp"]
    assert verdict.zero_share == 0.75
    assert verdict.masked


def test_masked_when_a_surrogate_is_ahead() -> None:
    verdict = masking(masked_rows([1] * 4, [0, 0, 0, 1], [1, 1, 0, 1]))["relu", "mlp"]
    assert (verdict.lead, verdict.lead_epsilon) == (0.5, pytest.approx(E8))
    assert verdict.masked


@pytest.mark.parametrize(("fooled", "masked"), [(11, False), (12, True)])
def test_five_points_of_lead_are_allowed(fooled: int, masked: bool) -> None:
    native = [1] * 6 + [0] * 94
    surrogate = [1] * fooled + [0] * (100 - fooled)
    assert masking(masked_rows([1.0] * 100, native, surrogate))["relu", "mlp"].masked is masked


def test_a_steps_name_decides_nothing() -> None:
    assert not masking(masked_rows([1, 1], [1, 1], [1, 1], "staircase"))["staircase", "mlp"].masked
    assert masking(masked_rows([0, 0], [0, 0], [1, 1], "gelu"))["gelu", "mlp"].masked


def test_without_gradients_or_other_attacks_nothing_is_masked() -> None:
    rows = Rows()
    rows.add("relu", "mlp", 0, "correct", [1])
    verdict = masking(rows.frame())["relu", "mlp"]
    assert math.isnan(verdict.zero_share)
    assert not verdict.masked


def test_nearest_epsilon() -> None:
    assert nearest_epsilon([E2, E8, 16 / 255], 8 / 255) == E8
    assert nearest_epsilon([E4, 16 / 255], 8 / 255) == E4
    assert nearest_epsilon([16 / 255], 8 / 255) == 16 / 255
    assert nearest_epsilon([], 8 / 255) is None


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=6, max_size=6))
def test_union_is_monotone_and_bounds_every_attack(success: list[list[bool]]) -> None:
    rows = Rows()
    rows.add("relu", "mlp", 0, "correct", [1, 1, 1, 1, 0, 1])
    for place, values in enumerate(success):
        attack = ("noise-corner", "pgd-ce", "pgd-ce-tanh")[place % 3]
        add_attack(rows, attack, {(E2, E8)[place // 3]: [int(v) for v in values]})
    rates = success_rates(rows.frame())
    wide = rates.pivot_table(index="epsilon", columns="family", values="success")
    assert (wide.diff().dropna() >= 0).all(axis=None)
    assert (wide["union"] >= wide[["noise", "native", "surrogate"]].max(axis=1)).all()
    robust = robust_curves(rows.frame()).set_index("epsilon")["robust_accuracy"]
    np.testing.assert_allclose(robust.loc[wide.index], 5 / 6 * (1 - wide["union"]))


@pytest.mark.parametrize(("false", "masked"), [(1, False), (2, False), (3, True)])
def test_gradients_that_contradict_the_forward_pass_are_masked(false: int, masked: bool) -> None:
    """A wrapper that cuts or turns the gradient: its Jacobian rows are invalid, and must not drop out of sight."""
    rows = Rows()
    rows.add("relu", "mlp", 0, "correct", [1, 1, 1, 1, 1])
    rows.add("relu", "mlp", 0, "jacobian_norm", [0.5, 0.5, 0.5, 0.5, 0.5])
    add_attack(rows, "pgd-ce", {E8: [0, 0, 0, 0, 0]})
    everything = rows.frame()
    everything.loc[(everything["quantity"] == "jacobian_norm") & (everything["example"] < false), "valid"] = False
    # The last example's outputs are not finite: that says nothing of its gradient.
    everything.loc[everything["example"] == 4, "valid"] = False
    verdict = masking(everything[everything["valid"]], everything)["relu", "mlp"]
    assert verdict.contradicted == false / 4
    assert verdict.masked is masked


def test_an_attack_has_rates_only_where_it_ran_and_the_union_carries_it_forward() -> None:
    rows = Rows()
    rows.add("relu", "mlp", 0, "correct", [1, 1], unit="0/1")
    for attack, epsilon, fooled in (("pgd-ce", 0.1, [0, 0]), ("pgd-ce", 0.2, [0, 0]), ("cascade-full", 0.1, [1, 0])):
        rows.add("relu", "mlp", 0, "attack_success", fooled, unit="0/1", attack=attack, epsilon=epsilon)
    frame = rows.frame()
    single = attack_rates(frame).set_index(["attack", "epsilon"])["success"].to_dict()
    assert single == {("pgd-ce", 0.1): 0.0, ("pgd-ce", 0.2): 0.0, ("cascade-full", 0.1): 0.5}
    union = success_rates(frame).query("family == 'union'")
    assert union.set_index("epsilon")["success"].to_dict() == {0.1: 0.5, 0.2: 0.5}
    assert set(success_rates(frame)["family"]) == {"native", "cascade", "union"}
