"""CIFAR batches as Python 2's cPickle wrote them, opcode by opcode: protocol 2, byte strings, numpy.core's names.

The format is the one that the data set's page documents (Krizhevsky 2009): dicts with b'batch_label', b'labels',
b'data' (uint8, (n, 3072), planes of red, green, blue in rows) and b'filenames'; b'label_names' in batches.meta. An
array is what numpy's `ndarray.__reduce__` gives: (_reconstruct, (ndarray, (0,), 'b'), state).
"""

import itertools
import pickle
import struct

import numpy as np
import pytest

from smoothness.data import load_dataset
from smoothness.data.inert_pickle import read_inert_pickle

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

ROWS = 300  # more than 255: sizes and memo entries need their longer opcodes


class Stream:
    """Opcodes as cPickle emits them; every object is put into the memo after it was made."""

    def __init__(self):
        self.parts, self.memo = [b"\x80\x02"], itertools.count(1)

    def put(self):  # BINPUT, or LONG_BINPUT from entry 256 on
        entry = next(self.memo)
        return b"q" + bytes([entry]) if entry < 256 else b"r" + struct.pack("<I", entry)

    def text(self, value):  # SHORT_BINSTRING, or BINSTRING from 256 bytes on
        head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        return head + value + self.put()

    def number(self, value):  # BININT1, BININT2
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def listed(self, items):  # EMPTY_LIST, MARK, ..., APPENDS
        return b"]" + self.put() + b"(" + b"".join(items) + b"e"

    def array(self, values):
        """_reconstruct(ndarray, (0,), 'b'), then BUILD from (1, shape, dtype, False, bytes)."""
        made = b"cnumpy.core.multiarray\n_reconstruct\n" + self.put() + b"cnumpy\nndarray\n" + self.put()
        made += b"K\x00\x85" + self.put() + b"U\x01b" + self.put() + b"\x87" + self.put() + b"R" + self.put()
        kind = b"cnumpy\ndtype\n" + self.put() + b"U\x02u1" + self.put() + b"K\x00K\x01\x87" + self.put() + b"R"
        kind += self.put() + b"(K\x03U\x01|" + self.put() + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t" + self.put()
        kind += b"b"
        shape = self.number(values.shape[0]) + self.number(values.shape[1]) + b"\x86" + self.put()
        state = b"(K\x01" + shape + kind + b"\x89" + self.text(values.tobytes()) + b"t" + self.put()
        return made + state + b"b"

    def whole(self, pairs):
        """A dict: EMPTY_DICT, MARK, keys and values, SETITEMS, STOP."""
        inside = b"".join(self.text(key) + value for key, value in pairs)
        return b"".join(self.parts) + b"}" + b"q\x00" + b"(" + inside + b"u."


def batch_bytes(part, pixels, labels):
    stream = Stream()
    return stream.whole(
        [
            (b"batch_label", stream.text(part)),
            (b"labels", stream.listed([stream.number(label) for label in labels])),
            (b"data", stream.array(pixels)),
            (b"filenames", stream.listed([stream.text(b"leptodactylus_s_%06d.png" % k) for k in range(len(labels))])),
        ]
    )


def meta_bytes():
    stream = Stream()
    names = stream.listed([stream.text(name.encode()) for name in NAMES])
    return stream.whole(
        [
            (b"num_cases_per_batch", stream.number(10_000)),
            (b"label_names", names),
            (b"num_vis", stream.number(3072)),
        ]
    )


@pytest.fixture
def folder(tmp_path):
    draws = np.random.Generator(np.random.PCG64(3))
    tmp_path.joinpath("batches.meta").write_bytes(meta_bytes())
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], start=1):
        pixels = draws.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        label = b"testing batch 1 of 1" if name == "test_batch" else b"training batch %d of 5" % k
        tmp_path.joinpath(name).write_bytes(batch_bytes(label, pixels, list(range(10)) * (ROWS // 10)))
    return tmp_path


def test_the_stream_is_a_pickle_that_python_reads_alike(folder):
    stored = folder.joinpath("data_batch_1").read_bytes()
    ours, theirs = read_inert_pickle(stored), pickle.loads(stored, encoding="bytes")
    assert list(ours) == list(theirs) == [b"batch_label", b"labels", b"data", b"filenames"]
    assert ours[b"batch_label"] == theirs[b"batch_label"] == b"training batch 1 of 5"
    assert ours[b"labels"] == theirs[b"labels"]
    assert ours[b"filenames"] == theirs[b"filenames"]
    assert ours[b"filenames"][299] == b"leptodactylus_s_000299.png"
    np.testing.assert_array_equal(ours[b"data"], theirs[b"data"])
    assert ours[b"data"].dtype == np.uint8


def test_a_folder_of_them(folder):
    data = load_dataset("folder", path=folder)
    assert data.classes == tuple(NAMES)
    assert (len(data.train) + len(data.validation), len(data.test)) == (5 * ROWS, ROWS)
    assert data.test.labels.tolist() == list(range(10)) * (ROWS // 10)
    stored = pickle.loads(folder.joinpath("test_batch").read_bytes(), encoding="bytes")
    value = stored[b"data"][7, 1024 + 32 * 5 + 30]  # green, row 5, column 30
    assert round(float(data.test.inputs[7, 1, 5, 30]) * 255) == value


def test_one_bad_label_is_named(folder):
    pixels = np.zeros((ROWS, 3072), dtype=np.uint8)
    folder.joinpath("data_batch_4").write_bytes(batch_bytes(b"x", pixels, [*[0] * (ROWS - 1), 10]))
    with pytest.raises(ValueError, match="data_batch_4: row 299 has label 10, expected 0 to 9; get it anew"):
        load_dataset("folder", path=folder)
