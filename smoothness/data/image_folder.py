"""Folders of image files: train/CLASS/NAME.png and test/CLASS/NAME.png."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smoothness.data.raw import RawFolder, RawImages, check_room

# Pillow knows formats that start other programs; these do not.
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".webp": "WEBP",
}
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def read_image_folder(folder: Path, limit_gib: float, size: tuple[int, int] | None) -> RawFolder:
    """Images by class: classes and files in the order of their names, hidden files left out.

    Every file's header is read first, and nothing is decoded before all sizes are known to fit.

    Args:
        folder: with `train` and `test`, each with one folder per class.
        limit_gib: what all images of one part may take as float32.
        size: (height, width) that images are scaled to (bilinear); None takes them as they are.

    Raises:
        ValueError: a part or class that is missing or empty, classes that differ, a file that is no image of the known
            formats, of another size or kind than the first, or unreadable; it is named.
    """
    missing = [part for part in ("train", "test") if not (folder / part).is_dir()]
    if missing:
        raise ValueError(
            f"missing: {', '.join(f'{part}/' for part in missing)}; expected train/CLASS/NAME.png and test/..."
        )
    classes, other = (_classes(folder / part) for part in ("train", "test"))
    if classes != other:
        alone = sorted(set(classes) ^ set(other))[0]
        where = "train" if alone in classes else "test"
        raise ValueError(f"class {alone!r} stands in {where}/ alone; train/ and test/ need the same folders")
    expected: list[Any] = []  # size and kind of the very first image: every other one must be equal
    train, test = (_part(folder, part, classes, limit_gib, size, expected) for part in ("train", "test"))
    return RawFolder(train, test, classes, "image files")


def _classes(part: Path) -> tuple[str, ...]:
    found = sorted(p.name for p in part.iterdir() if not p.name.startswith("."))
    stray = next((name for name in found if not (part / name).is_dir()), None)
    if stray is not None:
        raise ValueError(f"{part.name}/{stray} is a file, expected one folder per class; move it into its class")
    return tuple(found)


def _part(
    folder: Path,
    part: str,
    classes: tuple[str, ...],
    limit_gib: float,
    size: tuple[int, int] | None,
    expected: list[Any],
) -> RawImages:
    files: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        inside = sorted(p.name for p in (folder / part / name).iterdir() if not p.name.startswith("."))
        if not inside:
            raise ValueError(f"{part}/{name} holds no image; add some, or drop the class from train/ and test/")
        files += [(f"{part}/{name}/{file}", label) for file in inside]
    for file, _ in files:
        found = _header(folder, file, limit_gib, size)
        if not expected:
            expected += [found, file]
        elif found != expected[0]:
            raise ValueError(
                f"{file} is {_said(found)}, and {expected[1]} is {_said(expected[0])}; make them equal, or give size, "
                "such as size=(32, 32)"
            )
    mode, height, width = expected[0]
    shape = (1 if mode == "L" else 3, height, width)
    check_room(f"{part}/", len(files) * math.prod(shape), limit_gib)
    images = np.empty((len(files), *shape), np.uint8)
    for row, (file, _) in enumerate(files):
        images[row] = _pixels(folder, file, mode, size)
    return RawImages(images, np.array([label for _, label in files], dtype=np.int64))


def _header(folder: Path, file: str, limit_gib: float, size: tuple[int, int] | None) -> tuple[str, int, int]:
    """Kind, height and width, without decoding."""
    with _opened(folder, file) as image:
        width, height = image.size
        mode = _MODES.get(image.mode)
        if mode is None:
            raise ValueError(
                f"{file} is of mode {image.mode}, expected 8-bit grey or RGB without transparency; convert it"
            )
        check_room(file, width * height * len(mode), limit_gib)
        return (mode, *size) if size is not None else (mode, height, width)


def _pixels(folder: Path, file: str, mode: str, size: tuple[int, int] | None) -> Any:
    with _opened(folder, file) as image:
        try:
            plain = image.convert(mode)
            if size is not None:
                plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(f"{file} cannot be decoded ({type(error).__name__}: {error}); get it anew") from None
        pixels = np.asarray(plain)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _opened(folder: Path, file: str) -> Image.Image:
    suffix = Path(file).suffix.lower()
    if suffix not in _FORMATS or not (folder / file).is_file():
        raise ValueError(
            f"{file} is not one of the images read here ({', '.join(_FORMATS)}); convert it, or move it away"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes are checked here
            return Image.open(folder / file, formats=[*set(_FORMATS.values())])
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} is too large ({error}); make it smaller") from None
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(
            f"{file} cannot be read as an image ({type(error).__name__}); get it anew, or remove it"
        ) from None


def _said(found: tuple[str, int, int]) -> str:
    return f"{'grey' if found[0] == 'L' else 'RGB'} of {found[1]} x {found[2]}"
