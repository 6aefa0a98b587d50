"""Attention with a state on the GPU, in Triton, by chunks of time: fast on long sequences.

Within a chunk tokens meet each other in products of small matrices; between chunks a state is carried, in a
loop that is as long as there are chunks. One decay for each head, or none. Shapes are those of
`learnsolve.kernels.attention`; gradients are in `learnsolve.kernels.chunked_adjoint_triton`.

What decays from one token to another is the exponential of a sum over those between them, which is never a
difference of two sums: so it is exact, and a decay may be minus infinity. The triangular matrix of a chunk
is inverted by substitution. Numbers are read in any floating dtype, and computed with in double precision
where ``q`` is, else in single; products of what came in less than single precision are rounded to tf32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.attention_triton import number
from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.memory import real, room
from learnsolve.kernels.parts import parts

# Tokens of a chunk.
CHUNK = 32


@triton.jit
def dot(x, y, PRECISION: tl.constexpr):
    """A product of two tiles."""
    return tl.dot(x, y, input_precision=PRECISION, out_dtype=x.dtype)


@triton.jit
def tile(x, rows, inside, i, width, REAL: tl.constexpr):
    """Rows of tokens."""
    known = inside[:, None] & (i < width)[None, :]
    return tl.load(x + rows[:, None] * width + i[None, :], mask=known, other=0).to(REAL)


@triton.jit
def columns(x, rows, inside, i, width, REAL: tl.constexpr):
    """Rows of tokens, transposed."""
    known = inside[None, :] & (i < width)[:, None]
    return tl.load(x + rows[None, :] * width + i[:, None], mask=known, other=0).to(REAL)


@triton.jit
def block(x, state, i, j, K, V):
    """A part of a state, and its place."""
    place = (state * K + i[:, None]) * V + j[None, :]
    return tl.load(x + place, mask=(i < K)[:, None] & (j < V)[None, :], other=0)


@triton.jit
def product(
    w, rows, inside, S, states, state, j, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr,
    REAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of tokens times the state ``S``, which was stored.

    Outside of tensor cores a thread holds whole rows and columns of what it multiplies: these are read again,
    in parts, for all do not fit into its registers.
    """
    if PRECISION == "ieee":
        # Other threads than read it wrote the state.
        tl.debug_barrier()
        total = tl.zeros((C, BV), REAL)
        for low in range(0, KP, BK):
            i = low + tl.arange(0, BK)
            total += dot(tile(w, rows, inside, i, K, REAL), block(states, state, i, j, K, V), PRECISION)
        return total
    else:
        return dot(tile(w, rows, inside, tl.arange(0, KP), K, REAL), S, PRECISION)


@triton.jit
def tokens(chunks, index, length, heads, h, C: tl.constexpr):
    """Rows of a chunk's tokens, which of them are there, and which are followed by another."""
    n, begin = tl.load(chunks + 3 * index), tl.load(chunks + 3 * index + 1)
    end = tl.load(chunks + 3 * index + 2)
    t = begin + tl.arange(0, C)
    return (n * length + t) * heads + h, t < end, t + 1 < end


@triton.jit
def until(g, rows, inside, REAL: tl.constexpr, DECAY: tl.constexpr):
    """What decays from before a chunk to each token."""
    if DECAY:
        return tl.exp(tl.cumsum(tl.load(g + rows, mask=inside, other=0).to(REAL), axis=0))
    else:
        return tl.full(rows.shape, 1, REAL)


@triton.jit
def onwards(g, rows, followed, heads, REAL: tl.constexpr, DECAY: tl.constexpr):
    """What decays from each token to the chunk's end."""
    if DECAY:
        after = tl.load(g + rows + heads, mask=followed, other=0).to(REAL)
        return tl.exp(tl.cumsum(after, axis=0, reverse=True))
    else:
        return tl.full(rows.shape, 1, REAL)


@triton.jit
def throughout(g, rows, inside, REAL: tl.constexpr, DECAY: tl.constexpr):
    """What decays from before a chunk to its end."""
    if DECAY:
        return tl.exp(tl.sum(tl.load(g + rows, mask=inside, other=0).to(REAL), axis=0))
    else:
        return tl.sum(tl.full((1,), 1, REAL), axis=0)


@triton.jit
def between(g, rows, inside, C: tl.constexpr, UPPER: tl.constexpr, REAL: tl.constexpr, DECAY: tl.constexpr):
    """What decays from the earlier of two tokens to the later, which is the row's (``UPPER``: column's)."""
    c = tl.arange(0, C)
    if UPPER:
        after, equal = c[:, None] < c[None, :], c[:, None] == c[None, :]
    else:
        after, equal = c[:, None] > c[None, :], c[:, None] == c[None, :]
    if DECAY:
        x = tl.load(g + rows, mask=inside, other=0).to(REAL)
        if UPPER:
            total = tl.cumsum(tl.where(after, x[None, :], 0), axis=1)
        else:
            total = tl.cumsum(tl.where(after, x[:, None], 0), axis=0)
        return tl.where(after | equal, tl.exp(total), 0)
    else:
        return tl.where(after | equal, 1, 0).to(REAL)


