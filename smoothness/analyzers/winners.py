"""k winners on pieces: where a feature enters or leaves the k largest ones, and its output jumps."""

from __future__ import annotations

import torch
from torch import Tensor

from smoothness.analyzers.envelopes import Groups
from smoothness.analyzers.segment_pieces import CONTINUOUS, MERGE, Pieces, insert_vertices, marked

# Features of a group nearer than this share of its size are equal: all of them stay.
_EQUAL = 8 * torch.finfo(torch.float64).eps
_HELD_NUMBERS = 2**22


def keep_largest(pieces: Pieces, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the pieces where the set of the k largest members of a group changes, then set the others to 0.

    Returns as `activate`: the new index of each old piece, and (vertex, unit) pairs: who enters and who leaves. At the
    vertex of a step further up, where members jump, a change follows from it and is not listed.
    """
    shape = (-1, len(groups.members), groups.members.shape[1])
    length = pieces.lengths()
    row, offset = _exchanges(pieces.value.view(shape), pieces.tangent.view(shape), length, groups.keep)
    inside = (offset > MERGE) & (length[row] - offset > MERGE)
    kept, _, _ = insert_vertices(pieces, row[inside], offset[inside])
    length = pieces.lengths()
    middle = torch.addcmul(pieces.value, length[:, None] / 2, pieces.tangent).view(shape)
    size = torch.linalg.vector_norm(middle, dim=2, keepdim=True)
    least = middle.topk(groups.keep, dim=2).values[..., -1:]
    wins = (middle >= least - _EQUAL * size).flatten(1)
    live = (middle != 0).flatten(1)
    # A feature that is 0 on both sides may count as a winner or not.
    changed = (wins[1:] != wins[:-1]) & (live[1:] | live[:-1])
    changed[(pieces.left[1:] == 0).nonzero().flatten()] = False
    vertex, unit = marked(changed)
    vertex = vertex + 1
    stepped = torch.zeros_like(pieces.left, dtype=torch.bool) if pieces.stepped is None else pieces.stepped.clone()
    stepped[vertex] = True
    if pieces.stepped is not None:
        limit = pieces.value[vertex - 1] + length[vertex - 1, None] * pieces.tangent[vertex - 1]
        moved = (pieces.value[vertex] - limit).abs().view(len(vertex), *shape[1:]).amax(dim=2)
        group = unit // groups.members.shape[1]
        each = torch.arange(len(vertex), device=unit.device)
        own = ~pieces.stepped[vertex] | (moved[each, group] <= CONTINUOUS * size[vertex, group, 0])
        vertex, unit = vertex[own], unit[own]
    pieces.stepped = stepped
    pieces.value, pieces.tangent = pieces.value * wins, pieces.tangent * wins
    return kept, vertex, unit


def _exchanges(value: Tensor, tangent: Tensor, length: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """(piece, offset) wherever a winner and a loser meet.

    A winner at both ends, against losers at both ends, wins in between, for lines meet once.
    """
    winners = _marks(value, keep)
    differ = (winners != _marks(value + length[:, None, None] * tangent, keep)).any(dim=2)
    row, group = differ.nonzero(as_tuple=True)
    rows, offsets = [row[:0]], [length[:0]]
    for some in torch.split(torch.arange(len(row), device=row.device), max(1, _HELD_NUMBERS // value.shape[2] ** 2)):
        r, g = row[some], group[some]
        z, speed, inside = value[r, g], tangent[r, g], winners[r, g]
        now = torch.zeros_like(length[r])
        while len(r):
            gain = torch.where(inside[:, :, None] & ~inside[:, None], speed[:, None] - speed[:, :, None], 0.0)
            wait = torch.where(gain > 0, (z[:, :, None] - z[:, None]) / gain, torch.inf)
            first, pair = wait.flatten(1).min(dim=1)
            now = torch.maximum(now, first)  # rounding does not turn time back
            on = now < length[r]
            r, z, speed, inside, now, pair = r[on], z[on], speed[on], inside[on], now[on], pair[on]
            each = torch.arange(len(r), device=r.device)
            inside[each, pair // z.shape[1]], inside[each, pair % z.shape[1]] = False, True
            rows.append(r)
            offsets.append(now)
    return torch.cat(rows), torch.cat(offsets)


def _marks(values: Tensor, keep: int) -> Tensor:
    """(..., n) exactly `keep` of the largest."""
    places = values.topk(keep, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, places, True)
