"""Least squares by rows on the GPU, in Triton: a program takes a row, and a tile of its entries at a time.

The problems are those of `learnsolve.kernels.rows_numba`. The rank is padded to a power of two.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.rows_reference import ROUNDING, Rows


@triton.jit
def _weigh(weights, p, stored, left, reach, WEIGHTED: tl.constexpr, LOSS: tl.constexpr):
    """Weights of entries whose residuals are ``left``."""
    w = tl.where(stored, 1.0, 0.0).to(left.dtype)
    if WEIGHTED:
        w = tl.load(weights + p, mask=stored, other=0)
    if LOSS == 1:
        size = tl.abs(left)
        w = tl.where(size > reach, w * reach / tl.where(size > 0, size, 1.0), w)
    if LOSS == 2:
        w = tl.where(tl.abs(left) > reach, 0.0, w)
    return w


@triton.jit
def normal_kernel(
    indptr, indices, values, weights, offset, W, U, scalars, G, y, first, k,
    WEIGHTED: tl.constexpr, LOSS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Sums of a row's normal equations, without ridge and base, into ``G`` and ``y``.

    ``scalars`` holds the weight of what is not known, and the reach of the loss.
    """
    row = first + tl.program_id(0).to(tl.int64)
    c = tl.arange(0, K)
    inside = c < k
    start, end = tl.load(indptr + row).to(tl.int64), tl.load(indptr + row + 1).to(tl.int64)
    unobserved, reach = tl.load(scalars), tl.load(scalars + 1)
    u = tl.load(U + row * k + c, mask=inside, other=0)
    matrix, right = tl.zeros((K, K), u.dtype), tl.zeros((K,), u.dtype)
    p = start
    while p < end:
        j = tl.load(indices + p).to(tl.int64)
        f = tl.load(W + j * k + c, mask=inside, other=0)
        x = tl.load(values + p) - tl.load(offset + j)
        w = _weigh(weights, p, p < end, x - tl.sum(f * u, axis=0), reach, WEIGHTED, LOSS)
        right += w * x * f
        matrix += ((w - unobserved) * f)[:, None] * f[None, :]
        p += 1
    place = tl.program_id(0).to(tl.int64)
    tl.store(y + place * k + c, right, mask=inside)
    tl.store(G + place * k * k + c[:, None] * k + c[None, :], matrix, mask=inside[:, None] & inside[None, :])


@triton.jit
def _damped(ridge, base, c, inside, p, entries, k, DAMPED: tl.constexpr):
    """The ridge of so many entries and the base, times ``p``."""
    total = p - p
    if DAMPED:
        both = inside[:, None] & inside[None, :]
        place = c[:, None] * k + c[None, :]
        matrix = entries * tl.load(ridge + place, mask=both, other=0) + tl.load(
            base + place, mask=both, other=0
        )
        total = tl.sum(matrix * p[None, :], axis=1)
    return total


@triton.jit
def _features(indices, W, p, stored, c, inside, k):
    """The columns of entries, and the rows of the factor that they name."""
    j = tl.load(indices + p, mask=stored, other=0).to(tl.int64)
    return j, tl.load(W + j[:, None] * k + c[None, :], mask=stored[:, None] & inside[None, :], other=0)


