"""Adversarial training: closed forms of linear models, robust networks that are robust, collapse that is noticed."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.attacks import PGD
from smoothness.data import load_dataset
from smoothness.models import build_model
from smoothness.threat import ThreatModel
from smoothness.training import (
    Adversarial,
    CatastrophicOverfittingWarning,
    Recipe,
    TrainingDivergedError,
    accuracy,
    train,
)
from smoothness.training.adversarial import ascend, collapsed_at

DIGITS = load_dataset("digits")
LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)
FREE = {norm: ThreatModel(norm, 0.3, bounds=None) for norm in ("linf", "l2")}


def _mlp(activation="relu", width=64, seed=0):
    return build_model("mlp", activation, seed=seed, input_shape=(1, 8, 8), classes=10, width=width)


def _linear():
    """Two classes in three dimensions, float64; the margin of class 0 is w · x with w = (3, -1, 2)."""
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = torch.tensor([[2.0, -1.0, 1.0], [-1.0, 0.0, -1.0]], dtype=torch.float64)
    return model, torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)


def _draws():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("steps", [3, 7])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_loss_of_a_linear_model_is_that_of_its_worst_points(norm, dual, steps):
    model, w = _linear()
    x = torch.randn(20, 3, generator=_draws(), dtype=torch.float64)
    y = torch.arange(20) % 2
    worst = (x @ w) * (1 - 2 * y) - 0.3 * torch.linalg.vector_norm(w, ord=dual)
    # A step of 2.5 epsilon / steps reaches the worst point from anywhere in the max-norm ball; nearly so in l2.
    loss = Adversarial(FREE[norm], steps=steps).loss(model, x, y, _draws())
    tolerance = 1e-12 if norm == "linf" else 5e-3
    assert loss.item() == pytest.approx(float(F.softplus(-worst).mean()), rel=tolerance)


def test_trades_loss_of_a_linear_model_has_its_closed_form():
    model, w = _linear()
    x = torch.tensor([[0.2, 0.1, -0.3]], dtype=torch.float64)
    y = torch.zeros(1, dtype=torch.long)
    margin, reach = float(x[0] @ w), 0.3 * float(w.abs().sum())
    clean, ends = torch.sigmoid(torch.tensor(margin)), torch.sigmoid(torch.tensor([margin - reach, margin + reach]))
    divergences = clean * (clean / ends).log() + (1 - clean) * ((1 - clean) / (1 - ends)).log()
    loss = Adversarial(FREE["linf"], method="trades", beta=2.0).loss(model, x, y, _draws())
    expected = [float(-clean.log() + 2 * d) for d in divergences]  # the start's noise decides which end is reached
    assert min(abs(loss.item() - value) for value in expected) < 1e-6


def test_robust_linear_classifier_drops_the_weak_features():
    # Normal classes at ±m: the best classifier against max-norm epsilon weighs features by how far |m| exceeds it
    # (Dan et al. 2020, arXiv 2006.16384).
    data = load_dataset("gaussians", dimensions=10, train=8000)
    mean = data.direction.float() * 2
    robust = mean.sign() * (mean.abs() - 0.5).clamp_min(0)
    model = nn.Linear(10, 2)
    nn.init.zeros_(model.weight)
    adversary = Adversarial(ThreatModel("linf", 0.5, bounds=None), steps=2)
    train(model, data, Recipe(epochs=6, batch_size=200, learning_rates=(2e-2,), adversarial=adversary))
    weight = (model.weight[1] - model.weight[0]).detach()
    towards = {name: float(F.cosine_similarity(weight, v, dim=0)) for name, v in (("robust", robust), ("mean", mean))}
    assert towards["robust"] > 0.995
    assert towards["mean"] < 0.9
    assert float(weight[robust == 0].abs().max()) < 0.05 * float(weight.abs().max())


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_training_against_an_adversary_helps_against_it(method, threat):
    robust, plain = _mlp(), _mlp()
    recipe = Recipe(epochs=12, batch_size=50, adversarial=Adversarial(threat, method=method, steps=3))
    result = train(robust, DIGITS, recipe)
    train(plain, DIGITS, Recipe(epochs=12, batch_size=50))
    x, y = DIGITS.validation.inputs, DIGITS.validation.labels
    broken = [float(PGD(threat)(m, x, y).success.double().mean()) for m in (robust, plain)]
    assert broken[0] < broken[1] - 0.15
    assert accuracy(robust, DIGITS.test) > 0.8
    assert len(result.robust_accuracy) == len(result.attacked_accuracy) == 12
    assert all(r <= a for r, a in zip(result.robust_accuracy, result.attacked_accuracy, strict=True))
    assert result.collapsed_at is None


def test_steps_learn_through_the_surrogate():
    robust, plain = _mlp("step", width=128), _mlp("step", width=128)
    recipe = Recipe(epochs=6, learning_rates=(5e-3,), batch_size=50)
    attack = PGD(LINF, surrogate="tanh")
    train(robust, DIGITS, Recipe(**{**vars(recipe), "adversarial": Adversarial(LINF, steps=2)}))
    train(plain, DIGITS, recipe)
    x, y = DIGITS.test.inputs[:200], DIGITS.test.labels[:200]
    broken = [float(attack(m, x, y).success.double().mean()) for m in (robust, plain)]
    assert broken[0] < broken[1] - 0.1


def test_one_large_step_collapses_and_is_reported():
    model = _mlp(width=128)
    adversary = Adversarial(ThreatModel("linf", 0.4), steps=1)
    with pytest.warns(CatastrophicOverfittingWarning, match=r"withstand the training attack.*try more steps than 1"):
        result = train(model, DIGITS, Recipe(epochs=12, batch_size=50, adversarial=adversary))
    assert result.collapsed_at is not None
    assert result.attacked_accuracy[-1] > result.attacked_accuracy[0]
    assert result.robust_accuracy[-1] < 0.02
    x, y = DIGITS.test.inputs[:200], DIGITS.test.labels[:200]
    assert float(PGD(adversary.threat)(model, x, y).success.double().mean()) > 0.98  # a second opinion


def test_more_steps_do_not_collapse():
    adversary = Adversarial(ThreatModel("linf", 0.4), steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(_mlp(width=128), DIGITS, Recipe(epochs=12, batch_size=50, adversarial=adversary))
    assert result.collapsed_at is None


def test_collapse_counts_only_when_it_lasts():
    assert collapsed_at([], []) is None
    assert collapsed_at([0.9, 0.9, 0.9], [0.1, 0.6, 0.6]) is None
    assert collapsed_at([0.9, 0.9, 0.9], [0.1, 0.6, 0.1]) == 3
    assert collapsed_at([0.3, 0.3], [0.11, 0.11]) is None  # half, but within 20 points


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
@pytest.mark.parametrize("activation", ["gelu", "step"])
def test_same_seed_same_bits(activation, method):
    one, two = _mlp(activation), _mlp(activation)
    recipe = Recipe(epochs=2, adversarial=Adversarial(LINF, method=method, steps=2))
    assert train(one, DIGITS, recipe) == train(two, DIGITS, recipe)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class _Recorder(nn.Module):
    """A linear model that keeps what it sees in training mode and in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(64, 10), {True: [], False: []}

    def forward(self, x):
        self.seen[self.training].append(x.detach().clone())
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_the_batches_are_those_of_standard_training_and_the_adversary_stays_inside(threat):
    plain, pgd, trades = (_Recorder() for _ in range(3))
    train(plain, DIGITS, Recipe(epochs=1, seed=3))
    train(pgd, DIGITS, Recipe(epochs=1, seed=3, adversarial=Adversarial(threat, steps=2)))
    train(trades, DIGITS, Recipe(epochs=1, seed=3, adversarial=Adversarial(threat, "trades", steps=2)))
    clean = plain.seen[True]
    assert all(torch.equal(a, b) for a, b in zip(clean, trades.seen[True][::2], strict=True))
    order = 2 if threat.norm == "l2" else float("inf")
    for attacked in (pgd.seen[True], trades.seen[True][1::2]):
        assert len(attacked) == len(clean)
        for x, points in zip(clean, attacked, strict=True):
            length = torch.linalg.vector_norm((points - x).flatten(1), ord=order, dim=1)
            assert 0 < float(length.max()) <= threat.epsilon + 1e-6
            assert 0 <= float(points.min()) <= float(points.max()) <= 1


