"""A study small enough for tests: digits, tiny networks, seconds."""

import pytest

TINY = """
name = "tiny"
title = "Tiny"
question = "Does it run?"

[factors]
activation = ["relu", "step", {name = "softplus", parameters = {beta = 4.0}}]
architecture = ["mlp", "cnn"]
seed = [0, 1]

[data]
name = "digits"
examples = 12

[models]
mlp = {width = 12, depth = 2}
cnn = {width = 3, depth = 1}

[training]
epochs = 1

[threat]
norm = "linf"
epsilons = ["8/255", 0.1]

[[attacks]]
kind = "noise"
draws = 3

[[attacks]]
kind = "fgsm"

[[attacks]]
kind = "pgd"
loss = "margin"
steps = 3
surrogate = "tanh"

[[analyzers]]
kind = "jacobian"

[[analyzers]]
kind = "kinks"
segments = 2
radius = 0.5
examples = 4

[full]
factors = {activation = ["relu"]}
data = {examples = 20}
"""


@pytest.fixture
def tiny(tmp_path):
    """Path of the tiny study's file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
