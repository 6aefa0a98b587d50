"""CPU kernels for least squares by rows.

A row's problem has the rows of the other factor at the row's entries for a matrix:
``min sum_p weight_p (value_p - offset_j - u . w_j)^2 + u' (count ridge + base) u``.

Weights of entries come from an array, which is empty for ones, times those of a loss: ``loss`` is 0 for
squares, 1 for Huber's with the bend at ``reach``, 2 for squares that leave out what is beyond ``reach``; both
look at the residuals of the given ``U``. Entries that are not known are zeros of weight ``unobserved``, of
which ``base`` holds the whole Gram matrix; so the known ones count for that much less in the sums. Results
are the same for any number of threads.
"""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.cholesky_numba import LANES, cholesky, cholesky_lanes, solve_factored
from learnsolve.kernels.chunks_numba import (
    CHUNK,
    STRIDE,
    _adjoint,
    _chunk,
    _chunks_of,
    _longest,
    _padded,
    _subtract,
    _wanted,
)
from learnsolve.kernels.copies_numba import copy_vector
from learnsolve.kernels.sketch_numba import sketched_gram, transform_size
from learnsolve.kernels.sparse_numba import _first_row
from learnsolve.kernels.threads import MATH, kernel

# Up to which rank the normal equations of several rows are solved at once.
LANES_UP_TO = 64
# A gradient that was reduced so far says nothing more.
ROUNDING = 1e-13


@njit(fastmath=MATH, cache=True)
def _gram(P, o, Q, q, count, G):
    """``G[a, b] += sum_e P[o + a, e] Q[q + b, e]`` for ``b <= a``, and a little above; blocks of 4 by 2."""
    for a in range(0, G.shape[0], 4):
        for b in range(0, a + 4, 2):
            s00, s01, s10, s11, s20, s21, s30, s31 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for e in range(count):
                y0, y1 = Q[q + b, e], Q[q + b + 1, e]
                x0, x1, x2, x3 = P[o + a, e], P[o + a + 1, e], P[o + a + 2, e], P[o + a + 3, e]
                s00 += x0 * y0
                s01 += x0 * y1
                s10 += x1 * y0
                s11 += x1 * y1
                s20 += x2 * y0
                s21 += x2 * y1
                s30 += x3 * y0
                s31 += x3 * y1
            G[a, b] += s00
            G[a, b + 1] += s01
            G[a + 1, b] += s10
            G[a + 1, b + 1] += s11
            G[a + 2, b] += s20
            G[a + 2, b + 1] += s21
            G[a + 3, b] += s30
            G[a + 3, b + 1] += s31


@njit(fastmath=MATH, cache=True)
def _weigh(weights, begin, count, loss, reach, r, w):
    """Weights of a chunk's entries, of which ``r`` are the residuals, into ``w``."""
    for e in range(count):
        w[e] = weights[begin + e] if weights.size > 0 else 1.0
    if loss == 1:
        for e in range(count):
            size = abs(r[e])
            if size > reach:
                w[e] *= reach / size
    elif loss == 2:
        for e in range(count):
            if abs(r[e]) > reach:
                w[e] = 0.0


@njit(fastmath=MATH, cache=True)
def _dot(x, y):
    total = 0.0
    for c in range(x.size):
        total += x[c] * y[c]
    return total


