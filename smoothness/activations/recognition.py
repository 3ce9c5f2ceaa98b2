"""Which modules are activations, ours, torch's or another house's, and which stay as they are?"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import nn

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import ACTIVATIONS, is_activation
from smoothness.activations.declared import declared_facts
from smoothness.activations.functional import SQUASHING

_MODULE = frozenset(vars(nn.Module()))
_HOUSES = ("transformers.activations", "timm.layers.activations", "timm.models.layers.activations")
# Classes of those houses that do nothing.
_IDLE = frozenset({"LinearActivation", "Identity"})
# Elementwise activations that networks define for themselves, under these names.
_CUSTOM = frozenset(
    {"FastGELU", "GELU", "HardSwish", "HardMish", "Hswish", "HSwish", "MemoryEfficientMish", "MemoryEfficientSwish",
     "Mish", "NewGELU", "QuickGELU", "ReLU", "ReLUSquared", "SiLU", "SquaredReLU", "Swish", "SwishMe"}
)  # fmt: skip
# Another house's module: the torch.nn module that computes the same.
_COUNTERPARTS: dict[str, Callable[[], nn.Module]] = {
    "GELUActivation": nn.GELU,
    "GELUTanh": lambda: nn.GELU("tanh"),
    "HardSwish": nn.Hardswish,
    "MemoryEfficientSwish": nn.SiLU,
    "Mish": nn.Mish,
    "MishActivation": nn.Mish,
    "NewGELUActivation": lambda: nn.GELU("tanh"),
    "PytorchGELUTanh": lambda: nn.GELU("tanh"),
    "SiLUActivation": nn.SiLU,
    "Swish": nn.SiLU,
    "SwishMe": nn.SiLU,
}
_STAY: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.GLU, "the gate of a gated linear unit"),
    (nn.MultiheadAttention, "attention softmax"),
    (nn.Softmax, "softmax normalises over an axis"),
    (nn.LogSoftmax, "softmax normalises over an axis"),
    (nn.Softmin, "softmax normalises over an axis"),
    (nn.RNNBase, "gates of a recurrent layer"),
    (nn.RNNCellBase, "gates of a recurrent cell"),
)
_GATE_NAMES = frozenset({"gate", "scale_activation"})
_HEAD_NAMES = frozenset({"pooler"})


def is_any_activation(module: nn.Module) -> bool:
    """Whether a module is an activation of ours, of torch.nn, of transformers or timm, or a well-known custom one.

    >>> is_any_activation(nn.ReLU6()), is_any_activation(nn.Linear(1, 1))
    (True, False)
    """
    kind = type(module)
    if is_activation(module):
        return True
    if kind.__name__ in _IDLE or kind.__module__.startswith("torch."):
        return False
    if kind.__module__.startswith(_HOUSES):
        return True
    bare = not module._modules and not module._parameters and not module._buffers
    return kind.__name__ in _CUSTOM and bare


def counterpart(module: nn.Module) -> nn.Module:
    """The torch.nn module that computes what another house's does; the module itself where none is known.

    >>> counterpart(nn.ReLU(inplace=True))
    ReLU(inplace=True)
    """
    make = None if is_activation(module) else _COUNTERPARTS.get(type(module).__name__)
    return module if make is None else make().train(module.training)


def kind_name(module: nn.Module) -> str:
    """The name an activation goes by in the catalogue or in torch.nn.functional, in lower case.

    >>> kind_name(nn.LeakyReLU()), kind_name(nn.ReLU6())
    ('leaky_relu', 'relu6')
    """
    same = counterpart(module)
    for name, kind in ACTIVATIONS.items():
        if type(same) is kind or type(same).__name__ == kind.__name__:
            return name
    return type(same).__name__.lower()


def is_squashing(module: nn.Module) -> bool:
    """Whether an activation is of the kind that gates and output heads use: sigmoid, tanh and the like."""
    return kind_name(module) in SQUASHING


def why_stays(module: nn.Module) -> str:
    """Why a module that computes an activation of sorts is not one to replace; "" for all others."""
    return next((why for kind, why in _STAY if isinstance(module, kind)), "")


def role_by_name(name: str) -> str:
    """What the name of a squashing activation says of its role: a gate, an output head, or nothing.

    >>> role_by_name("bert.pooler.activation")
    'final output (pooler)'
    """
    parts = name.split(".")
    if parts[-1] in _GATE_NAMES:
        return "a gate"
    return next((f"final output ({part})" for part in parts if part in _HEAD_NAMES), "")


def likeness(module: nn.Module) -> Hashable:
    """The type and arguments of one of our activations; the module itself where those are not all that it is.

    >>> a, b, c = (ACTIVATIONS["softplus"](beta) for beta in (1.0, 1.0, 2.0))
    >>> likeness(a) == likeness(b), likeness(a) == likeness(c)
    (True, False)
    """
    own = {name: value for name, value in vars(module).items() if name not in _MODULE}
    plain = all(isinstance(value, bool | int | float | str) for value in own.values())
    if not plain or not isinstance(module, Activation) or declared_facts(module) is not None:
        return module
    stateless = not any(True for part in (module.parameters(), module.buffers(), module.children()) for _ in part)
    return (type(module), *sorted(own.items())) if stateless else module
