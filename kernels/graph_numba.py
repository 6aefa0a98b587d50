"""CPU kernels of the multigrid's levels on graphs: multicolour relaxation, fused with the transfers."""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.pointers import address, read
from learnsolve.kernels.threads import INLINE, MATH


@njit(**INLINE)
def _coupled(starts, indices, weights, x, i, total):
    """``total + sum_j w_ij x_j``."""
    for q in range(read(starts, i), read(starts, i + 1)):
        total += read(weights, q) * read(x, read(indices, q))
    return total


@njit(fastmath=MATH, cache=True)
def _relax(indptr, indices, weights, inverse, b, x, lo, hi, omega, fresh):
    matrix = address(indptr), address(indices), address(weights)
    scales, right, values = address(inverse), address(b), address(x)
    for i in range(lo, hi):
        if fresh:
            x[i] = omega * (read(right, i) * read(scales, i))
            continue
        total = _coupled(*matrix, values, i, read(right, i))
        x[i] += omega * (total * read(scales, i) - x[i])


@njit(parallel=True, fastmath=MATH, cache=True)
def _relax_colour(indptr, indices, weights, inverse, b, x, lo, hi, omega, fresh, threads):
    for t in prange(threads):
        begin, end = lo + t * (hi - lo) // threads, lo + (t + 1) * (hi - lo) // threads
        _relax(indptr, indices, weights, inverse, b, x, begin, end, omega, fresh)


@njit(fastmath=MATH, cache=True)
def _defects(indptr, indices, weights, diagonal, b, x, lo, hi, r):
    matrix, values, right = (address(indptr), address(indices), address(weights)), address(x), address(b)
    for i in range(lo, hi):
        r[i] = _coupled(*matrix, values, i, read(right, i) - diagonal[i] * x[i])


@njit(parallel=True, fastmath=MATH, cache=True)
def _all_defects(indptr, indices, weights, diagonal, b, x, end, r, threads):
    for t in prange(threads):
        lo, hi = t * end // threads, (t + 1) * end // threads
        _defects(indptr, indices, weights, diagonal, b, x, lo, hi, r)


@njit(fastmath=MATH, cache=True)
def smooth(
    indptr, indices, weights, diagonal, inverse, b, x, colours,
    coarse_x, coarse_b, aggregate, omega, prolongs, sweeps, reverse, fresh, restricts, threads,
):  # fmt: skip
    """The graph's twin of `learnsolve.kernels.grid_numba.smooth`, with multicolour Gauss-Seidel sweeps.

    Unknowns are numbered colour by colour; ``colours`` says where each colour begins.
    """
    n = x.size
    if fresh:
        x[:] = 0
    if prolongs:
        for i in range(n):
            if aggregate[i] >= 0:
                x[i] += coarse_x[aggregate[i]]
    count = colours.size - 1
    for half in range(sweeps * count):
        c = half % count
        c = count - 1 - c if reverse else c
        lo, hi = colours[c], colours[c + 1]
        zero = fresh and not prolongs and half == 0
        if hi - lo < 8192 or threads == 1:
            _relax(indptr, indices, weights, inverse, b, x, lo, hi, omega, zero)
        else:
            _relax_colour(indptr, indices, weights, inverse, b, x, lo, hi, omega, zero, threads)
    if restricts:
        # Where the last half-sweep has solved every equation of a colour nothing is left to restrict.
        solved = sweeps > 0 and omega == 1 and not reverse
        end = colours[count - 1] if solved else n
        r = np.empty(end, x.dtype)
        if end < 8192 or threads == 1:
            _defects(indptr, indices, weights, diagonal, b, x, 0, end, r)
        else:
            _all_defects(indptr, indices, weights, diagonal, b, x, end, r, threads)
        coarse_b[:] = 0
        for i in range(end):
            if aggregate[i] >= 0:
                coarse_b[aggregate[i]] += r[i]
