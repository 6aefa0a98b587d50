"""CPU kernels for two coupled recurrences on a grid, one along each axis.

Arrays are (groups, rows, columns, channels). The channels are side by side, so that both steps of a place
are one loop that a processor does several channels at a time.
"""

from numba import prange

from learnsolve.kernels.threads import kernel

# Channels that one thread takes at a time.
BLOCK = 128


@kernel
def coupled_plane(a1, a2, a3, a4, b1, b2, first1, first2, h1, h2, threads):
    """``h1`` follows both along the columns, and ``h2`` both along the rows."""
    channels = b1.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(b1.shape[0] * blocks):
        n, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        for v in range(b1.shape[1]):
            for t in range(b1.shape[2]):
                if t > 0:
                    for d in range(low, high):
                        along = a1[n, v, t, d] * h1[n, v, t - 1, d] + a2[n, v, t, d] * h2[n, v, t - 1, d]
                        h1[n, v, t, d] = along + b1[n, v, t, d]
                else:
                    for d in range(low, high):
                        along = a1[n, v, t, d] * first1[n, v, d] + a2[n, v, t, d] * first2[n, v, d]
                        h1[n, v, t, d] = along + b1[n, v, t, d]
                if v > 0:
                    for d in range(low, high):
                        down = a3[n, v, t, d] * h1[n, v - 1, t, d] + a4[n, v, t, d] * h2[n, v - 1, t, d]
                        h2[n, v, t, d] = down + b2[n, v, t, d]
                else:
                    for d in range(low, high):
                        h2[n, v, t, d] = b2[n, v, t, d]


@kernel
def coupled_plane_adjoint(a1, a2, a3, a4, y1, y2, z1, z2, threads):
    """The adjoint, from the last row and column on."""
    channels = y1.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    rows, columns = y1.shape[1], y1.shape[2]
    for job in prange(y1.shape[0] * blocks):
        n, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        for v in range(rows - 1, -1, -1):
            for t in range(columns - 1, -1, -1):
                for d in range(low, high):
                    z1[n, v, t, d] = y1[n, v, t, d]
                    z2[n, v, t, d] = y2[n, v, t, d]
                if t < columns - 1:
                    for d in range(low, high):
                        right = z1[n, v, t + 1, d]
                        z1[n, v, t, d] += a1[n, v, t + 1, d].conjugate() * right
                        z2[n, v, t, d] += a2[n, v, t + 1, d].conjugate() * right
                if v < rows - 1:
                    for d in range(low, high):
                        below = z2[n, v + 1, t, d]
                        z1[n, v, t, d] += a3[n, v + 1, t, d].conjugate() * below
                        z2[n, v, t, d] += a4[n, v + 1, t, d].conjugate() * below
