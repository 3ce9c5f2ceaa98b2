"""Which affine maps and activations a sequential MLP is made of, read in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation_facts, is_activation
from smoothness.activations.facts import ActivationFacts


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x -> x Wᵀ + b, or x -> s·x + b elementwise when `weight` is a vector s.

    Attributes:
        weight: (out, in), or (width,) for an elementwise scaling.
        bias: (out,).
    """

    weight: Tensor
    bias: Tensor

    def value(self, x: Tensor) -> Tensor:
        """The image of points: (n, in) -> (n, out)."""
        if self.weight.ndim == 1:
            return torch.addcmul(self.bias, x, self.weight)
        return torch.addmm(self.bias, x, self.weight.T)

    def tangent(self, v: Tensor) -> Tensor:
        """The image of directions: (n, in) -> (n, out)."""
        return v * self.weight if self.weight.ndim == 1 else v @ self.weight.T

    def row_norms(self) -> Tensor:
        """The l2 length of each row of W: (out,). It bounds |(Wx)_u| by row_norm_u · |x|."""
        if self.weight.ndim == 1:
            return self.weight.abs()
        norms: Tensor = torch.linalg.vector_norm(self.weight, dim=1)
        return norms


@dataclass(frozen=True, eq=False)
class AffineChain:
    """A sequential MLP: affine maps with an elementwise activation between consecutive groups of them.

    Attributes:
        maps: one group more than there are activations; a group is applied in order and may be empty.
        activations: facts of each activation.
        functions: the activation modules themselves.
        layers: module name of each activation.
        flattens: whether the model itself flattens inputs of more than one feature axis.
    """

    maps: tuple[tuple[AffineMap, ...], ...]
    activations: tuple[ActivationFacts, ...]
    functions: tuple[nn.Module, ...]
    layers: tuple[str, ...]
    flattens: bool

    def flatten(self, inputs: Tensor) -> Tensor:
        """Inputs as (n, features) in float64 on the model's device.

        Raises:
            ValueError: several feature axes and no nn.Flatten in the model, or the wrong number of features.
        """
        if inputs.ndim > 2 and not self.flattens:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)} have several feature axes; "
                "begin the model with nn.Flatten() or pass inputs.flatten(1)"
            )
        flat = inputs.detach().flatten(1)
        first = next((m for group in self.maps for m in group), None)
        if first is not None:
            if flat.shape[1] != first.weight.shape[-1]:
                raise ValueError(f"the model takes {first.weight.shape[-1]} features, got {flat.shape[1]}")
            flat = flat.to(first.weight.device)
        return flat.to(torch.float64)

    def outputs(self, points: Tensor) -> Tensor:
        """The model's outputs in float64: (n, features) -> (n, outputs)."""
        for group, function in zip(self.maps, (*self.functions, nn.Identity()), strict=True):
            for affine in group:
                points = affine.value(points)
            points = function(points)
        return points


def affine_chain(model: nn.Module) -> AffineChain:
    """Read a sequential MLP as affine maps and activations, in float64; the model is not changed.

    Understood: (nested) nn.Sequential of Linear, Flatten, Identity, Dropout, BatchNorm1d (through its running
    statistics) and activations whose facts are known. All are read as in evaluation mode, whatever mode the
    model is in. Forward hooks are not run.

    Raises:
        TypeError: any other module, or an activation without known facts; it is named.
        ValueError: NaN or infinite weights.

    >>> chain = affine_chain(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> len(chain.maps), chain.layers
    (2, ('1',))
    """
    groups: list[list[AffineMap]] = [[]]
    activations: list[ActivationFacts] = []
    functions: list[nn.Module] = []
    layers: list[str] = []
    flattens = False
    for name, module in _in_order(model, ""):
        if _runs_as(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise _unread(name, module, "use nn.Flatten() with its default axes")
            flattens = flattens or not any(groups)
        elif _runs_as(module, nn.Linear):
            groups[-1].append(AffineMap(_double(module.weight), _bias(module.bias, module.weight[:, 0])))
        elif _runs_as(module, nn.BatchNorm1d):
            _append_scaling(groups[-1], _batch_norm(name, module))
        elif isinstance(module, Activation) or is_activation(module):
            try:
                activations.append(activation_facts(module))
            except TypeError as error:
                raise TypeError(f"activation {name!r}: {error}") from None
            functions.append(module)
            layers.append(name)
            groups.append([])
        elif not (_runs_as(module, nn.Identity) or _runs_as(module, nn.Dropout)):
            raise _unread(name, module, "give it a model of those only")
        if groups[-1] and not all(m.weight.isfinite().all() and m.bias.isfinite().all() for m in groups[-1][-1:]):
            raise ValueError(f"module {name!r} ({type(module).__name__}) holds NaN or infinite weights")
    return AffineChain(tuple(map(tuple, groups)), tuple(activations), tuple(functions), tuple(layers), flattens)


def _in_order(module: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    if not _runs_as(module, nn.Sequential):
        yield name, module
        return
    # named_children() would skip the second use of a shared module.
    for child_name, child in module._modules.items():
        if child is not None:
            yield from _in_order(child, f"{name}.{child_name}" if name else child_name)


def _runs_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """An instance of `kind` that has not overridden what a call does."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _unread(name: str, module: nn.Module, remedy: str) -> TypeError:
    return TypeError(
        f"module {name!r} ({type(module).__name__}) cannot be read: the exact method reads sequential MLPs only "
        "(nn.Sequential of Linear, Flatten, Identity, Dropout, BatchNorm1d and elementwise activations); " + remedy
    )


def _batch_norm(name: str, module: nn.BatchNorm1d) -> AffineMap:
    if module.running_mean is None or module.running_var is None:
        raise _unread(name, module, "without running statistics each example depends on its batch")
    scale = (_double(module.running_var) + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * _double(module.weight)
    shift = _bias(cast("Tensor | None", module.bias), scale)
    return AffineMap(scale, shift - scale * _double(module.running_mean))


def _append_scaling(group: list[AffineMap], scaling: AffineMap) -> None:
    """Fold a scaling into the map before it, when there is one."""
    if not group:
        group.append(scaling)
        return
    last = group.pop()
    scale = scaling.weight if last.weight.ndim == 1 else scaling.weight[:, None]
    group.append(AffineMap(scale * last.weight, scaling.value(last.bias)))


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64)


def _bias(bias: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(_double(like)) if bias is None else _double(bias)
