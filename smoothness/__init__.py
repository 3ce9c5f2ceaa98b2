"""What does the smoothness of an activation function do to a network's robustness?

Names are imported on first use, so that `import smoothness` stays as light as possible.

>>> import smoothness as sm
>>> sm.activation_facts("relu").smoothness_class
0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothness.activations import (
        Activation,
        ActivationFacts,
        Breakpoint,
        activation,
        activation_facts,
        list_activations,
        surrogate_gradient,
        swap_activations,
    )
    from smoothness.measurement import Bracket, Measurement
    from smoothness.threat import ThreatModel

__version__ = "0.1.0"

_HOMES = {
    "Activation": "activations",
    "ActivationFacts": "activations",
    "Bracket": "measurement",
    "Breakpoint": "activations",
    "Measurement": "measurement",
    "ThreatModel": "threat",
    "activation": "activations",
    "activation_facts": "activations",
    "list_activations": "activations",
    "surrogate_gradient": "activations",
    "swap_activations": "activations",
}

__all__ = [
    "Activation",
    "ActivationFacts",
    "Bracket",
    "Breakpoint",
    "Measurement",
    "ThreatModel",
    "activation",
    "activation_facts",
    "list_activations",
    "surrogate_gradient",
    "swap_activations",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothness' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"smoothness.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
