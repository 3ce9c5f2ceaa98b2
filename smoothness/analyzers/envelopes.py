"""Max pooling, maxout and group sort on pieces: where lines of one group change places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness.activations.families.vector import GroupSort, KWinners, MaxOut
from smoothness.analyzers.segment_pieces import MERGE, Pieces, insert_vertices, is_own, marked


@dataclass(frozen=True, eq=False)
class Groups:
    """Which features compete with which.

    Attributes:
        members: (groups, k) flat feature indices; -1 for padding.
        shape: feature shape of the outputs.
        sorts: outputs are the sorted members; else their largest.
        pool: the max pooling that they are the windows of; None for others.
        features: feature shape of the inputs.
        keep: number of members that k winners keep; 0 for others.
    """

    members: Tensor
    shape: tuple[int, ...]
    sorts: bool = False
    pool: nn.MaxPool2d | None = None
    features: tuple[int, ...] = ()
    keep: int = 0


def groups_of(module: nn.Module | None, features: tuple[int, ...], device: torch.device) -> Groups | None:
    """The groups of max pooling, maxout, group sort or k winners over features of this shape; None for others."""
    numbers = torch.arange(int(torch.tensor(features).prod()), device=device).view(1, *features)
    if isinstance(module, (MaxOut, GroupSort)):
        dim = module.dim if module.dim >= 0 else len(features) + 1 + module.dim
        size = module.pool if isinstance(module, MaxOut) else module.size
        grouped = numbers.reshape(*numbers.shape[:dim], -1, size, *numbers.shape[dim + 1 :]).movedim(dim + 1, -1)
        shape = tuple(grouped.shape[1:-1]) if isinstance(module, MaxOut) else features
        return Groups(grouped.reshape(-1, size), shape, isinstance(module, GroupSort))
    if isinstance(module, KWinners) and module.start_dim > 0:
        rivals = numbers.flatten(min(module.start_dim, len(features))).flatten(0, -2)
        return Groups(rivals, features, keep=module.winners(rivals.shape[1]))
    if not isinstance(module, nn.MaxPool2d):
        return None
    kernel, stride, padding, dilation = (
        (v, v) if isinstance(v, int) else tuple(v)
        for v in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    sizes = module.forward(numbers.to(torch.float64)).shape[1:]
    # Padded on the right as far as ceil_mode may reach.
    pads = [(p, s * (o - 1) + d * (k - 1) + 1 - p - n) for p, s, o, d, k, n in
            zip(padding, stride, sizes[-2:], dilation, kernel, features[-2:], strict=True)]  # fmt: skip
    padded = F.pad(numbers, (pads[1][0], max(pads[1][1], 0), pads[0][0], max(pads[0][1], 0)), value=-1)
    rows = [padded[..., d * i :, :][..., : s * o : s, :] for i in range(kernel[0])
            for d, s, o in [(dilation[0], stride[0], sizes[-2])]]  # fmt: skip
    members = [row[..., dilation[1] * j :][..., : stride[1] * sizes[-1] : stride[1]] for row in rows
               for j in range(kernel[1])]  # fmt: skip
    windows = torch.stack(members, dim=-1).reshape(-1, len(members))
    return Groups(windows, tuple(sizes), pool=module, features=features)


def compete(pieces: Pieces, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the pieces where members of a group change places, then pass on the winners, or the sorted members.

    Returns as `activate`: the new index of each old piece, and (vertex, group) pairs.
    """
    length = pieces.lengths()
    row, offset = (_exchanges if groups.sorts else _envelope)(pieces, groups, length)
    inside = (offset > MERGE) & (length[row] - offset > MERGE)
    kept, _, _ = insert_vertices(pieces, row[inside], offset[inside])
    length = pieces.lengths()
    size: Tensor = torch.linalg.vector_norm(pieces.value, dim=1)
    middle = torch.addcmul(pieces.value, length[:, None] / 2, pieces.tangent)
    # Equal lines stay in one order: rounding must not make them change places.
    if groups.sorts:
        place = middle[:, groups.members].argsort(dim=2, stable=True)
        source = groups.members.expand(len(middle), -1, -1).gather(2, place)
        changed = (place[1:] != place[:-1]).any(dim=2)
    else:
        source = _winners(middle, groups)
        won, lost = source[1:], source[:-1]
        changed = (won != lost) & (middle[1:].gather(1, won) - middle[1:].gather(1, lost) > 1e-13 * size[1:, None])
    changed[(pieces.left[1:] == 0).nonzero().flatten()] = False
    vertex, unit = marked(changed)
    vertex = vertex + 1
    if pieces.stepped is not None:
        own = is_own(pieces, length, size, vertex, groups.members[unit, 0].clamp_min(0) if groups.sorts else unit)
        vertex, unit = vertex[own], unit[own]
    source = source.flatten(1)
    value, tangent = pieces.value.gather(1, source), pieces.tangent.gather(1, source)
    if groups.sorts:
        where = groups.members.flatten().expand(len(value), -1)
        value = torch.zeros_like(pieces.value).scatter_(1, where, value)
        tangent = torch.zeros_like(pieces.tangent).scatter_(1, where, tangent)
    pieces.value, pieces.tangent = value, tangent
    return kept, vertex, unit


