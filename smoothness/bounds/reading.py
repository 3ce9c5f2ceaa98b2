"""How is any nn.Module read as affine maps and activations? Traced by torch.fx, op by op."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from smoothness._model_calls import call_model
from smoothness._state import probing
from smoothness.activations.catalogue import activation_facts, is_activation
from smoothness.activations.declared import declared_facts
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.functional import FUNCTIONS, input_of, read_call
from smoothness.activations.recognition import counterpart, is_any_activation, likeness
from smoothness.bounds.graph import Network
from smoothness.bounds.operations import (
    ADD,
    CONVOLVE,
    DIV,
    LINEAR,
    LOWER,
    MATMUL,
    METHODS,
    MUL,
    SUB,
    method,
    placing,
    product_of,
    sum_of,
    unread,
    weighted,
)
from smoothness.bounds.symbols import Builder, Symbol, max_pool
from smoothness.wrapping import Wrapped

# Modules that are linear in evaluation mode and hold no parameters.
_PLAIN = (
    nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
)  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def read_network(model: nn.Module, example: Tensor, layer: str | None = None, *, memory: float = math.inf) -> Network:
    """Read a model, in evaluation mode, as affine maps and elementwise activations, in float64.

    Understood: linear layers and convolutions, batch normalisation (its running statistics), average pooling,
    max pooling (max(a, b) = b + relu(a - b), pairwise), reshaping, sums and differences of branches, products
    with constants, and every elementwise activation whose facts are known, as a module or as a function call.

    Args:
        model: any nn.Module that torch.fx can trace. It is not changed.
        example: one input, with a batch axis of length 1 (its shape and device count).
        layer: name of a module whose output is read instead of the model's.
        memory: bytes that one matrix may take.

    Raises:
        TypeError: an operation that is not understood, or an activation without facts; it is named. Also a model
            whose own outputs differ from what was read (hooks, or writing in place into a value read later).
        ValueError: NaN or infinite weights, an unknown `layer` (the known ones are listed), too little memory
            (the need is named).

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [layer.width for layer in read_network(model, torch.zeros(1, 2)).hidden]
    [3]
    """
    if any(p.is_floating_point() and not p.isfinite().all() for p in (*model.parameters(), *model.buffers())):
        raise ValueError("the model holds NaN or infinite weights; no bound can be certified for it")
    if isinstance(model, Wrapped) and model.model is not None and _adds_nothing(model):
        model = model.model
    with probing(model), torch.no_grad():
        try:
            tracer = _Tracer()
            whole = nn.Sequential(model) if tracer.is_leaf_module(model, "") else model
            graph = tracer.trace(whole)
        except Exception as error:  # user code runs with symbolic values: anything may be raised
            first = str(error).splitlines()[0] if str(error) else ""
            raise TypeError(
                f"{type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {first}); "
                f"rewrite its forward without control flow on values. {LOWER}"
            ) from error
        network = _Reader(whole, example, layer, memory).read(graph)
        if layer is None:
            _check_against(model, network, example)
        return network


_ACTIVATION_METHODS = frozenset(FUNCTIONS.values())


def _adds_nothing(wrapped: Wrapped) -> bool:
    """Whether a wrapper passes on one tensor unchanged, as far as its settings say."""
    choices = (wrapped.output, wrapped.inputs)
    return choices == (None, None) and not (wrapped.extras or wrapped.extra_tensors or wrapped.arrays)


def _has_facts(module: nn.Module) -> bool:
    return hasattr(module, "facts") or declared_facts(module) is not None


class _Tracer(fx.Tracer):
    """Activations of any house are leaves, besides torch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_any_activation(m) or _has_facts(m) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Runs a graph on symbols."""

    def __init__(self, model: nn.Module, example: Tensor, layer: str | None, memory: float) -> None:
        self.model, self.layer = model, layer
        self.example = example
        self.builder = Builder(example[0].numel(), example.device, memory)
        self.named: dict[str, Symbol] = {}
        self.facts: dict[Hashable, ActivationFacts] = {}

    def read(self, graph: fx.Graph) -> Network:
        values: dict[fx.Node, Any] = {}
        result: Any = None
        for node in graph.nodes:
            args, kwargs = (fx.map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
            if node.op == "placeholder":
                if any(isinstance(value, Symbol) for value in values.values()):
                    values[node] = node.args[0] if node.args else None
                else:
                    values[node] = self.builder.input(tuple(self.example.shape[1:]))
            elif node.op == "get_attr":
                values[node] = _constant(self.model, str(node.target))
            elif node.op == "output":
                result = args[0]
            elif node.op == "call_module":
                values[node] = self._module(str(node.target), args, kwargs)
                if isinstance(values[node], Symbol):
                    self.named[str(node.target)] = values[node]
                if str(node.target) == self.layer:
                    result = values[node]
                    break
            else:
                values[node] = self._call(node, args, kwargs)
        if self.layer is not None and self.layer not in self.named:
            known = ", ".join(self.named) or "none"
            raise ValueError(f"the model has no layer {self.layer!r} that it calls once; known: {known}")
        if not isinstance(result, Symbol):
            raise TypeError(f"the model must return one tensor that depends on its input, got {type(result).__name__}")
        return self.builder.network(result)

    def _module(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.model.get_submodule(name)
        if len(args) != 1 or kwargs or not isinstance(args[0], Symbol):
            raise unread(f"module {name!r} ({type(module).__name__})", "it takes more than one input")
        value = args[0]
        if isinstance(module, _PLAIN) and type(module).forward is not nn.Module.forward:
            return value.linear(module)
        if isinstance(module, nn.Linear):
            weight = module.weight.detach().double()
            return value.linear(lambda x: F.linear(x, weight)).plus(_double(module.bias))
        if isinstance(module, _CONVOLUTIONS):
            return self._convolution(module, value)
        if isinstance(module, _NORMS):
            return self._batch_norm(name, module, value)
        if isinstance(module, _MAX_POOLS):
            if module.return_indices:
                raise unread(f"module {name!r} ({type(module).__name__})", "it returns indices")
            window = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
            return max_pool(self.builder, name, value, type(module)(*window[:4], ceil_mode=window[4]))
        if is_any_activation(module) or _has_facts(module):
            return self.builder.activate(name, value, self._facts(name, module))
        divides = isinstance(module, (nn.LayerNorm, nn.GroupNorm))
        why = "it divides by a value that depends on the input" if divides else ""
        raise unread(f"module {name!r} ({type(module).__name__})", why)

    def _facts(self, name: str, module: nn.Module) -> ActivationFacts:
        same = module if declared_facts(module) is not None else counterpart(module)
        own = getattr(module, "facts", None)
        try:
            if callable(own) and not is_activation(same):
                facts: ActivationFacts = own()
            else:  # like activations share their facts, and all that is computed from them
                key = likeness(same)
                facts = self.facts[key] if key in self.facts else activation_facts(same)
                self.facts[key] = facts
        except TypeError as error:
            raise TypeError(
                f"activation {name!r} ({type(module).__name__}) declares no facts, so nothing can be certified: "
                f"declare them with smoothness.activations.declare_facts, or derive it from smoothness.Activation and "
                f"define facts() ({error}). {LOWER}"
            ) from error
        if not facts.elementwise or facts.function is None:
            raise unread(f"activation {name!r} ({type(module).__name__})", "it acts on several features at once")
        return facts

    def _convolution(self, module: Any, value: Symbol) -> Symbol:
        weight = module.weight.detach().double()
        mapped = value.linear(lambda x: module._conv_forward(x, weight, None))
        bias = _double(module.bias)
        return mapped.plus(None if bias is None else bias.view(-1, *[1] * (len(mapped.shape) - 1)))

    def _batch_norm(self, name: str, module: Any, value: Symbol) -> Symbol:
        if module.running_mean is None or module.running_var is None:
            raise unread(f"module {name!r} ({type(module).__name__})", "each example depends on its batch")
        scale = (module.running_var.detach().double() + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight.detach().double()
        shift = -scale * module.running_mean.detach().double()
        shift = shift if module.bias is None else shift + module.bias.detach().double()
        shape = (-1, *[1] * (len(value.shape) - 1))
        return value.linear(lambda x: x * scale.view(shape)).plus(shift.view(shape))

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target = node.target
        label = f"{node.op.replace('_', ' ')} {getattr(target, '__name__', target)!r}"
        symbols = [a for a in _flat((args, kwargs)) if isinstance(a, Symbol)]
        if not symbols:
            return _concrete(node, args, kwargs)
        if target is getattr and args[1] in ("shape", "device", "dtype"):
            return {"shape": (1, *symbols[0].shape), "device": symbols[0].device, "dtype": torch.float64}[args[1]]
        if target == "size":
            shape = (1, *symbols[0].shape)
            return shape if len(args) == 1 and not kwargs else shape[args[1] if len(args) > 1 else kwargs["dim"]]
        if target == "dim":
            return len(symbols[0].shape) + 1
        name = target if node.op == "call_method" else FUNCTIONS.get(target, "")
        if name in _ACTIVATION_METHODS or (node.op == "call_function" and name):
            return self._activation(str(name), label, args, kwargs)
        if target in ADD or target in SUB:
            if len(args) != 2 or kwargs:
                raise unread(label, "only plain sums are")
            return sum_of(args[0], args[1], 1.0 if target in ADD else -1.0)
        if target in MUL or target in DIV:
            return product_of(label, args, divide=target in DIV)
        if target in MATMUL and len(symbols) > 1:
            raise unread(f"{label}{_owner(node)}", "as a product of two values that depend on the input (attention)")
        if target in (torch.cat, torch.concat):
            return self._concatenate(label, args, kwargs)
        if target is F.linear or target in CONVOLVE:
            return weighted(label, args, kwargs, target)
        if target in (F.max_pool1d, F.max_pool2d):
            kind = nn.MaxPool1d if target is F.max_pool1d else nn.MaxPool2d
            return max_pool(self.builder, label, args[0], kind(*args[1:], **kwargs))
        if target is F.dropout:
            return args[0]
        if target in ("view", "reshape") or target is torch.reshape:
            sizes = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
            sizes = kwargs.get("shape", sizes)
            return symbols[0].reshaped(tuple(sizes))
        function = LINEAR.get(target) if node.op == "call_function" else None
        if function is None and target in METHODS:
            function = method(str(target))
        if function is None or len(symbols) != 1 or not isinstance(args[0], Symbol):
            raise unread(label, "")
        rest = args[1:]
        return symbols[0].linear(lambda x: function(x, *rest, **kwargs))

    def _activation(self, name: str, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Symbol:
        value, rest, keywords = input_of(args, kwargs)
        call = read_call(name, rest, keywords)
        if call is None or not isinstance(value, Symbol):
            raise unread(label, "as an activation with these arguments")
        return self.builder.activate(call.kind, value, self._facts(call.kind, call.module))

    def _concatenate(self, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Symbol:
        parts = kwargs.get("tensors", args[0] if args else ())
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        dim = dim if dim >= 0 else dim + len(parts[0].shape) + 1
        if dim == 0 or not all(isinstance(part, Symbol) for part in parts):
            raise unread(label, "over the batch axis or with constants")
        total: Symbol | None = None
        size, start = sum(part.shape[dim - 1] for part in parts), 0
        for part in parts:
            length = part.shape[dim - 1]
            placed = part.linear(placing(dim, start, size))
            total = placed if total is None else sum_of(total, placed, 1.0)
            start += length
        assert total is not None
        return total


def _owner(node: fx.Node) -> str:
    """Such as " of module 'mix1.attention' (Attention)", where the tracer tells."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return ""
    path, kind = stack[-1]
    return f" of module {path!r} ({getattr(kind, '__name__', kind)})"


