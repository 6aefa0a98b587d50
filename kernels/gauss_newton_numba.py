"""Least squares over the tangent space of rank-k matrices, observed at the entries of a sparse pattern.

A tangent vector at ``U diag(s) V.T`` is ``U @ A.T + B @ V.T`` with A of V's shape and B of U's. The pattern
is in compressed rows. U and V have orthonormal columns wherever weights enter.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.threads import MATH

FLOOR = 1e-30


@njit(fastmath=MATH, error_model="numpy", cache=True)
def tangent_residual(indptr, indices, values, U, V, A, B, out):
    """Write ``values - sampled(U @ A.T + B @ V.T)`` into ``out``; returns the sum of squares."""
    total = 0.0
    for i in range(U.shape[0]):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            difference = values[p]
            for c in range(U.shape[1]):
                difference -= U[i, c] * A[j, c] + B[i, c] * V[j, c]
            out[p] = difference
            total += difference * difference
    return total


@njit(fastmath=MATH, error_model="numpy", cache=True)
def tangent_adjoint(indptr, indices, sampled, U, V, A, B):
    """Write the adjoint of ``(A, B) -> sampled(U @ A.T + B @ V.T)`` into A and B."""
    A[:] = 0
    B[:] = 0
    for i in range(U.shape[0]):
        for p in range(indptr[i], indptr[i + 1]):
            j, value = indices[p], sampled[p]
            for c in range(U.shape[1]):
                A[j, c] += value * U[i, c]
                B[i, c] += value * V[j, c]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _small_product(X, Y, out):
    out[:] = 0
    for i in range(X.shape[0]):
        for a in range(X.shape[1]):
            for b in range(Y.shape[1]):
                out[a, b] += X[i, a] * Y[i, b]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def tangent_normal(indptr, indices, U, V, weights, core, A, B, HA, HB):
    """Write the gradient of half a penalized sum of squares at (A, B) into (HA, HB).

    The squares are the sampled entries of ``Z = U @ A.T + B @ V.T``; ``core`` weighs those of
    ``C = U.T @ Z @ V``, and ``weights`` those of the columns of A and B outside the spans of V and U.
    """
    m, k = U.shape
    inner_a, inner_b = np.empty((k, k)), np.empty((k, k))
    _small_product(V, A, inner_a)
    _small_product(U, B, inner_b)
    along_v, along_u = np.empty((k, k)), np.empty((k, k))
    for a in range(k):
        for b in range(k):
            along_v[a, b] = core[b, a] * (inner_a[a, b] + inner_b[b, a]) - inner_a[a, b] * weights[b]
            along_u[a, b] = core[a, b] * (inner_a[b, a] + inner_b[a, b]) - inner_b[a, b] * weights[b]
    for j in range(V.shape[0]):
        for b in range(k):
            total = weights[b] * A[j, b]
            for a in range(k):
                total += V[j, a] * along_v[a, b]
            HA[j, b] = total
    for i in range(m):
        for b in range(k):
            total = weights[b] * B[i, b]
            for a in range(k):
                total += U[i, a] * along_u[a, b]
            HB[i, b] = total
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            value = 0.0
            for c in range(k):
                value += U[i, c] * A[j, c] + B[i, c] * V[j, c]
            for c in range(k):
                HA[j, c] += value * U[i, c]
                HB[i, c] += value * V[j, c]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _factored_blocks(indptr, indices, U, V, weights):
    """Cholesky factors of the blocks of the normal operator that belong to one row of A or of B."""
    m, k = U.shape
    of_a, of_b = np.zeros((V.shape[0], k, k)), np.zeros((m, k, k))
    for j in range(V.shape[0]):
        for c in range(k):
            of_a[j, c, c] = weights[c]
    for i in range(m):
        for c in range(k):
            of_b[i, c, c] = weights[c]
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            for a in range(k):
                for b in range(a + 1):
                    of_a[j, a, b] += U[i, a] * U[i, b]
                    of_b[i, a, b] += V[j, a] * V[j, b]
    for blocks in (of_a, of_b):
        for j in range(blocks.shape[0]):
            for a in range(k):
                for b in range(a + 1):
                    value = blocks[j, a, b]
                    for c in range(b):
                        value -= blocks[j, a, c] * blocks[j, b, c]
                    # A row with fewer entries than the rank leaves its block singular.
                    blocks[j, a, b] = np.sqrt(max(value, 1e-14)) if a == b else value / blocks[j, b, b]
    return of_a, of_b


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _solve_blocks(blocks, right, out):
    """Solve with every block; returns the inner product of right side and solution."""
    n, k = right.shape
    product = 0.0
    for j in range(n):
        for a in range(k):
            value = right[j, a]
            for c in range(a):
                value -= blocks[j, a, c] * out[j, c]
            out[j, a] = value / blocks[j, a, a]
        for a in range(k - 1, -1, -1):
            value = out[j, a]
            for c in range(a + 1, k):
                value -= blocks[j, c, a] * out[j, c]
            out[j, a] = value / blocks[j, a, a]
            product += right[j, a] * out[j, a]
    return product


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _dot(X, Y):
    total = 0.0
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            total += X[i, c] * Y[i, c]
    return total


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _update(X, factor, Y):
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            X[i, c] += factor * Y[i, c]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _combine(X, Y, factor):
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            X[i, c] = Y[i, c] + factor * X[i, c]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def tangent_solve(indptr, indices, values, U, V, weights, core, A, B, rtol, maxiter):
    """Fit ``sampled(U @ A.T + B @ V.T)`` to ``values`` under the penalties of `tangent_normal`.

    Conjugate gradients on the normal equations with a block-diagonal preconditioner, from what A and B
    hold, until the preconditioned residual has fallen by ``rtol``; returns the number of iterations.
    """
    of_a, of_b = _factored_blocks(indptr, indices, U, V, weights)
    right_a, right_b = np.empty_like(A), np.empty_like(B)
    HA, HB, ZA, ZB = np.empty_like(A), np.empty_like(B), np.empty_like(A), np.empty_like(B)
    tangent_adjoint(indptr, indices, values, U, V, right_a, right_b)
    scale = _solve_blocks(of_a, right_a, ZA) + _solve_blocks(of_b, right_b, ZB)
    tangent_normal(indptr, indices, U, V, weights, core, A, B, HA, HB)
    _update(right_a, -1.0, HA)
    _update(right_b, -1.0, HB)
    squared = _solve_blocks(of_a, right_a, ZA) + _solve_blocks(of_b, right_b, ZB)
    goal = max(FLOOR * scale, rtol * rtol * squared)
    DA, DB = ZA.copy(), ZB.copy()
    iterations = 0
    while iterations < maxiter and squared > goal:
        iterations += 1
        tangent_normal(indptr, indices, U, V, weights, core, DA, DB, HA, HB)
        curvature = _dot(DA, HA) + _dot(DB, HB)
        if not curvature > 0:
            break
        step = squared / curvature
        _update(A, step, DA)
        _update(B, step, DB)
        _update(right_a, -step, HA)
        _update(right_b, -step, HB)
        before = squared
        squared = _solve_blocks(of_a, right_a, ZA) + _solve_blocks(of_b, right_b, ZB)
        _combine(DA, ZA, squared / before)
        _combine(DB, ZB, squared / before)
    return iterations
