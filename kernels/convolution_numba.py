"""CPU kernels for causal convolutions of each channel by few taps, channels side by side.

Arrays are (groups, time, channels), ``weight`` (taps, channels), ``first`` (pieces, span, channels) with span
one tap less times the dilation; ``pieces`` (n, 3) names the sequences: group, first time, last time and one.
"""

import numpy as np
from numba import prange

from learnsolve.kernels.threads import kernel

# Channels that one thread takes at a time.
BLOCK = 128


@kernel
def convolve(x, weight, first, pieces, dilation, out, threads):
    """``out[t] = sum of weight[j] x[t - j dilation]``."""
    channels, span = x.shape[2], first.shape[1]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        for t in range(begin, end):
            for d in range(low, high):
                out[group, t, d] = weight[0, d] * x[group, t, d]
            for j in range(1, weight.shape[0]):
                s = t - j * dilation
                if s >= begin:
                    for d in range(low, high):
                        out[group, t, d] += weight[j, d] * x[group, s, d]
                else:
                    for d in range(low, high):
                        out[group, t, d] += weight[j, d] * first[piece, span + s - begin, d]


@kernel
def convolve_adjoint(x, weight, first, pieces, dilation, dy, dx, dweight, dfirst, threads):
    """Gradients; ``dweight`` (pieces, taps, channels) has each sequence's share, and all come as zeros."""
    channels, span = x.shape[2], first.shape[1]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        for t in range(begin, end):
            for j in range(weight.shape[0]):
                s = t - j * dilation
                if s >= begin:
                    for d in range(low, high):
                        dx[group, s, d] += weight[j, d] * dy[group, t, d]
                        dweight[piece, j, d] += x[group, s, d] * dy[group, t, d]
                else:
                    r = np.int64(span + s - begin)
                    for d in range(low, high):
                        dfirst[piece, r, d] += weight[j, d] * dy[group, t, d]
                        dweight[piece, j, d] += first[piece, r, d] * dy[group, t, d]
