"""The model in float64 as a function of points, and which of its outputs is followed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_class_outputs
from smoothness._model_calls import call_model, check_model
from smoothness._state import model_device

LAYER = "layer:"


@dataclass(frozen=True, eq=False)
class DoubleModel:
    """A float64 copy of a model, in evaluation mode and without parameter gradients; the model is not touched.

    Attributes:
        module: the copy.
        layer: module whose output is followed instead of the model's own; None for the latter.
    """

    module: nn.Module
    layer: str | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """What is followed, flat: (n, *input_shape) -> (n, outputs)."""
        outputs = call_model(self.module, points) if self.layer is None else self._at_layer(points)
        if outputs.shape[:1] != points.shape[:1] or outputs.numel() == 0:
            raise ValueError(
                f"the model must return one row of outputs per input, got shape {tuple(outputs.shape)} "
                f"for {len(points)} inputs; wrap it in a module that returns the logits"
            )
        return outputs.reshape(len(points), -1)

    def _at_layer(self, points: Tensor) -> Tensor:
        assert self.layer is not None
        held: list[Any] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            held.append(output.clone() if isinstance(output, Tensor) else output)  # the next module may work in place

        hook = self.module.get_submodule(self.layer).register_forward_hook(keep)
        try:
            self.module(points)
        finally:
            hook.remove()
        if not held or not isinstance(held[-1], Tensor):
            raise ValueError(f"layer {self.layer!r} returns no tensor when the model runs; name another one")
        return held[-1]


def double_model(model: nn.Module, inputs: Tensor, *, of: str = "logits", strict: bool = True) -> DoubleModel:
    """The model as a float64 function of points on its device.

    Args:
        model: any module that returns a tensor.
        inputs: an example batch; its first row is run once.
        of: "logits" or "margin" for the model's outputs, "layer:NAME" for those of a module inside.
        strict: refuse a model that turns float64 inputs into float32 outputs by itself.

    Raises:
        TypeError: no nn.Module, one that cannot be copied, or one that computes in float32 itself.
        ValueError: an unknown layer.

    >>> double_model(nn.Linear(2, 1), torch.zeros(1, 2))(torch.zeros(3, 2, dtype=torch.float64)).dtype
    torch.float64
    """
    check_model(model)
    layer = of.removeprefix(LAYER) if of.startswith(LAYER) else None
    if layer is not None:
        check_choice("layer", layer, [name for name, _ in model.named_modules() if name])
    module = double_copy(model)
    double = DoubleModel(module, layer)
    with torch.no_grad():
        found = double(inputs[:1].detach().to(model_device(module), torch.float64)).dtype
    if strict and found != torch.float64:
        raise TypeError(
            f"the model returns {str(found).removeprefix('torch.')} for float64 inputs and weights, and differences "
            "at this tolerance need float64; remove the conversions in its forward"
        )
    return double


def double_copy(model: nn.Module) -> nn.Module:
    """The model in float64 and evaluation mode, without parameter gradients.

    Raises:
        TypeError: no nn.Module, or one that cannot be copied.

    >>> double_copy(nn.Dropout()).training
    False
    """
    check_model(model)
    try:
        return copy.deepcopy(model).double().eval().requires_grad_(False)
    except RuntimeError as error:  # a tensor with a graph inside
        raise TypeError(f"the model cannot be copied to float64 ({error}); detach the tensors it keeps") from error


def in_double(model: DoubleModel, inputs: Tensor) -> Tensor:
    """Inputs in float64 on the model's device, detached."""
    return inputs.detach().to(model_device(model.module), torch.float64)


def output_weights(outputs: Tensor, of: str, labels: Tensor | None = None) -> Tensor:
    """The linear functionals of the outputs that are followed: (n, rows, outputs).

    For of="margin" one row, fixed at the given outputs: 1 at the label (without labels, the predicted class),
    -1 at the best other class. Else one row an output.

    >>> output_weights(torch.tensor([[0.0, 3.0, 1.0]]), "margin")
    tensor([[[ 0.,  1., -1.]]])
    """
    if of != "margin":
        return torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device).expand(len(outputs), -1, -1)
    if outputs.shape[1] < 2:
        raise ValueError('of="margin" needs a model with at least 2 outputs, got 1; use of="logits"')
    check_class_outputs(outputs, len(outputs), labels)
    y = (outputs.argmax(dim=1) if labels is None else labels.to(outputs.device))[:, None]
    other = outputs.scatter(1, y, -torch.inf).argmax(dim=1, keepdim=True)
    return torch.zeros_like(outputs).scatter_(1, y, 1.0).scatter_(1, other, -1.0)[:, None]
