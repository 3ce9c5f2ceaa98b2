"""Named tensors with a note in one safetensors file, sealed with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from smoothness.study.store import StoreError, write_whole

_NOTE = "smoothness"


def write_tensors(path: Path, note: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Store tensors and a JSON-able note; returns their digest.

    Raises:
        StoreError: the file cannot be written.
    """
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    digest = _digest(note, apart)
    metadata = {_NOTE: json.dumps({"note": note, "sha256": digest}, sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            save_file(apart, temporary, metadata=metadata)
        except SafetensorError as error:  # its own type, also when the disk is full
            raise OSError(str(error)) from error

    write_whole(path, write)
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str] | None:
    """Note, tensors and digest; None when the file is absent, damaged or not one of ours.

    Raises:
        StoreError: the file is there and cannot be opened.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sealed = json.loads((file.metadata() or {})[_NOTE])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            note, digest = sealed["note"], sealed["sha256"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from error
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):
        return None
    return (note, tensors, digest) if digest == _digest(note, tensors) else None


def _digest(note: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(note, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
