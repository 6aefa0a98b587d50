"""Gradients of attention with a state on the GPU, in Triton, by chunks of time.

The adjoint of a state runs from the end, in a loop that is as long as there are chunks; all else is of each
chunk by itself, from the state where it begins and the adjoint where it ends. States are computed anew.
"""

import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.attention_triton import number
from learnsolve.kernels.chunked_triton import (
    Chunks,
    between,
    block,
    columns,
    dot,
    inverse,
    onwards,
    product,
    throughout,
    tile,
    tokens,
    until,
)
from learnsolve.kernels.memory import room


@triton.jit
def prepare_adjoint_kernel(
    q, k, beta, g, chunks, do, w, y, scale: tl.float64, length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Of a chunk, what ``beta v`` receives without later ones, and what an adjoint times ``w`` adds."""
    index, h = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0).to(tl.int64) % heads
    rows, inside, followed = tokens(chunks, index, length, heads, h, C)
    c = tl.arange(0, C)
    b = tl.load(beta + rows, mask=inside, other=0).to(REAL)
    # Both are transposed from the start: rows are the earlier tokens.
    L, A = tl.zeros((C, C), REAL), tl.zeros((C, C), REAL)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        x = tile(k, rows, inside, i, K, REAL)
        L += dot(x, columns(k, rows, inside, i, K, REAL), PRECISION)
        A += dot(x, columns(q, rows, inside, i, K, REAL), PRECISION)
    D = between(g, rows, inside, C, True, REAL, DECAY)
    A *= D * number(scale, REAL)
    T = inverse(tl.where(c[:, None] < c[None, :], L * D * b[None, :], 0), C, True)
    for low in range(0, VP, BV):
        j = low + tl.arange(0, BV)
        found = dot(T, dot(A, tile(do, rows, inside, j, V, REAL), PRECISION), EXACT)
        tl.store(y + rows[:, None] * V + j[None, :], found, mask=inside[:, None] & (j < V)[None, :])
    decay = onwards(g, rows, followed, heads, REAL, DECAY)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        found = dot(T, decay[:, None] * tile(k, rows, inside, i, K, REAL), EXACT)
        tl.store(w + rows[:, None] * K + i[None, :], found, mask=inside[:, None] & (i < K)[None, :])


@triton.jit
def adjoints_kernel(
    q, k, w, own, beta, g, do, dlast, pieces, bounds, adjoints, y, dfirst, scale: tl.float64,
    length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr,
    SOLVE: tl.constexpr, REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adjoints where chunks end, and the first state's; with ``SOLVE`` ``y``, what ``beta v`` receives."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(V, BV)
    h, piece = job // blocks % heads, job // blocks // heads
    n, begin = tl.load(pieces + 3 * piece), tl.load(pieces + 3 * piece + 1)
    end, index = tl.load(pieces + 3 * piece + 2), tl.load(bounds + piece + 1)
    c, i, j = tl.arange(0, C), tl.arange(0, KP), job % blocks * BV + tl.arange(0, BV)
    inner, some = i[:, None] * V + j[None, :], (i < K)[:, None] & (j < V)[None, :]
    R = block(dlast, piece * heads + h, i, j, K, V).to(REAL)
    t = begin + tl.cdiv(end - begin, C) * C
    while t > begin:
        t -= C
        index -= 1
        rows, inside = (n * length + t + c) * heads + h, t + c < end
        tl.store(adjoints + (index * heads + h) * K * V + inner, R, mask=some)
        decay = until(g, rows, inside, REAL, DECAY)
        new = R * throughout(g, rows, inside, REAL, DECAY)
        if SOLVE:
            state = index * heads + h
            received = product(w, rows, inside, R, adjoints, state, j, K, V, C, BK, BV, KP, REAL, PRECISION)
            received += tile(own, rows, inside, j, V, REAL)
            tl.store(y + rows[:, None] * V + j[None, :], received, mask=inside[:, None] & (j < V)[None, :])
            x = tl.load(beta + rows, mask=inside, other=0).to(REAL) * decay
            new -= dot(columns(k, rows, inside, i, K, REAL) * x[None, :], received, PRECISION)
        x = columns(q, rows, inside, i, K, REAL) * (decay * number(scale, REAL))[None, :]
        new += dot(x, tile(do, rows, inside, j, V, REAL), PRECISION)
        R = new
    tl.store(dfirst + (piece * heads + h) * K * V + inner, R, mask=some)


@triton.jit
def values_kernel(
    q, k, g, do, adjoints, chunks, dv, scale: tl.float64, length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dv`` of a chunk: from the adjoint where it ends, and from the chunk itself."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(V, BV)
    h, index = job // blocks % heads, job // blocks // heads
    rows, inside, followed = tokens(chunks, index, length, heads, h, C)
    j = job % blocks * BV + tl.arange(0, BV)
    A, out = tl.zeros((C, C), REAL), tl.zeros((C, BV), REAL)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        x = tile(k, rows, inside, i, K, REAL)
        A += dot(x, columns(q, rows, inside, i, K, REAL), PRECISION)
        out += dot(x, block(adjoints, index * heads + h, i, j, K, V), PRECISION)
    A *= between(g, rows, inside, C, True, REAL, DECAY) * number(scale, REAL)
    out *= onwards(g, rows, followed, heads, REAL, DECAY)[:, None]
    out += dot(A, tile(do, rows, inside, j, V, REAL), PRECISION)
    tl.store(dv + rows[:, None] * V + j[None, :], out, mask=inside[:, None] & (j < V)[None, :])


@triton.jit
def transposed(x, state, i, j, K, V):
    """A part of a state, (V, K)."""
    place = (state * K + i[None, :]) * V + j[:, None]
    return tl.load(x + place, mask=(i < K)[None, :] & (j < V)[:, None], other=0)


@triton.jit
def keys_kernel(
    q, k, u, g, do, states, adjoints, chunks, dq, dk, dg, scale: tl.float64, length, heads, K, V, shares,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, VP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of columns of ``dq`` and ``dk`` of a chunk, and its share of ``dg``.

    A decay has the gradient of what queries read less of what keys write, from it on, and of the state at the
    chunk's end.
    """
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(K, BK)
    part, h, index = job % blocks, job // blocks % heads, job // blocks // heads
    rows, inside, followed = tokens(chunks, index, length, heads, h, C)
    i = part * BK + tl.arange(0, BK)
    # Of pairs of tokens, rows the later ones, and then the earlier ones.
    P, P_up = tl.zeros((C, C), REAL), tl.zeros((C, C), REAL)
    read, written, kept = tl.zeros((C, BK), REAL), tl.zeros((C, BK), REAL), tl.zeros((BK,), REAL)
    for low in range(0, VP, BV):
        j = low + tl.arange(0, BV)
        a, x = tile(do, rows, inside, j, V, REAL), tile(u, rows, inside, j, V, REAL)
        S = transposed(states, index * heads + h, i, j, K, V)
        R = transposed(adjoints, index * heads + h, i, j, K, V)
        kept += tl.sum(S * R, axis=0)
        read += dot(a, S, PRECISION)
        P += dot(a, columns(u, rows, inside, j, V, REAL), PRECISION)
        written += dot(x, R, PRECISION)
        P_up += dot(x, columns(do, rows, inside, j, V, REAL), PRECISION)
    factor = number(scale, REAL)
    P *= factor * between(g, rows, inside, C, False, REAL, DECAY)
    P_up *= factor * between(g, rows, inside, C, True, REAL, DECAY)
    read *= factor * until(g, rows, inside, REAL, DECAY)[:, None]
    written *= onwards(g, rows, followed, heads, REAL, DECAY)[:, None]
    x, y = tile(k, rows, inside, i, K, REAL), tile(q, rows, inside, i, K, REAL)
    total = throughout(g, rows, inside, REAL, DECAY) * tl.sum(kept, axis=0) + tl.sum(x * written)
    read += dot(P, x, PRECISION)
    written += dot(P_up, y, PRECISION)
    if DECAY:
        change = tl.cumsum(tl.sum(y * read - x * written, axis=1), axis=0, reverse=True) + total
        tl.store(dg + part * shares + rows, change, mask=inside)
    stored, place = inside[:, None] & (i < K)[None, :], rows[:, None] * K + i[None, :]
    tl.store(dq + place, read, mask=stored)
    tl.store(dk + place, written, mask=stored)


@triton.jit
def corrections_kernel(
    k, v, beta, g, u, y, states, chunks, dk, dbeta, dg, length, heads, K, V, shares,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, VP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add to ``dk`` of `keys_kernel` what is by the keys that read the state; shares of ``dbeta`` and ``dg``.

    Here ``y`` is what ``beta (v - S' k)`` receives.
    """
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(K, BK)
    part, h, index = job % blocks, job // blocks % heads, job // blocks // heads
    rows, inside, _ = tokens(chunks, index, length, heads, h, C)
    c, i = tl.arange(0, C), part * BK + tl.arange(0, BK)
    N, N_up = tl.zeros((C, C), REAL), tl.zeros((C, C), REAL)
    read, slope = tl.zeros((C, BK), REAL), tl.zeros((C,), REAL)
    for low in range(0, VP, BV):
        j = low + tl.arange(0, BV)
        a, x = tile(y, rows, inside, j, V, REAL), tile(u, rows, inside, j, V, REAL)
        N += dot(a, columns(u, rows, inside, j, V, REAL), PRECISION)
        N_up += dot(x, columns(y, rows, inside, j, V, REAL), PRECISION)
        read += dot(a, transposed(states, index * heads + h, i, j, K, V), PRECISION)
        slope += tl.sum(a * tile(v, rows, inside, j, V, REAL), axis=1)
    # No token meets itself.
    N *= tl.where(c[:, None] > c[None, :], between(g, rows, inside, C, False, REAL, DECAY), 0)
    N_up *= tl.where(c[:, None] < c[None, :], between(g, rows, inside, C, True, REAL, DECAY), 0)
    x, b = tile(k, rows, inside, i, K, REAL), tl.load(beta + rows, mask=inside, other=0).to(REAL)
    read = read * until(g, rows, inside, REAL, DECAY)[:, None] + dot(N, x, PRECISION)
    written = dot(N_up, b[:, None] * x, PRECISION)
    met = tl.sum(x * read, axis=1)
    tl.store(dbeta + part * shares + rows, tl.where(part == 0, slope, 0) - met, mask=inside)
    if DECAY:
        change = tl.cumsum(tl.sum(x * written, axis=1) - b * met, axis=0, reverse=True)
        tl.store(dg + part * shares + rows, change, mask=inside)
    stored, place = inside[:, None] & (i < K)[None, :], rows[:, None] * K + i[None, :]
    before = tl.load(dk + place, mask=stored, other=0)
    tl.store(dk + place, before - b[:, None] * read - written, mask=stored)


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
    """Gradients of `attend` by ``q``, ``k``, ``v``, ``g`` and ``first``; ``last`` is not used.

    Raises
    ------
    ValueError
        A decay for each channel.

    Examples
    --------
    >>> attend_adjoint(q, k, v, None, first, pieces, 1.0, do, last, dlast)  # doctest: +SKIP
    """
    run = Chunks(q, k, v, g, pieces)
    do, dv = do.detach().contiguous(), room(v)
    states = run.states(run.v, first, room(first))
    adjoints, dfirst = _adjoints(run, first, do, dlast, scale)
    given = run.q, run.k, run.g, do, adjoints, run.chunks, dv, scale
    run.launch(values_kernel, run.chunks_and_columns, *given, *run.sizes)
    dq, dk, dg = _keys(run, g, run.v, do, states, adjoints, scale)
    return dq, dk.to(k.dtype), dv, None if g is None else dg.sum(0).unsqueeze(-1).to(g.dtype), dfirst


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
    """Gradients of `delta` by ``q``, ``k``, ``v``, ``beta``, ``g``, ``first``; ``o``, ``last`` are not used.

    Raises
    ------
    ValueError
        A decay for each channel.

    Examples
    --------
    >>> delta_adjoint(q, k, v, beta, None, first, pieces, 1.0, u, o, do, last, dlast)  # doctest: +SKIP
    """
    run = Chunks(q, k, v, g, pieces)
    beta, u, do = (one.detach().contiguous() for one in (beta, u, do))
    states = run.states(u, first, room(first))
    w, own, y = run.empty(k.shape), run.empty(v.shape), run.empty(v.shape)
    given = run.q, run.k, beta, run.g, run.chunks, do, w, own, scale
    run.launch(prepare_adjoint_kernel, run.chunks_and_heads, *given, *run.sizes)
    adjoints, dfirst = _adjoints(run, first, do, dlast, scale, (w, own, beta, y))
    dq, dk, dg = _keys(run, g, u, do, states, adjoints, scale)
    blocks = triton.cdiv(run.sizes[2], run.constants["BK"])
    dbeta, more = run.empty((blocks, *beta.shape)), room(dg)
    corrected = run.k, run.v, beta, run.g, u, y, states, run.chunks, dk, dbeta, more
    run.launch(corrections_kernel, run.chunks_and_heads * blocks, *corrected, *run.sizes, beta.numel())
    decay = None if g is None else (dg.sum(0) + more.sum(0)).unsqueeze(-1).to(g.dtype)
    dv = (beta.unsqueeze(-1) * y).to(v.dtype)
    return dq, dk.to(k.dtype), dv, dbeta.sum(0).to(beta.dtype), decay, dfirst


def _adjoints(
    run: Chunks, first: Tensor, do: Tensor, dlast: Tensor, scale: float, solve: tuple[Tensor, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Adjoints where chunks end, and the first state's; ``solve`` is ``w``, ``own``, ``beta`` and ``y``."""
    _, heads, K, V = run.sizes
    found, dfirst = run.empty((len(run.chunks), heads, K, V)), room(first)
    w, own, beta, y = solve or (run.k, run.v, run.q, do)
    given = run.q, run.k, w, own, beta, run.g, do, dlast.detach().contiguous(), run.pieces, run.bounds
    out = found, y, dfirst, scale, *run.sizes
    run.launch(adjoints_kernel, run.pieces_and_columns, *given, *out, SOLVE=bool(solve))
    return found, dfirst


def _keys(
    run: Chunks, g: Tensor | None, u: Tensor, do: Tensor, states: Tensor, adjoints: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``dq``, ``dk`` in the precision that is computed in, and shares of ``dg``."""
    blocks = triton.cdiv(run.sizes[2], run.constants["BK"])
    dq, dk = room(run.q), run.empty(run.k.shape)
    dg = run.empty((0 if g is None else blocks, *run.k.shape[:3]))
    given = run.q, run.k, u, run.g, do, states, adjoints, run.chunks
    out = dq, dk, dg, scale, *run.sizes, run.k.shape[:3].numel()
    run.launch(keys_kernel, run.chunks_and_heads * blocks, *given, *out)
    return dq, dk, dg
