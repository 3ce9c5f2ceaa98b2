"""A run folder: which file is where, who may write it, and whether a cell's files are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from smoothness.study.cells import CellResult
from smoothness.study.store import (
    WRITING,
    StoredCell,
    StoreError,
    cannot_write,
    read_cell,
    write_cell,
    write_json,
)
from smoothness.study.tensors import read_tensors, write_tensors

SCHEMA = 2
MANIFEST = "study.json"


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run; NAME is a cell's label and key, so other settings never share a file.

    study.json            the study and its cells; replaced as a whole when the study changes
    cells/NAME.parquet    rows and facts
    examples/NAME.*       tensors of attacked examples, for cells that keep any
    weights/NAME.*        trained networks, named by the training's key
    failures/NAME.json    why a cell failed; removed when it succeeds
    log.jsonl             what happened when
    .locks/               one lock per NAME; the system releases a dead process's locks
    """

    path: Path

    def cell(self, name: str) -> Path:
        """Rows and facts of a cell."""
        return self.path / "cells" / f"{name}.parquet"

    def examples(self, name: str) -> Path:
        """Attacked examples of a cell."""
        return self.path / "examples" / f"{name}.safetensors"

    def failure(self, name: str) -> Path:
        """Record of a cell's failure."""
        return self.path / "failures" / f"{name}.json"

    @property
    def log(self) -> Path:
        """The log."""
        return self.path / "log.jsonl"

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process holds the name's lock inside; without `wait`, False when another does.

        Lock files stay: to remove one that another process is about to lock would give two the same lock.
        """
        path = self.path / ".locks" / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise cannot_write(path, error if isinstance(error, OSError) else OSError(str(error))) from error
        try:
            yield True
        finally:
            lock.release()

    def read_result(self, name: str) -> StoredCell | None:
        """The cell of this name; None unless it and its examples are whole and belong to the name."""
        stored = read_cell(self.cell(name))
        if stored is None or not name.endswith(f"-{stored.key}"):
            return None
        if stored.examples:
            found = read_tensors(self.examples(name))
            if found is None or found[2] != stored.examples:
                return None
        return stored

    def write_result(self, name: str, key: str, result: CellResult) -> None:
        """Store a cell; the rows come last, so that a cell with rows has all its files."""
        digest = write_tensors(self.examples(name), {"key": key}, result.examples) if result.examples else ""
        write_cell(self.cell(name), StoredCell(key, result.rows, result.facts, digest))
        with suppress(FileNotFoundError):
            self.failure(name).unlink()

    def read_weights(self, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Training facts and tensors of the network of this training key, under whatever name; None if not whole."""
        for path in sorted((self.path / "weights").glob(f"*-{key}.safetensors")):
            found = read_tensors(path)
            if found is not None and found[0].get("key") == key:
                return found[0]["facts"], found[1]
        return None

    def write_weights(self, name: str, key: str, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Store a trained network."""
        write_tensors(self.path / "weights" / f"{name}.safetensors", {"key": key, "facts": facts}, tensors)

    def read_failure(self, name: str) -> dict[str, Any] | None:
        """The record of a cell's failure, if there is a readable one."""
        try:
            record: dict[str, Any] = json.loads(self.failure(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest; None when there is no run here.

        Raises:
            StoreError: it cannot be read, or another version wrote it.
        """
        path = self.path / MANIFEST
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({error})") from error
        if manifest.get("schema") != SCHEMA:
            raise StoreError(
                f"{self.path} was written with schema {manifest.get('schema')}, this version reads {SCHEMA}; "
                "install the version that made it, or use another folder"
            )
        return manifest

    def claim(self, manifest: dict[str, Any]) -> None:
        """Make the folder this study's; one of the same name and scale is taken over, its cells kept.

        Raises:
            StoreError: the folder is another study's or holds something else.
        """
        if self._taken(manifest) == manifest:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path / MANIFEST, error) from error
        with self.lock("study", wait=True):
            if self._taken(manifest) != manifest:
                write_json(self.path / MANIFEST, manifest)

    def check_claim(self, manifest: dict[str, Any]) -> None:
        """Refuse as `claim` does, and write nothing."""
        self._taken(manifest)

    def remove_leftovers(self) -> None:
        """Delete temporary files of processes that died: those whose lock nobody holds."""
        for path in self.path.rglob(f"{WRITING}*"):
            with self.lock(path.name.removeprefix(WRITING).split(".")[0]) as held:
                if held:
                    path.unlink(missing_ok=True)

    def _taken(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        existing = self.read_manifest()
        if existing is None:
            if self.path.is_dir() and any(
                not path.name.startswith((WRITING, ".locks")) for path in self.path.iterdir()
            ):
                raise StoreError(f"{self.path} is not empty and holds no run; choose another --out folder")
            return None
        here, wanted = existing["config"], manifest["config"]
        if (here["name"], here["scale"]) != (wanted["name"], wanted["scale"]):
            raise StoreError(
                f"{self.path} holds another run: study {here['name']!r} at scale {here['scale']!r}, not "
                f"{wanted['name']!r} at scale {wanted['scale']!r}; choose another --out folder"
            )
        return existing
