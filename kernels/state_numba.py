"""Passes over the state of an attention on the CPU, of which rows go four at a time.

A state is (rows, V), its rows K and as many of zeros as make a multiple of four; vectors over its rows are
padded likewise. Each pass reads and writes the state once, for all that is wanted of it.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.copies_numba import copy_matrix
from learnsolve.kernels.threads import INLINE

ROWS = 4


@njit(**INLINE)
def padded(K):
    """Rows of the state of so many channels of a key."""
    return (K + ROWS - 1) // ROWS * ROWS


@njit(**INLINE)
def opened(first):
    """A state (K, V), padded."""
    S = np.zeros((padded(first.shape[0]), first.shape[1]), first.dtype)
    copy_matrix(first, S)
    return S


@njit(**INLINE)
def read(S, z, row):
    """``row = S' z``."""
    row[:] = 0
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
        for j in range(S.shape[1]):
            row[j] += z0 * A[j] + z1 * B[j] + z2 * C[j] + z3 * D[j]


@njit(**INLINE)
def step(S, a, x, w, y, row):
    """``S = a S + x w'``, ``row = S' y``."""
    row[:] = 0
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        y0, y1, y2, y3 = y[i], y[i + 1], y[i + 2], y[i + 3]
        for j in range(S.shape[1]):
            e, f = a0 * A[j] + x0 * w[j], a1 * B[j] + x1 * w[j]
            g, h = a2 * C[j] + x2 * w[j], a3 * D[j] + x3 * w[j]
            A[j], B[j], C[j], D[j] = e, f, g, h
            row[j] += y0 * e + y1 * f + y2 * g + y3 * h


@njit(**INLINE)
def step_twice_read(S, a, x, w, y, row, z, ahead):
    """``S = a S + x w'``, ``row = S' y``, ``ahead = S' z``; one ``a`` for all rows."""
    row[:] = 0
    ahead[:] = 0
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        y0, y1, y2, y3 = y[i], y[i + 1], y[i + 2], y[i + 3]
        z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
        for j in range(S.shape[1]):
            e, f = a * A[j] + x0 * w[j], a * B[j] + x1 * w[j]
            g, h = a * C[j] + x2 * w[j], a * D[j] + x3 * w[j]
            A[j], B[j], C[j], D[j] = e, f, g, h
            row[j] += y0 * e + y1 * f + y2 * g + y3 * h
            ahead[j] += z0 * e + z1 * f + z2 * g + z3 * h


@njit(**INLINE)
def step_by_rows(S, a, x, w, p, sums):
    """``S = a S + x w'``, ``sums = S p``."""
    zero = S.dtype.type(0)
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(S.shape[1]):
            e, f = a0 * A[j] + x0 * w[j], a1 * B[j] + x1 * w[j]
            g, h = a2 * C[j] + x2 * w[j], a3 * D[j] + x3 * w[j]
            A[j], B[j], C[j], D[j] = e, f, g, h
            s0, s1, s2, s3 = s0 + e * p[j], s1 + f * p[j], s2 + g * p[j], s3 + h * p[j]
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = s0, s1, s2, s3


@njit(**INLINE)
def step_by_rows_twice_read(S, a, x, w, p, before, q, sums):
    """``before = a S p``, ``S = a S + x w'``, ``sums = S q``; one ``a`` for all rows."""
    zero = S.dtype.type(0)
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        b0, b1, b2, b3 = zero, zero, zero, zero
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(S.shape[1]):
            e, f, g, h = a * A[j], a * B[j], a * C[j], a * D[j]
            b0, b1, b2, b3 = b0 + e * p[j], b1 + f * p[j], b2 + g * p[j], b3 + h * p[j]
            e, f, g, h = e + x0 * w[j], f + x1 * w[j], g + x2 * w[j], h + x3 * w[j]
            A[j], B[j], C[j], D[j] = e, f, g, h
            s0, s1, s2, s3 = s0 + e * q[j], s1 + f * q[j], s2 + g * q[j], s3 + h * q[j]
        before[i], before[i + 1], before[i + 2], before[i + 3] = b0, b1, b2, b3
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = s0, s1, s2, s3


@njit(**INLINE)
def step_back(S, y, w, v, sums, x, row, a):
    """``S = S + y w'``, ``sums = S v``, ``row = S' x``, and then ``S = a S``."""
    zero = S.dtype.type(0)
    row[:] = 0
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        y0, y1, y2, y3 = y[i], y[i + 1], y[i + 2], y[i + 3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(S.shape[1]):
            e, f, g, h = A[j] + y0 * w[j], B[j] + y1 * w[j], C[j] + y2 * w[j], D[j] + y3 * w[j]
            s0, s1, s2, s3 = s0 + e * v[j], s1 + f * v[j], s2 + g * v[j], s3 + h * v[j]
            row[j] += x0 * e + x1 * f + x2 * g + x3 * h
            A[j], B[j], C[j], D[j] = a0 * e, a1 * f, a2 * g, a3 * h
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = s0, s1, s2, s3


@njit(**INLINE)
def step_back_corrected(S, a, c, r, y, w, v, sums, x, row):
    """``S = a (S - c r') + y w'``, ``sums = S v``, ``row = S' x``; one ``a`` for all rows."""
    zero = S.dtype.type(0)
    row[:] = 0
    for i in range(0, S.shape[0], ROWS):
        A, B, C, D = S[i], S[i + 1], S[i + 2], S[i + 3]
        c0, c1, c2, c3 = a * c[i], a * c[i + 1], a * c[i + 2], a * c[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        y0, y1, y2, y3 = y[i], y[i + 1], y[i + 2], y[i + 3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(S.shape[1]):
            e, f = a * A[j] - c0 * r[j] + y0 * w[j], a * B[j] - c1 * r[j] + y1 * w[j]
            g, h = a * C[j] - c2 * r[j] + y2 * w[j], a * D[j] - c3 * r[j] + y3 * w[j]
            A[j], B[j], C[j], D[j] = e, f, g, h
            s0, s1, s2, s3 = s0 + e * v[j], s1 + f * v[j], s2 + g * v[j], s3 + h * v[j]
            row[j] += x0 * e + x1 * f + x2 * g + x3 * h
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = s0, s1, s2, s3
