"""CPU kernel for the Lyapunov exponents of a shallow piecewise-linear map, along one orbit.

Hidden units lie side by side in memory: ``w1`` and ``w2`` are both (M, H), of which the second is transposed,
and H is a multiple of `UNITS`, so that loops over them have no remainder.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.copies_numba import copy_matrix, copy_vector
from learnsolve.kernels.frames_numba import orthonormalise
from learnsolve.kernels.threads import INLINE, MATH

UNITS = 32


@njit(**INLINE)
def _mixed(z, w, out):
    """``out[h] = sum over m of w[m, h] z[m]``, four rows at a time."""
    states, hidden = w.shape
    out[:] = 0
    even = states - states % 4
    for m in range(0, even, 4):
        w0, w1, w2, w3 = w[m], w[m + 1], w[m + 2], w[m + 3]
        z0, z1, z2, z3 = z[m], z[m + 1], z[m + 2], z[m + 3]
        for h in range(hidden):
            out[h] += (w0[h] * z0 + w1[h] * z1) + (w2[h] * z2 + w3[h] * z3)
    if states - even == 3:
        w0, w1, w2 = w[even], w[even + 1], w[even + 2]
        z0, z1, z2 = z[even], z[even + 1], z[even + 2]
        for h in range(hidden):
            out[h] += w0[h] * z0 + w1[h] * z1 + w2[h] * z2
    else:
        for m in range(even, states):
            row, value = w[m], z[m]
            for h in range(hidden):
                out[h] += row[h] * value


@njit(**INLINE)
def _activated(sums, h2, clipped, active):
    """What hidden units give of their sums."""
    zero = sums.dtype.type(0)
    if clipped:
        for h in range(len(h2)):
            active[h] = max(sums[h] + h2[h], zero) - max(sums[h], zero)
    else:
        for h in range(len(h2)):
            active[h] = max(sums[h] + h2[h], zero)


@njit(**INLINE)
def _step(z, a, w1, w2, h1, h2, clipped, sums, active, out):
    """One time: ``out = a z + w1 active + h1``."""
    _mixed(z, w2, sums)
    _activated(sums, h2, clipped, active)
    for m in range(len(a)):
        row, total = w1[m], a.dtype.type(0)
        for h in range(len(h2)):
            total += row[h] * active[h]
        out[m] = a[m] * z[m] + h1[m] + total


@njit(**INLINE)
def _jacobian(z, a, w1, w2, h2, clipped, sums, active, out):
    """``out = diag(a) + w1 diag(slopes) w2``."""
    zero, one = sums.dtype.type(0), sums.dtype.type(1)
    states, hidden = w1.shape
    _mixed(z, w2, sums)
    for h in range(hidden):
        active[h] = one if sums[h] + h2[h] > zero else zero
        if clipped:
            active[h] -= one if sums[h] > zero else zero
    for m in range(states):
        for h in range(hidden):
            sums[h] = w1[m, h] * active[h]
        for n in range(states):
            row, total = w2[n], zero
            for h in range(hidden):
                total += sums[h] * row[h]
            out[m, n] = total
        out[m, m] += a[m]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def exponents(a, w1, w2, h1, h2, z, frame, transient, steps, clipped, sums):
    """Add up logarithms of how much orthogonal directions, the rows of ``frame`` (count, M), stretch."""
    states, count = len(a), len(frame)
    room, active, after = np.empty(len(h2), a.dtype), np.empty(len(h2), a.dtype), np.empty(states, a.dtype)
    J, image = np.empty((states, states), a.dtype), np.empty((count, states), a.dtype)
    for t in range(transient + steps):
        _jacobian(z, a, w1, w2, h2, clipped, room, active, J)
        _step(z, a, w1, w2, h1, h2, clipped, room, active, after)
        copy_vector(after, z)
        for k in range(count):
            for m in range(states):
                total = a.dtype.type(0)
                for n in range(states):
                    total += J[m, n] * frame[k, n]
                image[k, m] = total
        copy_matrix(image, frame)
        if t == transient:
            sums[:] = 0
        orthonormalise(frame, sums)