@njit(fastmath=MATH, cache=True)
def _squares(indices, values, offset, W, begin, end, P, full, u, r):
    """Sum of the squares of a row's residuals with ``u``."""
    total, k = 0.0, W.shape[1]
    for number in range((end - begin + CHUNK - 1) // CHUNK):
        o, count = _chunk(indices, W, begin, end, number, P, full)
        _wanted(indices, values, offset, begin + number * CHUNK, count, r)
        _subtract(P, o, count, k, u, r)
        for e in range(count):
            total += r[e] * r[e]
    return total


@njit(fastmath=MATH, cache=True)
def _normal(
    indices,
    values,
    weights,
    offset,
    W,
    begin,
    end,
    ridge,
    base,
    damped,
    unobserved,
    loss,
    reach,
    u,
    P,
    Q,
    r,
    w,
    G,
    y,
):
    """A row's normal equations: the lower triangle of the matrix into ``G``, the right-hand side into ``y``.

    ``P`` keeps the chunks, ``Q`` is for one of them, ``r`` and ``w`` for its residuals and weights. Returns
    the sum of the squares of ``values - offset`` if there are no weights.
    """
    k = W.shape[1]
    plain, squares = weights.size == 0 and loss == 0 and unobserved == 0.0, 0.0
    entries = np.float64(end - begin)
    for a in range(k):
        y[a] = 0.0
    for a in range(G.shape[0]):
        for b in range(G.shape[0]):
            G[a, b] = 0.0
    if damped:
        for a in range(k):
            for b in range(k):
                G[a, b] = entries * ridge[a, b] + base[a, b]
    for number in range((end - begin + CHUNK - 1) // CHUNK):
        o, count = _chunk(indices, W, begin, end, number, P, False)
        first = begin + number * CHUNK
        _wanted(indices, values, offset, first, count, r)
        if plain:
            for e in range(count):
                squares += r[e] * r[e]
            _adjoint(P, o, count, k, r, y)
            _gram(P, o, P, o, count, G)
            continue
        if loss != 0:
            _subtract(P, o, count, k, u, r)
        _weigh(weights, first, count, loss, reach, r, w)
        for e in range(count):
            r[e] = w[e] * (values[first + e] - offset[indices[first + e]])
            w[e] -= unobserved
        _adjoint(P, o, count, k, r, y)
        for c in range(k):
            for e in range(count):
                Q[c, e] = w[e] * P[o + c, e]
        _gram(P, o, Q, 0, count, G)
    return squares


@kernel
def rows_exact(
    indptr, indices, values, weights, offset, W, ridge, base, unobserved, loss, reach, U, squares, threads
):
    """Every row's least-squares problem by Cholesky's factors of its normal equations, into ``U``.

    A row whose matrix is not positive definite takes a ridge (see `cholesky`); a row without entries becomes
    zero. Each row's sum of squared residuals goes to ``squares`` unless it is empty.
    """
    k = U.shape[1]
    chunks = _chunks_of(indptr, k)
    damped = np.any(ridge != 0.0) or np.any(base != 0.0)
    plain = weights.size == 0 and loss == 0 and unobserved == 0.0 and not damped
    lanes = LANES if k <= LANES_UP_TO else 1
    for t in prange(threads):
        kp = _padded(k)
        P, Q, G, L = (
            np.zeros((chunks * kp, STRIDE)),
            np.zeros((kp, STRIDE)),
            np.empty((kp, kp)),
            np.empty((k, k)),
        )
        r, w, x, y = np.empty(CHUNK), np.empty(CHUNK), np.empty(k), np.empty(k)
        several, right = np.zeros((k, k, lanes)), np.zeros((k, lanes))
        sound, norms = np.zeros(LANES, np.bool_), np.zeros(LANES)
        first, last = _first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)
        for block in range(first, last, lanes):
            rows = min(lanes, last - block)
            for lane in range(rows):
                i = block + lane
                begin, end = indptr[i], indptr[i + 1]
                norms[lane] = _normal(
                    indices, values, weights, offset, W, begin, end, ridge, base, damped,
                    unobserved, loss, reach, U[i],
                    P, Q, r, w, G, y,
                )  # fmt: skip
                for a in range(k):
                    right[a, lane] = y[a]
                    for b in range(a + 1):
                        several[a, b, lane] = G[a, b]
                if plain:
                    copy_vector(y, U[i])
            sound[:] = False
            if lanes == LANES:
                cholesky_lanes(several, right, sound)
            for lane in range(rows):
                i = block + lane
                begin, end = indptr[i], indptr[i + 1]
                for a in range(k):
                    x[a] = right[a, lane]
                if not sound[lane]:
                    if lanes > 1:
                        _normal(
                            indices, values, weights, offset, W, begin, end, ridge, base, damped,
                            unobserved, loss, reach, U[i], P, Q, r, w, G, x,
                        )  # fmt: skip
                    if cholesky(G, L, k):
                        solve_factored(L, x)
                    else:
                        x[:] = 0.0
                if squares.size > 0:
                    # Of a plain row the residual is orthogonal to what was fitted.
                    left = norms[lane] - _dot(U[i], x) if plain else 0.0
                    if not left > 1e-9 * norms[lane]:
                        left = _squares(indices, values, offset, W, begin, end, P, False, x, r)
                    squares[i] = left
                copy_vector(x, U[i])


@kernel
def rows_nonnegative(
    indptr,
    indices,
    values,
    weights,
    offset,
    W,
    ridge,
    base,
    unobserved,
    loss,
    reach,
    U,
    steps,
    squares,
    threads,
):
    """Every row's least-squares problem over vectors that are not negative, from and into ``U``.

    Each component in turn takes its best value with the others held, so many times over.
    """
    k = U.shape[1]
    chunks, damped = _chunks_of(indptr, k), np.any(ridge != 0.0) or np.any(base != 0.0)
    for t in prange(threads):
        kp = _padded(k)
        P, Q, G = np.zeros((chunks * kp, STRIDE)), np.zeros((kp, STRIDE)), np.empty((kp, kp))
        r, w, y, x = np.empty(CHUNK), np.empty(CHUNK), np.empty(k), np.empty(k)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end = indptr[i], indptr[i + 1]
            copy_vector(U[i], x)
            _normal(
                indices, values, weights, offset, W, begin, end, ridge, base, damped,
                unobserved, loss, reach, x,
                P, Q, r, w, G, y,
            )  # fmt: skip
            for _ in range(steps):
                for a in range(k):
                    slope = y[a]
                    for b in range(a + 1):
                        slope -= G[a, b] * x[b]
                    for b in range(a + 1, k):
                        slope -= G[b, a] * x[b]
                    x[a] = max(0.0, x[a] + slope / G[a, a]) if G[a, a] > 0.0 else 0.0
            copy_vector(x, U[i])
            if squares.size > 0:
                squares[i] = _squares(indices, values, offset, W, begin, end, P, True, x, r)


@kernel
def rows_cg(
    indptr, indices, values, weights, offset, W, ridge, base, unobserved, loss, reach, U, sketch, buckets,
    seed, rtol, steps, squares, threads,
):  # fmt: skip
    """Steps of conjugate gradients on every row's normal equations, from and into ``U``.

    They are preconditioned by the Gram matrix of a sketch of the row in so many buckets (see
    `sketched_gram`), or, with none, by nothing. A row ends early where its gradient, measured in the
    preconditioner, is ``rtol`` of the first, or so small that it is rounding.
    """
    k, rtol = U.shape[1], max(rtol, ROUNDING)
    chunks, plain = _chunks_of(indptr, k), weights.size == 0 and loss == 0 and unobserved == 0.0
    damped = np.any(ridge != 0.0) or np.any(base != 0.0)
    longest = _longest(indptr)
    for t in prange(threads):
        kp = _padded(k)
        P, r, w = np.zeros((chunks * kp, STRIDE)), np.empty(CHUNK), np.ones(longest)
        S, G, L = np.empty((k, buckets)), np.empty((k, k)), np.empty((k, k))
        column = np.empty(transform_size(longest) if buckets > 0 else 0)
        g, z, p, q, x = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k)
        for i in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            begin, end = indptr[i], indptr[i + 1]
            numbers = (end - begin + CHUNK - 1) // CHUNK
            if squares.size > 0:
                squares[i] = 0.0
            if begin == end:
                U[i] = 0.0
                continue
            copy_vector(U[i], x)
            g[:] = 0.0
            if damped:
                for c in range(k):
                    g[c] = -(end - begin) * _dot(ridge[c], x) - _dot(base[c], x)
            for number in range(numbers):
                o, count = _chunk(indices, W, begin, end, number, P, False)
                first = begin + number * CHUNK
                _wanted(indices, values, offset, first, count, r)
                _subtract(P, o, count, k, x, r)
                if not plain:
                    omega = w[number * CHUNK : number * CHUNK + count]
                    _weigh(weights, first, count, loss, reach, r, omega)
                    for e in range(count):
                        omega[e] -= unobserved
                        value = values[first + e] - offset[indices[first + e]]
                        r[e] = omega[e] * r[e] + unobserved * value
                _adjoint(P, o, count, k, r, g)
            copy_vector(g, z)
            if buckets > 0:
                for a in range(k):
                    for b in range(a + 1):
                        G[a, b] = (end - begin) * ridge[a, b] + base[a, b]
                sketched_gram(indices, W, begin, end, w, i, seed, sketch, S, column, G)
                if not cholesky(G, L, k):
                    U[i] = 0.0
                    continue
                solve_factored(L, z)
            gz = _dot(g, z)
            start = gz
            copy_vector(z, p)
            for _ in range(steps):
                if not gz > rtol * rtol * start:
                    break
                q[:] = 0.0
                if damped:
                    for c in range(k):
                        q[c] = (end - begin) * _dot(ridge[c], p) + _dot(base[c], p)
                for number in range(numbers):
                    o, count = _chunk(indices, W, begin, end, number, P, True)
                    r[:] = 0.0
                    _subtract(P, o, count, k, p, r)
                    if plain:
                        for e in range(count):
                            r[e] = -r[e]
                    else:
                        for e in range(count):
                            r[e] *= -w[number * CHUNK + e]
                    _adjoint(P, o, count, k, r, q)
                curvature = _dot(p, q)
                if not curvature > 0.0:
                    break
                for c in range(k):
                    x[c] += gz / curvature * p[c]
                    g[c] -= gz / curvature * q[c]
                copy_vector(g, z)
                if buckets > 0:
                    solve_factored(L, z)
                new = _dot(g, z)
                for c in range(k):
                    p[c] = z[c] + new / gz * p[c]
                gz = new
            copy_vector(x, U[i])
            if squares.size > 0:
                squares[i] = _squares(indices, values, offset, W, begin, end, P, True, x, r)
