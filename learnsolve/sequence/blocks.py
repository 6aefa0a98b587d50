"""Blocks of queries with the keys near them, and tokens put side by side by what they belong to."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def blocks(
    q: Tensor, k: Tensor, v: Tensor, behind: int, ahead: int = 0, owner: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut queries into blocks, each with all keys that its queries may see.

    Parameters
    ----------
    q : (B, T, H, K) Tensor
    k, v : (B, S + T, H, ...) Tensor
        The last T stand where the queries do.
    behind, ahead : int
        How many tokens before and after itself a query sees.
    owner : (T,) int Tensor, optional
        Not negative; a query sees keys of its own owner alone. S is zero then.

    Returns
    -------
    q : (B, blocks, block, H, K) Tensor
    k, v : (B, blocks, block + behind + ahead, H, ...) Tensor
    seen : (blocks, block, block + behind + ahead) bool Tensor
        Queries that pad the last block see what pads its keys.

    Examples
    --------
    >>> x = torch.arange(4.0).reshape(1, 4, 1, 1)
    >>> _, k, _, seen = blocks(x, x, x, behind=1)
    >>> k.flatten().tolist()
    [0.0, 0.0, 1.0, 1.0, 2.0, 3.0]
    >>> seen.int().tolist()
    [[[0, 1, 0], [0, 1, 1]], [[1, 1, 0], [0, 1, 1]]]
    """
    length, before = q.shape[1], k.shape[1] - q.shape[1]
    size = max(behind, ahead) + 1
    count = math.ceil(length / size)
    wide = size + behind + ahead
    # Keys begin so far before the queries, padded by what nobody sees.
    missing, rest = max(0, behind - before), count * size - length
    q = pad(q, (0, 0, 0, 0, 0, rest)).unflatten(1, (count, size))
    k, v = (
        pad(one[:, max(0, before - behind) :], (0, 0, 0, 0, missing, rest + ahead))
        .unfold(1, wide, size)
        .movedim(-1, 2)
        for one in (k, v)
    )
    places = torch.arange(wide, device=q.device)
    away = places[behind : behind + size, None] - places
    begins = size * torch.arange(count, device=q.device)[:, None, None]
    # Of each key its place among the queries; those that pad a block see one another.
    place = begins - behind + places
    there = (place >= -min(before, behind)) & (place < length)
    beyond = begins + torch.arange(size, device=q.device)[:, None] >= length
    seen = (away <= behind) & (away >= -ahead) & (there | (beyond & (place >= length)))
    if owner is not None:
        whose = pad(owner, (behind, rest + ahead), value=-1).unfold(0, wide, size)
        seen = seen & (whose[:, behind : behind + size, None] == whose[:, None])
    return q, k, v, seen


def side_by_side(
    owner: Tensor, count: int, room: int, new: list[Tensor], kept: list[Tensor] | None, had: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Rows of each owner after those that it remembers.

    Parameters
    ----------
    owner : (n,) int64 Tensor
        Rising.
    count, room : int
        Of owners, and of the rows that each may remember.
    new : list of (n, ...) Tensor
    kept : list of (count, room, ...) Tensor, or None
        The latest last; of those in ``new`` the last ones, the first ones having none.
    had : (count,) int64 Tensor
        How many rows each owner had so far; it remembers at most ``room`` of them.

    Returns
    -------
    bounds : (count + 1,) int64 Tensor
        Where the rows of each owner begin and end.
    place : (n,) int64 Tensor
        Of each new row.
    streams : list of (rows, ...) Tensor

    Examples
    --------
    >>> owner, kept = torch.tensor([0, 1, 1]), [torch.tensor([[0.0, 7.0], [8.0, 9.0]])]
    >>> new, had = [torch.tensor([1.0, 2.0, 3.0])], torch.tensor([1, 5])
    >>> bounds, place, streams = side_by_side(owner, 2, 2, new, kept, had)
    >>> bounds.tolist(), place.tolist(), streams[0].tolist()
    ([0, 2, 6], [1, 4, 5], [7.0, 1.0, 8.0, 9.0, 2.0, 3.0])
    """
    device = owner.device
    sizes = torch.bincount(owner, minlength=count)
    rank = torch.arange(len(owner), device=device) - (sizes.cumsum(0) - sizes)[owner]
    old = torch.clamp(had, max=room)
    bounds = pad((old + sizes).cumsum(0), (1, 0))
    begins = bounds[:-1] + old
    place = begins[owner] + rank
    back = torch.arange(room, device=device) - room
    there = back >= -old[:, None]
    streams = []
    without = len(new) - (0 if kept is None else len(kept))
    for number, rows in enumerate(new):
        whole = rows.new_zeros(int(bounds[-1]), *rows.shape[1:]).index_copy(0, place, rows)
        if kept is not None and number >= without:
            whole = whole.index_copy(0, (begins[:, None] + back)[there], kept[number - without][there])
        streams.append(whole)
    return bounds, place, streams


def remembered(stream: Tensor, bounds: Tensor, room: int) -> Tensor:
    """The last rows of each owner, (owners, room, ...), with zeros before the first one.

    Examples
    --------
    >>> remembered(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 4]), 2).tolist()
    [[0.0, 1.0], [3.0, 4.0]]
    """
    last = bounds[1:, None] + torch.arange(-room, 0, device=bounds.device)
    held = (last >= bounds[:-1, None]).reshape(*last.shape, *[1] * (stream.ndim - 1))
    # A row more, so that there is one to point at.
    rows = torch.cat([stream, stream.new_zeros(1, *stream.shape[1:])])[last.clamp(min=0)]
    return torch.where(held, rows, 0.0)
