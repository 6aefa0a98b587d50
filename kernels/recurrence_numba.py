"""CPU kernels for first-order recurrences over the time axis, channels side by side.

Arrays are (groups, time, channels). A coefficient's array may have one group or one time, which then stands
for all. ``pieces`` (n, 3) names the sequences: group, first time, last time and one.
"""

from numba import prange

from learnsolve.kernels.threads import kernel

# Channels that one thread takes at a time.
BLOCK = 128


@kernel
def diagonal(a, b, first, pieces, out, last, threads):
    """``out[t] = a[t] out[t - 1] + b[t]`` from ``first`` on, and its last value."""
    channels = b.shape[2]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        ga = group if a.shape[0] > 1 else 0
        for d in range(low, high):
            last[piece, d] = first[piece, d]
        for t in range(begin, end):
            ta = t if a.shape[1] > 1 else 0
            for d in range(low, high):
                last[piece, d] = a[ga, ta, d] * last[piece, d] + b[group, t, d]
                out[group, t, d] = last[piece, d]


@kernel
def diagonal_adjoint(a, y, pieces, out, first, threads):
    """``out[t] = y[t] + conj(a[t + 1]) out[t + 1]``, of the last one alone; ``first = conj(a[0]) out[0]``.

    ``first`` comes as what the last value beyond the end adds to ``y``.
    """
    channels = y.shape[2]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        group, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        ga = group if a.shape[0] > 1 else 0
        for t in range(end - 1, begin - 1, -1):
            ta = t if a.shape[1] > 1 else 0
            for d in range(low, high):
                out[group, t, d] = y[group, t, d] + first[piece, d]
                first[piece, d] = a[ga, ta, d].conjugate() * out[group, t, d]
