"""Activations, their facts and dials, surrogate gradients and swapping."""

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation, activation_facts, is_activation, list_activations
from smoothness.activations.declared import declare_facts
from smoothness.activations.dials import Dial, Scales, dial, find_dial, list_dials, scales
from smoothness.activations.facts import ActivationFacts, Breakpoint
from smoothness.activations.mollification import mollify
from smoothness.activations.surrogates import surrogate_gradient
from smoothness.activations.swapping import SwapReport, swap_activations

__all__ = [
    "Activation",
    "ActivationFacts",
    "Breakpoint",
    "Dial",
    "Scales",
    "SwapReport",
    "activation",
    "activation_facts",
    "declare_facts",
    "dial",
    "find_dial",
    "is_activation",
    "list_activations",
    "list_dials",
    "mollify",
    "scales",
    "surrogate_gradient",
    "swap_activations",
]
