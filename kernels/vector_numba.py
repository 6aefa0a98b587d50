"""Vector kernels for the CPU: inner products and updates, several in one pass where that saves traffic."""

import numpy as np
from numba import prange

from learnsolve.kernels.threads import kernel


@kernel
def dot(x, y, threads):
    """``x^H y``."""
    partial = np.zeros(threads, x.dtype)
    for t in prange(threads):
        total = x.dtype.type(0)
        for i in range(t * x.size // threads, (t + 1) * x.size // threads):
            total += np.conj(x[i]) * y[i]
        partial[t] = total
    return partial.sum()


@kernel
def square(x, threads):
    """``x^H x``, summed in double precision."""
    partial = np.zeros(threads, np.float64)
    for t in prange(threads):
        total = 0.0
        for i in range(t * x.size // threads, (t + 1) * x.size // threads):
            total += np.real(x[i]) * np.real(x[i]) + np.imag(x[i]) * np.imag(x[i])
        partial[t] = total
    return partial.sum()


@kernel
def combine(alpha, x, beta, y, threads):
    """``y = alpha x + beta y``."""
    for t in prange(threads):
        for i in range(t * x.size // threads, (t + 1) * x.size // threads):
            y[i] = alpha * x[i] + beta * y[i]


@kernel
def descend(alpha, p, Ap, x, r, threads):
    """``x += alpha p; r -= alpha Ap``; returns ``r^H r``."""
    partial = np.zeros(threads, np.float64)
    for t in prange(threads):
        total = 0.0
        for i in range(t * x.size // threads, (t + 1) * x.size // threads):
            x[i] += alpha * p[i]
            value = r[i] - alpha * Ap[i]
            r[i] = value
            total += np.real(value) * np.real(value) + np.imag(value) * np.imag(value)
        partial[t] = total
    return partial.sum()


@kernel
def rescale(scale, x, out, threads):
    """``out = scale x``, into another precision."""
    for t in prange(threads):
        for i in range(t * x.size // threads, (t + 1) * x.size // threads):
            out[i] = scale * x[i]