def _concrete(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _constant(model: nn.Module, path: str) -> Any:
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in _flat(part)]
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [value]


def _double(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().double()


def _check_against(model: nn.Module, network: Network, example: Tensor) -> None:
    """Compare with the model's own outputs at a few points; near a jump, rounding may decide: one must agree."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6, *example.shape[1:], generator=generator, dtype=torch.float64).to(example.device)
    points = example.double() + noise * torch.tensor([0, 0.1, 0.3, 1, 3, 3], device=example.device).double().view(
        -1, *[1] * (example.ndim - 1)
    )
    try:
        double = copy.deepcopy(model).double()
        outputs, tolerance = call_model(double, points).flatten(1).double(), 1e-6
    except (RuntimeError, AttributeError, TypeError):  # cannot be copied, or converts its input itself
        points = points.to(example.dtype).double()
        outputs, tolerance = call_model(model, points.to(example.dtype)).flatten(1).double(), 1e-3
    _, read = network.run(points.flatten(1))
    if outputs.shape == read.shape:
        size = outputs.abs().amax(dim=1, keepdim=True) + 1
        agrees = ((outputs - read).abs() <= tolerance * size).all(dim=1) | ~outputs.isfinite().all(dim=1)
        jumps = any(b.order == -1 for layer in network.hidden for b in layer.facts.breakpoints)
        if bool(agrees.any() if jumps else agrees.all()):
            return
    raise TypeError(
        f"{type(model).__name__} computes something else than what was read from its forward: hooks, or a value that "
        f"is written in place and read again. {LOWER}"
    )
