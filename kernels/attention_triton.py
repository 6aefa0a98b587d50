"""Attention with a state on the GPU, in Triton, step by step: a program keeps a part of a state's columns.

For any decay of the logarithm's: none, one, or one for each channel of the keys. What is a sum over all
columns goes to a buffer that has a slice for each part, and is added up afterwards. Shapes are those of
`learnsolve.kernels.attention`; what is computed is in double precision where ``q`` is, else in single.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.memory import real, room

# Numbers of a state that a warp keeps.
TILE = 1024


@triton.jit
def number(x, REAL: tl.constexpr):
    """A number given to a launch, in the precision that is computed in."""
    return tl.sum(tl.zeros((1,), REAL) + x, axis=0).to(REAL)


@triton.jit
def _job(pieces, heads, V, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Block of columns, state, head, batch, first time, and last time and one; the state's rows, columns."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(V, COLUMNS)
    block, h, piece = job % blocks, job // blocks % heads, job // blocks // heads
    n, begin = tl.load(pieces + 3 * piece), tl.load(pieces + 3 * piece + 1)
    end = tl.load(pieces + 3 * piece + 2)
    i, j = tl.arange(0, ROWS), block * COLUMNS + tl.arange(0, COLUMNS)
    return block, piece * heads + h, h, n, begin, end, i, j


@triton.jit
def _row(x, place, width, i, REAL: tl.constexpr):
    """A vector of a token."""
    return tl.load(x + place * width + i, mask=i < width, other=0).to(REAL)


@triton.jit
def _decay(g, place, K, i, REAL: tl.constexpr, DECAY: tl.constexpr):
    """What a token multiplies the state's rows with; of none and of one for all a vector of one."""
    if DECAY == 2:
        return tl.exp(_row(g, place, K, i, REAL))
    elif DECAY == 1:
        return tl.exp(tl.load(g + place + tl.arange(0, 1)).to(REAL))
    else:
        return tl.full((1,), 1, REAL)


@triton.jit
def _state(first, owner, K, V, i, j, REAL: tl.constexpr):
    """Where a state lies, which of it is there, and a block of its columns."""
    place = (owner * K + i[:, None]) * V + j[None, :]
    inside = (i < K)[:, None] & (j < V)[None, :]
    return place, inside, tl.load(first + place, mask=inside, other=0).to(REAL)


