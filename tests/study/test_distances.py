"""Distances to the boundary and to the next class: by closed form, by made-up frames, and as drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from torch import nn

from smoothness.data import Dataset, Split
from smoothness.estimators import EstimatorModel
from smoothness.report.distances import LINE, distance_table, families, listing, overall
from smoothness.report.figures.distances import draw_distances
from smoothness.study.distances import distances, next_class, to_boundary


@pytest.fixture(scope="module")
def pair() -> Dataset:
    """Two classes on either side of x₀ = 1/2, at 0.1 and at 0.9, spread along the other two axes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(80, 3, generator=generator, dtype=torch.float64).float()
    labels = torch.arange(80) % 2
    inputs[:, 0] = torch.where(labels == 0, 0.1, 0.9)
    split = Split(inputs, labels)
    return Dataset("pair", split, split, split, classes=("low", "high"), bounds=(0.0, 1.0), source="made up")


def test_the_next_class_is_the_nearest_training_example_with_another_label(pair):
    x, y = pair.test.inputs[:40], pair.test.labels[:40]
    for norm, order in (("l2", 2), ("linf", math.inf), ("l1", 1)):
        found = next_class(pair.train, x, y, norm)
        expected = [
            min(np.linalg.norm((a - b).double().numpy(), order) for b in pair.train.inputs[pair.train.labels != label])
            for a, label in zip(x, y, strict=True)
        ]
        assert found.bound == "exact"
        assert np.allclose(found.values, expected, rtol=1e-6)


def test_without_another_class_there_is_no_distance(pair):
    alone = Split(pair.train.inputs, torch.zeros_like(pair.train.labels))
    found = next_class(alone, pair.test.inputs[:3], torch.zeros(3, dtype=torch.long), "l2")
    assert not found.valid.any()


def test_linear_models_are_exact_others_are_upper_bounds(pair):
    x, y = pair.test.inputs[:4], pair.test.labels[:4]
    linear = LogisticRegression().fit(pair.train.inputs.numpy(), pair.train.labels.numpy())
    far, near = distances(pair, EstimatorModel(linear), x, y, "l2", 200, 0)
    assert (far.quantity, near.quantity) == ("next_class_distance", "minimal_distance")
    score = np.abs(linear.decision_function(x.double().numpy())) / np.linalg.norm(linear.coef_)
    assert near.bound == "exact"
    assert np.allclose(near.values, score, rtol=1e-4)

    bayes = EstimatorModel(GaussianNB().fit(pair.train.inputs.numpy(), pair.train.labels.numpy()))
    found = to_boundary(pair, bayes, x, y, "l2", 300, 0)
    assert found.bound == "upper"
    assert torch.all(torch.gt(found.values, 0))
    assert torch.all(torch.le(found.values, torch.mul(far.values, 1 + 1e-6)))  # the attack may start there

    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    found = to_boundary(pair, model, x, y, "l2", 300, 0)
    assert found.bound == "upper"
    assert torch.allclose(found.values, (x[:, 0] - 0.5).abs().double(), rtol=1e-3)


def frame_of(ratios: dict[str, list[list[float]]], bound: str = "upper") -> pd.DataFrame:
    """Rows of families with the ratios of each example in each seed; the next class is at 2."""
    rows = []
    for name, seeds in ratios.items():
        for seed, values in enumerate(seeds):
            for example, value in enumerate(values):
                common = {"architecture": name, "activation": "relu", "seed": seed, "example": example}
                common |= {"unit": "input l2", "data": "made up"}
                rows += [{**common, "quantity": "minimal_distance", "value": 2 * value, "bound": bound}]
                rows += [{**common, "quantity": "next_class_distance", "value": 2.0, "bound": "exact"}]
    return pd.DataFrame(rows)


NEAR, FAR = [[0.02, 0.05, 0.9], [0.04, 0.03, 0.05]], [[0.02, 0.05, 0.9], [0.4, 0.3, 0.05]]


def test_medians_are_of_each_seed_over_correct_examples():
    rows = frame_of({"near": [[0.0, 0.02, 0.06], NEAR[1]]})  # the first example is misclassified as it is
    (family,) = families(rows)
    assert family.medians == pytest.approx((0.04, 0.04))
    assert family.distance == pytest.approx(2 * np.median([0.02, 0.06, *NEAR[1]]))
    assert (family.other, family.unit, family.bound) == (2.0, "input l2", "upper")
    shuffled = rows.sample(frac=1, random_state=0)
    assert families(shuffled) == [family]
    assert families(rows[rows["quantity"] == "minimal_distance"]) == []


@pytest.mark.parametrize(
    ("ratios", "bound", "verdict"),
    [
        (NEAR, "exact", "supported"),
        (NEAR, "upper", "supported"),
        (FAR, "exact", "not supported"),  # one seed above the line
        (FAR, "upper", "inconclusive"),  # an attack that finds nothing nearer proves nothing
    ],
)
def test_verdicts_of_a_family(ratios, bound, verdict):
    (family,) = families(frame_of({"family": ratios}, bound))
    assert family.verdict == verdict


def test_a_family_that_was_attacked_once_is_not_exact():
    mixed = pd.concat([frame_of({"one": NEAR[:1]}, "exact"), frame_of({"one": FAR}).query("seed == 1")])
    assert families(mixed)[0].verdict == "inconclusive"


def test_any_classifier_needs_every_family():
    found = families(pd.concat([frame_of({"a": NEAR, "b": NEAR}), frame_of({"c": FAR}, "exact")]))
    assert [family.name for family in found] == ["a", "b", "c"]
    assert overall(found, whole=True).startswith("Claim on any type of classifier: not supported")
    assert overall(found[:2], whole=True).startswith("Claim on any type of classifier: supported")
    doubtful = [*found[:2], replace(found[2], bound="upper")]
    assert overall(doubtful, whole=True).startswith("Claim on any type of classifier: inconclusive")
    assert overall(found, whole=False).startswith("No verdict")
    assert "c 0.17 (exact)" in listing(found) or "c 0.18 (exact)" in listing(found)


def test_the_table_holds_a_row_and_a_verdict_a_family():
    found = families(pd.concat([frame_of({"near": NEAR}), frame_of({"far": FAR}, "exact")]))
    table = distance_table(found, "C6: made up.", whole=True)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["near", "0.045", "0.040 to 0.050", "0.09", "2", "upper bound by attack", "supported"],
        ["far", "0.175", "0.050 to 0.300", "0.35", "2", "exact", "not supported"],
    ]
    assert "C6: made up." in table.caption
    partial = distance_table(found, None, whole=False)
    assert partial is not None
    assert [row[-1].text for row in partial.rows] == ["–", "–"]
    assert distance_table([], None, whole=True) is None


@pytest.mark.parametrize("narrow", [False, True])
def test_the_figure_shows_every_seed_and_the_line(narrow):
    found = families(pd.concat([frame_of({"near": NEAR}), frame_of({"far": FAR}, "exact")]))
    figure = draw_distances(found, narrow=narrow)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["far", "near"]  # the nearest on top
    marks = [line for line in ax.lines if line.get_marker() == "|"]
    assert [tuple(np.sort(line.get_xdata())) for line in marks] == [
        pytest.approx(tuple(sorted(family.medians))) for family in reversed(found)
    ]
    assert any(set(line.get_xdata()) == {LINE} for line in ax.lines)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["exact", "upper bound by attack"]
