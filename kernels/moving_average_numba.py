"""CPU kernels for sums of exponential moving averages, channels side by side, four states at a time.

Arrays are (groups, time, channels), ``q`` and ``c`` (states, channels), ``first`` and ``last`` (pieces,
states, channels), the number of states a multiple of four; ``pieces`` (n, 3) names the sequences: group,
first time, last time and one. ``marks`` (parts, states, channels) are the states before every `PART` times,
``bounds`` the first of them of each sequence.
"""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.copies_numba import copy_matrix, copy_vector
from learnsolve.kernels.threads import INLINE, kernel

# Channels that one thread takes at a time, and times whose states the gradient keeps.
BLOCK = 64
PART = 32


@njit(**INLINE)
def _step(h, q, c, x, y):
    """``h = q h + x``, and ``y = sum of c h``."""
    y[:] = 0
    for n in range(0, h.shape[0], 4):
        h0, h1, h2, h3 = h[n], h[n + 1], h[n + 2], h[n + 3]
        q0, q1, q2, q3 = q[n], q[n + 1], q[n + 2], q[n + 3]
        c0, c1, c2, c3 = c[n], c[n + 1], c[n + 2], c[n + 3]
        for d in range(h.shape[1]):
            e, f = q0[d] * h0[d] + x[d], q1[d] * h1[d] + x[d]
            g, i = q2[d] * h2[d] + x[d], q3[d] * h3[d] + x[d]
            h0[d], h1[d], h2[d], h3[d] = e, f, g, i
            y[d] += c0[d] * e + c1[d] * f + c2[d] * g + c3[d] * i


@njit(**INLINE)
def _follow(h, q, x, out):
    """``out = q h + x``."""
    for n in range(h.shape[0]):
        before, rate, after = h[n], q[n], out[n]
        for d in range(h.shape[1]):
            after[d] = rate[d] * before[d] + x[d]


@kernel
def average(x, q, c, first, pieces, bounds, y, last, marks, threads):
    """``h[t] = q h[t - 1] + x[t]``, ``y[t] = sum of c h[t]``; marks are kept where there is room for them."""
    states, channels = q.shape
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        h, row = np.empty((states, high - low), x.dtype), np.empty(high - low, x.dtype)
        mine, its = q[:, low:high].copy(), c[:, low:high].copy()
        copy_matrix(first[piece, :, low:high], h)
        for t in range(begin, end):
            if marks.shape[0] > 0 and (t - begin) % PART == 0:
                copy_matrix(h, marks[bounds[piece] + (t - begin) // PART, :, low:high])
            _step(h, mine, its, x[group, t, low:high], row)
            copy_vector(row, y[group, t, low:high])
        copy_matrix(h, last[piece, :, low:high])


@njit(**INLINE)
def _backward(back, q, c, h, before, dy, dx, dq, dc):
    """Shares of one time in the gradients; ``back`` is what the later state gives, then this one."""
    dx[:] = 0
    for n in range(0, back.shape[0], 4):
        for j in range(n, n + 4, 2):
            b0, b1, q0, q1, c0, c1 = back[j], back[j + 1], q[j], q[j + 1], c[j], c[j + 1]
            h0, h1, p0, p1 = h[j], h[j + 1], before[j], before[j + 1]
            dq0, dq1, dc0, dc1 = dq[j], dq[j + 1], dc[j], dc[j + 1]
            for d in range(back.shape[1]):
                e, f = b0[d] + c0[d] * dy[d], b1[d] + c1[d] * dy[d]
                b0[d], b1[d] = q0[d] * e, q1[d] * f
                dx[d] += e + f
                dq0[d] += e * p0[d]
                dq1[d] += f * p1[d]
                dc0[d] += dy[d] * h0[d]
                dc1[d] += dy[d] * h1[d]


@kernel
def average_adjoint(x, q, c, marks, pieces, bounds, dy, dlast, dx, dq, dc, dfirst, threads):
    """Gradients; of each sequence ``dq`` and ``dc`` (pieces, states, channels) have its share."""
    states, channels = q.shape
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        wide = high - low
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        h, row = np.empty((PART + 1, states, wide), x.dtype), np.empty(wide, x.dtype)
        mine, its = q[:, low:high].copy(), c[:, low:high].copy()
        back = dlast[piece, :, low:high].copy()
        more_q, more_c = np.zeros((states, wide), x.dtype), np.zeros((states, wide), x.dtype)
        for part in range((end - begin + PART - 1) // PART - 1, -1, -1):
            early = begin + part * PART
            count = min(PART, end - early)
            copy_matrix(marks[bounds[piece] + part, :, low:high], h[0])
            for s in range(count):
                _follow(h[s], mine, x[group, early + s, low:high], h[s + 1])
            for s in range(count - 1, -1, -1):
                t = early + s
                _backward(back, mine, its, h[s + 1], h[s], dy[group, t, low:high], row, more_q, more_c)
                copy_vector(row, dx[group, t, low:high])
        copy_matrix(back, dfirst[piece, :, low:high])
        copy_matrix(more_q, dq[piece, :, low:high])
        copy_matrix(more_c, dc[piece, :, low:high])
