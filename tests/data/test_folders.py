"""Folders of IDX files, CIFAR batches and images: what they hold, and what is said when they are broken."""

import gzip
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smoothness.data import load_dataset
from smoothness.testing import check_dataset

DRAWN = np.random.Generator(np.random.PCG64(0))
COUNTS = {"train": 30, "t10k": 10}
IDX = {
    part: (DRAWN.integers(0, 256, (n, 5, 6), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 3)
    for part, n in COUNTS.items()
}


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def idx_folder(folder, packed=True):
    folder.mkdir(exist_ok=True)
    for part, (images, labels) in IDX.items():
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx_bytes(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def cifar_arrays(n, classes, seed):
    draws = np.random.Generator(np.random.PCG64(seed))
    return draws.integers(0, 256, (n, 3072), dtype=np.uint8), (np.arange(n) % classes).tolist()


def cifar_folder(folder, classes=10, binary=False, protocol=2):
    """As the originals: names of bytes, in five batches for ten classes."""
    folder.mkdir(exist_ok=True)
    train = [f"data_batch_{k}" for k in range(1, 6)] if classes == 10 else ["train"]
    test = "test_batch" if classes == 10 else "test"
    names = [f"class{k}" for k in range(classes)]
    for seed, name in enumerate([*train, test]):
        data, labels = cifar_arrays(2 * classes, classes, seed)
        if binary:
            fine = np.array(labels, dtype=np.uint8)[:, None]
            rows = [fine, data] if classes == 10 else [fine // 5, fine, data]
            (folder / f"{name}.bin").write_bytes(np.concatenate(rows, axis=1).tobytes())
        else:
            key = b"labels" if classes == 10 else b"fine_labels"
            (folder / name).write_bytes(pickle.dumps({b"data": data, key: labels, b"batch_label": b"x"}, protocol))
    if binary:
        (folder / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")).write_text(
            "\n".join(names) + "\n\n"
        )
    else:
        key = b"label_names" if classes == 10 else b"fine_label_names"
        meta = pickle.dumps({key: [name.encode() for name in names]}, protocol)
        (folder / ("batches.meta" if classes == 10 else "meta")).write_bytes(meta)
    return folder


def image_folder(folder, mode="RGB", size=(6, 5)):
    for part, n in (("train", 4), ("test", 2)):
        for label, name in enumerate(["cat", "dog"]):
            (folder / part / name).mkdir(parents=True)
            for k in range(n):
                pixels = np.full((size[1], size[0], 3), 40 * label + k + (20 if part == "test" else 0), dtype=np.uint8)
                pixels[0, 0] = [255, 0, 128]
                Image.fromarray(pixels).convert(mode).save(folder / part / name / f"{k}.png")
    (folder / "train" / "cat" / ".hidden").write_text("left out")
    return folder


def rows(*splits):
    return {row.numpy().tobytes() for split in splits for row in split.inputs}


@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path, packed):
    data = load_dataset("folder", path=idx_folder(tmp_path, packed), validation=0.2, classes=["a", "b", "c"])
    check_dataset(data)
    images, labels = IDX["t10k"]
    assert torch.equal(data.test.inputs, torch.from_numpy(images.astype(np.float32)).unsqueeze(1) / 255)
    assert data.test.labels.tolist() == labels.tolist()
    assert data.validation.labels.bincount().tolist() == [2, 2, 2]
    assert len(data.train) == 24
    every = {x.tobytes() for x in IDX["train"][0].astype(np.float32) / np.float32(255)}
    assert rows(data.train, data.validation) == every
    assert data.classes == ("a", "b", "c")


def test_the_debian_package_where_it_is_installed():
    folder = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    if not folder.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    data = load_dataset("folder", path=folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.test.labels.bincount().tolist() == [1000] * 10
    ours = load_dataset("fashion")
    assert rows(ours.test) <= rows(data.test)
    assert rows(ours.train) <= rows(data.train, data.validation)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar(tmp_path, classes, binary):
    data = load_dataset("folder", path=cifar_folder(tmp_path, classes, binary))
    check_dataset(data)
    pixels, labels = cifar_arrays(2 * classes, classes, 5 if classes == 10 else 1)
    assert data.input_shape == (3, 32, 32)
    assert data.test.labels.tolist() == labels
    # Red, green, blue planes of rows (Krizhevsky 2009): value 1024 c + 32 i + j is channel c at row i, column j.
    assert (data.test.inputs[3, 2, 7, 9] * 255).round().item() == pixels[3, 2048 + 32 * 7 + 9]
    assert data.classes[3] == "class3"
    assert len(data.train) + len(data.validation) == (100 if classes == 10 else 200)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar_of_any_protocol(tmp_path, protocol):
    one, other = cifar_folder(tmp_path / "a", protocol=2), cifar_folder(tmp_path / "b", protocol=protocol)
    assert load_dataset("folder", path=one).version == load_dataset("folder", path=other).version


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3), ("1", 1)])
def test_images(tmp_path, mode, channels):
    data = load_dataset("folder", path=image_folder(tmp_path, mode), validation=0.25)
    assert data.input_shape == (channels, 5, 6)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    if mode == "RGB":
        assert (data.test.inputs[1, :, 0, 0] * 255).round().tolist() == [255, 0, 128]
        assert (data.test.inputs[:, 0, 1, 1] * 255).round().tolist() == [20, 21, 60, 61]  # in the order of names