def _winners(values: Tensor, groups: Groups) -> Tensor:
    """(pieces, groups) flat index of the largest member, the first of equal ones."""
    pool = groups.pool
    if pool is None:
        place = values[:, groups.members].argmax(dim=2, keepdim=True)
        return groups.members.expand(len(values), -1, -1).gather(2, place)[..., 0]
    _, inside = F.max_pool2d(
        values.view(-1, *groups.features),
        pool.kernel_size,
        pool.stride,
        pool.padding,
        pool.dilation,
        pool.ceil_mode,
        return_indices=True,
    )
    plane = groups.features[-2] * groups.features[-1]
    planes = torch.arange(0, plane * (inside[0].numel() // inside.shape[-1] // inside.shape[-2]), plane)
    return (inside.view(len(values), len(planes), -1) + planes.to(inside.device)[:, None]).flatten(1)


def _envelope(pieces: Pieces, groups: Groups, length: Tensor) -> tuple[Tensor, Tensor]:
    """(piece, offset) of every vertex of every group's upper envelope.

    From the winner at the left end, the next one is the first steeper line to meet it. A line that wins at both ends
    wins in between.
    """
    first = _winners(pieces.value, groups)
    last = _winners(torch.addcmul(pieces.value, length[:, None], pieces.tangent), groups)
    row, group = (first != last).nonzero(as_tuple=True)
    members, start = groups.members[group], first[row, group]
    value, tangent = pieces.value[row[:, None], members], pieces.tangent[row[:, None], members]
    value, tangent = value.masked_fill(members < 0, -1e300), tangent.masked_fill(members < 0, 0.0)
    winner = (members == start[:, None]).to(torch.int8).argmax(dim=1)
    now = torch.zeros_like(length[row])
    rows, offsets = [row[:0]], [now[:0]]
    for _ in range(value.shape[1] - 1):
        gain = tangent - tangent.gather(1, winner[:, None])
        wait = (value.gather(1, winner[:, None]) - value) / gain
        wait = torch.where((gain > 0) & (wait >= now[:, None]), wait, torch.inf)
        now, winner = wait.min(dim=1)
        on = now < length[row]
        row, value, tangent, winner, now = row[on], value[on], tangent[on], winner[on], now[on]
        if len(row) == 0:
            break
        rows.append(row)
        offsets.append(now)
    return torch.cat(rows), torch.cat(offsets)


def _exchanges(pieces: Pieces, groups: Groups, length: Tensor) -> tuple[Tensor, Tensor]:
    """(piece, offset) wherever two members of a group meet."""
    value, tangent = pieces.value[:, groups.members], pieces.tangent[:, groups.members]
    one, other = torch.triu_indices(value.shape[2], value.shape[2], offset=1, device=value.device)
    gap, speed = value[..., one] - value[..., other], tangent[..., one] - tangent[..., other]
    row, group, pair = (gap * (gap + length[:, None, None] * speed) < 0).nonzero(as_tuple=True)
    return row, -gap[row, group, pair] / speed[row, group, pair]
