"""CPU kernels for systems whose right-hand side is quadratic: orbits, and how they stretch directions.

The right-hand side is ``constant[i] + sum of value * x[a] + sum of value * x[a] * x[b]``: ``linear`` (n, 2)
holds i and a, ``quadratic`` (n, 3) i, a and b. A flow takes steps of the classical Runge-Kutta method of
order four and length ``dt``; a map, where ``dt`` is zero, goes to its right-hand side.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.copies_numba import copy_vector
from learnsolve.kernels.frames_numba import orthonormalise
from learnsolve.kernels.threads import INLINE, MATH


@njit(**INLINE)
def _side(x, constant, linear, linear_values, quadratic, quadratic_values, out):
    copy_vector(constant, out)
    for n in range(len(linear)):
        out[linear[n, 0]] += linear_values[n] * x[linear[n, 1]]
    for n in range(len(quadratic)):
        out[quadratic[n, 0]] += quadratic_values[n] * x[quadratic[n, 1]] * x[quadratic[n, 2]]


@njit(**INLINE)
def _tangent(x, v, linear, linear_values, quadratic, quadratic_values, out):
    """``out`` = the derivative at ``x`` along each row of ``v`` (count, N)."""
    out[:] = 0
    for k in range(len(v)):
        for n in range(len(linear)):
            out[k, linear[n, 0]] += linear_values[n] * v[k, linear[n, 1]]
        for n in range(len(quadratic)):
            a, b = quadratic[n, 1], quadratic[n, 2]
            out[k, quadratic[n, 0]] += quadratic_values[n] * (x[a] * v[k, b] + x[b] * v[k, a])


@njit(**INLINE)
def _step(
    x,
    v,
    constant,
    linear,
    linear_values,
    quadratic,
    quadratic_values,
    dt,
    at,
    turn,
    side,
    slope,
    more,
    turned,
):
    """Move ``x`` and the directions ``v``; the last six are room."""
    if dt == 0:
        _tangent(x, v, linear, linear_values, quadratic, quadratic_values, turned)
        _side(x, constant, linear, linear_values, quadratic, quadratic_values, more)
        copy_vector(more, x)
        for k in range(len(v)):
            copy_vector(turned[k], v[k])
        return
    more[:] = 0
    turned[:] = 0
    copy_vector(x, at)
    for k in range(len(v)):
        copy_vector(v[k], turn[k])
    for stage in range(4):
        _side(at, constant, linear, linear_values, quadratic, quadratic_values, side)
        _tangent(at, turn, linear, linear_values, quadratic, quadratic_values, slope)
        weight = dt / 3 if stage == 1 or stage == 2 else dt / 6
        ahead = dt if stage == 2 else dt / 2
        for i in range(len(x)):
            more[i] += weight * side[i]
            at[i] = x[i] + ahead * side[i]
        for k in range(len(v)):
            for i in range(len(x)):
                turned[k, i] += weight * slope[k, i]
                turn[k, i] = v[k, i] + ahead * slope[k, i]
    for i in range(len(x)):
        x[i] += more[i]
    for k in range(len(v)):
        for i in range(len(x)):
            v[k, i] += turned[k, i]


@njit(fastmath=MATH, error_model="numpy", cache=True)
def follow(x, frame, constant, linear, linear_values, quadratic, quadratic_values, dt, substeps, out, sums):
    """An orbit (T, N), a row every ``substeps`` steps; ``sums`` gets logarithms of how ``frame`` stretched.

    ``x`` and ``frame`` (count, N), orthonormal rows, are moved along.
    """
    count, size = frame.shape
    at, side, more = np.empty(size), np.empty(size), np.empty(size)
    turn, slope, turned = np.empty((count, size)), np.empty((count, size)), np.empty((count, size))
    for t in range(len(out)):
        for _ in range(substeps):
            _step(
                x, frame, constant, linear, linear_values, quadratic, quadratic_values, dt, at, turn, side,
                slope, more, turned,
            )  # fmt: skip
        copy_vector(x, out[t])
        orthonormalise(frame, sums)
