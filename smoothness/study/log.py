"""log.jsonl: what happened when, for people and for time estimates; results are never read from it."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smoothness.study.store import cannot_write


def append_event(path: Path, event: str, **details: Any) -> None:
    """Add one line in one write, so that lines of several processes never mix.

    Raises:
        StoreError: the file cannot be written.
    """
    entry = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **details}
    line = (json.dumps(entry) + "\n").encode()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, line) < len(line):
                raise OSError("no space left")
        finally:
            os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every complete line; empty without a log."""
    events = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # a line that a full disk cut short
                events.append(json.loads(line))
    return events
