"""Into which affine pieces does a network cut a plane, and where does its class change?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs, check_positive
from smoothness.activations.facts import ActivationFacts
from smoothness.analyzers.kinks import sequential_chain
from smoothness.analyzers.piecewise import AffineChain, AffineMap
from smoothness.analyzers.polygons import Polygons, crossed, cut, square
from smoothness.measurement import Measurement

_CACHED_NUMBERS = 2**17  # 1 MiB


@dataclass(frozen=True, eq=False)
class Regions:
    """The pieces of a rectangle of the plane origin + u · first + v · second.

    Attributes:
        polygons: in (u, v); every activation stands on one affine piece inside each.
        slopes: (regions, outputs, 2) d(outputs)/d(u, v).
        offsets: (regions, outputs) outputs at u = v = 0 if the region's affine map went there.
        boundary: (lines, 2, 2) ends, in (u, v), of the lines on which the two largest outputs are equal (for one
            output: where it is 0).
        layers: module name of each activation.
        per_layer: number of regions after each activation.
    """

    polygons: Polygons
    slopes: Tensor
    offsets: Tensor
    boundary: Tensor
    layers: tuple[str, ...]
    per_layer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.polygons)

    @property
    def areas(self) -> Tensor:
        """(regions,) in units of (u, v)."""
        return self.polygons.areas

    def outputs(self, points: Tensor) -> Tensor:
        """The regions' affine maps at one point each: (regions, 2) -> (regions, outputs)."""
        return torch.einsum("rok,rk->ro", self.slopes, points) + self.offsets

    @property
    def boundary_length(self) -> float:
        """Length of the decision boundary, in units of (u, v)."""
        return float(torch.linalg.vector_norm(self.boundary[:, 1] - self.boundary[:, 0], dim=1).sum())


def linear_regions(
    model: nn.Module,
    origin: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    bounds: tuple[float, float, float, float] = (-1.0, 1.0, -1.0, 1.0),
) -> Regions:
    """The exact partition of a rectangle of a plane into the affine pieces of a sequential MLP.

    The rectangle {origin + u · first + v · second: bounds} is cut unit by unit, layer by layer, along the lines on
    which a pre-activation is at a breakpoint; on each piece all pre-activations are affine in (u, v). Bound: exact,
    up to float64 rounding. The number of regions of one hidden layer of n ReLU units in general position, over the
    whole plane, is 1 + n + n(n - 1) / 2 (Zaslavsky 1975).

    Args:
        model: nested nn.Sequential of affine modules and piecewise affine activations, steps included.
        origin: (*input_shape) or (1, *input_shape), u = v = 0.
        first: the same shape, direction of u.
        second: the same shape, direction of v.
        bounds: (lowest u, highest u, lowest v, highest v).

    Raises:
        TypeError: a model that is no sequential MLP, or an activation that is not piecewise affine.
        ValueError: NaN or infinite values, collinear directions, empty bounds.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    >>> found = linear_regions(net, torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> len(found), found.areas
    (4, tensor([1., 1., 1., 1.], dtype=torch.float64))
    """
    chain = _piecewise(model)
    flat = [_flat(chain, name, part) for name, part in (("origin", origin), ("first", first), ("second", second))]
    base, u, v = flat
    if torch.linalg.matrix_rank(torch.stack([u, v])) < 2:
        raise ValueError("first and second must span a plane, but they are collinear; choose another slice")
    if not (bounds[0] < bounds[1] and bounds[2] < bounds[3]):
        raise ValueError(f"bounds must be (lowest u, highest u, lowest v, highest v), got {bounds}")
    polygons = square(*bounds)
    maps = torch.stack([u, v, base])[None]  # (regions, 3, features): slopes in u and v, offset
    sizes: list[int] = []
    with torch.no_grad():
        maps = _image(chain.maps[0], maps)
        for following, facts in zip(chain.maps[1:], chain.activations, strict=True):
            polygons, maps = _activate(polygons, maps, facts, following)
            sizes.append(len(polygons))
    if not maps.isfinite().all():
        raise ValueError("the network's outputs exceed the range of float64; scale its weights down")
    maps = maps.transpose(1, 2)
    slopes, offsets = maps[..., :2], maps[..., 2]
    boundary = _boundary(polygons, maps)
    return Regions(polygons, slopes, offsets, boundary, chain.layers, tuple(sizes))


