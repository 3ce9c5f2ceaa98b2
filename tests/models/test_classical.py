"""Classical models: they predict what scikit-learn predicts, and every attack without gradients runs on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import smoothness as sm
from smoothness.models.classical import classical_options, rows_drawn

DATA = sm.load_dataset("digits")
SMALL = DATA.train.balanced(200)
OPTIONS = {"random_forest": {"trees": 5}, "gradient_boosting": {"rounds": 3}}


@pytest.mark.parametrize("name", sm.list_classical())
def test_scores_lead_to_the_estimators_own_prediction_and_attacks_run(name: str) -> None:
    model = sm.build_classical(name, (SMALL.inputs, SMALL.labels), **OPTIONS.get(name, {}))
    x, y = DATA.test.inputs[:6], DATA.test.labels[:6]
    expected = model.estimator.predict(DATA.test.inputs.flatten(1).double().numpy())
    assert model(DATA.test.inputs).argmax(dim=1).tolist() == expected.tolist()
    threat = sm.ThreatModel("l2", 1.0, bounds=(0.0, 1.0))
    network = sm.build_model("mlp", input_shape=(1, 8, 8), classes=10)
    for attack in (
        sm.Noise(threat, 3), sm.Square(threat, 20), sm.EvolutionGradient(threat, 2, 4),
        sm.DecisionBoundary(threat, 100, SMALL.inputs[:50]), sm.Transfer(threat, network),
    ):  # fmt: skip
        found = attack(model, x, y)
        after = model.estimator.predict(found.inputs.flatten(1).double().numpy())
        assert found.success.tolist() == (after != y.numpy()).tolist()


def test_seed_and_share_choose_rows_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 1])
    rows = rows_drawn(labels, 0.5, 3)
    assert np.bincount(labels[rows]).tolist() == [5, 10, 1]
    assert rows.tolist() == rows_drawn(labels, 0.5, 3).tolist() != rows_drawn(labels, 0.5, 4).tolist()


def test_a_pipeline_and_votes_of_pairs_keep_their_predictions() -> None:
    x, y = SMALL.inputs.flatten(1).double(), SMALL.labels.numpy()
    for estimator in (make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), SVC(C=0.05)):
        model = sm.wrap(estimator.fit(x.numpy(), y))
        test = DATA.test.inputs
        assert model(test).argmax(dim=1).tolist() == estimator.predict(test.flatten(1).double().numpy()).tolist()


def test_string_classes_are_positions() -> None:
    model = sm.wrap(LogisticRegression().fit([[0.0], [1.0]], ["ham", "spam"]))
    assert model.classes == ("ham", "spam")
    assert model(torch.tensor([[0.9]])).argmax(dim=1).tolist() == [1]


def test_bad_estimators_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"not fitted; call its fit\(inputs, labels\)"):
        sm.wrap(LogisticRegression())
    with pytest.raises(ValueError, match="classes are 1, 2; labels count from 0"):
        sm.wrap(LogisticRegression().fit([[0.0], [1.0]], [1, 2]))
    with pytest.raises(TypeError, match="Ridge is no classifier"):
        sm.wrap(Ridge().fit([[0.0], [1.0]], [0, 1]))
    with pytest.raises(ValueError, match="no option 'trees'"):
        sm.build_classical("naive_bayes", DATA, trees=3)
    with pytest.raises(ValueError, match="unknown classical model 'forest'"):
        sm.build_classical("forest", DATA)
    with pytest.raises(ValueError, match="fitted on 2 features"):
        sm.wrap(LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1]))(torch.zeros(1, 3))
    assert classical_options("nearest_neighbour") == []


@pytest.mark.parametrize("attack", [sm.Square(sm.ThreatModel("linf", 0.1)), sm.DecisionBoundary(sm.ThreatModel("l2"))])
def test_attacks_say_what_to_do_with_a_bare_estimator(attack):
    x, y = torch.rand(2, 4), torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"got LogisticRegression; pass smoothness\.wrap\(model\)"):
        attack(LogisticRegression(), x, y)
    with pytest.raises(ValueError, match=r"LogisticRegression is not fitted; call its fit\("):
        attack(sm.wrap(LogisticRegression()), x, y)
