"""How strongly can the outputs bend at most, at any input?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_inputs, check_labels
from smoothness.analyzers.double import output_weights
from smoothness.analyzers.piecewise import AffineChain, AffineMap, affine_chain
from smoothness.measurement import Measurement

Of = Literal["margin", "logits"]
_FAILS = "the model's output is NaN or infinite"


@dataclass(frozen=True)
class CurvatureUpperBound:
    """Upper bound of |d²f/dx²|_2 over all inputs, of a sequential MLP, from the facts of its activations.

    The Hessian of f = wᵀ h_L is Σ_l J_lᵀ diag(c_l φ_l''(z_l)) J_l, with J_l = dz_l/dx and c_l = ∂f/∂h_l, so

        value = Σ_l sup |φ_l''| · |diag(√c̄_l) W_l|_2² · (Π over k < l of |W_k|_2 · sup |φ_k'|)²    "logit / input l2^2"

    where c̄_l >= |c_l| comes from products of absolute weights and suprema of slopes (Singla and Feizi 2020,
    arXiv 2006.00731, with the suprema of each activation's own derivatives). Infinite where an activation has a kink
    or a jump: there is no such bound. Bound: "upper", global; `InputCurvature` is the lower side at each input.

    For of="margin", w is the label (or predicted class) minus the best other class, both at x; for of="logits" the
    value is the largest over the outputs.

    Args:
        of: "margin" or "logits".

    Raises:
        TypeError: a model that is no sequential MLP.
        ValueError: bad inputs; of="margin" on a model with fewer than 2 outputs.

    >>> bound = CurvatureUpperBound(of="logits")(nn.Sequential(nn.Identity(), nn.Tanh()), torch.zeros(1, 1))
    >>> round(float(bound.values), 4)  # sup |tanh''| = 4 / (3 √3)
    0.7698
    """

    of: Of = "margin"

    def __post_init__(self) -> None:
        check_choice("of", self.of, get_args(Of))

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Bound for the functional followed at each of `inputs` (n, *input_shape)."""
        check_inputs(inputs)
        labels = None if labels is None else check_labels(labels, len(inputs))
        chain = affine_chain(model)
        with torch.no_grad():
            points = chain.flatten(inputs)
            outputs = chain.outputs(points)
            weights = output_weights(outputs, self.of, labels)
            distinct, place = torch.unique(weights.flatten(0, 1), dim=0, return_inverse=True)
            bounds = torch.stack([_bound(chain, w, points.shape[1]) for w in distinct])
        values = bounds[place].view(len(inputs), -1).amax(dim=1).cpu()
        values = torch.where(outputs.isfinite().all(dim=1).cpu(), values, torch.nan)
        return Measurement(
            "input_curvature",
            values,
            unit="logit / input l2^2",
            bound="upper",
            settings={"analyzer": "CurvatureUpperBound", **asdict(self), "dtype": "float64"},
            valid=~values.isnan(),
            details={"reason": tuple(_FAILS if value != value else "" for value in values.tolist())},
        )


def _bound(chain: AffineChain, weights: Tensor, features: int) -> Tensor:
    maps: list[Tensor] = []
    for group in chain.maps:
        width = maps[-1].shape[0] if maps else features
        maps.append(_matrix(group, torch.eye(width, dtype=weights.dtype, device=weights.device)))
    slopes = [max(abs(f.slope_min), abs(f.slope_max)) for f in chain.activations]
    # c̄ at the output of each activation, from the last one back.
    gains: list[Tensor] = []
    row = weights.abs()
    for k in range(len(chain.activations), 0, -1):
        row = row @ maps[k].abs()
        gains.insert(0, row)
        row = row * slopes[k - 1]
    total, reach = weights.new_zeros(()), weights.new_ones(())
    for facts, slope, gain, matrix in zip(chain.activations, slopes, gains, maps[:-1], strict=True):
        if facts.curvature > 0:
            weighted = torch.linalg.matrix_norm(gain.sqrt()[:, None] * matrix, ord=2) ** 2
            total = total + (facts.curvature if math.isinf(facts.curvature) else facts.curvature * weighted * reach**2)
        reach = reach * torch.linalg.matrix_norm(matrix, ord=2) * slope
    return total


def _matrix(group: tuple[AffineMap, ...], matrix: Tensor) -> Tensor:
    for affine in group:
        matrix = affine.tangent(matrix.T).T
    return matrix
