"""The small vision transformer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice
from smoothness.activations import activation_facts
from smoothness.models.residual import Residual

NORMALISATIONS = ("layer", "none")


def vit(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    patch: int = 4,
    normalisation: str = "layer",
) -> nn.Sequential:
    """Patches as tokens, `depth` blocks of attention and a hidden layer, the mean over tokens, the logits.

    A block adds attention(norm(x)) to x, then W2 φ(W1 norm(x)) with a hidden layer twice as wide (pre-norm;
    Dosovitskiy et al. 2021, arXiv 2010.11929, with the mean in place of the class token). Only φ is exchanged: the
    softmax inside attention stays.

    Args:
        make_activation: φ, made anew for each place; elementwise.
        input_shape: (channels, height, width), both multiples of `patch`.
        classes: number of logits.
        width: features of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        patch: side of a square patch, in pixels.
        normalisation: "layer" (over a token's features) or "none".

    Raises:
        ValueError: inputs that are not images, sizes that do not divide, an activation that acts on several features,
            an unknown normalisation.
    """
    check_choice("normalisation", normalisation, NORMALISATIONS)
    if len(input_shape) != 3:
        raise ValueError(f"vit needs input_shape (channels, height, width), got {input_shape}; use 'mlp' instead")
    channels, height, length = input_shape
    if height % patch or length % patch:
        raise ValueError(f"patch {patch} does not divide images of {height} x {length}; give one that does")
    if width % heads:
        raise ValueError(f"heads {heads} does not divide width {width}; give one that does")
    _check_elementwise(make_activation())
    tokens = (height // patch) * (length // patch)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        patches=nn.Conv2d(channels, width, patch, stride=patch),
        tokens=Tokens(),
        position=Position(tokens, width),
    )
    for k in range(1, depth + 1):
        mix = OrderedDict(norm=_norm(normalisation, width), attention=Attention(width, heads))
        hidden = OrderedDict(
            norm=_norm(normalisation, width),
            linear1=nn.Linear(width, 2 * width),
            activation=make_activation(),
            linear2=nn.Linear(2 * width, width),
        )
        layers[f"mix{k}"], layers[f"hidden{k}"] = Residual(nn.Sequential(mix)), Residual(nn.Sequential(hidden))
    layers["norm"] = _norm(normalisation, width)
    layers["mean"] = MeanToken()
    layers["output"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


class Tokens(nn.Module):
    """(n, features, rows, columns) -> (n, rows · columns, features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Positions become tokens."""
        return x.flatten(2).transpose(1, 2)


class Position(nn.Module):
    """Adds a learned vector to each token; it starts as sines and cosines, the same for every seed.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.

    >>> Position(3, 4).vectors.shape
    torch.Size([3, 4])
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        place = torch.arange(tokens, dtype=torch.float64).unsqueeze(1)
        feature = torch.arange(width, dtype=torch.float64)
        angle = place / 10_000 ** (2 * (feature // 2) / width) + math.pi / 2 * (feature % 2)
        self.vectors = nn.Parameter(angle.sin().float())

    def forward(self, x: Tensor) -> Tensor:
        """The tokens with their place."""
        return x + self.vectors


class Attention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / √d) V per head, the heads joined by a linear layer.

    Vaswani et al. 2017 (arXiv 1706.03762); (n, tokens, width) -> the same. Written in plain operations, so that it has
    derivatives of every order.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.joined = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """What each token gathers from all."""
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) / math.sqrt(self.size)).softmax(dim=3)
        gathered: Tensor = self.joined((weights @ value).transpose(1, 2).flatten(2))
        return gathered

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.heads, self.size))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)


class MeanToken(nn.Module):
    """(n, tokens, features) -> (n, features)."""

    def forward(self, x: Tensor) -> Tensor:
        """The tokens' mean."""
        return x.mean(dim=1)


def _norm(kind: str, width: int) -> nn.Module:
    return nn.LayerNorm(width) if kind == "layer" else nn.Identity()


def _check_elementwise(activation: nn.Module) -> None:
    try:
        elementwise = activation_facts(activation).elementwise
    except TypeError:  # somebody's own, without facts
        return
    if not elementwise:
        raise ValueError(
            f"vit takes elementwise activations, and {activation!r} acts on several features; use 'resnet'"
        )
