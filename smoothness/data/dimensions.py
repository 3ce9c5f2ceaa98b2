"""More input dimensions with the same signal: what happens to distances as n grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_choice, check_count, check_not_negative
from smoothness.data.dataset import Dataset, Split


def upsample(
    data: Dataset,
    factor: int,
    *,
    mode: Literal["nearest", "bilinear"] = "nearest",
    keep: Literal["values", "l2"] = "values",
) -> Dataset:
    """The same examples with `factor` times as many pixels each way (or features, for flat inputs).

    x' = U x for a linear U of full rank, so that every linear classifier w·x + b has counterparts w'·x' + b with
    Uᵀ w' = w, whose outputs on the data are equal: the signal is fixed. With "nearest", each value is repeated
    m = factor² times (factor for flat inputs) and n' = m n. The counterpart spread evenly, w' = U w / m, is the one
    furthest from its inputs, and its minimal distance d' compares to d of w as

    ====== ================ ==================
    norm   keep = "values"  keep = "l2"
    ====== ================ ==================
    linf   d' = d           d' = d / √m
    l2     d' = d √m        d' = d
    l1     d' = d m         d' = d √m
    ====== ================ ==================

    With keep = "l2" values are divided by √m: Euclidean distances between examples stay, and the max-norm distance
    falls as 1 / √n: a slope of -1/2 of log distance on log n. Bilinear interpolation keeps the signal too, but no
    such factor holds for all inputs.

    Args:
        data: images (channels, height, width), or flat inputs (features,), which "nearest" alone takes.
        factor: at least 1.
        mode: "nearest" repeats, "bilinear" interpolates between pixel centres.
        keep: "values" leaves values as they are; "l2" keeps Euclidean distances.

    Raises:
        ValueError: a factor below 1, an unknown mode, inputs that are neither images nor flat, "bilinear" of flat
            inputs or with keep = "l2".

    >>> from smoothness.data import load_dataset
    >>> upsample(load_dataset("digits"), 2).input_shape
    (1, 16, 16)
    """
    check_count("factor", factor)
    check_choice("mode", mode, ("nearest", "bilinear"))
    check_choice("keep", keep, ("values", "l2"))
    axes = len(data.input_shape)
    if axes not in (1, 3) or (axes == 1 and mode == "bilinear"):
        raise ValueError(
            "upsample takes images (channels, height, width), or flat inputs with mode 'nearest'; got inputs of shape "
            f"{data.input_shape} with mode {mode!r}; reshape the inputs"
        )
    if mode == "bilinear" and keep == "l2":
        raise ValueError("bilinear interpolation keeps no Euclidean distances; take mode='nearest' or keep='values'")
    copies = factor**2 if axes == 3 else factor
    scale = 1 / math.sqrt(copies) if keep == "l2" else 1.0

    def larger(x: Tensor) -> Tensor:
        if mode == "bilinear":
            return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
        for axis in range(2 if axes == 3 else 1, x.ndim):
            x = x.repeat_interleave(factor, dim=axis)
        return x * scale if scale != 1 else x

    bounds = None if data.bounds is None else (data.bounds[0] * scale, data.bounds[1] * scale)
    if bounds is not None:  # a float32 product may round past the bound
        low, high = (torch.tensor(b, dtype=data.train.inputs.dtype).item() for b in bounds)
        bounds = (min(bounds[0], low), max(bounds[1], high))
    return _changed(data, larger, bounds, f"every value {copies} times ({mode}, keep={keep!r})")


def noise_dimensions(data: Dataset, extra: int, sigma: float = 1.0, seed: int = 0) -> Dataset:
    """The same examples, flattened, with `extra` features of N(0, σ²) noise that say nothing of the label.

    A classifier that ignores them (w' = (w, 0)) keeps its distances. One that gives them weights v has the minimal
    distance |f(x')| / ‖(w, v)‖_q with 1/p + 1/q = 1 for norm l_p: in max norm |f(x')| / (‖w‖₁ + ‖v‖₁). Weights
    learned from N examples are not zero: the difference of two class means, of N/2 examples each, has independent
    v_i of N(0, 4σ²/N), so that E‖v‖₁ = extra · 2σ √(2 / (πN)), and the max-norm distance falls as 1/n once the noise
    dominates.

    Args:
        data: any; inputs become flat.
        extra: features added, after the others.
        sigma: standard deviation of the noise.
        seed: of the noise.

    Returns:
        A data set without input bounds, since noise has none.

    Raises:
        ValueError: a negative count or sigma.

    >>> from smoothness.data import load_dataset
    >>> noise_dimensions(load_dataset("digits"), extra=36).input_shape
    (100,)
    """
    check_count("extra", extra, 0)
    check_not_negative("sigma", sigma)
    generator = torch.Generator().manual_seed(check_count("seed", seed, 0))

    def longer(x: Tensor) -> Tensor:
        noise = sigma * torch.randn(len(x), extra, generator=generator, dtype=torch.float64)
        return torch.cat([x.flatten(1), noise.to(x.dtype)], dim=1)

    return _changed(data, longer, None, f"{extra} dimensions of noise, σ = {sigma:g}")


def _changed(
    data: Dataset, change: Callable[[Tensor], Tensor], bounds: tuple[float, float] | None, how: str
) -> Dataset:
    def of(split: Split) -> Split:
        return Split(change(split.inputs), split.labels)

    return Dataset(
        data.name, of(data.train), of(data.validation), of(data.test), data.classes, bounds, f"{data.source}; {how}"
    )
