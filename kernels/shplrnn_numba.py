"""CPU kernels for shallow piecewise-linear maps: orbits that are drawn to data, their gradients, exponents.

Hidden units lie side by side in memory: ``w1`` and ``w2`` are both (M, H), of which the second is transposed,
and H is a multiple of `UNITS`, so that loops over them have no remainder.
Everything else is shaped as in `learnsolve.kernels.shplrnn`.
"""

import math

import numpy as np
from numba import njit, prange

from learnsolve.kernels.copies_numba import copy_matrix, copy_vector
from learnsolve.kernels.frames_numba import orthonormalise
from learnsolve.kernels.threads import INLINE, MATH, kernel

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
def _drawn(z, target, alpha):
    """A state drawn to what was observed; where nothing was, it stays."""
    return z if math.isnan(target) else (1 - alpha) * z + alpha * target


@kernel
def orbit(a, w1, w2, h1, h2, first, targets, drive, alpha, every, clipped, out, threads):
    """States (B, T, M) of all times, each before it is drawn to its target."""
    batch, length, states = out.shape
    for b in prange(batch):
        z, sums, active = first[b].copy(), np.empty(len(h2), a.dtype), np.empty(len(h2), a.dtype)
        for t in range(length):
            now = out[b, t]
            _step(z, a, w1, w2, h1, h2, clipped, sums, active, now)
            if drive.shape[1] > 0:
                for m in range(states):
                    now[m] += drive[b, t, m]
            for m in range(states):
                z[m] = now[m]
            if targets.shape[1] > 0 and (t + 1) % every == 0:
                for m in range(states):
                    z[m] = _drawn(now[m], targets[b, t, m], alpha)


@njit(**INLINE)
def _back(z, slope, a, w1, w2, h2, clipped, sums, active, dw1, dw2, dh2, out):
    """Shares of one time in the gradients of the weights, and ``out``, that of the state before."""
    zero, one = sums.dtype.type(0), sums.dtype.type(1)
    states, hidden = w1.shape
    _mixed(z, w2, sums)
    _activated(sums, h2, clipped, active)
    for m in range(states):
        row, value = dw1[m], slope[m]
        for h in range(hidden):
            row[h] += value * active[h]
    _mixed(slope, w1, active)
    for h in range(hidden):
        passed = one if sums[h] + h2[h] > zero else zero
        dh2[h] += active[h] * passed
        if clipped:
            passed -= one if sums[h] > zero else zero
        active[h] *= passed
    for m in range(states):
        row, weights, value, total = dw2[m], w2[m], z[m], zero
        for h in range(hidden):
            row[h] += value * active[h]
            total += weights[h] * active[h]
        out[m] = a[m] * slope[m] + total


@kernel
def orbit_adjoint(
    a, w1, w2, h2, first, targets, alpha, every, clipped, states, dy, shares, dfirst, ddrive, threads
):
    """Gradients; of a, w1, w2, h1 and h2, one after the other, ``shares`` (B, ...) have each sequence's.

    They are zero before.
    """
    batch, length, width = states.shape
    hidden = len(h2)
    for b in prange(batch):
        mine, size = shares[b], width * hidden
        da, dh1 = mine[:width], mine[width + 2 * size : 2 * width + 2 * size]
        dw1 = mine[width : width + size].reshape(width, hidden)
        dw2 = mine[width + size : width + 2 * size].reshape(width, hidden)
        dh2 = mine[2 * width + 2 * size :]
        sums, active = np.empty(len(h2), a.dtype), np.empty(len(h2), a.dtype)
        z, slope, before = np.empty(width, a.dtype), np.empty(width, a.dtype), np.zeros(width, a.dtype)
        for t in range(length - 1, -1, -1):
            for m in range(width):
                kept = before[m]
                if targets.shape[1] > 0 and (t + 1) % every == 0 and not math.isnan(targets[b, t, m]):
                    kept *= 1 - alpha
                slope[m] = dy[b, t, m] + kept
                z[m] = states[b, t - 1, m] if t > 0 else first[b, m]
                if t > 0 and targets.shape[1] > 0 and t % every == 0:
                    z[m] = _drawn(z[m], targets[b, t - 1, m], alpha)
            for m in range(width):
                da[m] += slope[m] * z[m]
                dh1[m] += slope[m]
            if ddrive.shape[1] > 0:
                for m in range(width):
                    ddrive[b, t, m] = slope[m]
            _back(z, slope, a, w1, w2, h2, clipped, sums, active, dw1, dw2, dh2, before)
        copy_vector(before, dfirst[b])


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


@njit(**INLINE)
def _gram(x, out):
    """``out = x' x``."""
    size = len(x)
    for i in range(size):
        row = out[i]
        for j in range(size):
            row[j] = 0
        for m in range(size):
            value, other = x[m, i], x[m]
            for j in range(size):
                row[j] += value * other[j]


@njit(**INLINE)
def _largest(gram, power, room):
    """Largest eigenvalue of a positive semidefinite matrix; the other two are room of its shape.

    Where it has been squared six times over, its largest column is nearly an eigenvector, and where two
    eigenvalues are so close that it is not, either is as good.
    """
    size = len(gram)
    copy_matrix(gram, power)
    best = 0
    for _ in range(6):
        for i in range(size):
            best = i if power[i, i] > power[best, best] else best
        scale = power[best, best]
        if not scale > 0:
            return scale
        for i in range(size):
            for j in range(size):
                power[i, j] /= scale
        _gram(power, room)
        copy_matrix(room, power)
    for i in range(size):
        best = i if power[i, i] > power[best, best] else best
    v = power[best]
    above, below = gram[0, 0] * 0, gram[0, 0] * 0
    for i in range(size):
        total = gram[0, 0] * 0
        for j in range(size):
            total += gram[i, j] * v[j]
        above += v[i] * total
        below += v[i] * v[i]
    return above / below


@kernel
def jacobian_norms(a, w1, w2, h2, points, clipped, out, threads):
    """Spectral norm of the Jacobian at each of the points (n, M)."""
    count, states = points.shape
    for block in prange((count + 63) // 64):
        sums, active = np.empty(len(h2), a.dtype), np.empty(len(h2), a.dtype)
        J, gram = np.empty((states, states), a.dtype), np.empty((states, states), a.dtype)
        power, room = np.empty((states, states), a.dtype), np.empty((states, states), a.dtype)
        for n in range(64 * block, min(64 * block + 64, count)):
            _jacobian(points[n], a, w1, w2, h2, clipped, sums, active, J)
            _gram(J, gram)
            out[n] = math.sqrt(_largest(gram, power, room))


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
