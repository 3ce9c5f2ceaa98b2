"""Images of 8 bits as a folder's files give them, and the checks that every format shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class RawImages:
    """One part of a data set.

    Attributes:
        images: (n, channels, height, width), uint8.
        labels: (n,), int64.
    """

    images: Bytes
    labels: Labels


@dataclass(frozen=True, eq=False)
class RawFolder:
    """Everything that a folder holds.

    Attributes:
        train, test: the two parts.
        classes: the classes' names, or () where the files give none.
        kind: of the files, for `Dataset.source`.
    """

    train: RawImages
    test: RawImages
    classes: tuple[str, ...]
    kind: str


def check_room(what: str, values: int, limit_gib: float) -> None:
    """Raise ValueError when so many values, as float32, exceed the limit: before anything is allocated."""
    need = 4 * values / 2**30
    if need > limit_gib:
        raise ValueError(
            f"{what} holds {values:,} values, which take {need:.3g} GiB, and limit_gib allows {limit_gib:g}; if the "
            "file is what you expect, raise limit_gib"
        )


def first_existing(folder: Path, names: list[str]) -> Path | None:
    """The first of several names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
