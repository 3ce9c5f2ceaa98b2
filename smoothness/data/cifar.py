"""CIFAR-10 and CIFAR-100, as pickled batches or as binary ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoothness.data.inert_pickle import UnsafePickleError, read_inert_pickle
from smoothness.data.raw import RawFolder, RawImages, check_room

_SHAPE, _VALUES = (3, 32, 32), 3072
_TEN = [f"data_batch_{k}" for k in range(1, 6)]


def cifar_kind(folder: Path) -> str | None:
    """Which of the four kinds a folder seems to be, complete or not.

    >>> cifar_kind(Path("/nowhere")) is None
    True
    """
    kinds = {
        "CIFAR-10 batches": [*_TEN, "test_batch", "batches.meta"],
        "CIFAR-10 binary batches": [f"{name}.bin" for name in (*_TEN, "test_batch")],
        "CIFAR-100 batches": ["train", "test", "meta"],
        "CIFAR-100 binary batches": ["train.bin", "test.bin", "fine_label_names.txt"],
    }
    return next((kind for kind, names in kinds.items() if any((folder / n).is_file() for n in names)), None)


def read_cifar_folder(folder: Path, kind: str, limit_gib: float) -> RawFolder:
    """Everything in a folder of CIFAR batches (Krizhevsky 2009).

    Pickled batches go through `smoothness.data.inert_pickle`: they cannot run code.

    Raises:
        ValueError: a file that is missing, damaged, hostile or of unequal size, an absent or invalid label; it is
            named.
    """
    ten, binary = "CIFAR-10 " in kind, "binary" in kind
    end = ".bin" if binary else ""
    train, test = (_TEN if ten else ["train"]), ("test_batch" if ten else "test")
    names = ("batches.meta.txt" if ten else "fine_label_names.txt") if binary else ("batches.meta" if ten else "meta")
    missing = [name for name in (*(t + end for t in train), test + end, names) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{kind}, and missing: {', '.join(missing)}; add them")
    check_room(f"{kind}: the batches", sum((folder / f"{name}{end}").stat().st_size for name in train), limit_gib)
    classes = _names(folder / names, binary, ten)

    def batch(name: str) -> RawImages:
        path = folder / f"{name}{end}"
        part = _binary(path, ten) if binary else _pickled(path, b"labels" if ten else b"fine_labels")
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(classes)))
        if len(wrong):
            raise ValueError(
                f"{path.name}: row {wrong[0]} has label {part.labels[wrong[0]]}, "
                f"expected 0 to {len(classes) - 1}; get it anew"
            )
        return part

    parts = [batch(name) for name in train]
    sizes = [len(part.labels) for part in parts]
    odd = next((k for k, size in enumerate(sizes) if size != max(sizes)), None)
    if odd is not None:
        raise ValueError(f"{train[odd]}{end} holds {sizes[odd]} images, the others up to {max(sizes)}; get it anew")
    joined = RawImages(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
    return RawFolder(joined, batch(test), classes, kind)


def _names(path: Path, binary: bool, ten: bool) -> tuple[str, ...]:
    if binary:
        found: Sequence[Any] = path.read_text(encoding="utf-8", errors="replace").split()
    else:
        found = _entry(path, _load(path), b"label_names" if ten else b"fine_label_names", list)
    names = tuple(n.decode("latin1") if isinstance(n, bytes) else str(n) for n in found)
    if len(set(names)) != (10 if ten else 100):
        raise ValueError(f"{path.name} names {len(set(names))} classes, expected {10 if ten else 100}; get it anew")
    return names


def _pickled(path: Path, key: bytes) -> RawImages:
    content = _load(path)
    data = _entry(path, content, b"data", np.ndarray)
    labels = _entry(path, content, key, list)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _VALUES:
        raise ValueError(f"{path.name}: data are {data.dtype} of shape {data.shape}, expected uint8 of (n, {_VALUES})")
    if len(labels) != len(data):
        raise ValueError(f"{path.name} holds {len(data)} images and {len(labels)} labels; get it anew")
    wrong = next((k for k, label in enumerate(labels) if type(label) is not int or not 0 <= label < 256), None)
    if wrong is not None:
        raise ValueError(
            f"{path.name}: row {wrong} has label {labels[wrong]!r}, expected a class's number; get it anew"
        )
    return RawImages(data.reshape(-1, *_SHAPE), np.array(labels, dtype=np.int64))


def _binary(path: Path, ten: bool) -> RawImages:
    content, ahead = path.read_bytes(), 1 if ten else 2  # of CIFAR-100's two labels, the second is the finer
    row = ahead + _VALUES
    if not content or len(content) % row:
        raise ValueError(f"{path.name} has {len(content):,} bytes, expected a multiple of {row}; get it anew")
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return RawImages(rows[:, ahead:].reshape(-1, *_SHAPE).copy(), rows[:, ahead - 1].astype(np.int64))


def _load(path: Path) -> dict[Any, Any]:
    try:
        content = read_inert_pickle(path.read_bytes())
    except UnsafePickleError as error:
        raise ValueError(f"{path.name} was not read, and nothing in it was run: {error}; get it anew") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, expected a dict of data and labels")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


def _entry(path: Path, content: dict[Any, Any], key: bytes, kind: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise ValueError(f"{path.name} has {found} under {key.decode()!r}, expected a {kind.__name__}; get it anew")
    return value
