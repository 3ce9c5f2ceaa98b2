"""What the command line names: somebody's factory, weights and data. Nothing is ever unpickled."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothness._checks import check_positive
from smoothness.data import DATASETS, load_dataset
from smoothness.panel.examples import DEFAULT_EPSILON
from smoothness.threat import ThreatModel

_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_NAMED = 3  # tensors named in a complaint


class LoadError(ValueError):
    """Something that the command line names cannot be used: one sentence says why."""


@contextmanager
def importable_here() -> Iterator[None]:
    """The working directory first among the places to import from, as for `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def load_model(spec: str) -> nn.Module:
    """Call the factory `package.module:factory`, which runs that module's code.

    >>> load_model("torch.nn:Identity")
    Identity()
    """
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise LoadError(f"name the factory as package.module:factory, got {spec!r}")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # somebody's module may raise anything
        raise LoadError(f"cannot import {module_name!r}: {_said(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise LoadError(f"{spec} is a {type(found).__name__}, not a function that returns an nn.Module")
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise LoadError(f"{spec} raised {_said(error)}") from error
    if not isinstance(found, nn.Module):
        raise LoadError(f"{spec} returned {type(found).__name__}, not an nn.Module; smoothness.wrap makes one")
    return found


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill the model with the tensors of a .safetensors file, all of them or none."""
    if path.suffix != ".safetensors":
        hint = " (a pickle, which would run code)" if path.suffix in _PICKLED else ""
        raise LoadError(
            f"weights must be a .safetensors file, got {path.name}{hint}; convert it where you trust it: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    given, own = _safetensors(path), model.state_dict()
    there = {_where(own[name]) for name in given if name in own}
    missing = [name for name in own if name not in given and _where(own[name]) not in there]  # tied weights: once
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} {_shape(given[name])} instead of {_shape(own[name])}"
        for name in given
        if name in own and given[name].shape != own[name].shape
    ]
    complaints = [
        f"{what}: {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if complaints:
        raise LoadError(f"{path.name} does not fit the model; {'; '.join(complaints)}")
    model.load_state_dict(given, strict=False)


def load_data(name: str, examples: int) -> tuple[Tensor, Tensor | None, tuple[float, float] | None]:
    """Inputs, labels (None where the file has none) and the valid range, where it is known.

    A data set's name, or a folder of images, gives examples of the test split, classes in turn; a file its arrays
    `inputs` and `labels`.

    >>> inputs, labels, bounds = load_data("digits", 20)
    >>> inputs.shape, labels.unique().numel(), bounds
    (torch.Size([20, 1, 8, 8]), 10, (0.0, 1.0))
    """
    names = sorted(set(DATASETS) - {"folder", "texts"})  # read from a path: a folder is given by it
    if name in names or Path(name).is_dir():
        data = load_dataset(name) if name in names else load_dataset("folder", path=name)
        sample = data.test.balanced(min(examples, len(data.test)))
        return sample.inputs, sample.labels, data.bounds
    path = Path(name)
    if path.suffix not in (".npz", ".safetensors"):
        raise LoadError(
            f"data must be {', '.join(names)}, a folder of images, or a .npz or .safetensors file, got {name!r}"
        )
    arrays = _safetensors(path) if path.suffix == ".safetensors" else _npz(path)
    if "inputs" not in arrays:
        raise LoadError(f"{path.name} has no array 'inputs'; it has {', '.join(sorted(arrays)) or 'none'}")
    inputs, labels = arrays["inputs"], arrays.get("labels")
    bounded = inputs.numel() > 0 and inputs.is_floating_point() and bool(((inputs >= 0) & (inputs <= 1)).all())
    return inputs, labels, (0.0, 1.0) if bounded else None


def read_threat(epsilon: str | None, norm: str, bounds: tuple[float, float] | None) -> ThreatModel | None:
    """The threat model of the command line; None leaves the default to `analyze`.

    >>> read_threat("8/255", "linf", None).epsilon == 8 / 255
    True
    """
    if epsilon is None:
        if norm != "linf":
            raise LoadError(f"--norm {norm} needs a radius; give --epsilon")
        return None if bounds is None else ThreatModel("linf", DEFAULT_EPSILON, bounds)
    top, slash, bottom = epsilon.partition("/")
    try:
        radius = float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise LoadError(f"--epsilon must be a number or a fraction such as 8/255, got {epsilon!r}") from None
    return ThreatModel(norm, check_positive("epsilon", radius), bounds)  # type: ignore[arg-type]  # checked there


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in ("inputs", "labels")}
            return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoadError(f"{path.name} cannot be read as arrays of numbers: {_said(error)}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise LoadError(f"{path.name} is not a safetensors file: {_said(error)}") from error
    return tensors


def _where(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]] | int:
    """Equal for two names of the same weights."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else id(tensor)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _said(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
