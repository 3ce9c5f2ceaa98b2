"""A residual sum, whose branches start small enough for any number of them, and the layers that normalise."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """shortcut(x) + branch(x).

    The last linear layer or convolution of every branch starts at 1/√B of its usual weights, B being the number of
    branches: the sum of all branches then has the size of one, with and without normalisation (Zhang et al. 2019,
    arXiv 1901.09321, scale branches by depth for the same reason).

    >>> import torch
    >>> Residual(nn.Identity())(torch.ones(1, 2))
    tensor([[2., 2.]])
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        total: Tensor = self.shortcut(x) + self.branch(x)
        return total


def closing_layers(model: nn.Module) -> list[nn.Module]:
    """The last linear layer or convolution of every residual branch.

    >>> closing_layers(nn.Sequential(Residual(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))))
    [Linear(in_features=3, out_features=2, bias=True)]
    """
    branches = [module.branch for module in model.modules() if isinstance(module, Residual)]
    return [[m for m in branch.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1] for branch in branches]


def image_norm(kind: str, channels: int) -> nn.Module:
    """Normalisation of images with `channels`: "batch", "group", "layer", or nothing for "none".

    Groups hold at most 8 channels (Wu and He 2018, arXiv 1803.08494); "layer" is one group of all.

    >>> image_norm("group", 16).num_groups
    2
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    groups = next(g for g in range(-(-channels // 8), channels + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)
