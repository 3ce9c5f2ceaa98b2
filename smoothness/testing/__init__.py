"""Contract checks for your own plug-ins: an activation's facts, its gradient and its behaviour under torch.

Each check raises one AssertionError that lists everything it found wrong.
"""

from __future__ import annotations

import copy

from torch import nn

from smoothness.activations import ActivationFacts, activation_facts
from smoothness.testing import elementwise, several_features
from smoothness.testing.analyzers import check_analyzer
from smoothness.testing.attacks import check_attack
from smoothness.testing.datasets import check_dataset

__all__ = ["check_activation", "check_analyzer", "check_attack", "check_dataset"]


def check_activation(module: nn.Module, facts: ActivationFacts | None = None) -> None:
    """Check an activation against its facts and the contract of the package.

    Compared by sampling in float64, for an elementwise activation on a fine grid over [-12, 12] and points out to
    1e12: slopes, curvature, total variation, breakpoints (none missing, none invented, each with its jump), turning
    points, period, boundedness, monotony, the value at 0, the moments, the facts' own function, derivative and
    polynomial pieces; the backward pass against central differences; elementwise behaviour, dtypes, NaN, vmap,
    torch.func.grad, deepcopy, state_dict and the forward pass under a surrogate gradient. An activation of several
    features is given 840 of them on axis 1, and what applies is checked. A sample can refute a fact and never
    prove it: facts may still be wrong between grid points, and φ should change over lengths above 1e-3.

    Args:
        module: the activation; its parameters count as constants.
        facts: what is claimed; `activation_facts(module)` when None.

    Raises:
        AssertionError: with every violation found.
        TypeError: no facts are known for the module and none are given.

    >>> from smoothness.activations import activation
    >>> check_activation(activation("gelu"))
    >>> check_activation(activation("group_sort", size=3))
    >>> import dataclasses
    >>> lie = dataclasses.replace(activation("relu").facts(), at_zero=0.1)
    >>> check_activation(activation("relu"), lie)
    Traceback (most recent call last):
        ...
    AssertionError: ReLU():
      at_zero is 0.1, but 0 is seen
    """
    facts = activation_facts(module) if facts is None else facts
    constant = copy.deepcopy(module).double().eval().requires_grad_(False)
    problems = list((elementwise if facts.elementwise else several_features).problems(constant, facts))
    if problems:
        raise AssertionError(f"{module!r}:\n" + "\n".join(f"  {problem}" for problem in problems))
