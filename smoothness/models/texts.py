"""Networks that read sentences: embeddings in, padding ignored to the bit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothness.models.initial import features_pooled
from smoothness.vocabulary import is_word

_FAR = -1e9  # score of a padding position: its weight is 0 in float32 and float64


class TextCNN(nn.Module):
    """Convolutions over positions, mean over the words, a hidden layer, the logits.

    Padding is set to zero before every convolution and left out of the mean: outputs do not depend on how much of it
    there is, nor on its values inside any ball in which `is_word` is constant.
    """

    def __init__(
        self, make_activation: Callable[[], nn.Module], features: int, classes: int, width: int, depth: int
    ) -> None:
        super().__init__()
        pooled = features_pooled(make_activation())
        sizes = [features, *[width] * depth]
        self.convs = nn.ModuleList(nn.Conv1d(i, o * pooled, 3, padding=1) for i, o in itertools.pairwise(sizes))
        self.activations = nn.ModuleList(make_activation() for _ in range(depth))
        self.linear = nn.Linear(width, width * pooled)
        self.activation = make_activation()
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, features) -> (n, classes)."""
        words = is_word(x).unsqueeze(1)
        x = x.transpose(1, 2)
        for conv, activation in zip(self.convs, self.activations, strict=True):
            x = activation(conv(x * words))
        out: Tensor = self.output(self.activation(self.linear(_mean(x, words))))
        return out


class Block(nn.Module):
    """Self-attention and a hidden layer, each on normalised features and added to them (Xiong et al. 2020)."""

    def __init__(self, make_activation: Callable[[], nn.Module], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.merged = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Linear(width, 2 * width * features_pooled(make_activation()))
        self.activation = make_activation()
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, masked: Tensor) -> Tensor:
        """(n, length, width) and scores (n, 1, 1, length) that are 0 at words -> (n, length, width)."""
        n, length, width = x.shape
        queries, keys, values = (
            part.reshape(n, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.mixed(self.norm1(x)).chunk(3, dim=2)
        )
        weights = (queries @ keys.transpose(2, 3) / math.sqrt(width // self.heads) + masked).softmax(dim=3)
        x = x + self.merged((weights @ values).transpose(1, 2).reshape(n, length, width))
        hidden = self.activation(self.wide(self.norm2(x)).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.narrow(hidden)
        return out


class Transformer(nn.Module):
    """A projection with sinusoidal positions (Vaswani et al. 2017, arXiv 1706.03762), blocks, mean over the words.

    Attention gives padding the weight 0, and the mean leaves it out, as in `TextCNN`.
    """

    def __init__(
        self, make_activation: Callable[[], nn.Module], features: int, classes: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.blocks = nn.ModuleList(Block(make_activation, width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, features) -> (n, classes)."""
        words = is_word(x)
        masked = ((1 - words) * _FAR)[:, None, None]
        x = self.project(x * words.unsqueeze(2)) + _positions(x.shape[1], self.project.out_features).to(x)
        for block in self.blocks:
            x = block(x, masked)
        out: Tensor = self.output(_mean(self.norm(x).transpose(1, 2), words.unsqueeze(1)))
        return out


def _mean(x: Tensor, words: Tensor) -> Tensor:
    """Mean over the words: (n, features, length), (n, 1, length) -> (n, features)."""
    return (x * words).sum(dim=2) / words.sum(dim=2).clamp_min(1)


def _positions(length: int, width: int) -> Tensor:
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def text_cnn(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 128,
    depth: int = 1,
) -> nn.Module:
    """`depth` convolutions over three positions with `width` features, their mean over the words, a hidden layer.

    A mean instead of a maximum: the activation is then the only source of kinks and jumps.

    Raises:
        ValueError: inputs that are not (length, features).
    """
    return TextCNN(make_activation, _features("text_cnn", input_shape), classes, width, depth)


def transformer(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 64,
    depth: int = 1,
    heads: int = 2,
) -> nn.Module:
    """`depth` blocks of attention and a hidden layer of 2 · `width`, normalised before each, mean over the words.

    Raises:
        ValueError: inputs that are not (length, features), or heads that do not divide the width.
    """
    if width % heads:
        raise ValueError(f"width {width} must be a multiple of heads {heads}; change one of them")
    return Transformer(make_activation, _features("transformer", input_shape), classes, width, depth, heads)


def _features(name: str, input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 2:
        raise ValueError(f"{name} needs input_shape (length, features), got {input_shape}; use 'mlp' or 'cnn' instead")
    return input_shape[1]
