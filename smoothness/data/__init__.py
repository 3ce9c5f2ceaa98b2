"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from smoothness._checks import check_choice
from smoothness.data.dataset import Dataset, Split
from smoothness.data.dimensions import noise_dimensions, upsample
from smoothness.data.enlarged import load_noisy, load_upsampled
from smoothness.data.folders import load_folder
from smoothness.data.gaussians import Gaussians, load_gaussians
from smoothness.data.images import load_digits, load_fashion
from smoothness.data.spheres import Spheres, load_spheres
from smoothness.data.texts import TextDataset, load_banking77, load_clinc150, load_spam, load_texts

DATASETS: dict[str, Callable[..., Dataset]] = {
    "banking77": load_banking77,
    "clinc150": load_clinc150,
    "digits": load_digits,
    "fashion": load_fashion,
    "folder": load_folder,
    "gaussians": load_gaussians,
    "noisy": load_noisy,
    "spam": load_spam,
    "spheres": load_spheres,
    "texts": load_texts,
    "upsampled": load_upsampled,
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
    parameters = inspect.signature(load).parameters
    known = list(parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"data set {name!r} has no option {option!r}; it takes {', '.join(known) or 'none'}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"data set {name!r} needs the option {option}; give it")
    return load(**options)


__all__ = [
    "Dataset",
    "Gaussians",
    "Spheres",
    "Split",
    "TextDataset",
    "list_datasets",
    "load_dataset",
    "noise_dimensions",
    "upsample",
]