@triton.jit
def attend_kernel(
    q, k, v, g, first, pieces, o, last, scale: tl.float64, length, heads, K, V,
    REAL: tl.constexpr, DECAY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``S = e^g S + k v'``, ``o = scale S' q``."""
    _, owner, h, n, t, end, i, j = _job(pieces, heads, V, ROWS, COLUMNS)
    states, inside, S = _state(first, owner, K, V, i, j, REAL)
    factor = number(scale, REAL)
    while t < end:
        p = (n * length + t) * heads + h
        x, y, w = _row(k, p, K, i, REAL), _row(q, p, K, i, REAL), _row(v, p, V, j, REAL)
        S = _decay(g, p, K, i, REAL, DECAY)[:, None] * S + x[:, None] * w[None, :]
        tl.store(o + p * V + j, factor * tl.sum(S * y[:, None], axis=0), mask=j < V)
        t += 1
    tl.store(last + states, S, mask=inside)


@triton.jit
def attend_adjoint_kernel(
    q, k, v, g, first, pieces, do, last, dlast, dq, dk, dv, dg, dfirst, scale: tl.float64,
    length, heads, K, V, tokens,
    REAL: tl.constexpr, DECAY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients; of ``dq``, ``dk`` and ``dg`` each block of columns has its own share.

    Each channel's decay has the gradient of what stands before it less of what stands after: the sum from the
    end on of ``q dq - k dk``.
    """
    block, owner, h, n, begin, end, i, j = _job(pieces, heads, V, ROWS, COLUMNS)
    states, inside, S = _state(first, owner, K, V, i, j, REAL)
    factor, share = number(scale, REAL), block * tokens
    t = begin
    while t < end:
        p = (n * length + t) * heads + h
        x, w, y = _row(k, p, K, i, REAL), _row(v, p, V, j, REAL), _row(do, p, V, j, REAL)
        S = _decay(g, p, K, i, REAL, DECAY)[:, None] * S + x[:, None] * w[None, :]
        tl.store(dq + (share + p) * K + i, factor * tl.sum(S * y[None, :], axis=1), mask=i < K)
        t += 1
    # The gradient by q is read by other threads than wrote it.
    tl.debug_barrier()
    states, inside, S = _state(dlast, owner, K, V, i, j, REAL)
    _, _, final = _state(last, owner, K, V, i, j, REAL)
    later = tl.sum(S * final, axis=1)
    while t > begin:
        t -= 1
        p = (n * length + t) * heads + h
        x, y = _row(k, p, K, i, REAL), _row(q, p, K, i, REAL)
        S += factor * y[:, None] * _row(do, p, V, j, REAL)[None, :]
        sums = tl.sum(S * _row(v, p, V, j, REAL)[None, :], axis=1)
        tl.store(dv + p * V + j, tl.sum(S * x[:, None], axis=0), mask=j < V)
        tl.store(dk + (share + p) * K + i, sums, mask=i < K)
        S *= _decay(g, p, K, i, REAL, DECAY)[:, None]
        if DECAY:
            later += y * _row(dq, share + p, K, i, REAL) - x * sums
        if DECAY == 2:
            tl.store(dg + (share + p) * K + i, later, mask=i < K)
        if DECAY == 1:
            tl.store(dg + share + p, tl.sum(later, axis=0))
    tl.store(dfirst + states, S, mask=inside)


@triton.jit
def substitute_kernel(
    w, k, b, g, pieces, u, length, heads, K, V,
    REAL: tl.constexpr, DECAY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on."""
    _, _, h, n, t, end, i, j = _job(pieces, heads, V, ROWS, COLUMNS)
    S = tl.zeros((ROWS, COLUMNS), REAL)
    while t < end:
        p = (n * length + t) * heads + h
        x, y, z = _row(k, p, K, i, REAL), _row(w, p, K, i, REAL), _row(b, p, V, j, REAL)
        S *= _decay(g, p, K, i, REAL, DECAY)[:, None]
        z -= tl.sum(S * y[:, None], axis=0)
        S += x[:, None] * z[None, :]
        tl.store(u + p * V + j, z, mask=j < V)
        t += 1


@triton.jit
def delta_kernel(
    q, k, v, beta, g, first, pieces, u, o, last, scale: tl.float64, length, heads, K, V,
    REAL: tl.constexpr, DECAY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``."""
    _, owner, h, n, t, end, i, j = _job(pieces, heads, V, ROWS, COLUMNS)
    states, inside, S = _state(first, owner, K, V, i, j, REAL)
    factor = number(scale, REAL)
    while t < end:
        p = (n * length + t) * heads + h
        x, y, w = _row(k, p, K, i, REAL), _row(q, p, K, i, REAL), _row(v, p, V, j, REAL)
        S *= _decay(g, p, K, i, REAL, DECAY)[:, None]
        w = tl.load(beta + p).to(REAL) * (w - tl.sum(S * x[:, None], axis=0))
        S += x[:, None] * w[None, :]
        tl.store(u + p * V + j, w, mask=j < V)
        tl.store(o + p * V + j, factor * tl.sum(S * y[:, None], axis=0), mask=j < V)
        t += 1
    tl.store(last + states, S, mask=inside)


@triton.jit
def delta_adjoint_kernel(
    q, k, v, beta, g, first, pieces, u, o, do, last, dlast, dq, dk, dv, dbeta, dg, dfirst, received,
    scale: tl.float64, length, heads, K, V, tokens,
    REAL: tl.constexpr, DECAY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients; each block of columns has its own share of all but ``dv``. One decay or none.

    The decay's gradient is a sum from the end on, of ``o do - beta v du``; ``received`` keeps ``du``.
    """
    block, owner, h, n, begin, end, i, j = _job(pieces, heads, V, ROWS, COLUMNS)
    states, inside, S = _state(dlast, owner, K, V, i, j, REAL)
    _, _, final = _state(last, owner, K, V, i, j, REAL)
    factor, share = number(scale, REAL), block * tokens
    later = tl.sum(S * final)
    t = end
    while t > begin:
        t -= 1
        p = (n * length + t) * heads + h
        x, y, w = _row(k, p, K, i, REAL), _row(q, p, K, i, REAL), _row(do, p, V, j, REAL)
        S += factor * y[:, None] * w[None, :]
        du, b = tl.sum(S * x[:, None], axis=0), tl.load(beta + p).to(REAL)
        tl.store(dk + (share + p) * K + i, tl.sum(S * _row(u, p, V, j, REAL)[None, :], axis=1), mask=i < K)
        tl.store(received + p * V + j, du, mask=j < V)
        S = _decay(g, p, K, i, REAL, DECAY)[:, None] * (S - b * x[:, None] * du[None, :])
        if DECAY:
            later += tl.sum(w * _row(o, p, V, j, REAL) - b * _row(v, p, V, j, REAL) * du)
            tl.store(dg + share + p, later)
    tl.store(dfirst + states, S, mask=inside)
    # What the first pass stored is read by other threads than wrote it.
    tl.debug_barrier()
    states, inside, S = _state(first, owner, K, V, i, j, REAL)
    while t < end:
        p = (n * length + t) * heads + h
        x, b, du = _row(k, p, K, i, REAL), tl.load(beta + p).to(REAL), _row(received, p, V, j, REAL)
        S *= _decay(g, p, K, i, REAL, DECAY)[:, None]
        before = tl.sum(S * du[None, :], axis=1)
        S += x[:, None] * _row(u, p, V, j, REAL)[None, :]
        sums = factor * tl.sum(S * _row(do, p, V, j, REAL)[None, :], axis=1)
        place = (share + p) * K + i
        tl.store(dq + place, sums, mask=i < K)
        tl.store(dk + place, _row(dk, share + p, K, i, REAL) - b * before, mask=i < K)
        tl.store(dv + p * V + j, b * du, mask=j < V)
        slope = tl.sum(du * _row(v, p, V, j, REAL)) - tl.sum(x * before)
        tl.store(dbeta + share + p, slope)
        t += 1


def attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, first: Tensor, pieces: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``S = e^g S + k v'``, ``o = scale S' q``, and the last states.

    Examples
    --------
    >>> attend(q, k, v, None, first, pieces, 1.0)  # doctest: +SKIP
    """
    o, last = room(v), room(first)
    _launch(attend_kernel, (q, k, v), g, (first, pieces), (o, last), scale)
    return o, last


def attend_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    do: Tensor,
    last: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of `attend` by ``q``, ``k``, ``v``, ``g`` and ``first``.

    Examples
    --------
    >>> attend_adjoint(q, k, v, None, first, pieces, 1.0, do, last, dlast)  # doctest: +SKIP
    """
    dq, dk, dg = (_shares(one, k, v) for one in (q, k, q[..., :0] if g is None else g))
    dv, dfirst = room(v), room(first)
    more, out = (first, pieces, do, last, dlast), (dq, dk, dv, dg, dfirst)
    _launch(attend_adjoint_kernel, (q, k, v), g, more, out, scale)
    return _sum(dq, q), _sum(dk, k), dv, None if g is None else _sum(dg, g), dfirst


def substitute(w: Tensor, k: Tensor, b: Tensor, g: Tensor | None, pieces: Tensor) -> Tensor:
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on: u.

    Examples
    --------
    >>> substitute(w, k, b, None, pieces)  # doctest: +SKIP
    """
    u = room(b)
    _launch(substitute_kernel, (w, k, b), g, (pieces,), (u,))
    return u


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``: o, last states and u.

    Raises
    ------
    ValueError
        A decay for each channel.

    Examples
    --------
    >>> delta(q, k, v, beta, None, first, pieces, 1.0)  # doctest: +SKIP
    """
    if g is not None and g.shape[3] > 1:
        raise ValueError(f"the decay has shape {tuple(g.shape)}; one of each head is accepted")
    u, o, last = torch.empty(v.shape, dtype=real(q), device=q.device), room(v), room(first)
    _launch(delta_kernel, (q, k, v, beta), g, (first, pieces), (u, o, last), scale)
    return o, last, u


def delta_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    u: Tensor,
    o: Tensor,
    do: Tensor,
    last: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of `delta` by ``q``, ``k``, ``v``, ``beta``, ``g`` and ``first``; one decay or none.

    Raises
    ------
    ValueError
        A decay for each channel.

    Examples
    --------
    >>> delta_adjoint(q, k, v, beta, None, first, pieces, 1.0, u, o, do, last, dlast)  # doctest: +SKIP
    """
    if g is not None and g.shape[3] > 1:
        raise ValueError(f"the decay has shape {tuple(g.shape)}; one of each head is accepted")
    dq, dk, dbeta, dg = (_shares(one, k, v) for one in (q, k, beta, beta[..., :0] if g is None else g))
    dv, dfirst, received = room(v), room(first), room(u)
    out = dq, dk, dv, dbeta, dg, dfirst, received
    _launch(delta_adjoint_kernel, (q, k, v, beta), g, (first, pieces, u, o, do, last, dlast), out, scale)
    decay = None if g is None else _sum(dg, g)
    return _sum(dq, q), _sum(dk, k), dv, _sum(dbeta, beta), decay, dfirst


def tile(K: int, V: int) -> dict[str, int]:
    """Rows and columns of a state that a program keeps.

    Examples
    --------
    >>> tile(40, 64)
    {'ROWS': 64, 'COLUMNS': 16}
    """
    rows = triton.next_power_of_2(K)
    return {"ROWS": rows, "COLUMNS": max(1, min(triton.next_power_of_2(V), TILE // rows))}


def warps(K: int) -> int:
    """Warps of a program.

    Examples
    --------
    >>> warps(2000)
    2
    """
    return max(1, triton.next_power_of_2(K) // TILE)


def _shares(x: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Room for each block's share of a sum over columns."""
    blocks = triton.cdiv(v.shape[3], tile(k.shape[3], v.shape[3])["COLUMNS"])
    return torch.empty((blocks, *x.shape), dtype=real(x), device=x.device)


def _sum(shares: Tensor, like: Tensor) -> Tensor:
    return shares.sum(0).to(like.dtype)


def _launch(
    kernel: Any, given: tuple[Tensor, ...], g: Tensor | None, more: tuple[Tensor, ...], out: tuple[Any, ...],
    *numbers: float,
) -> None:  # fmt: skip
    """A program for each block of columns of each sequence and head; keys are second, and values third."""
    k, v = given[1], given[2]
    batch, length, heads, K = k.shape
    V, pieces = v.shape[3], more[0] if len(more) == 1 else more[1]
    shape = tile(K, V)
    jobs = len(pieces) * heads * triton.cdiv(V, shape["COLUMNS"])
    if not jobs:
        return
    decay = 0 if g is None else 1 if g.shape[3] == 1 else 2
    tensors = (one.detach().to(k.device).contiguous() for one in (*given, k if g is None else g, *more))
    shares = {"tokens": batch * length * heads} if "tokens" in kernel.arg_names else {}
    with on_device(k):
        kernel[(jobs,)](
            *tensors, *out, *numbers, length, heads, K, V, **shares,
            REAL=tl.float64 if real(given[0]) == torch.float64 else tl.float32, DECAY=decay,
            **shape, num_warps=warps(K),
        )  # fmt: skip