def test_unbounded_inputs_are_not_clipped():
    x = torch.full((4, 3), 7.0, dtype=torch.float64)
    model, w = _linear()
    points = ascend(model, x, torch.zeros_like(x), FREE["linf"], 3, 0.2, lambda _: torch.tensor([[-1.0, 1.0]] * 4))
    assert torch.allclose(points, x - 0.3 * w.sign())


def test_a_missing_gradient_counts_as_zero():
    x, start = torch.zeros(2, 3), torch.full((2, 3), 0.05)
    cut = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    cut.register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    assert torch.equal(ascend(cut, x, start, LINF, 5, 0.1, torch.zeros_like), start)


def test_state_is_restored():
    model, rng = _mlp("step").eval(), torch.random.get_rng_state()
    train(model, DIGITS, Recipe(epochs=1, adversarial=Adversarial(LINF, "trades", steps=1)))
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not model.activation1._forward_hooks


def test_the_learning_rate_is_chosen_by_robust_accuracy():
    recipe = Recipe(epochs=4, learning_rates=(1e-4, 5e-3), adversarial=Adversarial(LINF, steps=2))
    result = train(_mlp(), DIGITS, recipe)
    alone = train(_mlp(), DIGITS, Recipe(epochs=4, learning_rates=(5e-3,), adversarial=recipe.adversarial))
    assert result.learning_rate == 5e-3
    assert result.robust_accuracy == alone.robust_accuracy
    assert len(result.validation_accuracy) == 2


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_divergence_fails_early(method):
    recipe = Recipe(learning_rates=(1e30,), adversarial=Adversarial(LINF, method=method, steps=1))
    with pytest.raises(TrainingDivergedError, match="smaller learning rate"):
        train(_mlp(), DIGITS, recipe)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"threat": 0.1}, TypeError, "threat must be a ThreatModel, got float"),
        ({"threat": ThreatModel("linf")}, ValueError, "needs a radius, got epsilon=None"),
        ({"threat": ThreatModel("l1", 1.0)}, ValueError, "norm 'linf' or 'l2', got 'l1'"),
        ({"method": "pgdat"}, ValueError, "unknown method 'pgdat'; did you mean 'pgd-at'"),
        ({"steps": 0}, ValueError, "steps must be a whole number of at least 1"),
        ({"step_size": -1.0}, ValueError, "step_size must be a positive finite number"),
        ({"beta": 0.0}, ValueError, "beta must be a positive finite number"),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        Adversarial(**{"threat": LINF, **settings})


def test_a_recipe_takes_nothing_else_for_an_adversary():
    with pytest.raises(TypeError, match=r"adversarial must be an Adversarial or None, got str; use Adversarial\("):
        Recipe(adversarial="pgd-at")
