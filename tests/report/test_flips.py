"""Shares of examples flipped against the criterion, on a frame worked by hand, and on whole pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from smoothness.report.flips import criterion_met, flip_table, flips
from smoothness.report.page import build_page
from smoothness.study.config import Criterion, load_config
from smoothness.study.fields import ConfigError
from tests.report.synthetic import Rows, synthetic_config, synthetic_run

HALF = Criterion(epsilon=0.25, share=0.5)


def frame_of(flipped: dict[tuple[str, int], list[list[int]]]) -> pd.DataFrame:
    """Two attacks at 0.125 and 0.25 on four examples, of which the last is wrong without any attack."""
    rows = Rows()
    for (name, seed), (one, other) in flipped.items():
        rows.add(name, "mlp", seed, "correct", [1, 1, 1, 0])
        for attack, epsilon, success in (("pgd-ce", 0.125, one), ("apgd-ce", 0.25, other), ("pgd-ce", 0.5, [1] * 4)):
            rows.add(name, "mlp", seed, "attack_success", success, attack=attack, epsilon=epsilon, bound="lower")
    return rows.frame()


FRAME = frame_of(
    {
        ("relu", 0): [[1, 0, 0, 1], [0, 1, 0, 1]],  # two of three, by one attack or the other
        ("relu", 1): [[0, 0, 0, 1], [0, 1, 0, 1]],  # one of three
        ("tanh", 0): [[0, 0, 0, 1], [1, 0, 0, 1]],
        ("tanh", 1): [[0, 0, 0, 1], [0, 0, 1, 1]],
    }
)


def test_any_attack_at_the_radius_or_below_counts():
    relu, tanh = flips(FRAME, HALF)
    assert (relu.architecture, relu.activation) == ("mlp", "relu")
    assert relu.shares == pytest.approx((2 / 3, 1 / 3))
    assert tanh.shares == pytest.approx((1 / 3, 1 / 3))
    assert [each.verdict for each in (relu, tanh)] == ["supported", "not supported"]  # half reached on the dot
    assert flips(FRAME.sample(frac=1, random_state=0), HALF) == [relu, tanh]
    smaller = flips(FRAME, Criterion(epsilon=0.125))
    assert [each.shares for each in smaller] == [pytest.approx((1 / 3, 0)), (0, 0)]
    assert [each.mean for each in flips(FRAME, Criterion(epsilon=0.5))] == [1, 1]
    assert flips(FRAME, None) == []
    assert flips(FRAME[FRAME["quantity"] == "correct"], HALF) == []


def test_one_network_below_the_line_is_enough():
    found = flips(FRAME, HALF)
    both = criterion_met(found, HALF, whole=True)
    assert both.startswith("The claim: not supported.")
    assert both.endswith("; short of that: tanh in mlp (33.3 %).")
    one = criterion_met(found[:1], HALF, whole=True)
    assert one.startswith("The claim: supported. Its criterion is at least 50 %")
    assert one.endswith("flipped at ε = 0.25 in every network.")
    assert criterion_met(found, HALF, whole=False).startswith("No verdict")


def test_the_table_repeats_the_claim_and_has_verdicts_only_at_full_scale():
    found = flips(FRAME, HALF)
    table = flip_table(found, HALF, "C1: made up.", whole=True)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["mlp", "relu", "50.0", "33.3 to 66.7", "supported"],
        ["mlp", "tanh", "33.3", "33.3 to 33.3", "not supported"],
    ]
    assert "C1: made up." in table.caption
    partial = flip_table(found, HALF, None, whole=False)
    assert partial is not None
    assert [row[-1].text for row in partial.rows] == ["–", "–"]
    assert flip_table([], HALF, None, whole=True) is None
    assert flip_table(found, None, None, whole=True) is None


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_pages_answer_a_criterion_first(scale):
    small = {"activations": ("relu",), "architectures": ("mlp",), "seeds": 2}
    run = synthetic_run(**small, examples=10)
    config = synthetic_config(**small, scale=scale, criterion={"epsilon": "8/255", "share": 0.9})
    page = build_page(replace(run, config=config), [])
    assert page.flips is not None
    verdict = page.answer.paragraphs[0][1]
    assert verdict.startswith("The claim: " if scale == "full" else "No verdict")


def test_a_criterion_is_about_a_radius_that_is_attacked(tmp_path: Path):
    text = (Path(__file__).parents[2] / "studies" / "intents.toml").read_text()
    assert load_config(Path("studies/intents.toml"), "full").criterion == HALF
    for old, new, message in (
        ("epsilon = 0.25, share", "epsilon = 0.3, share", "criterion.epsilon: 0.3 is not one of threat.epsilons"),
        ("share = 0.5 }", "share = 1.5 }", "criterion.share"),
    ):
        path = tmp_path / "study.toml"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            load_config(path)
