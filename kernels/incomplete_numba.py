"""Incomplete Cholesky factorisation without fill, and its triangular solves; serial, on the CPU."""

import numpy as np
from numba import njit


@njit(cache=True)
def factorise(indptr, indices, values):
    """Overwrite a lower triangle (rows ascending, diagonal last) by its IC(0) factor.

    Returns False, with ``values`` spoilt, if a pivot is not positive.
    """
    for i in range(indptr.size - 1):
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            total = values[q]
            a, b = indptr[i], indptr[j]
            while a < q and b < indptr[j + 1] - 1:
                if indices[a] == indices[b]:
                    total -= values[a] * np.conj(values[b])
                    a += 1
                    b += 1
                elif indices[a] < indices[b]:
                    a += 1
                else:
                    b += 1
            if j < i:
                values[q] = total / values[indptr[j + 1] - 1]
            else:
                pivot = np.real(total)
                if not pivot > 1e-8 * np.real(values[q]):
                    return False
                values[q] = np.sqrt(pivot)
    return True


@njit(cache=True)
def solve(indptr, indices, values, x):
    """``x <- (L L^H)^-1 x`` in place."""
    n = indptr.size - 1
    for i in range(n):
        total = x[i]
        for q in range(indptr[i], indptr[i + 1] - 1):
            total -= values[q] * x[indices[q]]
        x[i] = total / values[indptr[i + 1] - 1]
    for i in range(n - 1, -1, -1):
        x[i] /= values[indptr[i + 1] - 1]
        for q in range(indptr[i], indptr[i + 1] - 1):
            x[indices[q]] -= np.conj(values[q]) * x[i]
