"""Clean test accuracy per activation, one recipe for each data set: images (two networks), intents, ham and spam.

Run: python tests/benchmarks/bench_architectures.py [resnet | vit | banking77 | spam] [activation ...]

Of several learning rates the one that is best on the validation split is taken; the test split chooses nothing.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import torch

import smoothness as sm
from smoothness.training import accuracy

# Data set, architecture, its options, recipe, seeds: the same for every activation.
RECIPES = {
    "resnet": (
        "fashion",
        "resnet",
        {"width": 32, "depth": 1, "normalisation": "batch"},
        sm.Recipe(epochs=24, learning_rates=(0.01,), batch_size=50),
        (0,),
    ),
    "vit": (
        "fashion",
        "vit",
        {"width": 64, "depth": 2},
        sm.Recipe(epochs=16, learning_rates=(0.002,), batch_size=50),
        (0,),
    ),
    "banking77": (
        "banking77",
        "transformer",
        {"width": 64, "depth": 1},
        sm.Recipe(epochs=15, learning_rates=(0.003,), batch_size=50),
        (0, 1),
    ),
    "spam": (
        "spam",
        "text_cnn",
        {"width": 96, "depth": 2},
        sm.Recipe(epochs=20, learning_rates=(0.003, 0.01), batch_size=50),
        (0, 1),
    ),
}


def main(name: str = "resnet", *activations: str) -> None:
    torch.set_num_threads(1)
    data_name, architecture, options, recipe, seeds = RECIPES[name]
    data = sm.load_dataset(data_name)
    rates = " or ".join(f"{rate:g}" for rate in recipe.learning_rates)
    print(
        f"{data_name}, {architecture} {options}: {recipe.epochs} epochs, batches of {recipe.batch_size}, rate {rates}"
    )
    print("| activation | seed | rate | test accuracy, % | validation, % | training, % | CPU seconds |")
    print("|---|---|---|---|---|---|---|")
    steps = ("step",) if data_name == "fashion" else ()
    for activation in activations or ("relu", "gelu", "softplus", "tanh", *steps):
        for seed in seeds:
            model = sm.build_model(
                architecture,
                activation,
                seed=seed,
                input_shape=data.input_shape,
                classes=len(data.classes),
                **options,
            )
            begin = time.process_time()
            found = sm.train(model, data, replace(recipe, seed=seed))
            seconds = time.process_time() - begin
            shares = [f"{100 * accuracy(model, split):.1f}" for split in (data.test, data.validation, data.train)]
            row = [activation, str(seed), f"{found.learning_rate:g}", *shares, f"{seconds:.0f}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
