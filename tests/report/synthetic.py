"""A small synthetic run with the shape of a finished study, built without training anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from smoothness.study import Run, StudyConfig

EPSILONS = tuple(k / 255 for k in (0.5, 1, 2, 4, 8, 16))
ATTACKS = ("noise-corner", "fgsm", "pgd-ce", "pgd-margin", "pgd-ce-tanh")
ACTIVATIONS = ("relu", "gelu", "tanh", "staircase")
STEPS = ("staircase", "step")


def synthetic_config(
    activations: tuple[Any, ...] = ACTIVATIONS,
    architectures: tuple[str, ...] = ("mlp", "cnn"),
    seeds: int = 3,
    **changes: Any,
) -> StudyConfig:
    settings: dict[str, Any] = {
        "name": "activation-ablation",
        "title": "The same network with different activations",
        "question": "What does the smoothness of an activation function do to a network's robustness?",
        "scale": "quick",
        "factors": {"activation": activations, "architecture": architectures, "seed": tuple(range(seeds))},
        "data": {"name": "fashion", "examples": 40},
        "threat": {"norm": "linf", "epsilons": EPSILONS},
        "attacks": ({"kind": "noise"}, {"kind": "fgsm"}, {"kind": "pgd"}),
        "analyzers": ({"kind": "jacobian", "norm": "l2"}, {"kind": "kinks", "segments": 4}),
    }
    return StudyConfig.model_validate(settings | changes)


class Rows:
    """Collects tidy rows, with the columns that a study writes."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, activation: str, architecture: str, seed: int, quantity: str, values: Any, *, unit: str = "1",
        bound: str = "exact", attack: str | None = None, epsilon: float = np.nan, layer: str | None = None,
    ) -> None:  # fmt: skip
        array = np.atleast_1d(np.asarray(values, dtype=float))
        first = -1 if np.ndim(values) == 0 else 0
        for offset, value in enumerate(array):
            self.rows.append(
                {
                    "study": "activation-ablation", "cell": f"{activation}-{architecture}-{seed}",
                    "activation": activation, "architecture": architecture, "setting": architecture, "seed": seed,
                    "example": first + offset,
                    "quantity": quantity, "attack": attack, "epsilon": epsilon, "layer": layer,
                    "value": float(value), "bound": bound, "unit": unit, "valid": True,
                }
            )  # fmt: skip

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


def synthetic_run(
    activations: tuple[str, ...] = ACTIVATIONS,
    architectures: tuple[str, ...] = ("mlp", "cnn"),
    seeds: int = 3,
    examples: int = 40,
) -> Run:
    rows, cells = Rows(), []
    for a, activation in enumerate(activations):
        for architecture in architectures:
            for seed in range(seeds):
                rng = np.random.default_rng([a, len(architecture), ord(architecture[0]), seed])
                where = (activation, architecture, seed)
                rows.add(*where, "clean_accuracy", 0.84 + 0.01 * rng.standard_normal(), unit="fraction")
                correct = rng.random(examples) < 0.85
                margin = np.where(correct, 1, -1) * (2 + 0.3 * a) * rng.lognormal(0, 0.7, examples)
                rows.add(*where, "correct", correct, unit="0/1")
                rows.add(*where, "margin", margin, unit="logit")
                stepped = activation in STEPS
                norm = np.zeros(examples) if stepped else rng.lognormal(1.2 - 0.1 * a, 0.4, examples) + 0.4
                rows.add(*where, "jacobian_norm", norm, unit="logit / input l2")
                threshold = 0.004 * (1 + 0.25 * a) * rng.lognormal(0, 0.6, examples) * np.abs(margin)
                for attack in ATTACKS:
                    reach = {"noise-corner": 0.12, "fgsm": 0.8}.get(attack, 1.0)
                    if stepped and attack in ("fgsm", "pgd-ce", "pgd-margin"):
                        reach = 0.01
                    for epsilon in EPSILONS:
                        success = ~correct | (epsilon * reach > threshold)
                        rows.add(
                            *where,
                            "attack_success",
                            success,
                            unit="0/1",
                            bound="lower",
                            attack=attack,
                            epsilon=epsilon,
                        )
                if architecture == "mlp":
                    for layer in ("hidden 1", "hidden 2"):
                        kinked = activation in ("relu", "leaky_relu")
                        density = rng.gamma(40, 0.2, examples) if kinked or stepped else np.zeros(examples)
                        rows.add(*where, "kink_density", density, unit="kinks / input l2", layer=layer)
                        slope = density * 0.2 if kinked else np.zeros(examples)
                        rows.add(*where, "slope_jump", slope, unit="logit / input l2 per input l2", layer=layer)
                        value = density * 0.1 if stepped else np.zeros(examples)
                        rows.add(*where, "value_jump", value, unit="logit / input l2", layer=layer)
                cells.append(
                    {
                        "cell": f"{architecture}/{activation}/{seed}", "activation": activation, "seed": seed,
                        "architecture": architecture, "setting": architecture, "gain": 1.0, "learning_rate": 1e-3,
                        "data_version": "f00d", "threads": 1,
                        "versions": {"python": "3.11.9", "torch": "2.13.0", "smoothness": "0.1.0"},
                        "initial_weights": (0.5 + seed, -1.25, float(len(architecture))),
                    }
                )  # fmt: skip
    return Run(
        config=synthetic_config(activations, architectures, seeds),
        frame=rows.frame(),
        cells=tuple(cells),
        missing=(),
        command="smoothness run activation-ablation --scale quick --out runs/activation-ablation",
    )
