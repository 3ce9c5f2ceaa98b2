"""Small real image sets that need no download."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from smoothness.data.dataset import Dataset, split_by_class

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def load_fashion() -> Dataset:
    """Fashion-MNIST subset: 7,000 / 1,000 / 2,000 images of shape (1, 28, 28) in [0, 1], 10 classes.

    The validation split is the last 100 training images of each class.

    >>> data = load_fashion()
    >>> len(data.train), len(data.validation), len(data.test), data.input_shape
    (7000, 1000, 2000, (1, 28, 28))
    """
    stored = files("smoothness.data").joinpath("files", "fashion_mnist_10k.npz").read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        x_train, y_train = _images(arrays["x_train"]), torch.from_numpy(arrays["y_train"]).long()
        x_test, y_test = _images(arrays["x_test"]), torch.from_numpy(arrays["y_test"]).long()
    train, validation = split_by_class(x_train, y_train, last=100)
    _, test = split_by_class(x_test, y_test, last=len(y_test))
    return Dataset(
        "fashion",
        train,
        validation,
        test,
        classes=FASHION_CLASSES,
        bounds=(0.0, 1.0),
        source="Fashion-MNIST subset of 10,000 images, Xiao et al. 2017 (arXiv 1708.07747), MIT",
    )


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: images of shape (1, 8, 8) in [0, 1], 10 classes.

    The last 40 of each class are the test split, the 20 before them the validation split.

    >>> data = load_digits()
    >>> len(data.train), len(data.validation), len(data.test)
    (1197, 200, 400)
    """
    from sklearn import datasets

    raw = datasets.load_digits()
    inputs = torch.from_numpy(raw.images.astype(np.float32) / 16).unsqueeze(1)
    rest, test = split_by_class(inputs, torch.from_numpy(raw.target).long(), last=40)
    train, validation = split_by_class(rest.inputs, rest.labels, last=20)
    return Dataset(
        "digits",
        train,
        validation,
        test,
        classes=tuple(str(k) for k in range(10)),
        bounds=(0.0, 1.0),
        source="handwritten digits, Alpaydin and Kaynak 1998 (UCI), by way of scikit-learn, CC BY 4.0",
    )


def _images(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(raw.astype(np.float32) / 255).unsqueeze(1)