def _piecewise(model: nn.Module) -> AffineChain:
    chain = sequential_chain(model)
    if chain is None:
        raise TypeError(
            "linear regions are cut for sequential MLPs only (nn.Sequential of Linear, Flatten, BatchNorm1d, Dropout "
            "and elementwise activations); kinks_on_segments reads networks with branches and convolutions"
        )
    for facts, layer in zip(chain.activations, chain.layers, strict=True):
        if facts.affine_pieces is None:
            raise TypeError(
                f"activation {layer!r} ({facts.name}) is not piecewise affine, so there are no linear regions; "
                "InputCurvature measures how it bends"
            )
    return chain


def _flat(chain: AffineChain, name: str, part: Tensor) -> Tensor:
    try:
        check_inputs(part.reshape(1, -1))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    return chain.flatten(part.reshape(1, -1))[0]


def _image(group: Sequence[AffineMap], maps: Tensor) -> Tensor:
    for affine in group:
        maps = affine.tangent(maps)
        maps[:, 2] += affine.bias
    return maps


def _activate(
    polygons: Polygons, maps: Tensor, facts: ActivationFacts, following: Sequence[AffineMap]
) -> tuple[Polygons, Tensor]:
    """Cut along the breakpoints of every unit, then apply φ piece by piece, and the affine maps behind it."""
    knots = [b.position for b in facts.breakpoints]
    parent = torch.arange(len(polygons), device=maps.device)
    crosses = _crossings(polygons, maps, knots)
    lines = maps.permute(2, 0, 1).contiguous()
    for unit, k in crosses.any(dim=2).nonzero().tolist():
        rows = crosses[unit, k][parent].nonzero().flatten()
        line = lines[unit][parent[rows]]
        heights = (polygons.corners[rows] @ line[:, :2, None])[..., 0] + (line[:, 2] - knots[k])[:, None]
        polygons, origin = cut(polygons, heights, rows)
        parent = parent[origin]
    table = facts.affine_pieces
    assert table is not None
    slopes, intercepts = maps.new_tensor(table).unbind(dim=1)
    u, v = polygons.centres.unbind(dim=1)
    parts = []
    for rows in torch.split(torch.arange(len(polygons), device=maps.device), _at_once(maps)):
        part = maps[parent[rows]]
        middle = u[rows, None] * part[:, 0] + v[rows, None] * part[:, 1] + part[:, 2]
        index = torch.bucketize(middle, maps.new_tensor(knots))
        part.mul_(slopes[index][:, None])
        part[:, 2] += intercepts[index]
        parts.append(_image(following, part))
    return polygons, torch.cat(parts)


def _crossings(polygons: Polygons, maps: Tensor, knots: list[float]) -> Tensor:
    """(units, knots, polygons) which breakpoints have their line inside which polygons."""
    places = maps.new_tensor(knots)
    parts = []
    for rows in torch.split(torch.arange(len(polygons), device=maps.device), _at_once(maps)):
        heights = polygons.corners[rows] @ maps[rows, :2] + maps[rows, 2:]
        parts.append(crossed(heights[..., None] - places).permute(1, 2, 0))
    return torch.cat(parts, dim=2)


