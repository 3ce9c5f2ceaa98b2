"""Where random search looks: square windows of images, random sets of features of anything else."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness._norms import Norm

_TILES = 5  # across the image, of the l2 start
_SMALLEST = 3  # side of an l2 window: smaller bumps have no shape


class Canvas:
    """The inputs as channels of cells, with the draws that place windows on them.

    Attributes:
        count: examples.
        channels, height, width: of an image; 1, 1 and the number of features for other inputs.
        image: whether neighbouring cells belong together.
    """

    def __init__(self, inputs: Tensor, draws: torch.Generator) -> None:
        self.inputs, self.draws = inputs, draws
        self.image = inputs.ndim == 4 and min(inputs.shape[2:]) >= _SMALLEST
        self.count = len(inputs)
        self.channels, self.height, self.width = inputs.shape[1:] if self.image else (1, 1, inputs[0].numel())
        self.cells = self.height * self.width

    def view(self, values: Tensor) -> Tensor:
        """(m, ...) -> (m, channels, cells)."""
        return values.reshape(len(values), self.channels, self.cells)

    def window(self, share: float, smallest: int = 1) -> Tensor:
        """Cells of a window that covers about the given share of all."""
        if not self.image:
            order = torch.randperm(self.cells, generator=self.draws)
            return order[: max(1, round(share * self.cells))].to(self.inputs.device)
        side = min(max(round(math.sqrt(share * self.cells)), smallest), self.height, self.width)
        return self._square(side)

    def two_windows(self, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Two windows of one size, and the bump to add to the first: (k,), (k,), (k,)."""
        if not self.image:
            first = self.window(share)
            return first, self.window(share), torch.ones(len(first), device=first.device, dtype=self.inputs.dtype)
        side = min(max(round(math.sqrt(share * self.cells)), _SMALLEST) | 1, self.height, self.width)
        return self._square(side), self._square(side), self._bump(side).flatten()

    def signs(self) -> Tensor:
        """Random signs: one per channel (n, channels, 1) of an image, else one per feature (n, 1, cells)."""
        shape = (self.count, self.channels, 1) if self.image else (self.count, 1, self.cells)
        signs = torch.randint(0, 2, shape, generator=self.draws, dtype=torch.int8) * 2 - 1
        return signs.to(self.inputs)

    def stripes(self, norm: Norm, epsilon: float) -> Tensor:
        """Offsets to start from: vertical stripes of ±epsilon for linf, a grid of bumps of size epsilon for l2."""
        n, c, h, w = self.count, self.channels, self.height, self.width
        if norm == "linf" or not self.image:
            signs = torch.randint(0, 2, (n, c, 1, w), generator=self.draws, dtype=torch.int8) * 2 - 1
            scale = epsilon if norm == "linf" else epsilon / math.sqrt(w)
            return (signs.to(self.inputs) * scale).expand(n, c, h, w).reshape(self.inputs.shape)
        offsets = self.inputs.new_zeros(n, c, h, w)
        side = max(1, min(h, w) // _TILES)
        bump = self._bump(side)
        for top in range((h - side * (h // side)) // 2, h - side + 1, side):
            for left in range((w - side * (w // side)) // 2, w - side + 1, side):
                signs = torch.randint(0, 2, (n, c, 1, 1), generator=self.draws, dtype=torch.int8) * 2 - 1
                offsets[:, :, top : top + side, left : left + side] = bump * signs.to(self.inputs)
        length = torch.linalg.vector_norm(offsets, dim=(1, 2, 3), keepdim=True)
        return offsets.mul_(epsilon / length).view_as(self.inputs)

    def _square(self, side: int) -> Tensor:
        top, left = (
            int(torch.randint(0, size - side + 1, (), generator=self.draws)) for size in (self.height, self.width)
        )
        rows = torch.arange(top, top + side).unsqueeze(1) * self.width
        return (rows + torch.arange(left, left + side)).flatten().to(self.inputs.device)

    def _bump(self, side: int) -> Tensor:
        """Two pyramids of opposite sign side by side, each falling off from its centre, of length 1."""
        half = side // 2
        bump = torch.zeros(side, side)
        bump[:half] = _pyramid(half, side)
        bump[half:] = -_pyramid(side - half, side)
        if int(torch.randint(0, 2, (), generator=self.draws)):
            bump = bump.t()
        return bump.div(torch.linalg.vector_norm(bump)).to(self.inputs).contiguous()


def _pyramid(height: int, width: int) -> Tensor:
    """1 / (1 + rings from the centre)², rings as flat as the whole."""
    down = (torch.arange(height) - height // 2).abs().unsqueeze(1)
    across = (torch.arange(width) - width // 2).abs() * height // width
    pyramid: Tensor = 1 / (1 + torch.maximum(down, across).float()) ** 2
    return pyramid
