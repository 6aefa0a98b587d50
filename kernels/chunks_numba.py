"""CPU kernels that gather the rows of a factor which a line's entries name, a chunk of entries at a time.

A chunk is turned, so that all loops over it run over entries.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.threads import MATH

CHUNK = 128
# Rows of a chunk are not a power of two apart, or they would share a few sets of the cache.
STRIDE = CHUNK + 8
# Elements of a thread's chunks: rows with more are gathered again each time.
LARGEST = 1 << 21


@njit(fastmath=MATH, cache=True)
def _padded(k):
    """Rows of a chunk: a multiple of four."""
    return (k + 3) // 4 * 4


@njit(fastmath=MATH, cache=True)
def _longest(indptr):
    """Entries of the longest row, at least one."""
    return max(1, np.diff(indptr).max()) if indptr.size > 1 else 1


@njit(fastmath=MATH, cache=True)
def _chunks_of(indptr, k):
    """How many chunks a thread keeps: those of the longest row, if there is room."""
    return max(1, min((_longest(indptr) + CHUNK - 1) // CHUNK, LARGEST // (_padded(k) * STRIDE)))


@njit(fastmath=MATH, cache=True)
def _pack(indices, W, begin, count, P, o):
    """``P[o + c, e] = W[indices[begin + e], c]``."""
    k, eights = W.shape[1], count // 8 * 8
    for e in range(0, eights, 8):
        p = begin + e
        j0, j1, j2, j3 = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
        j4, j5, j6, j7 = indices[p + 4], indices[p + 5], indices[p + 6], indices[p + 7]
        for c in range(k):
            P[o + c, e], P[o + c, e + 1] = W[j0, c], W[j1, c]
            P[o + c, e + 2], P[o + c, e + 3] = W[j2, c], W[j3, c]
            P[o + c, e + 4], P[o + c, e + 5] = W[j4, c], W[j5, c]
            P[o + c, e + 6], P[o + c, e + 7] = W[j6, c], W[j7, c]
    for e in range(eights, count):
        j = indices[begin + e]
        for c in range(k):
            P[o + c, e] = W[j, c]


@njit(fastmath=MATH, cache=True)
def _chunk(indices, W, begin, end, number, P, full):
    """Gather a row's chunk unless it is there already; returns its first row in ``P`` and its length.

    ``full`` says that earlier passes over this row have left as many chunks as ``P`` holds.
    """
    k = _padded(W.shape[1])
    held = P.shape[0] // k
    first = begin + number * CHUNK
    count = min(CHUNK, end - first)
    # Those that do not fit share the last place.
    place = min(number, held - 1)
    fits = number < held - 1 or end - begin <= held * CHUNK
    if not (full and fits):
        _pack(indices, W, first, count, P, place * k)
    return place * k, count


@njit(fastmath=MATH, cache=True)
def _subtract(P, o, count, k, u, r):
    """``r[e] -= sum_c u[c] P[o + c, e]``."""
    fours = k // 4 * 4
    for c in range(0, fours, 4):
        a, b, d, f = u[c], u[c + 1], u[c + 2], u[c + 3]
        for e in range(count):
            r[e] -= a * P[o + c, e] + b * P[o + c + 1, e] + d * P[o + c + 2, e] + f * P[o + c + 3, e]
    for c in range(fours, k):
        a = u[c]
        for e in range(count):
            r[e] -= a * P[o + c, e]


@njit(fastmath=MATH, cache=True)
def _wanted(indices, values, offset, begin, count, r):
    """``r[e] = values - offset``."""
    for e in range(count):
        r[e] = values[begin + e] - offset[indices[begin + e]]


@njit(fastmath=MATH, cache=True)
def _adjoint(P, o, count, k, r, g):
    """``g[c] += sum_e P[o + c, e] r[e]``."""
    for c in range(k):
        total = 0.0
        for e in range(count):
            total += P[o + c, e] * r[e]
        g[c] += total