@triton.jit
def inverse(L, C: tl.constexpr, UPPER: tl.constexpr):
    """Inverse of one plus a strictly lower (upper) triangular matrix, row by row of those found already."""
    c = tl.arange(0, C)
    T = tl.where(c[:, None] == c[None, :], 1, 0).to(L.dtype)
    for step in range(1, C):
        now = step
        if UPPER:
            now = C - 1 - step
        row = tl.sum(tl.where((c == now)[:, None], L, 0), axis=0)
        found = tl.sum(row[:, None] * T, axis=0)
        T -= tl.where((c == now)[:, None], found[None, :], 0)
    return T


@triton.jit
def prepare_kernel(
    k, v, beta, g, chunks, w, u, length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Of a chunk, what ``u`` is without a state, and what a state times ``w`` takes from it."""
    index, h = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0).to(tl.int64) % heads
    rows, inside, _ = tokens(chunks, index, length, heads, h, C)
    c = tl.arange(0, C)
    b = tl.load(beta + rows, mask=inside, other=0).to(REAL)
    L = tl.zeros((C, C), REAL)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        L += dot(tile(k, rows, inside, i, K, REAL), columns(k, rows, inside, i, K, REAL), PRECISION)
    L *= between(g, rows, inside, C, False, REAL, DECAY) * b[:, None]
    T = inverse(tl.where(c[:, None] > c[None, :], L, 0), C, False)
    for low in range(0, VP, BV):
        j = low + tl.arange(0, BV)
        found = dot(T, b[:, None] * tile(v, rows, inside, j, V, REAL), EXACT)
        tl.store(u + rows[:, None] * V + j[None, :], found, mask=inside[:, None] & (j < V)[None, :])
    b *= until(g, rows, inside, REAL, DECAY)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        found = dot(T, b[:, None] * tile(k, rows, inside, i, K, REAL), EXACT)
        tl.store(w + rows[:, None] * K + i[None, :], found, mask=inside[:, None] & (i < K)[None, :])


@triton.jit
def states_kernel(
    k, v, w, g, first, pieces, bounds, states, u, last, length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr,
    SOLVE: tl.constexpr, REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """States where chunks begin, and the last; with ``SOLVE`` also ``u``, of which ``v`` is a part."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(V, BV)
    h, piece = job // blocks % heads, job // blocks // heads
    n, t = tl.load(pieces + 3 * piece), tl.load(pieces + 3 * piece + 1)
    end, index = tl.load(pieces + 3 * piece + 2), tl.load(bounds + piece)
    c, i, j = tl.arange(0, C), tl.arange(0, KP), job % blocks * BV + tl.arange(0, BV)
    inner, some = i[:, None] * V + j[None, :], (i < K)[:, None] & (j < V)[None, :]
    S = block(first, piece * heads + h, i, j, K, V).to(REAL)
    while t < end:
        rows = (n * length + t + c) * heads + h
        inside, followed = t + c < end, (t + c + 1 < end) & (c + 1 < C)
        tl.store(states + (index * heads + h) * K * V + inner, S, mask=some)
        x = tile(v, rows, inside, j, V, REAL)
        if SOLVE:
            x -= product(
                w, rows, inside, S, states, index * heads + h, j, K, V, C, BK, BV, KP, REAL, PRECISION
            )
            tl.store(u + rows[:, None] * V + j[None, :], x, mask=inside[:, None] & (j < V)[None, :])
        y = columns(k, rows, inside, i, K, REAL) * onwards(g, rows, followed, heads, REAL, DECAY)[None, :]
        S = S * throughout(g, rows, inside, REAL, DECAY) + dot(y, x, PRECISION)
        t += C
        index += 1
    tl.store(last + (piece * heads + h) * K * V + inner, S, mask=some)


@triton.jit
def output_kernel(
    q, k, v, g, states, chunks, o, scale: tl.float64, length, heads, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KP: tl.constexpr,
    REAL: tl.constexpr, DECAY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``o`` of a chunk: from the state where it begins, and from the chunk itself."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(V, BV)
    h, index = job // blocks % heads, job // blocks // heads
    rows, inside, _ = tokens(chunks, index, length, heads, h, C)
    j = job % blocks * BV + tl.arange(0, BV)
    A, out = tl.zeros((C, C), REAL), tl.zeros((C, BV), REAL)
    for low in range(0, KP, BK):
        i = low + tl.arange(0, BK)
        x = tile(q, rows, inside, i, K, REAL)
        A += dot(x, columns(k, rows, inside, i, K, REAL), PRECISION)
        out += dot(x, block(states, index * heads + h, i, j, K, V), PRECISION)
    A *= between(g, rows, inside, C, False, REAL, DECAY)
    out *= until(g, rows, inside, REAL, DECAY)[:, None]
    out += dot(A, tile(v, rows, inside, j, V, REAL), PRECISION)
    stored = inside[:, None] & (j < V)[None, :]
    tl.store(o + rows[:, None] * V + j[None, :], out * number(scale, REAL), mask=stored)


def attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, first: Tensor, pieces: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``S = e^g S + k v'``, ``o = scale S' q``, and the last states.

    Raises
    ------
    ValueError
        A decay for each channel.

    Examples
    --------
    >>> attend(q, k, v, None, first, pieces, 1.0)  # doctest: +SKIP
    """
    run = Chunks(q, k, v, g, pieces)
    o, last = room(v), room(first)
    states = run.states(run.v, first, last)
    run.output(run.v, states, o, scale)
    return o, last


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
    run = Chunks(q, k, v, g, pieces)
    o, last = room(v), room(first)
    w, own, u = run.empty(k.shape), run.empty(v.shape), run.empty(v.shape)
    beta = beta.detach().contiguous()
    run.launch(
        prepare_kernel, run.chunks_and_heads, run.k, run.v, beta, run.g, run.chunks, w, own, *run.sizes
    )
    states = run.states(own, first, last, w, u)
    run.output(u, states, o, scale)
    return o, last, u


class Chunks:
    """What all launches of a call have in common.

    Parameters
    ----------
    q, k, v, g, pieces : Tensor
        As for `attend`.

    Examples
    --------
    >>> Chunks(q, k, v, None, pieces).chunks.shape  # doctest: +SKIP
    torch.Size([4, 3])
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, pieces: Tensor) -> None:
        if g is not None and g.shape[3] > 1:
            raise ValueError(f"the decay has shape {tuple(g.shape)}; one of each head is accepted")
        self.dtype = real(q)
        self.q, self.k, self.v = (one.detach().contiguous() for one in (q, k, v))
        self.g = self.q if g is None else g.detach().contiguous()
        bounds, chunks = parts(pieces, CHUNK)
        self.pieces, self.bounds, self.chunks = (
            one.to(q.device).contiguous() for one in (pieces, bounds, chunks)
        )
        _, length, heads, K = q.shape
        V = v.shape[3]
        self.sizes = length, heads, K, V
        self.constants, self.warps = constants(K, V, g is not None, q.dtype), warps(K, q.dtype)
        blocks = triton.cdiv(V, self.constants["BV"])
        self.chunks_and_heads = len(chunks) * heads
        self.chunks_and_columns = self.chunks_and_heads * blocks
        self.pieces_and_columns = len(pieces) * heads * blocks

    def empty(self, shape: Any) -> Tensor:
        """Room for numbers of the precision that is computed in."""
        return torch.empty(shape, dtype=self.dtype, device=self.q.device)

    def launch(self, kernel: Any, jobs: int, *arguments: Any, **more: Any) -> None:
        """Run so many programs with those of the constants that the kernel takes."""
        given = {name: value for name, value in self.constants.items() if name in kernel.arg_names}
        if jobs:
            with on_device(self.q):
                kernel[(jobs,)](*arguments, **given, **more, num_warps=self.warps)

    def states(
        self, v: Tensor, first: Tensor, last: Tensor, w: Tensor | None = None, u: Tensor | None = None
    ) -> Tensor:
        """The states where chunks begin, of values, or of what is left of them by ``w``."""
        _, heads, K, V = self.sizes
        found, solve = self.empty((len(self.chunks), heads, K, V)), w is not None
        w, u = (self.k, v) if w is None else (w, u)
        given = self.k, v, w, self.g, first.detach().contiguous(), self.pieces, self.bounds, found, u, last
        self.launch(states_kernel, self.pieces_and_columns, *given, *self.sizes, SOLVE=solve)
        return found

    def output(self, v: Tensor, states: Tensor, o: Tensor, scale: float) -> None:
        """Write ``o``."""
        given = self.q, self.k, v, self.g, states, self.chunks, o, scale
        self.launch(output_kernel, self.chunks_and_columns, *given, *self.sizes)


def constants(K: int, V: int, decay: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Compile-time constants of all kernels: with them no kernel spills its registers.

    Examples
    --------
    >>> constants(20, 64, False, torch.float32)["KP"]
    32
    """
    KP, VP = (max(16, triton.next_power_of_2(size)) for size in (K, V))
    most = {torch.float64: (16, 16), torch.float32: (32, 32)}.get(dtype, (64, 32))
    low = dtype not in (torch.float32, torch.float64)
    return {
        "C": CHUNK,
        "BK": min(KP, most[0]),
        "BV": min(VP, most[1]),
        "KP": KP,
        "VP": VP,
        "REAL": tl.float64 if dtype == torch.float64 else tl.float32,
        "DECAY": decay,
        "PRECISION": "tf32" if low else "ieee",
        "EXACT": "tf32x3" if low else "ieee",
    }


def warps(K: int, dtype: torch.dtype) -> int:
    """Warps of a program.

    Examples
    --------
    >>> warps(64, torch.bfloat16), warps(64, torch.float32)
    (4, 8)
    """
    return 4 if K <= 64 and dtype not in (torch.float32, torch.float64) else 8
