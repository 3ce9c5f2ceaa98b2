"""DeepLift by captum, where its rule is applied to every activation, and a refusal elsewhere."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from smoothness.analyzers.affine_graph import AffineGraph, affine_graph, is_product

_REMEDY = 'use method="integrated_gradients", or swap_activations to make modules of functional calls'
_LINEAR = (F.linear, F.conv1d, F.conv2d)  # in their first argument, when the others are constants


def deep_lift(captum: Any, model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attributions by DeepLift's rescale rule (Shrikumar et al. 2017, arXiv 1704.02685): (x, baseline, classes).

    The multiplier of an elementwise activation is (φ(z) - φ(z0)) / (z - z0), with z0 its input at the baseline; those
    of affine operations are their weights; A = multiplier · (x - baseline) adds up to f(x) - f(baseline). captum
    applies the rule to activations of nine exact types, and silently takes the gradient of all others. Here each
    activation of a copy stands as a module of such a type, with its own forward pass. What remains is refused:
    activations called as functions, or twice as one module, pooling by maxima, products of features, and whatever
    cannot be read.

    Args:
        captum: the module `captum.attr`.
        model: in evaluation mode; not changed. Its outputs are flattened.

    Raises:
        TypeError: a network for which the rule is not valid, with the operation named.
    """
    try:
        graph = affine_graph(model)
    except TypeError as error:
        reason = str(error).split(";")[0].split(": the exact method")[0]
        raise TypeError(f"DeepLift's rule is not known to be valid here: {reason}; {_REMEDY}") from error
    reason = _obstacle(graph, model)
    if reason:
        raise TypeError(f"DeepLift's rule is not valid here: {reason}; {_REMEDY}")
    body = _Flat(copy.deepcopy(model))
    for step in graph.steps:
        if step.facts is not None:
            _stand_in(body.model, str(step.node.target))
    rule = captum.DeepLift(body, multiply_by_inputs=True)

    def attribute(x: Tensor, baseline: Tensor, classes: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
            found: Tensor = rule.attribute(x, baselines=baseline, target=classes)
        return found

    return attribute


class _Flat(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor) -> Tensor:
        out: Tensor = self.model(points)
        return out.reshape(len(points), -1)


def _obstacle(graph: AffineGraph, model: nn.Module) -> str:
    """Why the rule is not valid; "" when it is."""
    modules = dict(model.named_modules())
    calls = Counter(id(modules[str(step.node.target)]) for step in graph.steps if step.node.op == "call_module")
    moving: set[fx.Node] = set()
    for step in graph.steps:
        node = step.node
        given = [used for used in node.all_input_nodes if used.op == "placeholder" or used in moving]
        if not given:
            continue
        moving.add(node)
        if step.grouped is not None:
            return f"{step.label!r} ({type(step.grouped).__name__}) mixes its inputs"
        if step.facts is not None and node.op != "call_module":
            return f"{step.label!r} is an activation called as a function, which captum does not see"
        if step.facts is not None and calls[id(modules[str(node.target)])] > 1:
            return f"module {step.label!r} is called more than once, and captum keeps the inputs of one call"
        mixing = is_product(step) or node.target in _LINEAR
        if mixing and (len(given) > 1 or ("div" in step.label and given[0] not in node.args[:1])):
            return f"{step.label!r} multiplies features by each other, or divides by them"
    return ""


def _stand_in(model: nn.Module, name: str) -> None:
    """Put a module in the place of an activation that captum knows by its type, with the activation's forward pass."""
    parent, _, last = name.rpartition(".")
    own = model.get_submodule(name)
    if getattr(own, "inplace", False):
        own.inplace = False  # type: ignore[assignment]
    known = nn.ReLU()
    known.forward = own.forward  # type: ignore[method-assign]
    setattr(model.get_submodule(parent), last, known.train(own.training))
