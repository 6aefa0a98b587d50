"""CPU kernel for the Lyapunov exponents of a shallow piecewise-linear map, along one orbit.

Directions go side by side in lanes, and the orbit's state is in all of them.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.frames_numba import orthonormalise
from learnsolve.kernels.lanes import LANES, load, spread, store
from learnsolve.kernels.pointers import address, read
from learnsolve.kernels.shplrnn_norms_numba import slope_of
from learnsolve.kernels.shplrnn_numba import GROUP, by_units, more, step, sums_of
from learnsolve.kernels.threads import INLINE, MATH


@njit(**INLINE)
def _turned(a, w1, w2, h2, clipped, z, q, out):
    """``out = J q`` with the Jacobian at ``z``."""
    states, hidden = len(a), len(h2)
    decay, enter, leave, bias = address(a), address(w2), address(w1), address(h2)
    x, y, o = address(z), address(q), address(out)
    zero, one = spread(a.dtype.type(0)), spread(a.dtype.type(1))
    for m in range(states):
        store(o, m * LANES, spread(read(decay, m)) * load(y, m * LANES))
    for h in range(0, hidden, GROUP):
        s0, s1, s2, s3 = sums_of(enter, x, h, states, zero)
        g0, g1, g2, g3 = sums_of(enter, y, h, states, zero)
        g0 = g0 * slope_of(s0, spread(read(bias, h)), zero, one, clipped)
        g1 = g1 * slope_of(s1, spread(read(bias, h + 1)), zero, one, clipped)
        g2 = g2 * slope_of(s2, spread(read(bias, h + 2)), zero, one, clipped)
        g3 = g3 * slope_of(s3, spread(read(bias, h + 3)), zero, one, clipped)
        i = h * states
        for m in range(states):
            more(o, m * LANES, spread(read(leave, i + m)), g0)
            more(o, m * LANES, spread(read(leave, i + states + m)), g1)
            more(o, m * LANES, spread(read(leave, i + 2 * states + m)), g2)
            more(o, m * LANES, spread(read(leave, i + 3 * states + m)), g3)


@njit(fastmath=MATH, error_model="numpy", cache=True)
def exponents(a, w1, w2, h1, h2, first, frame, transient, steps, clipped, sums):
    """Add up logarithms of how much orthogonal directions, the rows of ``frame`` (count, M), stretch."""
    states, count = len(a), len(frame)
    leave, enter, bias = by_units(w1, w2, h2)
    z, after = np.empty((states, LANES), a.dtype), np.empty((states, LANES), a.dtype)
    q, image = np.zeros((states, LANES), a.dtype), np.empty((states, LANES), a.dtype)
    for m in range(states):
        for lane in range(LANES):
            z[m, lane] = first[m]
    for t in range(transient + steps):
        for low in range(0, count, LANES):
            wide = min(LANES, count - low)
            for m in range(states):
                for lane in range(wide):
                    q[m, lane] = frame[low + lane, m]
            _turned(a, leave, enter, bias, clipped, z, q, image)
            for m in range(states):
                for lane in range(wide):
                    frame[low + lane, m] = image[m, lane]
        step(a, leave, enter, h1, bias, clipped, z, after)
        z, after = after, z
        if t == transient:
            sums[:] = 0
        orthonormalise(frame, sums)
