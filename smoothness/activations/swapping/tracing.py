"""How are the function calls of one module's forward found and replaced by torch.fx?"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import fx, nn

from smoothness.activations.functional import FUNCTIONS, Call, input_of, read_call

# Calls that only change the shape: a final output stays one behind them.
_SHAPES = frozenset({"contiguous", "flatten", "reshape", "squeeze", "unsqueeze", "view"})
_METHODS = {name: name for name in FUNCTIONS.values()}


@dataclass(frozen=True)
class Trace:
    """The graph of one forward, its children as single nodes.

    Attributes:
        graph: in evaluation mode; None when nothing could be traced.
        training: the graph in training mode where that is another one, with the same activation calls.
        problem: why code made from the graphs could differ from the forward; "" when it is safe.
    """

    graph: fx.Graph | None
    training: fx.Graph | None
    problem: str


class _Shallow(fx.Tracer):
    """Children are leaves, buffers symbolic (an in-place change of one would otherwise happen while tracing)."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def trace(module: nn.Module, hazards: list[str], keep: Mapping[int, Any]) -> Trace:
    """Trace a module's own forward in both modes.

    User code runs with symbolic values, on copies of the module that share what `keep` holds by id: the
    model's modules, parameters and buffers.
    """
    if isinstance(module, fx.GraphModule):
        return Trace(module.graph, None, "")
    problem = hazards[0] if hazards else ""
    try:
        training, changed = _trace_copy(module, True, keep)
        graph, also = _trace_copy(module, False, keep)
    except Exception as error:  # anything may be raised
        first = str(error).splitlines()[0] if str(error) else ""
        return Trace(None, None, problem or f"{type(error).__name__}: {first}")
    if changed or also:
        names = ", ".join(sorted({*changed, *also}))
        problem = problem or f"its forward changes attributes or makes tensors of its own ({names})"
    if graph.python_code("self").src == training.python_code("self").src:
        return Trace(graph, None, problem)
    if [call for _, call in activation_calls(graph)] != [call for _, call in activation_calls(training)]:
        problem = problem or "its activations depend on the training mode"
    return Trace(graph, training, problem)


def _trace_copy(module: nn.Module, training: bool, keep: Mapping[int, Any]) -> tuple[fx.Graph, list[str]]:
    """The graph, and the names of the attributes that the forward changed."""
    memo = dict(keep)
    memo.pop(id(module), None)
    stand_in = copy.deepcopy(module, memo)
    stand_in.training = training
    before = _fingerprint(stand_in)
    graph = _Shallow().trace(stand_in)
    after = _fingerprint(stand_in)
    return graph, [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _fingerprint(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Which object stands behind each attribute, buffer and parameter, and how many items it has."""
    values = {**vars(module), **module._buffers, **module._parameters}
    return {
        name: (id(value), len(value) if isinstance(value, (list, dict, set)) else 0) for name, value in values.items()
    }


def activation_calls(graph: fx.Graph) -> Iterator[tuple[fx.Node, Call]]:
    """Every activation call of a graph, in order."""
    for node in graph.nodes:
        table: Any = {"call_function": FUNCTIONS, "call_method": _METHODS}.get(node.op, {})
        name = table.get(node.target)
        if name is None:
            continue
        _, arguments, keywords = input_of(node.args, node.kwargs)
        call = read_call(name, arguments, keywords)
        if call is not None:
            yield node, call


def role_in_graph(node: fx.Node) -> str:
    """What a squashing activation does there: scales other values, is part of a formula, or neither."""
    users = list(node.users)
    operators = [_operator(user) for user in users]
    if users and all(operator in ("mul", "mul_") for operator in operators):
        return "a gate: its output is multiplied"
    if users and all(operator in ("add", "sub", "rsub") and len(_inputs(user)) == 1
                     for operator, user in zip(operators, users, strict=True)):  # fmt: skip
        return "part of a formula: a constant is added to its output"
    return ""


def output_node(graph: fx.Graph) -> fx.Node | None:
    """The node that computes the only output, looked at through changes of shape; None for several outputs."""
    (last,) = graph.find_nodes(op="output")
    node = last.args[0]
    while isinstance(node, fx.Node) and _operator(node) in _SHAPES:
        node = node.args[0]
    return node if isinstance(node, fx.Node) else None


def module_nodes(graph: fx.Graph, name: str) -> list[fx.Node]:
    """The calls of a direct child."""
    return list(graph.find_nodes(op="call_module", target=name))


def reused_input(node: fx.Node) -> bool:
    """Whether something reads the node's input after it: there, an in-place call shows."""
    source = node.args[0] if node.args else None
    return isinstance(source, fx.Node) and any(user > node for user in source.users)


def hidden_write(node: fx.Node) -> bool:
    """Whether an in-place call acts only through memory that the graph does not show, such as a view's."""
    return not node.users and not reused_input(node)


def put_module(node: fx.Node, child: str, *, inplace: bool) -> None:
    """Let a child compute the node; after an in-place call, later readers of the input get its result."""
    graph = node.graph
    source = input_of(node.args, node.kwargs)[0]
    with graph.inserting_before(node):
        fresh = graph.call_module(child, (source,))
    node.replace_all_uses_with(fresh)
    if inplace and isinstance(source, fx.Node):
        for user in list(source.users):
            if user > node:
                user.replace_input_with(source, fresh)
    graph.erase_node(node)


@dataclass(frozen=True)
class TracedCode:
    """A forward made from a graph: source text and the names it uses, so that it can be pickled."""

    source: str
    modules: tuple[tuple[str, str], ...]
    objects: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, graph: fx.Graph) -> TracedCode:
        """Generate the code of a graph."""
        graph.lint()
        code = graph.python_code("self")
        names = code.globals.items()
        modules = tuple((name, value.__name__) for name, value in names if isinstance(value, ModuleType))
        return cls(code.src, modules, tuple((n, v) for n, v in names if not isinstance(v, ModuleType)))

    def forward(self) -> Callable[..., Any]:
        """The function, ready to be a method."""
        space: dict[str, Any] = {name: importlib.import_module(module) for name, module in self.modules}
        space.update(self.objects)
        exec(compile(self.source, "<smoothness: traced forward>", "exec", dont_inherit=True), space)
        forward: Callable[..., Any] = space["forward"]
        return forward


def _operator(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _inputs(node: fx.Node) -> list[fx.Node]:
    return [argument for argument in node.args if isinstance(argument, fx.Node)]
