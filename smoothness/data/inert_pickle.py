"""Numbers, text and numpy arrays out of a pickle that may be hostile: nothing that it names is ever called."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

# Opcodes of plain containers, numbers, text and bytes, and the three that make an object of an allowed name.
_ALLOWED = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET",
    "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG",
    "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM",
    "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"
}  # fmt: skip
_NUMBERS = {f"{kind}{size}" for kind, sizes in (("u", "1248"), ("i", "1248"), ("f", "48")) for size in sizes} | {"b1"}


class UnsafePickleError(ValueError):
    """A pickle that holds more than arrays and basic types, or is no pickle."""


def read_inert_pickle(content: bytes) -> Any:
    """Dicts, lists, tuples, numbers, text and numpy arrays of numbers.

    The opcodes are listed and checked before any is carried out. The names that numpy's arrays are stored under stand
    for inert records of this module, whose content is checked before an array is made; every other name is refused.
    No function that the pickle names is looked up, imported or called. Text of Python 2 comes as bytes.

    Raises:
        UnsafePickleError: another name or opcode (named), or content that is no whole pickle.

    >>> import pickle
    >>> read_inert_pickle(pickle.dumps({"labels": [3, 1], "data": np.arange(3, dtype=np.uint8)}))
    {'labels': [3, 1], 'data': array([0, 1, 2], dtype=uint8)}
    >>> read_inert_pickle(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    smoothness.data.inert_pickle.UnsafePickleError: it names builtins.print, and only numpy arrays and basic types...
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in _ALLOWED:
                raise UnsafePickleError(
                    f"it holds the instruction {opcode.name}, which arrays and numbers do not need"
                )
            if opcode.name in ("PUT", "LONG_BINPUT") and not 0 <= int(argument or 0) < len(content):
                raise UnsafePickleError(f"it numbers an entry {argument}, more than it can hold")
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        return _converted(loaded, 0)
    except UnsafePickleError:
        raise
    except Exception as error:  # damaged content may raise anything
        raise UnsafePickleError(f"it is no whole pickle of arrays ({type(error).__name__}: {error})") from None


class _Record:
    """Takes state without doing anything with it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """numpy.ndarray, made empty and filled by its state: (version, shape, dtype, Fortran order, bytes)."""


class _Reconstruct(_Record):
    """numpy's _reconstruct(ndarray, (0,), b"b"): an empty array."""

    def __new__(cls, *arguments: Any) -> Any:
        return _Array()


class _DType(_Record):
    """numpy.dtype("u1", ...), then a state whose second entry is the byte order."""

    def __init__(self, code: Any = "", *rest: Any) -> None:
        self.code = code


class _Encode(_Record):
    """_codecs.encode(text, "latin1"): how Python 3 stores bytes under protocol 2."""

    def __new__(cls, text: Any = None, encoding: Any = None) -> Any:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise UnsafePickleError("it encodes something else than bytes")
        return text.encode("latin1")


class _NoBytes(_Record):
    """bytes(): how Python 3 stores empty bytes under protocol 2."""

    def __new__(cls, *arguments: Any) -> Any:
        if arguments:
            raise UnsafePickleError("it makes bytes of something else than bytes")
        return b""


_NAMES: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _NoBytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The inert record of an allowed name."""
        if (module, name) not in _NAMES:
            raise UnsafePickleError(f"it names {module}.{name}, and only numpy arrays and basic types are read")
        return _NAMES[module, name]


def _converted(value: Any, depth: int) -> Any:
    if depth > 20:
        raise UnsafePickleError("it is nested more than 20 deep")
    if isinstance(value, _Array):
        return _array(value.state)
    if isinstance(value, dict):
        return {_converted(k, depth + 1): _converted(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_converted(v, depth + 1) for v in value)
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise UnsafePickleError(f"it holds a {type(value).__name__.lstrip('_')} where a value was expected")


def _array(state: Any) -> np.ndarray[Any, Any]:
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _DType)):
        raise UnsafePickleError("it holds an array without its shape, type and bytes")
    _, shape, kind, fortran, content = state
    code = kind.code.decode("latin1") if isinstance(kind.code, bytes) else kind.code
    if code not in _NUMBERS or not isinstance(content, bytes):
        raise UnsafePickleError(f"it holds an array of type {code!r}; arrays of numbers are read")
    if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
        raise UnsafePickleError(f"it holds an array of shape {shape!r}")
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "|"
    dtype = np.dtype(code).newbyteorder(">") if order in (">", b">") else np.dtype(code)
    array = np.frombuffer(content, dtype)  # a view of bytes that are there: shapes that promise more fail next
    return array.reshape(shape, order="F" if fortran else "C").copy()
