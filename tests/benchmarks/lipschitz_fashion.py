"""Brackets on trained Fashion-MNIST networks: both sides, their ratio, and the processor time of an input.

    python -m tests.benchmarks.lipschitz_fashion [--examples 2] [--architectures mlp cnn]

Prints a table in Markdown: logits, 2-norm, pairs in the ball, one thread; medians over the examples.
"""

import argparse
import time

import torch

import smoothness as sm

SIZES = {"mlp": {"width": 256, "depth": 2}, "cnn": {"width": 16, "depth": 2}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--architectures", nargs="+", default=list(SIZES))
    parser.add_argument("--radii", nargs="+", type=float, default=[0.1, 1.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = sm.load_dataset("fashion")
    x, y = data.test.inputs[: arguments.examples], data.test.labels[: arguments.examples]
    print(
        "| network | radius | lower | upper | ratio | won by | upper, CPU s an input |\n|---|---|---|---|---|---|---|"
    )
    for architecture in arguments.architectures:
        for activation in ("relu", "gelu", "softplus", "tanh"):
            model = sm.build_model(architecture, activation=activation, seed=0, input_shape=data.input_shape,
                                   classes=10, **SIZES[architecture])  # fmt: skip
            sm.train(model, data, sm.Recipe(epochs=6, batch_size=50))
            for radius in arguments.radii:
                start = time.process_time()
                upper = sm.LipschitzUpperBound("l2", radius)(model, x, y)
                seconds = (time.process_time() - start) / len(x)
                lower = sm.LipschitzLowerBound("l2", radius)(model, x, y)
                ratio = float((upper.values / lower.values).median())
                middle = [float(one.values.median()) for one in (lower, upper)]
                winner = max(set(upper.details["winner"]), key=upper.details["winner"].count)
                figures = " | ".join(f"{value:.2f}" for value in (*middle, ratio))
                print(
                    f"| {architecture} {activation} | {radius:g} | {figures} | {winner} | {seconds:.1f} |", flush=True
                )


if __name__ == "__main__":
    main()
