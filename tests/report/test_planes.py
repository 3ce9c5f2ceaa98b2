"""The pictures of planes show every region, every model and the class boundary."""

import torch
from matplotlib.collections import LineCollection, PolyCollection
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import linear_regions
from smoothness.analyzers.plane_maps import plane_map
from smoothness.report.figures.planes import draw_plane_maps, draw_regions

E1, E2 = torch.eye(2)


def model(act, outputs=2):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 12), activation(act), nn.Linear(12, outputs))
    with torch.no_grad():
        net[-1].bias -= net(torch.tensor([[0.2, 0.1]]))[0]
    return net


def test_regions():
    found = linear_regions(model("relu"), torch.zeros(2), E1, E2)
    (ax,) = draw_regions(found).axes
    (cells,) = (c for c in ax.collections if isinstance(c, PolyCollection))
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(cells.get_paths()) == len(found)
    assert len(lines.get_segments()) == len(found.boundary) > 0
    assert ax.get_title(loc="left") == f"{len(found):,} linear regions"
    flat = linear_regions(nn.Sequential(nn.Linear(2, 1)), torch.zeros(2), E1, E2)
    assert len(draw_regions(flat, title="one", narrow=True).axes[0].collections) == 2


def test_maps():
    maps = {act: plane_map(model(act), torch.zeros(2), E1, E2, resolution=30) for act in ("step", "relu", "gelu")}
    figure = draw_plane_maps(maps)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.images]
    assert titles[0] == "step: value"
    assert len(titles) == 9
    scales = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in figure.axes[:9:3] if ax.images}
    assert len(scales) == 1
    assert len([ax for ax in draw_plane_maps(maps, narrow=True).axes if ax.images]) == 9
    figure.savefig("/dev/null", format="png")
