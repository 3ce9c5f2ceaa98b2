"""Cells on disk: one Parquet file each, whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"smoothness"


class StoreError(OSError):
    """The run folder cannot be used; what was finished is still there."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename: never half a file.

    Raises:
        StoreError: no permission, disk full; the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_cell(path: Path, key: str, rows: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Store a cell's rows with its key and facts."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    note = json.dumps({"key": key, "facts": facts}, sort_keys=True).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: note})
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def read_note(path: Path) -> dict[str, Any] | None:
    """Key and facts of a stored cell; None when the file is absent or damaged."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        note: dict[str, Any] = json.loads(metadata[_KEY])
    except (FileNotFoundError, pa.ArrowException, KeyError, ValueError):
        return None
    except OSError as error:
        if error.errno is None:  # a footer that Arrow cannot decode
            return None
        raise StoreError(f"{path} cannot be read ({error.strerror})") from error
    return note


def read_rows(path: Path) -> pd.DataFrame:
    """Rows of a stored cell, their checksums compared.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        rows: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path.name} is damaged ({error}); run the study again to redo it") from error
    return rows


def is_whole(path: Path, key: str) -> bool:
    """Whether the cell of this key is stored, undamaged."""
    note = read_note(path)
    if note is None or note["key"] != key:
        return False
    try:
        read_rows(path)
    except StoreError:
        return False
    return True


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of a run that was killed."""
    for path in folder.glob(".writing-*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _cannot_write(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(
        f"cannot write {path} ({reason}); finished cells are kept: "
        "make room or choose another folder, then run the same command again"
    )
