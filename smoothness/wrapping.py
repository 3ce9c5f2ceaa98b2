"""How does somebody else's model become a plain module, tensor in and tensor out?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from smoothness._state import model_device
from smoothness.estimators import EstimatorModel, is_estimator

Output: TypeAlias = "str | int | Callable[[Any], Any] | None"
Inputs: TypeAlias = "str | Callable[[Tensor], Any] | None"
_HALF = (torch.float16, torch.bfloat16)


def wrap(
    model: nn.Module | Callable[..., Any],
    output: Output = None,
    inputs: Inputs = None,
    *,
    extras: Mapping[str, Any] | None = None,
    arrays: bool = False,
    upcast: bool = False,
) -> nn.Module:
    """Make a model, or a predict function, a module that maps one tensor to one tensor.

    The model is held, not copied (`upcast` alone makes a copy): its weights, training mode and hooks are
    the wrapper's. Inputs follow the model's device, and its dtype where that is wider. A predict function
    without a graph works too; its gradients count as zero. A fitted scikit-learn classifier becomes an
    `EstimatorModel`: scores where it has them, else labels; it has no gradient, and attacks that need one say so.

    Args:
        model: an nn.Module, a function of a tensor (or of an array, with `arrays`), or a fitted scikit-learn
            classifier, for which the other arguments stay as they are.
        output: an attribute or key such as "logits", an index into a tuple, or a function of what the
            model returns. By default a tensor is taken as it is, then a field "logits", then the first
            element of a tuple.
        inputs: the keyword that takes the tensor, such as "pixel_values" or "inputs_embeds"; or a function
            of the tensor that gives a dict of keywords, a tuple of arguments, or one argument. By default
            the only argument.
        extras: further fixed keywords, such as {"attention_mask": mask}. A tensor with a batch axis must
            have one row, which is repeated for every input.
        arrays: give the function NumPy arrays, on the CPU.
        upcast: work on a float32 copy of a float16 or bfloat16 model.

    Raises:
        TypeError: a model that is a class or not callable, half precision without `upcast`, an output that is no
            floating-point tensor or cannot be chosen.
        ValueError: an output field that does not exist (those that do are named), extras with several rows; an
            estimator that is not fitted, or whose classes are numbers other than 0, 1, 2, ...

    >>> class Pair(nn.Module):
    ...     def forward(self, x):
    ...         return {"logits": 2 * x, "hidden": x}
    >>> wrap(Pair())(torch.ones(1, 2)), wrap(Pair(), output="hidden")(torch.ones(1, 2))
    (tensor([[2., 2.]]), tensor([[1., 1.]]))
    """
    if is_estimator(model):
        if output is not None or inputs is not None or extras or arrays or upcast:
            raise TypeError(f"{type(model).__name__} is a scikit-learn estimator; call wrap(estimator) without more")
        return EstimatorModel(model)
    if isinstance(model, type):
        raise TypeError(f"model must be a model, got the class {model.__name__}; make one, and fit or load it")
    if not isinstance(model, nn.Module) and not callable(model):
        raise TypeError(f"model must be an nn.Module or a function, got {type(model).__name__} {model!r}")
    if arrays and isinstance(model, nn.Module):
        raise TypeError(f"arrays=True is for predict functions, got the module {type(model).__name__}; leave it out")
    if not (output is None or isinstance(output, (str, int)) or callable(output)) or isinstance(output, bool):
        raise TypeError(f"output must be a field's name, an index or a function, got {output!r}")
    if not (inputs is None or isinstance(inputs, str) or callable(inputs)):
        raise TypeError(f"inputs must be a keyword or a function of the tensor, got {inputs!r}")
    if isinstance(model, nn.Module):
        model = _in_full_precision(model, upcast)
    return Wrapped(model, output, inputs, dict(extras or {}), arrays, upcast)


class Wrapped(nn.Module):
    """A model behind `wrap`: `.model` is the module, or None for a predict function, which is `.function`."""

    def __init__(
        self,
        model: nn.Module | Callable[..., Any],
        output: Output,
        inputs: Inputs,
        extras: dict[str, Any],
        arrays: bool,
        upcast: bool,
    ) -> None:
        super().__init__()
        self.model = model if isinstance(model, nn.Module) else None
        self.function = None if isinstance(model, nn.Module) else model
        self.output, self.inputs, self.arrays, self.upcast = output, inputs, arrays, upcast
        self.extras = {name: value for name, value in extras.items() if not isinstance(value, Tensor)}
        self.extra_tensors: dict[str, str] = {}
        for name, value in extras.items():
            if isinstance(value, Tensor):
                self.extra_tensors[name] = f"extra_{len(self.extra_tensors)}"
                self.register_buffer(self.extra_tensors[name], _one_row(name, value), persistent=False)
        self.training = self.model.training if self.model is not None else False

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the model for a batch."""
        x = self._fit(x)
        positional, keywords = self._arguments(x)
        if self.model is not None:
            returned = self.model(*positional, **keywords)
        else:
            assert self.function is not None
            returned = self.function(*positional, **keywords)
        return self._as_scores(_choose(returned, self.output), x)

    def _fit(self, x: Tensor) -> Tensor:
        """The input on the model's device and in its precision."""
        if x.dtype in _HALF:
            if not self.upcast:
                raise TypeError(f"inputs must be float32 or float64, got {x.dtype}; use x.float() or upcast=True")
            x = x.float()
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), None)
        if own in _HALF:
            raise TypeError(_half_message(own))
        if own is not None and x.is_floating_point() and x.dtype != own:
            if x.dtype == torch.float64:
                raise TypeError(f"inputs are float64 and the model is {own}; use x.float() or model.double()")
            x = x.to(own)
        return x.to(model_device(self))

    def _arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given: Any = x.detach().cpu().numpy() if self.arrays else x
        extras = dict(self.extras)
        for name, buffer in self.extra_tensors.items():
            value = getattr(self, buffer)
            extras[name] = value.expand(len(x), *value.shape[1:]) if value.ndim > 1 else value
        if isinstance(self.inputs, str):
            return (), {**extras, self.inputs: given}
        if self.inputs is not None:
            given = self.inputs(given)
            if isinstance(given, Mapping):
                return (), {**extras, **given}
            if isinstance(given, tuple):
                return given, extras
        return (given,), extras

    def _as_scores(self, found: Any, x: Tensor) -> Tensor:
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(np.ascontiguousarray(found)).to(x.device)
            found = found.to(x.dtype) if found.is_floating_point() and x.is_floating_point() else found
        if not isinstance(found, Tensor):
            raise TypeError(
                f"the chosen output is {type(found).__name__}, not a tensor; choose one with output='logits', "
                "output=0 or a function"
            )
        if not found.is_floating_point():
            raise TypeError(
                f"the chosen output is {found.dtype}, not floating point; return scores, not classes "
                "(predict_proba or decision_function rather than predict)"
            )
        if found.dtype in _HALF:
            if not self.upcast:
                raise TypeError(f"the chosen output is {found.dtype}; pass upcast=True, or use float32 inside")
            found = found.float()
        scores: Tensor = found
        return scores


