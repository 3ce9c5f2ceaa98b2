"""Clean test accuracy of the residual network and the vision transformer on the Fashion-MNIST subset, per activation.

Run: python tests/benchmarks/bench_architectures.py [resnet | vit] [activation ...]
"""

from __future__ import annotations

import sys
import time

import torch

import smoothness as sm
from smoothness.training import accuracy

# One recipe for every activation.
RECIPES = {
    "resnet": (
        {"width": 32, "depth": 1, "normalisation": "batch"},
        sm.Recipe(epochs=24, learning_rates=(0.01,), batch_size=50),
    ),
    "vit": ({"width": 64, "depth": 2}, sm.Recipe(epochs=16, learning_rates=(0.002,), batch_size=50)),
}


def main(architecture: str = "resnet", *activations: str) -> None:
    torch.set_num_threads(1)
    data = sm.load_dataset("fashion")
    options, recipe = RECIPES[architecture]
    how = f"{recipe.epochs} epochs, batches of {recipe.batch_size}, rate {recipe.learning_rates[0]}"
    print(f"{architecture} {options}: {how}")
    print("| activation | test accuracy, % | validation, % | training, % | CPU seconds |")
    print("|---|---|---|---|---|")
    for activation in activations or ("relu", "gelu", "softplus", "tanh", "step"):
        model = sm.build_model(architecture, activation, seed=0, input_shape=(1, 28, 28), classes=10, **options)
        begin = time.process_time()
        sm.train(model, data, recipe)
        seconds = time.process_time() - begin
        shares = [f"{100 * accuracy(model, split):.1f}" for split in (data.test, data.validation, data.train)]
        print(f"| {activation} | {' | '.join(shares)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
