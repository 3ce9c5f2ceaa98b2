"""Of which affine operations, activations and poolings is a network made, in any order of branches?"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation_facts, is_activation
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.families.vector import GroupSort, KWinners, MaxOut
from smoothness.activations.functional import FUNCTIONS, input_of, read_call
from smoothness.activations.recognition import counterpart, is_any_activation

_AFFINE_MODULES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ZeroPad2d,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.PixelShuffle, nn.Upsample,
)  # fmt: skip
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_GROUPED = (nn.MaxPool2d, MaxOut, GroupSort, KWinners)
# Affine in one argument when the others are constants.
_PRODUCTS: frozenset[Any] = frozenset(
    {
        operator.mul,
        operator.imul,
        operator.truediv,
        operator.itruediv,
        torch.mul,
        torch.div,
        "mul",
        "mul_",
        "div",
        "div_",
    }
)
_FUNCTIONS: frozenset[Any] = _PRODUCTS | frozenset(
    {operator.add, operator.iadd, operator.sub, operator.isub, operator.neg, operator.getitem, getattr, torch.add,
     torch.sub, torch.neg, torch.flatten, torch.cat, torch.concat, torch.mean, torch.sum, torch.reshape, torch.permute,
     torch.transpose, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, F.avg_pool2d, F.adaptive_avg_pool2d,
     F.pad, F.dropout, F.linear, F.conv2d, F.conv1d, F.interpolate}
)  # fmt: skip
_METHODS = frozenset(
    {"add", "add_", "sub", "sub_", "neg", "mul", "mul_", "div", "div_", "view", "reshape", "flatten", "mean", "sum",
     "size", "dim", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "chunk", "split", "clone",
     "unflatten"}
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Step:
    """One node of the graph.

    Attributes:
        node: the node.
        facts: of the activation that it is; None otherwise.
        grouped: the max pooling, maxout, group sort or k winners that it is; None otherwise.
        call: what to call with the node's arguments, for an affine operation.
        label: module name, or the node's name for a function call.
    """

    node: fx.Node
    facts: ActivationFacts | None
    grouped: nn.Module | None
    call: Callable[..., Any] | None
    label: str


@dataclass(frozen=True, eq=False)
class AffineGraph:
    """A network read node by node.

    Attributes:
        steps: in the order of execution, without the inputs.
        layers: labels of the activations and poolings.
        activations: facts of the activations.
    """

    steps: tuple[Step, ...]
    layers: tuple[str, ...]
    activations: tuple[ActivationFacts, ...]


class _Tracer(fx.Tracer):
    """Activations are nodes of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_any_activation(m) or super().is_leaf_module(m, module_qualified_name)


def affine_graph(module: nn.Module) -> AffineGraph:
    """Read a network of affine operations, elementwise activations, max pooling, maxout, group sort and k winners.

    Branches, residual sums, concatenation, reshaping, scaling by constants, evaluation-mode batch norm and dropout
    are understood, as modules or as function calls. Traced by torch.fx.

    Args:
        module: in evaluation mode; its code runs with symbolic values.

    Raises:
        TypeError: anything else, named; code that cannot be traced.

    >>> affine_graph(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))).layers
    ('1', '2')
    """
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # anything may be raised by code that meets symbolic values
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TypeError(f"the model's code cannot be traced ({first}); use kinks_by_bisection") from error
    modules = dict(module.named_modules())
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len([node for node in inputs if node.users]) > 1:
        raise TypeError(f"the model takes {len(inputs)} inputs; wrap it in a module that takes one tensor")
    steps = [_read(node, modules, module) for node in graph.nodes if node.op not in ("placeholder", "output")]
    broken = [step for step in steps if step.facts is not None or step.grouped is not None]
    return AffineGraph(
        tuple(steps),
        tuple(step.label for step in broken),
        tuple(step.facts for step in broken if step.facts is not None),
    )


def _read(node: fx.Node, modules: dict[str, nn.Module], root: nn.Module) -> Step:
    target: Any = node.target
    if node.op == "get_attr":
        value = operator.attrgetter(target)(root)
        return Step(node, None, None, lambda: value, target)
    if node.op == "call_module":
        return _read_module(node, target, modules[target])
    table: Any = FUNCTIONS if node.op == "call_function" else {name: name for name in FUNCTIONS.values()}
    if target in table:
        _, arguments, keywords = input_of(node.args, node.kwargs)
        call = read_call(table[target], arguments, keywords)
        if call is not None:
            return _activation(node, node.name, call.module)
    if node.op == "call_function" and target in (F.max_pool2d, torch.max_pool2d):
        sizes: Any = node.args[1:]
        named: Any = node.kwargs
        return Step(node, None, nn.MaxPool2d(*sizes, **named), None, node.name)
    if target in (_FUNCTIONS if node.op == "call_function" else _METHODS):
        method = target if callable(target) else (lambda x, *rest, **named: getattr(x, target)(*rest, **named))
        return Step(node, None, None, method, node.name)
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    raise _unread(node.name, name)


def _read_module(node: fx.Node, name: str, module: nn.Module) -> Step:
    if isinstance(module, _GROUPED):
        return Step(node, None, module, None, name)
    same = counterpart(module)
    if isinstance(same, Activation) or is_activation(same):
        return _activation(node, name, same)
    if isinstance(module, _NORMS):
        if module.running_mean is None:
            raise TypeError(f"module {name!r}: without running statistics each example depends on its batch")
        return Step(node, None, None, module, name)
    if isinstance(module, _AFFINE_MODULES) and not isinstance(module, nn.MultiheadAttention):
        return Step(node, None, None, module, name)
    raise _unread(name, type(module).__name__)


def _activation(node: fx.Node, name: str, module: nn.Module) -> Step:
    try:
        facts = activation_facts(module)
    except TypeError as error:
        raise TypeError(f"activation {name!r}: {error}") from None
    if not facts.elementwise:
        raise _unread(name, facts.name)
    return Step(node, facts, None, None, name)


def is_product(step: Step) -> bool:
    """Whether the operation is affine in one argument alone."""
    return step.node.target in _PRODUCTS


def _unread(name: str, kind: str) -> TypeError:
    return TypeError(
        f"{name!r} ({kind}) cannot be read: the exact method reads affine operations, elementwise activations, max "
        "pooling, maxout, group sort and k winners; use kinks_by_bisection, or SmoothnessProbe for values alone"
    )
