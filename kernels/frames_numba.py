"""Orthonormal directions that are carried along an orbit, and how much they stretch."""

import math

from numba import njit

from learnsolve.kernels.threads import INLINE


@njit(**INLINE)
def orthonormalise(frame, sums):
    """Gram-Schmidt on the rows, the logarithms of whose lengths are added to ``sums``."""
    count, size = frame.shape
    for k in range(count):
        row = frame[k]
        for j in range(k):
            other, along = frame[j], row[0] * 0
            for i in range(size):
                along += other[i] * row[i]
            for i in range(size):
                row[i] -= along * other[i]
        square = row[0] * 0
        for i in range(size):
            square += row[i] * row[i]
        norm = math.sqrt(square)
        if norm > 0:
            sums[k] += math.log(norm)
            for i in range(size):
                row[i] /= norm
        else:
            sums[k] = -math.inf
