"""MNIST's format: a header of big-endian sizes, then bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from smoothness.data.raw import Bytes, RawFolder, RawImages, check_room, first_existing

_IMAGES, _LABELS = 0x0803, 0x0801  # unsigned bytes in 3 axes and in 1
_DEFLATE = 1032  # at most so many bytes out of one: zlib's documentation


def idx_names(part: str, what: str) -> list[str]:
    """Names under which a file is looked for: "train-images-idx3-ubyte", with a dot, gzipped.

    >>> idx_names("t10k", "labels")[0]
    't10k-labels-idx1-ubyte'
    """
    axes = 3 if what == "images" else 1
    plain = [f"{part}-{what}-idx{axes}-ubyte", f"{part}-{what}.idx{axes}-ubyte"]
    return plain + [f"{name}.gz" for name in plain]


def is_idx_folder(folder: Path) -> bool:
    """Whether any of the four files is there."""
    parts = [(part, what) for part in ("train", "t10k") for what in ("images", "labels")]
    return any(first_existing(folder, idx_names(*part)) for part in parts)


def read_idx_folder(folder: Path, limit_gib: float) -> RawFolder:
    """The four files of MNIST, Fashion-MNIST and their kin.

    Raises:
        ValueError: a file that is missing, of another format, cut short or too long, too large, or with another number
            of labels than images; it is named.
    """
    missing = [
        idx_names(part, what)[0]
        for part in ("train", "t10k")
        for what in ("images", "labels")
        if first_existing(folder, idx_names(part, what)) is None
    ]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)} (plain or .gz); add them")
    return RawFolder(_part(folder, "train", limit_gib), _part(folder, "t10k", limit_gib), (), "IDX files")


def _part(folder: Path, part: str, limit_gib: float) -> RawImages:
    files = [first_existing(folder, idx_names(part, what)) for what in ("images", "labels")]
    assert files[0] is not None
    assert files[1] is not None
    images, labels = read_idx(files[0], _IMAGES, limit_gib), read_idx(files[1], _LABELS, limit_gib)
    if len(images) != len(labels):
        raise ValueError(
            f"{files[0].name} holds {len(images)} images, {files[1].name} {len(labels)} labels; get both anew"
        )
    return RawImages(images[:, None], labels.astype(np.int64))


def read_idx(path: Path, magic: int, limit_gib: float) -> Bytes:
    """One file's array. The sizes are checked against the file's before anything of that size is read."""
    axes = magic & 0xFF
    packed = path.name.endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            header = stream.read(4 + 4 * axes)
            found = int.from_bytes(header[:4], "big")
            if len(header) < 4 + 4 * axes or found != magic:
                raise ValueError(
                    f"{path.name} starts with {found:#010x}, expected {magic:#010x} ({axes} axes of bytes); it is no "
                    "IDX file of that kind: give the one that its name says"
                )
            shape = tuple(np.frombuffer(header, ">u4", axes, 4).astype(int).tolist())
            size = math.prod(shape)
            check_room(path.name, size, limit_gib)
            there = path.stat().st_size * (_DEFLATE if packed else 1)
            content = b"" if size > there else stream.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name} is damaged or cut short ({error}); get it anew") from None
    if len(content) != size:
        more = "more" if len(content) > size else "fewer"
        raise ValueError(f"{path.name} holds {more} bytes than the {size:,} its header {shape} says; get it anew")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()
