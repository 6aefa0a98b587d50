"""CPU kernels for the entries of a product of factors at sampled places.

Entries are in compressed rows. Rows of the factor are gathered a chunk of entries at a time and turned, so
that all inner loops run over entries. Users of these kernels call their parallel form for one thread too:
results are the same for any number.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from learnsolve.kernels.sparse_numba import _first_row
from learnsolve.kernels.threads import MATH, kernel

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


@kernel
def _residual(indptr, indices, values, offset, U, V, out, squares, threads):
    k = U.shape[1]
    for t in prange(threads):
        P, r = np.zeros((_padded(k), STRIDE)), np.empty(CHUNK)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end, total = indptr[i], indptr[i + 1], 0.0
            for first in range(begin, end, CHUNK):
                count = min(CHUNK, end - first)
                _pack(indices, V, first, count, P, 0)
                _wanted(indices, values, offset, first, count, r)
                _subtract(P, 0, count, k, U[i], r)
                for e in range(count):
                    out[first + e] = r[e]
                    total += r[e] * r[e]
            squares[i] = total


def residual(
    indptr: Any, indices: Any, values: Any, offset: Any, U: Any, V: Any, out: Any, threads: int
) -> float:
    """Write ``value_p - offset_j - U_i . V_j`` of all entries to ``out``; returns the sum of squares.

    Parameters
    ----------
    indptr : (m + 1,) int64 array
    indices : (nnz,) int32 array
    values, out : (nnz,) float64 arrays
    offset : (n,) float64 array
    U, V : (m, k) and (n, k) float64 arrays
    threads : int

    Examples
    --------
    >>> out = np.empty(2)
    >>> columns = np.array([0, 1], np.int32)
    >>> U, V = np.array([[2.0]]), np.array([[3.0], [4.0]])
    >>> residual(np.array([0, 2]), columns, np.array([6.0, 9.0]), np.zeros(2), U, V, out, 1), out.tolist()
    (1.0, [0.0, 1.0])
    """
    squares = np.zeros(U.shape[0])
    U, V = np.ascontiguousarray(U), np.ascontiguousarray(V)
    _residual.parallel(indptr, indices, values, offset, U, V, out, squares, threads)
    return float(squares.sum())


@kernel
def rows_sum(indptr, indices, values, X, out, threads):
    """Every row's entries times the rows of ``X`` that they name, added up: the sparse matrix times ``X``."""
    k = X.shape[1]
    for t in prange(threads):
        P = np.zeros((_padded(k), STRIDE))
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            out[i] = 0.0
            for first in range(indptr[i], indptr[i + 1], CHUNK):
                count = min(CHUNK, indptr[i + 1] - first)
                _pack(indices, X, first, count, P, 0)
                _adjoint(P, 0, count, k, values[first : first + count], out[i])
