"""Facts that a user declares for an activation of another house, checked and kept."""

from __future__ import annotations

import copy
import weakref

import torch
from torch import nn

from smoothness.activations.facts import ActivationFacts

_OF_TYPES: weakref.WeakKeyDictionary[type[nn.Module], ActivationFacts] = weakref.WeakKeyDictionary()
_OF_MODULES: weakref.WeakKeyDictionary[nn.Module, ActivationFacts] = weakref.WeakKeyDictionary()
# Values, slopes and breakpoints are compared to this, relative to 1 + their size.
_CLOSE = 1e-6


def declare_facts(which: type[nn.Module] | nn.Module, facts: ActivationFacts) -> None:
    """Declare what is known of an elementwise activation, so that `activation_facts` and certified bounds accept it.

    A declaration for a type holds for all its instances (not for subclasses), one for an instance for that module
    alone and before its type's; it ends with the type or the module. Facts are compared with the module on a fine
    grid over [-12, 12] and near the breakpoints, which can refute them and never prove them: what they say, bounds
    believe. `smoothness.testing.check_activation` checks more.

    Args:
        which: the class, which must build without arguments to be checked, or an instance.
        facts: as from `smooth_facts`, `piecewise_affine_facts` or `piecewise_polynomial_facts` in
            `smoothness.activations.facts`; with their function.

    Raises:
        TypeError: not a module or its class, facts without a function, or a class that needs arguments.
        ValueError: facts that samples of the module refute; each is named.

    >>> from smoothness.activations import activation_facts
    >>> from smoothness.activations.facts import piecewise_affine_facts
    >>> class Half(nn.Module):
    ...     def forward(self, z):
    ...         return z.clamp_min(0) / 2
    >>> declare_facts(Half, piecewise_affine_facts("half", (0.0,), ((0.0, 0.0), (0.5, 0.0))))
    >>> activation_facts(Half()).lipschitz
    0.5
    """
    if not isinstance(facts, ActivationFacts):
        raise TypeError(f"facts must be ActivationFacts, got {type(facts).__name__}")
    if not facts.elementwise or facts.function is None:
        raise TypeError("facts must be those of an elementwise activation and hold its function")
    if isinstance(which, nn.Module):
        _check(which, facts)
        _OF_MODULES[which] = facts
        return
    if not (isinstance(which, type) and issubclass(which, nn.Module)):
        raise TypeError(f"expected an nn.Module or its class, got {type(which).__name__}")
    try:
        module = which()
    except TypeError as error:
        raise TypeError(f"{which.__name__} needs arguments ({error}); declare the facts of an instance") from error
    _check(module, facts)
    _OF_TYPES[which] = facts


def declared_facts(module: nn.Module) -> ActivationFacts | None:
    """What was declared for a module, or for exactly its type."""
    own = _OF_MODULES.get(module)
    return own if own is not None else _OF_TYPES.get(type(module))


def _check(module: nn.Module, facts: ActivationFacts) -> None:
    assert facts.function is not None
    at = torch.tensor([b.position for b in facts.breakpoints], dtype=torch.float64)
    near = (at.unsqueeze(1) + torch.tensor([-1e-3, -1e-6, 1e-6, 1e-3], dtype=torch.float64)).flatten()
    z = torch.cat([torch.linspace(-12, 12, 24001, dtype=torch.float64), near]).sort().values
    constant = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        seen, claimed = constant(z), facts.function(z)
    problems = []
    if seen.shape != z.shape:
        raise ValueError(f"{type(module).__name__} is not elementwise: {tuple(z.shape)} -> {tuple(seen.shape)}")
    with torch.no_grad():
        alone = constant(z[::4000].unsqueeze(1)).squeeze(1)
    if not torch.allclose(alone, seen[::4000], rtol=_CLOSE, atol=_CLOSE):
        problems.append("its values depend on the other features: it is not elementwise")
    off = (seen - claimed).abs() > _CLOSE * (1 + seen.abs())
    if bool(off.any()):
        k = int(off.nonzero()[0])
        problems.append(
            f"the function gives {float(claimed[k]):.6g} at {float(z[k]):.6g}, the module {float(seen[k]):.6g}"
        )
    jumps = torch.tensor([b.position for b in facts.breakpoints if b.order < 0], dtype=torch.float64)
    crossed = ((z[:-1, None] <= jumps) & (jumps <= z[1:, None])).any(dim=1)
    if facts.period is not None and len(jumps):
        crossed[:] = True
    step = z[1:] - z[:-1]
    slope = ((seen[1:] - seen[:-1]) / step)[~crossed & (step > 1e-5)]
    slack = _CLOSE * (1 + max(abs(facts.slope_min), abs(facts.slope_max)))
    if len(slope) and float(slope.amin()) < facts.slope_min - slack:
        problems.append(f"slope_min is {facts.slope_min:.6g}, but slopes reach {float(slope.amin()):.6g}")
    if len(slope) and float(slope.amax()) > facts.slope_max + slack:
        problems.append(f"slope_max is {facts.slope_max:.6g}, but slopes reach {float(slope.amax()):.6g}")
    low, high = facts.value_range(z[:-1], z[1:])
    reach, size = (low - seen[1:]).amax(), _CLOSE * (1 + seen.abs().amax())
    if float(torch.maximum(reach, (seen[1:] - high).amax())) > float(size):
        problems.append("values leave the declared value_range")
    alpha, beta = facts.slope_range(z[:-1], z[1:])
    quotient = (seen[1:] - seen[:-1]) / step
    tight = ~crossed & (step > 1e-5) & ((quotient < alpha - 10 * slack) | (quotient > beta + 10 * slack))
    if bool(tight.any()):
        k = int(tight.nonzero()[0])
        problems.append(
            f"between {float(z[k]):.6g} and {float(z[k + 1]):.6g} slopes are said to stay in [{float(alpha[k]):.6g}, "
            f"{float(beta[k]):.6g}], but {float(quotient[k]):.6g} is seen (a breakpoint or turning point is missing)"
        )
    if problems:
        raise ValueError(f"the facts declared for {type(module).__name__} are refuted: " + "; ".join(problems))
