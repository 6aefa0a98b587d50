"""CPU kernel for the spectral norms of a shallow piecewise-linear map's Jacobians, `LANES` points at a time.

Matrices are (M, M, lanes).
"""

import math

import numpy as np
from numba import njit, prange

from learnsolve.kernels.lanes import LANES, load, root, spread, store, where_positive
from learnsolve.kernels.pointers import address, read
from learnsolve.kernels.shplrnn_numba import GROUP, by_units, gather, sums_of
from learnsolve.kernels.threads import INLINE, kernel

# A Gram matrix is squared so often, and so many steps of power iteration follow: 64 steps of its own in all.
SQUARED, STEPS = 3, 8
# A square of how little an image differs from its column's direction and counts as along it.
TINY = 1e-10


@njit(**INLINE)
def slope_of(s, b, zero, one, clipped):
    """How much a hidden unit passes on at its sum."""
    on = where_positive(s + b, one, zero)
    return on - where_positive(s, one, zero) if clipped else on


@njit(**INLINE)
def _jacobians(a, w1, w2, h2, clipped, z, out):
    """``out = diag(a) + w1 diag(slopes) w2``."""
    states, hidden = len(a), len(h2)
    decay, enter, leave, bias = address(a), address(w2), address(w1), address(h2)
    x, J, zero, one = address(z), address(out), spread(a.dtype.type(0)), spread(a.dtype.type(1))
    for m in range(states):
        for n in range(states):
            store(J, (m * states + n) * LANES, spread(read(decay, m)) if m == n else zero)
    for h in range(0, hidden, GROUP):
        s0, s1, s2, s3 = sums_of(enter, x, h, states, zero)
        d0 = slope_of(s0, spread(read(bias, h)), zero, one, clipped)
        d1 = slope_of(s1, spread(read(bias, h + 1)), zero, one, clipped)
        d2 = slope_of(s2, spread(read(bias, h + 2)), zero, one, clipped)
        d3 = slope_of(s3, spread(read(bias, h + 3)), zero, one, clipped)
        i = h * states
        i1, i2, i3 = i + states, i + 2 * states, i + 3 * states
        for m in range(states):
            t0, t1 = spread(read(leave, i + m)) * d0, spread(read(leave, i1 + m)) * d1
            t2, t3 = spread(read(leave, i2 + m)) * d2, spread(read(leave, i3 + m)) * d3
            for n in range(states):
                k = (m * states + n) * LANES
                this = t0 * spread(read(enter, i + n)) + t1 * spread(read(enter, i1 + n))
                that = t2 * spread(read(enter, i2 + n)) + t3 * spread(read(enter, i3 + n))
                store(J, k, load(J, k) + (this + that))


@njit(**INLINE)
def _gram(x, zero, out):
    """``out = x' x``."""
    size = len(x)
    source, o = address(x), address(out)
    for i in range(size):
        for j in range(i + 1):
            sum = zero
            for m in range(size):
                sum = sum + load(source, (m * size + i) * LANES) * load(source, (m * size + j) * LANES)
            store(o, (i * size + j) * LANES, sum)
            store(o, (j * size + i) * LANES, sum)


@njit(**INLINE)
def _scaled(x, zero, one):
    """A positive semidefinite matrix over its trace."""
    size, p = len(x), address(x)
    trace = zero
    for i in range(size):
        trace = trace + load(p, (i * size + i) * LANES)
    scale = one / where_positive(trace, trace, one)
    for k in range(size * size):
        store(p, k * LANES, load(p, k * LANES) * scale)


@njit(**INLINE)
def _image(matrix, v, zero, out):
    """``out = matrix v``; gives ``v' matrix v`` and ``v' v``."""
    size = len(v)
    p, x, o = address(matrix), address(v), address(out)
    below, above = zero, zero
    for i in range(size):
        sum = zero
        for j in range(size):
            sum = sum + load(p, (i * size + j) * LANES) * load(x, j * LANES)
        own = load(x, i * LANES)
        below, above = below + own * own, above + own * sum
        store(o, i * LANES, sum)
    return above, below


@njit(**INLINE)
def _largest(gram, power, room, v, image, zero, one):
    """Largest eigenvalue of a positive semidefinite matrix, of which the other matrices are room.

    The largest column of a power is nearly an eigenvector. Where another eigenvalue is so close that it is
    not, both lie in the plane of that column and its image.
    """
    size = len(gram)
    source, o = address(gram), address(power)
    for k in range(size * size):
        store(o, k * LANES, load(source, k * LANES))
    for _ in range(SQUARED):
        _scaled(power, zero, one)
        _gram(power, zero, room)
        power, room = room, power
    p, x, y, z = address(power), address(v), address(image), address(room)
    best = zero - one
    for i in range(size):
        own = load(p, (i * size + i) * LANES)
        for j in range(size):
            entry = load(p, (i * size + j) * LANES)
            store(x, j * LANES, where_positive(own - best, entry, load(x, j * LANES)))
        best = where_positive(own - best, own, best)
    for _ in range(STEPS):
        above, below = _image(power, v, zero, image)
        # So that it stays about as long as it is.
        scale = below / where_positive(above, above, one)
        for j in range(size):
            store(x, j * LANES, load(y, j * LANES) * scale)
    whole, _ = _image(power, v, zero, image)
    # Twice, for what is left of it where it is nearly along the column is hardly across it.
    for _ in range(2):
        along, below = zero, zero
        for j in range(size):
            own = load(x, j * LANES)
            along, below = along + own * load(y, j * LANES), below + own * own
        scale = along / where_positive(below, below, one)
        for j in range(size):
            store(y, j * LANES, load(y, j * LANES) - scale * load(x, j * LANES))
    first, length = _image(gram, v, zero, room[0])
    both = zero
    for j in range(size):
        both = both + load(y, j * LANES) * load(z, j * LANES)
    second, other = _image(gram, image, zero, room[0])
    # What rounding alone leaves of it is along the column, and nothing.
    least = spread(gram.dtype.type(TINY)) * (whole / where_positive(length, length, one)) * whole
    both, second = where_positive(other - least, both, zero), where_positive(other - least, second, zero)
    length, other = where_positive(length, length, one), where_positive(other, other, one)
    first, second = first / length, second / other
    half, middle = spread(gram.dtype.type(0.5)), first + second
    apart = half * (first - second)
    return half * middle + root(apart * apart + (both / length) * (both / other))


@kernel
def jacobian_norms(a, w1, w2, h2, points, clipped, out, threads):
    """Spectral norm of the Jacobian at each of the points (n, 1, M)."""
    count, states, kind = len(out), len(a), a.dtype
    for block in prange((count + LANES - 1) // LANES):
        z, v, image = (
            np.empty((states, LANES), kind),
            np.zeros((states, LANES), kind),
            np.empty((states, LANES), kind),
        )
        J, gram = np.empty((states, states, LANES), kind), np.empty((states, states, LANES), kind)
        power, room = np.empty((states, states, LANES), kind), np.empty((states, states, LANES), kind)
        found = np.empty(LANES, kind)
        zero, one = spread(a.dtype.type(0)), spread(a.dtype.type(1))
        leave, enter, bias = by_units(w1, w2, h2)
        gather(points, block * LANES, 0, z)
        _jacobians(a, leave, enter, bias, clipped, z, J)
        _gram(J, zero, gram)
        store(address(found), 0, _largest(gram, power, room, v, image, zero, one))
        for lane in range(min(LANES, count - block * LANES)):
            out[block * LANES + lane] = math.sqrt(found[lane])
