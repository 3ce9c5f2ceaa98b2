"""What every activation must do under torch, whatever it computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from smoothness.activations import surrogate_gradient


def common(module: nn.Module, z: Tensor) -> Iterator[str]:
    """Dtypes, NaN, determinism, copies, state_dict and surrogates, on float64 inputs."""
    value = module(z)
    single = copy.deepcopy(module).float()(z.float())
    if single.dtype != torch.float32:
        yield f"float32 in, {single.dtype} out"
    if not module(torch.full_like(z, math.nan)).isnan().all():
        yield "NaN in, a number out: failures of a model would be hidden"
    if not torch.equal(module(z), value):
        yield "a second call computes other values"
    if not torch.equal(copy.deepcopy(module)(z), value):
        yield "a deepcopy computes other values"
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    if not torch.equal(twin(z), value):
        yield "state_dict does not restore the module"
    if not same(torch.func.grad(lambda x: module(x).sum())(z), slope(module, z)):
        yield "torch.func.grad and autograd.grad differ"
    with surrogate_gradient(module, "identity"):
        if not torch.equal(module(z), value):
            yield "the forward pass changes under a surrogate gradient"


def same(one: Tensor, other: Tensor) -> bool:
    """Equal up to the few last bits in which vectorised and scalar kernels differ."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-12, atol=1e-15)


def slope(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Derivative of the sum of the outputs."""
    z = z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(z).sum(), z)
    return gradient
