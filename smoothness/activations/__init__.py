"""Activations, their facts, surrogate gradients and swapping."""

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation, activation_facts, is_activation, list_activations
from smoothness.activations.facts import ActivationFacts, Breakpoint
from smoothness.activations.mollification import mollify
from smoothness.activations.surrogates import surrogate_gradient
from smoothness.activations.swapping import SwapReport, swap_activations

__all__ = [
    "Activation",
    "ActivationFacts",
    "Breakpoint",
    "SwapReport",
    "activation",
    "activation_facts",
    "is_activation",
    "list_activations",
    "mollify",
    "surrogate_gradient",
    "swap_activations",
]
