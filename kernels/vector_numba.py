"""Vector kernels for the CPU: inner products and updates, several in one pass where that saves traffic.

Threads work on slices from zero: an index that begins elsewhere may be negative for all numba knows, and a
loop that counts from the end for negative ones is not vectorised.
"""

import numpy as np
from numba import prange

from learnsolve.kernels.threads import kernel


@kernel
def dot(x, y, threads):
    """``x^H y``."""
    partial = np.zeros(threads, x.dtype)
    for t in prange(threads):
        begin, end = t * x.size // threads, (t + 1) * x.size // threads
        left, right = x[begin:end], y[begin:end]
        total = x.dtype.type(0)
        for i in range(end - begin):
            total += np.conj(left[i]) * right[i]
        partial[t] = total
    return partial.sum()


@kernel
def square(x, threads):
    """``x^H x``, summed in double precision."""
    partial = np.zeros(threads, np.float64)
    for t in prange(threads):
        begin, end = t * x.size // threads, (t + 1) * x.size // threads
        part, total = x[begin:end], 0.0
        for i in range(end - begin):
            total += np.real(part[i]) * np.real(part[i]) + np.imag(part[i]) * np.imag(part[i])
        partial[t] = total
    return partial.sum()


@kernel
def combine(alpha, x, beta, y, threads):
    """``y = alpha x + beta y``."""
    for t in prange(threads):
        begin, end = t * x.size // threads, (t + 1) * x.size // threads
        source, target = x[begin:end], y[begin:end]
        for i in range(end - begin):
            target[i] = alpha * source[i] + beta * target[i]


@kernel
def descend(alpha, p, Ap, x, r, threads):
    """``x += alpha p; r -= alpha Ap``; returns ``r^H r``."""
    partial = np.zeros(threads, np.float64)
    for t in prange(threads):
        begin, end = t * x.size // threads, (t + 1) * x.size // threads
        answer, residual, along, image = x[begin:end], r[begin:end], p[begin:end], Ap[begin:end]
        total = 0.0
        for i in range(end - begin):
            answer[i] += alpha * along[i]
            value = residual[i] - alpha * image[i]
            residual[i] = value
            total += np.real(value) * np.real(value) + np.imag(value) * np.imag(value)
        partial[t] = total
    return partial.sum()


@kernel
def rescale(scale, x, out, threads):
    """``out = scale x``, into another precision."""
    for t in prange(threads):
        begin, end = t * x.size // threads, (t + 1) * x.size // threads
        source, target = x[begin:end], out[begin:end]
        for i in range(end - begin):
            target[i] = scale * source[i]
