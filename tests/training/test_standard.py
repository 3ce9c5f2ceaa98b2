"""Training: reproducible to the bit, the same batches for twins, clear early failure."""

import pytest
import torch
from torch import nn

from smoothness.activations import list_activations
from smoothness.data import load_dataset
from smoothness.models import build_model
from smoothness.training import Recipe, TrainingDivergedError, accuracy, train

DIGITS = load_dataset("digits")


def _mlp(activation="relu", seed=0):
    return build_model("mlp", activation, seed=seed, input_shape=(1, 8, 8), classes=10, width=128)


# Epochs and learning rate of those that need their own: slopes of 1/6 learn slowly, and of all the activations only
# squareplus has outputs of mean above 1.
OWN_RECIPES = {"hardsigmoid": (12, 2e-2), "squareplus": (16, 5e-3)}


@pytest.mark.parametrize("activation", list_activations())
def test_every_activation_learns_digits(activation):
    model = _mlp(activation)
    epochs, rate = OWN_RECIPES.get(activation, (12, 1e-2))
    train(model, DIGITS, Recipe(epochs=epochs, batch_size=25, learning_rates=(rate,), surrogate_width=0.5))
    assert accuracy(model, DIGITS.test) >= 0.9


def test_same_seed_same_bits():
    one, two = _mlp("gelu"), _mlp("gelu")
    results = [train(model, DIGITS, Recipe(epochs=2)) for model in (one, two)]
    assert results[0] == results[1]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class _Recorder(nn.Module):
    """A linear model that notes the first value of every batch it sees."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(64, 10), []

    def forward(self, x):
        if self.training:
            self.seen.append(float(x.sum()))
        return self.linear(x.flatten(1))


def test_twins_see_the_same_batches():
    seen = []
    for _ in range(2):
        model = _Recorder()
        train(model, DIGITS, Recipe(epochs=2, seed=7))
        seen.append(model.seen)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2 * 12
    assert seen[0][:12] != seen[0][12:]


def test_state_is_restored():
    threads, rng = torch.get_num_threads(), torch.random.get_rng_state()
    model = _mlp("step").eval()
    train(model, DIGITS, Recipe(epochs=1, threads=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not model.activation1._forward_hooks


def test_best_learning_rate_is_kept():
    model = _mlp()
    result = train(model, DIGITS, Recipe(epochs=3, learning_rates=(1e-6, 5e-3)))
    assert result.learning_rate == 5e-3
    assert accuracy(model, DIGITS.validation) == result.validation_accuracy[1] > result.validation_accuracy[0]
    alone = _mlp()
    train(alone, DIGITS, Recipe(epochs=3, learning_rates=(5e-3,)))
    assert torch.equal(alone.output.weight, model.output.weight)


def test_divergence_fails_early():
    calls = []
    with pytest.raises(TrainingDivergedError, match=r"step \d+ of .* smaller learning rate"):
        train(_mlp(), DIGITS, Recipe(learning_rates=(1e30,)), on_epoch=lambda *call: calls.append(call))
    assert len(calls) <= 1


def test_progress_counts_epochs():
    calls = []
    train(_mlp(), DIGITS, Recipe(epochs=2, learning_rates=(1e-3, 1e-2)), on_epoch=lambda *call: calls.append(call[:2]))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"learning_rates": ()}, "learning_rates is empty"),
        ({"learning_rates": (-1.0,)}, "learning_rates must be a positive finite number"),
        ({"surrogate": "tan"}, "unknown surrogate shape"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
    ],
)
def test_bad_recipes(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)