def test_images_scaled(tmp_path):
    folder = image_folder(tmp_path)
    Image.new("RGB", (9, 9), (9, 9, 9)).save(folder / "train" / "cat" / "odd.png")
    data = load_dataset("folder", path=folder, size=(4, 8))
    assert data.input_shape == (3, 4, 8)


def test_the_draw_of_the_validation_split(tmp_path):
    folder = idx_folder(tmp_path)
    versions = [load_dataset("folder", path=folder, seed=seed).version for seed in (0, 0, 1)]
    assert versions[0] == versions[1] != versions[2]


def broken_idx(folder, what):
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    whole = gzip.decompress(images.read_bytes())
    if what == "missing":
        (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    elif what == "magic":
        labels.write_bytes(images.read_bytes())
    elif what == "truncated gz":
        images.write_bytes(images.read_bytes()[:-20])
    elif what == "short":
        images.write_bytes(gzip.compress(whole[:-1]))
    elif what == "long":
        images.write_bytes(gzip.compress(whole + b"x"))
    elif what == "not gzip":
        images.write_bytes(whole)
    elif what == "empty":
        images.write_bytes(b"")
    elif what == "labels":
        labels.write_bytes(gzip.compress(idx_bytes(IDX["train"][1][:-1])))
    elif what == "class":
        labels.write_bytes(gzip.compress(idx_bytes(np.minimum(IDX["train"][1], 1))))
    elif what == "size":
        (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IDX["t10k"][0][:, :4])))
    elif what == "zlib":
        images.write_bytes(images.read_bytes()[:30] + b"\xff" * 30 + images.read_bytes()[60:])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "folder 'idx': missing: t10k-labels-idx1-ubyte"),
        ("magic", r"train-labels-idx1-ubyte\.gz starts with 0x00000803, expected 0x00000801"),
        ("truncated gz", r"train-images-idx3-ubyte\.gz is damaged or cut short"),
        ("short", r"holds fewer bytes than the 900 its header \(30, 5, 6\) says"),
        ("long", "holds more bytes than the 900"),
        ("not gzip", "damaged or cut short"),
        ("empty", r"train-images-idx3-ubyte\.gz (is damaged|starts with 0x00000000)"),
        ("labels", "holds 30 images, .* 29 labels"),
        ("class", "no image of class '2' in train; both parts need every class"),
        ("size", r"training images have shape \(1, 5, 6\), test images \(1, 4, 6\)"),
        ("zlib", "damaged or cut short"),
    ],
)
def test_broken_idx(tmp_path, what, message):
    folder = idx_folder(tmp_path / "idx")
    broken_idx(folder, what)
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", path=folder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((60_000, 28_000, 28_000), r"takes? 1\.75e\+05 GiB, and limit_gib allows 4"),
        ((60_000, 30, 30), "holds fewer bytes"),  # within the limit, and far more than so small a file can hold
    ],
)
def test_a_header_that_promises_too_much_allocates_nothing(tmp_path, shape, message):
    folder = idx_folder(tmp_path)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(50)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", path=folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def broken_cifar(folder, what):
    batch = folder / "data_batch_3"
    data, labels = cifar_arrays(20, 10, 2)
    if what == "missing":
        batch.unlink()
        (folder / "batches.meta").unlink()
    elif what == "hostile":
        batch.write_bytes(b"cos\nsystem\n(S'touch " + str(folder / "ran").encode() + b"'\ntR.")
    elif what == "short":
        batch.write_bytes(pickle.dumps({b"data": data[:-1], b"labels": labels[:-1]}, 2))
    elif what == "unequal":
        batch.write_bytes(pickle.dumps({b"data": data, b"labels": labels[:-1]}, 2))
    elif what == "unlabelled":
        batch.write_bytes(pickle.dumps({b"data": data}, 2))
    elif what == "label":
        batch.write_bytes(pickle.dumps({b"data": data, b"labels": [*labels[:-1], 11]}, 2))
    elif what == "no label":
        batch.write_bytes(pickle.dumps({b"data": data, b"labels": [*labels[:-1], None]}, 2))
    elif what == "width":
        batch.write_bytes(pickle.dumps({b"data": data[:, :-1], b"labels": labels}, 2))
    elif what == "cut":
        batch.write_bytes(batch.read_bytes()[:-7])
    elif what == "names":
        (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a"] * 10}, 2))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"folder 'ten': CIFAR-10 batches, and missing: data_batch_3, batches\.meta"),
        ("hostile", r"data_batch_3 was not read, and nothing in it was run: it names os\.system"),
        ("short", "data_batch_3 holds 19 images, the others up to 20"),
        ("unequal", "data_batch_3 holds 20 images and 19 labels"),
        ("unlabelled", "data_batch_3 has nothing under 'labels', expected a list"),
        ("label", "data_batch_3: row 19 has label 11, expected 0 to 9"),
        ("no label", "data_batch_3: row 19 has label None"),
        ("width", r"data_batch_3: data are uint8 of shape \(20, 3071\), expected uint8 of \(n, 3072\)"),
        ("cut", "data_batch_3 was not read.* no whole pickle"),
        ("names", r"batches\.meta names 1 classes, expected 10"),
    ],
)
def test_broken_cifar(tmp_path, what, message):
    folder = cifar_folder(tmp_path / "ten")
    broken_cifar(folder, what)
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", path=folder)
    assert not (folder / "ran").exists()


