"""The triad of STREAM, compiled for as many threads as the kernels take."""

from numba import njit, prange


@njit(parallel=True, fastmath=True, cache=True)
def triad(a, b, c, s, threads):
    """``a = b + s c``: 24 bytes an element in double precision."""
    for t in prange(threads):
        for i in range(t * a.size // threads, (t + 1) * a.size // threads):
            a[i] = b[i] + s * c[i]
