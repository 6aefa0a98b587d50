"""CPU kernels for the entries of a product of factors at sampled places, and for least squares by rows.

Entries are in compressed rows. A row's least-squares problem has the rows of the other factor at the row's
entries for a matrix: ``min sum_p weight_p (value_p - offset_j - u . w_j)^2 + u' (count ridge) u``.
Users of these kernels call their parallel form for one thread too: results are the same for any number.
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
    U, V = np.ascontiguousarray(U), np.ascontiguousarray(V)
    _residual.parallel(indptr, indices, values, offset, U, V, out, squares, threads)
    return float(squares.sum())


@njit(fastmath=MATH, cache=True)
def _solve_factored(G, x):
    """``x = (G G^T)^-1 x`` in place, with a lower triangle ``G``."""
    k = x.size
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
    _solve_factored(G, x)
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


@njit(fastmath=MATH, cache=True)
def _gradient(indices, values, weights, offset, W, begin, end, ridge, U, i, r):
    """The right-hand side of a row's normal equations less their matrix times ``U_i``, into ``r``."""
    k = r.size
    for c in range(k):
        r[c] = -(end - begin) * _dot(ridge, c * k, U, i * k, k)
    for e in range(begin, end):
        j = indices[e]
        left = values[e] - offset[j] - _dot(U, i * k, W, j * k, k)
        if weights.size > 0:
            left *= weights[e]
        _add(left, W, j * k, r, 0, k)


@njit(fastmath=MATH, cache=True)
def _product(indices, weights, W, begin, end, ridge, p, q):
    """The matrix of a row's normal equations times ``p``, into ``q``."""
    k = q.size
    for c in range(k):
        q[c] = (end - begin) * _dot(ridge, c * k, p, 0, k)
    for e in range(begin, end):
        j = indices[e]
        along = _dot(p, 0, W, j * k, k)
        if weights.size > 0:
            along *= weights[e]
        _add(along, W, j * k, q, 0, k)


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
            _gradient(indices, values, weights, offset, W, begin, end, ridge, U, i, r)
            rr = _dot(r, 0, r, 0, k)
            first = rr
            p[:] = r
            for _ in range(steps):
                if not rr > rtol * rtol * first:
                    break
                _product(indices, weights, W, begin, end, ridge, p, q)
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


@njit(fastmath=MATH, cache=True)
def _bits(i, e, seed):
    """Sixty-four bits for an entry of a row (the finalizer of splitmix64)."""
    key = np.uint64(seed) + np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(e)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@njit(fastmath=MATH, cache=True)
def _factor(indices, weights, W, i, begin, end, ridge, buckets, seed, S, G, scratch):
    """Cholesky's factor of the Gram matrix of a row's sketch into ``G``.

    Each entry goes to one of the buckets with a random sign (CountSketch); rows that are no longer than the
    sketch are taken as they are.
    """
    k = G.shape[0]
    if end - begin <= buckets:
        count = end - begin
        for e in range(count):
            root = np.sqrt(weights[begin + e]) if weights.size > 0 else 1.0
            for c in range(k):
                S[e, c] = root * W[indices[begin + e], c]
    else:
        count = buckets
        S[:] = 0.0
        for e in range(begin, end):
            bits = _bits(i, e - begin, seed)
            scale = 1.0 if bits >> np.uint64(63) else -1.0
            if weights.size > 0:
                scale *= np.sqrt(weights[e])
            _add(
                scale,
                W,
                indices[e] * k,
                S,
                np.int64((bits & np.uint64(0xFFFFFFFF)) % np.uint64(buckets)) * k,
                k,
            )
    lift = 0.0
    while True:
        for a in range(k):
            for c in range(a + 1):
                G[a, c] = (end - begin) * ridge[a, c]
        for e in range(count):
            for a in range(k):
                _add(S[e, a], S, e * k, G, a * k, a + 1)
        most = 0.0
        for c in range(k):
            most = max(most, G[c, c])
        if most == 0.0:
            return False
        for c in range(k):
            G[c, c] += lift * most
        scratch[:] = 0.0
        if _cholesky_solve(G, scratch):
            return True
        lift = max(10 * lift, 1e-10)


@kernel
def rows_sketched(indptr, indices, values, weights, offset, W, ridge, U, buckets, seed, rtol, most, threads):
    """Conjugate gradients on every row's normal equations, preconditioned by a sketch of the row, into ``U``.

    A row ends where its gradient, measured in the sketch's inverse, is ``rtol`` of its first, or after
    ``most`` steps. Rows without entries become zero.
    """
    k = U.shape[1]
    for t in prange(threads):
        S, G = np.empty((buckets, k)), np.empty((k, k))
        r, z, p, q = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end = indptr[i], indptr[i + 1]
            if not _factor(indices, weights, W, i, begin, end, ridge, buckets, seed, S, G, z):
                U[i] = 0.0
                continue
            _gradient(indices, values, weights, offset, W, begin, end, ridge, U, i, r)
            z[:] = r
            _solve_factored(G, z)
            rz = _dot(r, 0, z, 0, k)
            first = rz
            p[:] = z
            for _ in range(most):
                if not rz > rtol * rtol * first:
                    break
                _product(indices, weights, W, begin, end, ridge, p, q)
                curvature = _dot(p, 0, q, 0, k)
                if not curvature > 0.0:
                    break
                _add(rz / curvature, p, 0, U, i * k, k)
                _add(-rz / curvature, q, 0, r, 0, k)
                z[:] = r
                _solve_factored(G, z)
                new = _dot(r, 0, z, 0, k)
                for c in range(k):
                    p[c] = z[c] + new / rz * p[c]
                rz = new
