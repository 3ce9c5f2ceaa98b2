"""The contract of a data set."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from smoothness.data import Dataset, Split


def check_dataset(dataset: Dataset) -> None:
    """Check a data set: three splits that fit each other, the classes and the bounds, without leaks.

    Inputs are float32, finite, of one shape and within `bounds`; labels are int64 and below the number of classes,
    every class is in every split; no input stands twice in two splits; name and source are given.

    Raises:
        AssertionError: with everything found wrong.

    >>> from smoothness.data import load_dataset
    >>> check_dataset(load_dataset("gaussians"))
    """
    problems = list(_problems(dataset))
    if problems:
        raise AssertionError(f"data set {getattr(dataset, 'name', dataset)!r}:\n  " + "\n  ".join(problems))


def _problems(dataset: Dataset) -> Iterator[str]:
    if not isinstance(dataset, Dataset):
        yield f"is a {type(dataset).__name__}, not a smoothness.Dataset"
        return
    for name in ("name", "source"):
        if not str(getattr(dataset, name)).strip():
            yield f"{name} is empty; source says author, year and licence"
    if len(dataset.classes) < 2 or len(set(dataset.classes)) < len(dataset.classes):
        yield "classes must be two or more different names"
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        yield from (f"{name}: {problem}" for problem in _split(split, dataset))
    rows = {name: _contents(split) for name, split in splits.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        common = len(rows[one] & rows[other])
        if common:
            yield f"{common} inputs of {one} also stand in {other}"


def _split(split: Split, dataset: Dataset) -> Iterator[str]:
    inputs, labels = split.inputs, split.labels
    if not len(split):
        yield "is empty"
        return
    if tuple(inputs.shape[1:]) != dataset.input_shape or inputs.ndim < 2:
        yield f"inputs have shape {tuple(inputs.shape[1:])}, train has {dataset.input_shape}"
    if inputs.dtype != torch.float32:
        yield f"inputs must be float32, got {inputs.dtype}"
    if labels.dtype != torch.int64 or labels.shape != (len(inputs),):
        yield f"labels must be int64 of shape ({len(inputs)},), got {labels.dtype} of {tuple(labels.shape)}"
    if not inputs.isfinite().all():
        yield "inputs hold NaN or infinite values"
    elif dataset.bounds is not None:
        low, high = dataset.bounds
        if inputs.min() < low or inputs.max() > high:
            span = f"{float(inputs.min()):.4g} to {float(inputs.max()):.4g}"
            yield f"inputs span {span}, outside bounds {dataset.bounds}"
    present = set(labels.tolist())
    if present - set(range(len(dataset.classes))):
        yield f"labels must be 0 to {len(dataset.classes) - 1}, got {min(present)} to {max(present)}"
    absent = set(range(len(dataset.classes))) - present
    if absent:
        yield f"no example of class {min(absent)}"


def _contents(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.inputs.detach().cpu().contiguous()}
