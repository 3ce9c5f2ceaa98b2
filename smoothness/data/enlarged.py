"""Shipped images in more dimensions, by name: what a study of the dimension varies."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from smoothness._checks import check_choice
from smoothness.data.dataset import Dataset
from smoothness.data.dimensions import noise_dimensions, upsample
from smoothness.data.images import load_digits, load_fashion

_IMAGES = {"digits": load_digits, "fashion": load_fashion}


def load_upsampled(
    of: str = "digits",
    factor: int = 2,
    mode: Literal["nearest", "bilinear"] = "nearest",
    keep: Literal["values", "l2"] = "values",
) -> Dataset:
    """Digits or fashion with `factor` times as many pixels each way: `upsample`, which says what stays equal.

    >>> load_upsampled(factor=4).input_shape
    (1, 32, 32)
    """
    data = _IMAGES[check_choice("images", of, _IMAGES)]()
    return replace(upsample(data, factor, mode=mode, keep=keep), name="upsampled")


def load_noisy(of: str = "digits", extra: int = 64, sigma: float = 0.25, seed: int = 0) -> Dataset:
    """Digits or fashion, flat, with `extra` features of noise: `noise_dimensions`; no bounds.

    >>> load_noisy(extra=36).input_shape
    (100,)
    """
    data = _IMAGES[check_choice("images", of, _IMAGES)]()
    return replace(noise_dimensions(data, extra, sigma=sigma, seed=seed), name="noisy")
