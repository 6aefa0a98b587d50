"""The triad of STREAM, compiled for as many threads as the kernels take."""

from numba import njit, prange


@njit(parallel=True, fastmath=True, cache=True)
def triad(a, b, c, s, threads):
    """``a = b + s c``: 24 bytes an element in double precision."""
    for t in prange(threads):
        begin, end = t * a.size // threads, (t + 1) * a.size // threads
        target, left, right = a[begin:end], b[begin:end], c[begin:end]
        for i in range(end - begin):
            target[i] = left[i] + s * right[i]