def _at_once(maps: Tensor) -> int:
    """Polygons whose affine maps of all units stay in a processor's cache."""
    return max(1, _CACHED_NUMBERS // maps[0].numel())


def _boundary(polygons: Polygons, maps: Tensor) -> Tensor:
    """Ends of the lines on which the two largest outputs are equal: (lines, 2, 2)."""
    if maps.shape[1] == 1:
        maps = torch.cat([maps, torch.zeros_like(maps)], dim=1)
    ones = torch.ones_like(polygons.corners[..., :1])
    heights = torch.cat([polygons.corners, ones], dim=2) @ maps.transpose(1, 2)
    winner = heights.argmax(dim=2)
    mixed = (winner != winner[:, :1]).any(dim=1).nonzero().flatten()
    lines = [_lines_inside(polygons.corners[r, : int(polygons.count[r])], maps[r]) for r in mixed.tolist()]
    return torch.cat(lines) if lines else polygons.corners.new_zeros(0, 2, 2)


def _lines_inside(corners: Tensor, functions: Tensor) -> Tensor:
    """The boundary within one polygon."""
    ones = torch.ones_like(corners[:, :1])
    heights = torch.cat([corners, ones], dim=1) @ functions.T  # (corners, outputs)
    # Only outputs that are the largest somewhere on the polygon's corners or could be in between.
    out = []
    for one in range(functions.shape[0]):
        for other in range(one + 1, functions.shape[0]):
            gap = heights[:, one] - heights[:, other]
            following = gap.roll(-1)
            crosses = (gap > 0) != (following > 0)
            if int(crosses.sum()) != 2:
                continue
            share = (gap / (gap - following))[crosses]
            a, b = corners[crosses] + share[:, None] * (corners.roll(-1, dims=0) - corners)[crosses]
            ends = torch.cat([torch.stack([a, b]), ones[:2]], dim=1) @ functions.T
            lead = ends[:, [one]] - ends  # at both ends, over every output
            lead[:, [one, other]] = 0.0
            low, high = 0.0, 1.0
            for start, stop in lead.T.tolist():
                if start < 0 and stop < 0:
                    low, high = 1.0, 0.0
                elif start < 0 < stop or stop < 0 < start:
                    zero = start / (start - stop)
                    low, high = (max(low, zero), high) if start < 0 else (low, min(high, zero))
            if low < high:
                out.append(torch.stack([a + low * (b - a), a + high * (b - a)]))
    return torch.stack(out) if out else corners.new_zeros(0, 2, 2)


class RegionMeasurements(NamedTuple):
    """What `LinearRegions` returns: values of shape (n,)."""

    regions: Measurement
    mean_area: Measurement
    boundary_length: Measurement


@dataclass(frozen=True)
class LinearRegions:
    """Affine pieces of the network in a random square through each input: how many, how large; and its boundary.

    The square {x + u·a + v·b: |u|, |v| <= radius}, a and b random and orthonormal (l2), the same for every example, is
    partitioned exactly (`linear_regions`):

        regions         = number of regions                                             "1"
        mean_area       = area of the square over it                                    "input l2^2"
        boundary_length = length of the lines on which the two largest outputs tie      "input l2"

    Bound: "exact", on the square drawn.

    details: "regions", a tuple of `Regions`, one an example, when keep_regions; "directions" (2, *input_shape).

    Args:
        radius: half the side of the square, in input units (l2).
        seed: of the directions.
        keep_regions: whether details holds the partitions.

    Raises:
        TypeError: a model that is no sequential MLP of piecewise affine activations.
        ValueError: settings out of range, bad inputs, fewer than 2 input features.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> found = LinearRegions(radius=0.5)(net, torch.zeros(2, 4))
    >>> found.regions.values.shape, found.mean_area.unit
    (torch.Size([2]), 'input l2^2')
    """

    radius: float = 1.0
    seed: int = 0
    keep_regions: bool = True

    def __post_init__(self) -> None:
        check_positive("radius", self.radius)
        check_count("seed", self.seed, minimum=0)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> RegionMeasurements:
        """Measure around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        if inputs[0].numel() < 2:
            raise ValueError("a plane needs inputs of at least 2 features, got 1; use kinks_on_segments")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(inputs[0].numel(), 2, generator=generator, dtype=torch.float64)
        plane = torch.linalg.qr(drawn).Q.T.reshape(2, *inputs.shape[1:])
        bounds = (-self.radius, self.radius, -self.radius, self.radius)
        regions = [linear_regions(model, x.double().cpu(), *plane, bounds=bounds) for x in inputs.detach()]
        count = torch.tensor([len(found) for found in regions], dtype=torch.float64)
        length = torch.tensor([found.boundary_length for found in regions], dtype=torch.float64)
        details = {"directions": plane, "reason": ("",) * len(inputs)}
        details |= {"regions": tuple(regions)} if self.keep_regions else {}
        settings = {"analyzer": "LinearRegions", **asdict(self), "dtype": "float64"}
        found = [
            Measurement(quantity, values, unit, "exact", {}, settings, details=details)
            for quantity, values, unit in (
                ("linear_regions", count, "1"),
                ("mean_region_area", (2 * self.radius) ** 2 / count, "input l2^2"),
                ("boundary_length", length, "input l2"),
            )
        ]
        return RegionMeasurements(*found)
