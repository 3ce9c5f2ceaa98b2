"""Data sets from a folder that the user names: IDX files, CIFAR batches, or image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smoothness._checks import check_count, check_positive
from smoothness.data.cifar import cifar_kind, read_cifar_folder
from smoothness.data.dataset import Dataset, Split
from smoothness.data.idx import is_idx_folder, read_idx_folder
from smoothness.data.image_folder import read_image_folder
from smoothness.data.raw import RawFolder, RawImages


def load_folder(
    path: str | os.PathLike[str],
    validation: float = 0.1,
    seed: int = 0,
    size: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    limit_gib: float = 4.0,
) -> Dataset:
    """Images from a folder, in [0, 1], as (channels, height, width); what lies there decides how it is read.

    - IDX files as MNIST's and Fashion-MNIST's (`train-images-idx3-ubyte`, ..., plain or .gz; Debian's package
      dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist).
    - CIFAR-10 and CIFAR-100 batches, pickled (never through numpy or anything that could run code; see
      `smoothness.data.inert_pickle`) or binary.
    - image files as `train/CLASS/NAME.png` and `test/CLASS/NAME.png`.

    Args:
        path: of the folder; relative ones start at the working directory.
        validation: share of each class's training images that become the validation split, drawn with `seed`; at
            least one of each.
        seed: of that draw.
        size: (height, width) that image files are scaled to; other formats have one size.
        classes: names in place of those found; IDX files have none but numbers.
        limit_gib: what the images of one part may take as float32; headers are held against it before anything is
            allocated.

    Raises:
        ValueError: a folder that is missing, incomplete, damaged or inconsistent: with the file or row, what was
            expected and what to do.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give path, of a folder that exists")
    check_count("seed", seed, 0)
    check_positive("limit_gib", limit_gib)
    if not 0 < check_positive("validation", validation) < 1:
        raise ValueError(f"validation is a share between 0 and 1, got {validation!r}")
    if size is not None and len(tuple(size)) != 2:
        raise ValueError(f"size is (height, width), got {size!r}")
    sides = None if size is None else (check_count("size", size[0]), check_count("size", size[1]))
    try:
        raw = _read(folder, sides, limit_gib)
        return _dataset(raw, validation, seed, tuple(classes))
    except ValueError as error:
        raise ValueError(f"folder {folder.name!r}: {error}") from None
    except OSError as error:
        at = Path(error.filename).name if error.filename else "a file"
        raise ValueError(
            f"folder {folder.name!r}: {at} cannot be read ({error.strerror}); check its permissions"
        ) from None


def _read(folder: Path, size: tuple[int, int] | None, limit_gib: float) -> RawFolder:
    kind = cifar_kind(folder)
    if kind is None and not is_idx_folder(folder):
        if not any((folder / part).is_dir() for part in ("train", "test")):
            raise ValueError(
                "nothing to read: expected IDX files (train-images-idx3-ubyte, ...), CIFAR batches (data_batch_1, "
                "...) or folders train/CLASS and test/CLASS; name the folder that holds them directly"
            )
        return read_image_folder(folder, limit_gib, size)
    if size is not None:
        raise ValueError("size is for image files, and these all have one; leave it out")
    return read_idx_folder(folder, limit_gib) if kind is None else read_cifar_folder(folder, kind, limit_gib)


def _dataset(raw: RawFolder, validation: float, seed: int, given: tuple[str, ...]) -> Dataset:
    present, tested = (set(np.unique(part.labels).tolist()) for part in (raw.train, raw.test))
    count = max(present | tested, default=0) + 1
    names = given or raw.classes or tuple(str(k) for k in range(count))
    if len(names) < count or len(set(names)) < len(names):
        raise ValueError(
            f"labels go up to {count - 1}, and classes gives {len(set(names))} different names; give {count}"
        )
    for label, name in enumerate(names):
        absent = [part for part, labels in (("train", present), ("test", tested)) if label not in labels]
        if absent:
            raise ValueError(f"no image of class {name!r} in {' and '.join(absent)}; both parts need every class")
    if len(names) < 2:
        raise ValueError(f"there is one class, {names[0]!r}; at least two are needed")
    if raw.train.images.shape[1:] != raw.test.images.shape[1:]:
        raise ValueError(
            f"training images have shape {raw.train.images.shape[1:]}, test images {raw.test.images.shape[1:]}; get "
            "both from one data set"
        )
    draws = np.random.Generator(np.random.PCG64(seed))
    held = np.zeros(len(raw.train.labels), dtype=bool)
    for label, name in enumerate(names):
        rows = np.flatnonzero(raw.train.labels == label)
        if len(rows) < 2:
            raise ValueError(f"class {name!r} has one training image; training and validation need one each")
        held[draws.permutation(rows)[: min(max(1, round(validation * len(rows))), len(rows) - 1)]] = True
    source = f"read from {raw.kind} of the user's; their own licence holds"
    return Dataset(
        "folder", _split(raw.train, ~held), _split(raw.train, held), _split(raw.test), names, (0.0, 1.0), source
    )


def _split(part: RawImages, rows: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | slice = slice(None)) -> Split:
    inputs = torch.from_numpy(part.images[rows].astype(np.float32))
    return Split(inputs.div_(255), torch.from_numpy(part.labels[rows]))
