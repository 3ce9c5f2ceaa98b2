"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from smoothness._checks import check_choice
from smoothness.data.dataset import Dataset, Split
from smoothness.data.gaussians import Gaussians, load_gaussians
from smoothness.data.images import load_digits, load_fashion

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": load_digits,
    "fashion": load_fashion,
    "gaussians": load_gaussians,
}


def list_datasets() -> list[str]:
    """Names that `load_dataset` knows."""
    return sorted(DATASETS)


def load_dataset(name: str, **options: Any) -> Dataset:
    """Load a data set by name; nothing is downloaded.

    Raises:
        ValueError: unknown name or option.

    >>> load_dataset("digits").classes[:3]
    ('0', '1', '2')
    """
    load = DATASETS[check_choice("data set", name, DATASETS)]
    known = list(inspect.signature(load).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"data set {name!r} has no option {option!r}; it takes {', '.join(known) or 'none'}")
    return load(**options)


__all__ = ["Dataset", "Gaussians", "Split", "list_datasets", "load_dataset"]