@triton.jit
def cg_kernel(
    indptr, indices, values, weights, offset, W, ridge, base, U, scalars, kept, k, steps,
    WEIGHTED: tl.constexpr, LOSS: tl.constexpr, DAMPED: tl.constexpr, K: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Steps of conjugate gradients on a row's normal equations, from and into ``U``.

    ``scalars`` holds the weight of what is not known, the reach of the loss, and to what the gradient is to
    be reduced; ``kept`` keeps what an entry weighs in the matrix.
    """
    row = tl.program_id(0).to(tl.int64)
    c, e = tl.arange(0, K), tl.arange(0, TILE)
    inside = c < k
    start, end = tl.load(indptr + row).to(tl.int64), tl.load(indptr + row + 1).to(tl.int64)
    unobserved, reach, rtol = tl.load(scalars), tl.load(scalars + 1), tl.load(scalars + 2)
    u = tl.load(U + row * k + c, mask=inside & (start < end), other=0)
    entries = (end - start).to(u.dtype)
    r = -_damped(ridge, base, c, inside, u, entries, k, DAMPED)
    offset_now = start
    while offset_now < end:
        p = offset_now + e
        stored = p < end
        j, f = _features(indices, W, p, stored, c, inside, k)
        x = tl.load(values + p, mask=stored, other=0) - tl.load(offset + j, mask=stored, other=0)
        left = x - tl.sum(f * u[None, :], axis=1)
        w = tl.where(stored, _weigh(weights, p, stored, left, reach, WEIGHTED, LOSS) - unobserved, 0.0)
        tl.store(kept + p, w, mask=stored)
        r += tl.sum(f * (w * left + unobserved * x)[:, None], axis=0)
        offset_now += TILE
    # What an entry weighs is read by other threads than wrote it.
    tl.debug_barrier()
    rr = tl.sum(r * r, axis=0)
    first, d, step, going = rr, r, 0, True
    while (step < steps) & going:
        q = _damped(ridge, base, c, inside, d, entries, k, DAMPED)
        offset_now = start
        while offset_now < end:
            p = offset_now + e
            stored = p < end
            _, f = _features(indices, W, p, stored, c, inside, k)
            w = tl.load(kept + p, mask=stored, other=0)
            q += tl.sum(f * (w * tl.sum(f * d[None, :], axis=1))[:, None], axis=0)
            offset_now += TILE
        curvature = tl.sum(d * q, axis=0)
        going = (rr > rtol * rtol * first) & (curvature > 0)
        alpha = tl.where(going, rr / tl.where(curvature > 0, curvature, 1.0), 0.0)
        u += alpha * d
        r -= alpha * q
        new = tl.sum(r * r, axis=0)
        d = r + tl.where(rr > 0, new / tl.where(rr > 0, rr, 1.0), 0.0) * d
        rr = new
        step += 1
    tl.store(U + row * k + c, u, mask=inside)


def _check(rows: Rows, U: Tensor) -> None:
    if U.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"Triton kernels work in float32 and float64, not in {U.dtype}: use the reference form"
        )
    same = (rows.values, rows.weights, rows.offset, rows.W, rows.ridge, rows.base)
    if any(t.dtype != U.dtype for t in same):
        raise TypeError(f"all tensors of a launch must be of one dtype, here {U.dtype}")
    if any(not t.is_contiguous() for t in (*same, rows.indptr, rows.indices, U)):
        raise ValueError("row kernels need contiguous tensors")


def normal_equations(
    rows: Rows, U: Tensor, first: int = 0, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The matrices and right-hand sides of ``count`` rows from ``first`` on."""
    _check(rows, U)
    k = U.shape[1]
    count = len(U) - first if count is None else count
    G, y = U.new_empty(count, k, k), U.new_empty(count, k)
    scalars = U.new_tensor([rows.unobserved, rows.reach])
    with on_device(U):
        normal_kernel[(count,)](
            rows.indptr, rows.indices, rows.values, rows.weights, rows.offset, rows.W, U, scalars, G, y,
            first, k, WEIGHTED=len(rows.weights) > 0, LOSS=rows.loss,
            K=max(2, triton.next_power_of_2(k)),
        )  # fmt: skip
    entries = (rows.indptr[1:] - rows.indptr[:-1])[first : first + count].to(U.dtype)
    return G + entries[:, None, None] * rows.ridge + rows.base, y


def cg(rows: Rows, U: Tensor, steps: int, rtol: float) -> Tensor:
    """Steps of conjugate gradients from ``U`` on."""
    _check(rows, U)
    found, k = U.clone(), U.shape[1]
    scalars = U.new_tensor([rows.unobserved, rows.reach, max(rtol, ROUNDING[U.dtype])])
    kept = torch.empty_like(rows.values)
    damped: Any = bool(rows.ridge.any() or rows.base.any())
    K = max(2, triton.next_power_of_2(k))
    with on_device(U):
        cg_kernel[(len(U),)](
            rows.indptr, rows.indices, rows.values, rows.weights, rows.offset, rows.W, rows.ridge, rows.base,
            found, scalars, kept, k, steps,
            WEIGHTED=len(rows.weights) > 0, LOSS=rows.loss, DAMPED=damped, K=K, TILE=max(4, 128 // K),
        )  # fmt: skip
    return found