def _in_full_precision(model: nn.Module, upcast: bool) -> nn.Module:
    half = next((p.dtype for p in (*model.parameters(), *model.buffers()) if p.dtype in _HALF), None)
    if half is None:
        return model
    if not upcast:
        raise TypeError(_half_message(half))
    return copy.deepcopy(model).float()


def _half_message(dtype: torch.dtype | None) -> str:
    return f"the model is {dtype}, too coarse to differentiate; use model.float(), or upcast=True for a copy"


def _one_row(name: str, value: Tensor) -> Tensor:
    if value.ndim > 1 and len(value) != 1:
        raise ValueError(
            f"extras[{name!r}] must be the same for every input: one row, got shape {tuple(value.shape)}; "
            "batches are cut and reordered, so give what varies through `inputs`, as a function of the tensor"
        )
    return value.detach().clone()


def _choose(returned: Any, output: Output) -> Any:
    """The part of what a model returned that `output` names."""
    if callable(output):
        return output(returned)
    if isinstance(output, str):
        if isinstance(returned, Mapping) and output in returned:
            return returned[output]
        if not isinstance(returned, (Mapping, Tensor)) and hasattr(returned, output):
            return getattr(returned, output)
        raise ValueError(f"the model returned no {output!r}; it returned {_describe(returned)}")
    if isinstance(output, int):
        try:
            return returned[output] if not isinstance(returned, Mapping) else list(returned.values())[output]
        except (TypeError, IndexError, KeyError) as error:
            raise ValueError(
                f"the model returned nothing at index {output}; it returned {_describe(returned)}"
            ) from error
    if isinstance(returned, (Tensor, np.ndarray)):
        return returned
    logits = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    if logits is not None:
        return logits
    if isinstance(returned, (tuple, list)) and returned and isinstance(returned[0], (Tensor, np.ndarray)):
        return returned[0]
    raise TypeError(f"which output is meant? The model returned {_describe(returned)}; choose with output=")


def _describe(returned: Any) -> str:
    if isinstance(returned, Mapping):
        return f"{type(returned).__name__} with {', '.join(map(str, returned))}"
    if isinstance(returned, (tuple, list)):
        return f"a {type(returned).__name__} of {len(returned)}: {', '.join(type(item).__name__ for item in returned)}"
    fields = (
        [] if isinstance(returned, Tensor) else [name for name in getattr(returned, "__dict__", {}) if name[0] != "_"]
    )
    return f"a {type(returned).__name__}" + (f" with {', '.join(fields)}" if fields else "")
