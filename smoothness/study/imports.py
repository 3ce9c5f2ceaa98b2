"""Code of the user's own in a study: "package.module:Name", imported only when its package was allowed.

A study file alone never runs code: the person who starts the run names the packages it may import.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

_NAME = r"[^\W\d]\w*"
_PATH = re.compile(rf"({_NAME}(?:\.{_NAME})*):({_NAME}(?:\.{_NAME})*)")


def _checked(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise ValueError("expected 'package.module:Name', such as 'mypackage.activations:Wavy'")
    return path


ImportPath = Annotated[str, AfterValidator(_checked)]


def load_name(path: str, allowed: tuple[str, ...]) -> Any:
    """Import the module and return the name in it; the allow list is looked at first.

    Raises:
        ValueError: a package that was not allowed, an error while importing, a name that is not there.

    >>> load_name("math:sqrt", allowed=("math",))(9.0)
    3.0
    """
    check_allowed(path, allowed)
    module_name, _, attribute = path.partition(":")
    with _importable_here():
        try:
            found: Any = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # somebody's module may raise anything
            raise ValueError(f"cannot import {module_name!r} ({_said(error)}); can `python -c` import it?") from error
    source_hash(path, allowed)  # of what was imported just now, whatever becomes of the files later
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            near = difflib.get_close_matches(part, names, n=3, cutoff=0.5) or sorted(names)[:8]
            raise ValueError(f"{module_name!r} has no {attribute!r}; near: {', '.join(near) or 'nothing'}") from None
    return found


def check_allowed(path: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless the path's package, or one above it, is on the allow list."""
    module = path.partition(":")[0]
    if not any(module == name or module.startswith(f"{name}.") for name in allowed):
        package = module.partition(".")[0]
        raise ValueError(
            f"{path!r} is code of {package!r}, which may not run; if you trust it, give --allow-import {package} "
            f"(in Python: allow_import=({package!r},))"
        )


def source_hash(path: str, allowed: tuple[str, ...]) -> str:
    """Hash of the module's file, or of every .py file of its package; "" for a module without a file.

    Raises:
        ValueError: a package that was not allowed.
    """
    check_allowed(path, allowed)
    return _hash_of(path.partition(":")[0].partition(".")[0])


@functools.cache  # a module that is imported stays as it is, too
def _hash_of(package: str) -> str:
    with _importable_here():
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            return ""
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(file, file.relative_to(folder)) for folder in folders for file in folder.rglob("*.py")]
    if not folders and spec.origin is not None and Path(spec.origin).is_file():
        files = [(Path(spec.origin), Path(Path(spec.origin).name))]
    digest = hashlib.sha256()
    for file, name in sorted(files, key=lambda pair: pair[1].as_posix()):
        digest.update(f"{name.as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest() if files else ""


@contextmanager
def _importable_here() -> Iterator[None]:
    """The working directory among the places to import from, as for `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _said(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
