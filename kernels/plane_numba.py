"""CPU kernels for first-order recurrences on a grid, from each place to the next along either axis.

Arrays are (groups, rows, columns, channels). Solving so is substitution with a triangular matrix of two
bands, whose order of rows is one that respects all wavefronts; the channels are side by side.
"""

from numba import prange

from learnsolve.kernels.threads import kernel

# Channels that one thread takes at a time.
BLOCK = 128


@kernel
def plane(across, down, b, out, threads):
    """``out[v, t] = across[v, t] out[v, t - 1] + down[v, t] out[v - 1, t] + b[v, t]``."""
    channels = b.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(b.shape[0] * blocks):
        n, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        for v in range(b.shape[1]):
            for t in range(b.shape[2]):
                for d in range(low, high):
                    out[n, v, t, d] = b[n, v, t, d]
                if t > 0:
                    for d in range(low, high):
                        out[n, v, t, d] += across[n, v, t, d] * out[n, v, t - 1, d]
                if v > 0:
                    for d in range(low, high):
                        out[n, v, t, d] += down[n, v, t, d] * out[n, v - 1, t, d]


@kernel
def plane_adjoint(across, down, y, out, threads):
    """``out[v, t] = y[v, t] + across[v, t + 1]* out[v, t + 1] + down[v + 1, t]* out[v + 1, t]``."""
    channels = y.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    rows, columns = y.shape[1], y.shape[2]
    for job in prange(y.shape[0] * blocks):
        n, low = job // blocks, (job % blocks) * BLOCK
        high = min(low + BLOCK, channels)
        for v in range(rows - 1, -1, -1):
            for t in range(columns - 1, -1, -1):
                for d in range(low, high):
                    out[n, v, t, d] = y[n, v, t, d]
                if t < columns - 1:
                    for d in range(low, high):
                        out[n, v, t, d] += across[n, v, t + 1, d].conjugate() * out[n, v, t + 1, d]
                if v < rows - 1:
                    for d in range(low, high):
                        out[n, v, t, d] += down[n, v + 1, t, d].conjugate() * out[n, v + 1, t, d]
