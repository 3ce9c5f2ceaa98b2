"""Arrays come through as they were written; hostile pickles are refused and run nothing."""

import contextlib
import os
import pickle
import pickletools
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothness.data.inert_pickle import UnsafePickleError, read_inert_pickle

ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.linspace(0, 1, 6).reshape(2, 3)),
    np.zeros((0, 3072), dtype=np.uint8),
    np.array([True, False]),
]


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_of_every_protocol(array, protocol):
    stored = pickle.dumps({b"data": array, "labels": [1, 2], "more": (None, 1.5, True)}, protocol)
    found = read_inert_pickle(stored)
    back = found[b"data"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert found["labels"] == [1, 2]
    assert found["more"] == (None, 1.5, True)


def test_text_of_python_2_comes_as_bytes():
    """The bytes that Python 2 wrote for {'labels': [7]} under protocol 2."""
    assert read_inert_pickle(b"\x80\x02}q\x01U\x06labelsq\x02]q\x03K\x07as.") == {b"labels": [7]}


class Command:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def hostile(tmp_path):
    mark = tmp_path / "ran"
    return {
        "os.system": Command(os.system, f"touch {mark}"),
        "eval": Command(eval, f"open({str(mark)!r}, 'w')"),
        "subprocess": Command(subprocess.check_call, ["touch", str(mark)]),
        "numpy's own loader": Command(np.load, str(mark)),
        "in a list": {"data": [1, Command(os.mkdir, str(mark))]},
        "numpy.ndarray with arguments": Command(np.ndarray, (10**12,)),
        "a codec": Command(__import__("_codecs").encode, "x", "zlib"),
        "bytearray": bytearray(10),
        "an object array": np.array([Command(os.mkdir, str(mark))], dtype=object),
        "a set": {1, 2},
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", list(hostile(__import__("pathlib").Path("x"))))
def test_hostile_pickles_run_nothing(name, protocol, tmp_path):
    stored = pickle.dumps(hostile(tmp_path)[name], protocol)
    with pytest.raises(UnsafePickleError):
        read_inert_pickle(stored)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "it names os.system"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(I1\ntR.", "an array without its shape"),
        (b"\x80\x02N\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "no whole pickle"),  # BYTEARRAY8 of 72 PB
        (b"\x80\x02]r\xff\xff\xff\x7f.", "it numbers an entry 2147483647"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x02]q\x01h\x01a.", "no whole pickle|nested"),  # a list that holds itself
        (b"\x80\x02cnumpy\nndarray\n.", "where a value was expected"),
        (b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00sK\x01sb.", "no whole pickle"),  # state for the class itself
        (b"", "no whole pickle"),
        (b"no pickle at all", "no whole pickle|instruction"),
    ],
)
def test_crafted_opcodes(stored, message):
    with pytest.raises(UnsafePickleError, match=message):
        read_inert_pickle(stored)


def test_the_shape_is_held_against_the_bytes():
    stored = pickle.dumps(np.zeros(4, np.uint8), 2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85", 1)
    assert any(argument == 2**31 - 1 for _, argument, _ in pickletools.genops(stored))
    with pytest.raises(UnsafePickleError, match="cannot reshape array of size 4"):
        read_inert_pickle(stored)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_damage_never_raises_anything_else(place, noise):
    stored = pickle.dumps({"data": ARRAYS[0], "labels": [3, 4]}, 2)
    damaged = stored[: place % len(stored)] + noise + stored[place % len(stored) + len(noise) :]
    with contextlib.suppress(UnsafePickleError):
        read_inert_pickle(damaged)
