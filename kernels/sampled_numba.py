"""CPU kernels for the entries of a product of factors at sampled places, and for least squares by rows.

Entries are in compressed rows. A row's least-squares problem has the rows of the other factor at the row's
entries for a matrix: ``min sum_p weight_p (value_p - offset_j - u . w_j)^2 + u' (count ridge) u``.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.sparse_numba import _first_row
from learnsolve.kernels.threads import MATH, kernel


@njit(fastmath=MATH, cache=True)
def _dot(a, i, b, j, k):
    """``sum_c a[i + c] b[j + c]`` of two arrays as they lie in memory."""
    x, y, total = address(a), address(b), 0.0
    for c in range(k):
        total += read(x, i + c) * read(y, j + c)
    return total


@njit(fastmath=MATH, cache=True)
def _add(factor, b, j, out, i, k):
    """``out[i + c] += factor b[j + c]``."""
    y, before, after = address(b), address(out), address(out)
    for c in range(k):
        write(after, i + c, read(before, i + c) + factor * read(y, j + c))


@njit(fastmath=MATH, cache=True)
def _add_four(f, b, places, out, i, k):
    """``out[i + c] += sum_q f[q] b[places[q] + c]`` over four: the sum is read and written once for all."""
    y, before, after = address(b), address(out), address(out)
    f0, f1, f2, f3 = f
    j0, j1, j2, j3 = places
    for c in range(k):
        total = read(before, i + c) + f0 * read(y, j0 + c) + f1 * read(y, j1 + c)
        write(after, i + c, total + f2 * read(y, j2 + c) + f3 * read(y, j3 + c))


@kernel
def _residual(indptr, indices, values, offset, U, V, out, squares, threads):
    k = U.shape[1]
    for t in prange(threads):
        total = 0.0
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                left = values[p] - offset[j] - _dot(U, i * k, V, j * k, k)
                out[p] = left
                total += left * left
        squares[t] = total


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
    squares = np.zeros(threads)
    _residual(indptr, indices, values, offset, U, V, out, squares, threads)
    return float(squares.sum())


@njit(fastmath=MATH, cache=True)
def _cholesky_solve(G, x):
    """Solve ``G x = x`` in place of both; returns whether ``G`` was positive definite."""
    k = x.size
    for j in range(k):
        pivot = G[j, j]
        for c in range(j):
            pivot -= G[j, c] * G[j, c]
        if not pivot > 0.0:
            return False
        root = np.sqrt(pivot)
        G[j, j] = root
        for i in range(j + 1, k):
            total = G[i, j]
            for c in range(j):
                total -= G[i, c] * G[j, c]
            G[i, j] = total / root
    for j in range(k):
        total = x[j]
        for c in range(j):
            total -= G[j, c] * x[c]
        x[j] = total / G[j, j]
    for j in range(k - 1, -1, -1):
        total = x[j]
        for c in range(j + 1, k):
            total -= G[c, j] * x[c]
        x[j] = total / G[j, j]
    return True


@njit(fastmath=MATH, cache=True)
def _normal(indices, values, weights, offset, W, begin, end, ridge, G, x):
    """The lower triangle of a row's normal equations into ``G``, their right-hand side into ``x``."""
    k = x.size
    for i in range(k):
        for c in range(i + 1):
            G[i, c] = (end - begin) * ridge[i, c]
        x[i] = 0.0
    fours = begin + (end - begin) // 4 * 4
    for p in range(begin, fours, 4):
        a, b, c, d = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
        s, t, u, v = 1.0, 1.0, 1.0, 1.0
        if weights.size > 0:
            s, t, u, v = weights[p], weights[p + 1], weights[p + 2], weights[p + 3]
        places = (a * k, b * k, c * k, d * k)
        wanted = (
            s * (values[p] - offset[a]),
            t * (values[p + 1] - offset[b]),
            u * (values[p + 2] - offset[c]),
            v * (values[p + 3] - offset[d]),
        )
        _add_four(wanted, W, places, x, 0, k)
        for i in range(k):
            f = (s * W[a, i], t * W[b, i], u * W[c, i], v * W[d, i])
            _add_four(f, W, places, G, i * k, i + 1)
    for p in range(fours, end):
        j = indices[p]
        weight = weights[p] if weights.size > 0 else 1.0
        _add(weight * (values[p] - offset[j]), W, j * k, x, 0, k)
        for i in range(k):
            _add(weight * W[j, i], W, j * k, G, i * k, i + 1)


@kernel
def rows_exact(indptr, indices, values, weights, offset, W, ridge, U, threads):
    """Every row's least-squares problem by Cholesky's factors of its normal equations, into ``U``.

    ``weights`` is empty for ones. A row whose matrix is not positive definite takes a ridge of 1e-10 of its
    largest diagonal element; a row without entries becomes zero.
    """
    k = U.shape[1]
    for t in prange(threads):
        G, x = np.empty((k, k)), np.empty(k)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end = indptr[i], indptr[i + 1]
            lift = 0.0
            while True:
                _normal(indices, values, weights, offset, W, begin, end, ridge, G, x)
                most = 0.0
                for c in range(k):
                    most = max(most, G[c, c])
                if most == 0.0:
                    x[:] = 0.0
                    break
                for c in range(k):
                    G[c, c] += lift * most
                if _cholesky_solve(G, x):
                    break
                lift = max(10 * lift, 1e-10)
            U[i] = x


@kernel
def rows_cg(indptr, indices, values, weights, offset, W, ridge, U, steps, rtol, threads):
    """Steps of conjugate gradients on every row's normal equations, from and into ``U``.

    A row ends early where the gradient has become ``rtol`` of its first.
    """
    k = U.shape[1]
    for t in prange(threads):
        r, p, q = np.empty(k), np.empty(k), np.empty(k)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end = indptr[i], indptr[i + 1]
            for c in range(k):
                r[c] = -(end - begin) * _dot(ridge, c * k, U, i * k, k)
            for e in range(begin, end):
                j = indices[e]
                left = values[e] - offset[j] - _dot(U, i * k, W, j * k, k)
                if weights.size > 0:
                    left *= weights[e]
                _add(left, W, j * k, r, 0, k)
            rr = _dot(r, 0, r, 0, k)
            first = rr
            p[:] = r
            for _ in range(steps):
                if not rr > rtol * rtol * first:
                    break
                for c in range(k):
                    q[c] = (end - begin) * _dot(ridge, c * k, p, 0, k)
                for e in range(begin, end):
                    j = indices[e]
                    along = _dot(p, 0, W, j * k, k)
                    if weights.size > 0:
                        along *= weights[e]
                    _add(along, W, j * k, q, 0, k)
                curvature = _dot(p, 0, q, 0, k)
                if not curvature > 0.0:
                    break
                alpha = rr / curvature
                _add(alpha, p, 0, U, i * k, k)
                _add(-alpha, q, 0, r, 0, k)
                new = _dot(r, 0, r, 0, k)
                for c in range(k):
                    p[c] = r[c] + new / rr * p[c]
                rr = new
