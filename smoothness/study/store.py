"""Files of a run folder: whole or absent, and damage is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

WRITING = ".writing-"
_NOTE, _DIGEST = b"smoothness", b"smoothness-sha256"


class StoreError(OSError):
    """The run folder cannot be used; what was finished is still there."""


@dataclass(frozen=True, eq=False)
class StoredCell:
    """A cell as stored: what its results were computed for, its rows, its facts.

    Attributes:
        key: hash of everything that determines the rows.
        examples: digest of the examples file that belongs to the cell; "" when it has none.
    """

    key: str
    rows: pd.DataFrame
    facts: dict[str, Any]
    examples: str


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename: never half a file.

    The temporary name begins with the stem of `path`: whoever holds the lock of that name may remove it.

    Raises:
        StoreError: no permission, disk full; the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{WRITING}{path.stem}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Store JSON, whole or not at all."""
    text = json.dumps(content, indent=1)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_cell(path: Path, cell: StoredCell) -> None:
    """Store a cell: checksums on the rows' pages, a digest over all that describes them."""
    table = pa.Table.from_pandas(cell.rows, preserve_index=False)
    note = json.dumps({"key": cell.key, "facts": cell.facts, "examples": cell.examples}, sort_keys=True).encode()
    metadata = {**(table.schema.metadata or {}), _NOTE: note}
    table = table.replace_schema_metadata({**metadata, _DIGEST: _digest(table.replace_schema_metadata(metadata))})
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def read_cell(path: Path) -> StoredCell | None:
    """The stored cell; None when the file is absent or damaged.

    Raises:
        StoreError: the file is there and cannot be opened.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        if metadata[_DIGEST] != _digest(table):
            return None
        note = json.loads(metadata[_NOTE])
        return StoredCell(note["key"], table.to_pandas(), note["facts"], note["examples"])
    except FileNotFoundError:
        return None
    except (pa.ArrowException, KeyError, ValueError):
        return None
    except OSError as error:
        if error.errno is None:  # pages or a footer that Arrow cannot decode
            return None
        raise StoreError(f"{path} cannot be read ({error.strerror})") from error


def cannot_write(path: Path, error: OSError) -> StoreError:
    """What to tell the user when `path` could not be written."""
    reason = error.strerror or str(error)
    return StoreError(
        f"cannot write {path} ({reason}); finished cells are kept: "
        "make room or choose another folder, then run the same command again"
    )


def _digest(table: pa.Table) -> bytes:
    """Of the number of rows, the columns' names and types, and the notes: what page checksums leave out."""
    described = hashlib.sha256(f"{table.num_rows} {table.schema.remove_metadata()}".encode())
    for name, value in sorted((table.schema.metadata or {}).items()):
        if name != _DIGEST:
            described.update(name + b"=" + value)
    return described.hexdigest().encode()
