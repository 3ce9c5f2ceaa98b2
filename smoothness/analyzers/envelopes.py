"""Max pooling, maxout and group sort on pieces: where lines of one group change places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness.activations.families.vector import GroupSort, MaxOut
from smoothness.analyzers.segment_pieces import MERGE, Pieces, insert_vertices, is_own, marked


@dataclass(frozen=True, eq=False)
class Groups:
    """Which features compete with which.

    Attributes:
        members: (groups, k) flat feature indices; -1 for padding.
        shape: feature shape of the outputs.
        sorts: outputs are the sorted members; else their largest.
    """

    members: Tensor
    shape: tuple[int, ...]
    sorts: bool = False


def groups_of(module: nn.Module | None, features: tuple[int, ...], device: torch.device) -> Groups | None:
    """The groups of a max pooling, maxout or group sort over features of this shape; None for other modules."""
    numbers = torch.arange(int(torch.tensor(features).prod()), device=device).view(1, *features)
    if isinstance(module, (MaxOut, GroupSort)):
        dim = module.dim if module.dim >= 0 else len(features) + 1 + module.dim
        size = module.pool if isinstance(module, MaxOut) else module.size
        grouped = numbers.reshape(*numbers.shape[:dim], -1, size, *numbers.shape[dim + 1 :]).movedim(dim + 1, -1)
        shape = tuple(grouped.shape[1:-1]) if isinstance(module, MaxOut) else features
        return Groups(grouped.reshape(-1, size), shape, isinstance(module, GroupSort))
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
    return Groups(torch.stack(members, dim=-1).reshape(-1, len(members)), tuple(sizes))


def compete(pieces: Pieces, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the pieces where members of a group change places, then pass on the winners, or the sorted members.

    The largest of lines is their upper envelope: from the winner at the left end, the next one is the first steeper
    line to meet it. Returns as `activate`: the new index of each old piece, and (vertex, group) pairs.
    """
    members = groups.members.clamp_min(0)
    padding = (groups.members < 0).any()
    length = pieces.lengths()
    value, tangent = _lines(pieces, members, groups.members < 0 if padding else None)
    find = _exchanges if groups.sorts else _envelope
    row, offset = find(value, tangent, length)
    inside = (offset > MERGE) & (length[row] - offset > MERGE)
    kept, _, _ = insert_vertices(pieces, row[inside], offset[inside])
    length = pieces.lengths()
    size: Tensor = torch.linalg.vector_norm(pieces.value, dim=1)
    value, tangent = _lines(pieces, members, groups.members < 0 if padding else None)
    middle = value + length[:, None, None] / 2 * tangent
    # Equal lines stay in one order: rounding must not make them change places.
    if groups.sorts:
        place = middle.argsort(dim=2, stable=True)
        changed = (place[1:] != place[:-1]).any(dim=2)
    else:
        place = middle.argmax(dim=2, keepdim=True)
        won, lost = place[1:], place[:-1]
        lead = (middle[1:].gather(2, won) - middle[1:].gather(2, lost))[..., 0]
        changed = (won != lost)[..., 0] & (lead > 1e-13 * size[1:, None])
    changed[(pieces.left[1:] == 0).nonzero().flatten()] = False
    vertex, unit = marked(changed)
    vertex = vertex + 1
    flat = (len(pieces.left), -1)
    if groups.sorts:
        out = torch.zeros_like(pieces.value)
        turn = torch.zeros_like(pieces.tangent)
        where = members.flatten().expand(len(out), -1)
        pieces.value = out.scatter_(1, where, value.gather(2, place).view(flat))
        pieces.tangent = turn.scatter_(1, where, tangent.gather(2, place).view(flat))
    else:
        pieces.value, pieces.tangent = value.gather(2, place).view(flat), tangent.gather(2, place).view(flat)
    if pieces.stepped is not None:
        own = is_own(pieces, length, size, vertex, members[unit, 0] if groups.sorts else unit)
        vertex, unit = vertex[own], unit[own]
    return kept, vertex, unit


def _lines(pieces: Pieces, members: Tensor, absent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values and tangents of the members: (pieces, groups, k); padding lies far below and moves with nothing."""
    value, tangent = pieces.value[:, members], pieces.tangent[:, members]
    if absent is not None:
        value, tangent = value.masked_fill(absent, -1e300), tangent.masked_fill(absent, 0.0)
    return value, tangent


def _envelope(value: Tensor, tangent: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """(piece, offset) of every vertex of every group's upper envelope."""
    end = value + length[:, None, None] * tangent
    first, last = value.argmax(dim=2), end.argmax(dim=2)
    row, group = (first != last).nonzero(as_tuple=True)
    value, tangent, winner = value[row, group], tangent[row, group], first[row, group]
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


def _exchanges(value: Tensor, tangent: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """(piece, offset) wherever two members of a group meet."""
    one, other = torch.triu_indices(value.shape[2], value.shape[2], offset=1, device=value.device)
    gap, speed = value[..., one] - value[..., other], tangent[..., one] - tangent[..., other]
    row, group, pair = (gap * (gap + length[:, None, None] * speed) < 0).nonzero(as_tuple=True)
    return row, -gap[row, group, pair] / speed[row, group, pair]