def test_broken_binary_cifar(tmp_path):
    folder = cifar_folder(tmp_path, binary=True)
    whole = (folder / "data_batch_2.bin").read_bytes()
    (folder / "data_batch_2.bin").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin has 61,459 bytes, expected a multiple of 3073"):
        load_dataset("folder", path=folder)
    (folder / "data_batch_2.bin").write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin: row 0 has label 11, expected 0 to 9"):
        load_dataset("folder", path=folder)


def png_header(width, height):
    """A picture that says how large it is and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\x0aIDAT"
    )


def broken_images(folder, what):
    cat = folder / "train" / "cat"
    if what == "no test":
        (folder / "test").rename(folder / "held-out")
    elif what == "class":
        (folder / "test" / "dog").rename(folder / "test" / "wolf")
    elif what == "empty":
        for file in (folder / "train" / "dog").iterdir():
            file.unlink()
    elif what == "size":
        Image.new("RGB", (7, 5)).save(cat / "2.png")
    elif what == "grey":
        Image.new("L", (6, 5)).save(cat / "2.png")
    elif what == "alpha":
        Image.new("RGBA", (6, 5)).save(cat / "0.png")
    elif what == "text":
        (cat / "2.png").write_text("no picture")
    elif what == "notes":
        (cat / "notes.txt").write_text("which format is this?")
    elif what == "cut":
        noise = DRAWN.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).save(cat / "2.png")
        (cat / "2.png").write_bytes((cat / "2.png").read_bytes()[:-40])
    elif what == "stray":
        (folder / "train" / "0.png").write_bytes((cat / "0.png").read_bytes())
    elif what == "bomb":
        (cat / "2.png").write_bytes(png_header(60_000, 60_000))
    elif what == "large":
        (cat / "2.png").write_bytes(png_header(11_000, 11_000))
    elif what == "disguised":
        (cat / "2.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n%%EndComments\n")
    elif what == "one":
        for k in range(1, 4):
            (cat / f"{k}.png").unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no test", "folder 'pets': missing: test/; expected train/CLASS"),
        ("class", "class 'dog' stands in train/ alone"),
        ("empty", "train/dog holds no image"),
        (
            "size",
            r"train/cat/2\.png is RGB of 5 x 7, and train/cat/0\.png is RGB of 5 x 6; make them equal, or give size",
        ),
        ("grey", r"train/cat/2\.png is grey of 5 x 6"),
        ("alpha", r"train/cat/0\.png is of mode RGBA"),
        ("text", r"train/cat/2\.png cannot be read as an image"),
        ("notes", r"train/cat/notes\.txt is not one of the images read here \(\.png"),
        ("cut", r"train/cat/2\.png cannot be decoded"),
        ("stray", r"train/0\.png is a file, expected one folder per class"),
        ("bomb", r"train/cat/2\.png is too large"),
        ("large", r"train/cat/2\.png is RGB of 11000 x 11000, and"),
        ("disguised", r"train/cat/2\.png cannot be read as an image"),
        ("one", "class 'cat' has one training image"),
    ],
)
def test_broken_images(tmp_path, what, message):
    folder = image_folder(tmp_path / "pets")
    broken_images(folder, what)
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", path=folder)


def test_all_images_together_are_held_against_the_limit(tmp_path):
    with pytest.raises(ValueError, match=r"train/ holds 720 values, which take .* limit_gib allows 1e-06"):
        load_dataset("folder", path=image_folder(tmp_path), limit_gib=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data set 'folder' needs the option path; give it"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all is no folder"),
        ({"path": "."}, "folder '.*': nothing to read: expected IDX files"),
        ({"path": ".", "validation": 1.0}, "validation is a share between 0 and 1"),
        ({"path": ".", "size": (3,)}, r"size is \(height, width\)"),
        ({"path": ".", "limit_gib": 0.0}, "limit_gib must be a positive finite number"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", **options)


def test_options_that_do_not_fit_the_files(tmp_path):
    with pytest.raises(ValueError, match="size is for image files"):
        load_dataset("folder", path=idx_folder(tmp_path), size=(8, 8))
    with pytest.raises(ValueError, match="labels go up to 2, and classes gives 2 different names; give 3"):
        load_dataset("folder", path=tmp_path, classes=("a", "b"))
