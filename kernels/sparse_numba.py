"""Kernels for compressed sparse rows on the CPU, compiled by numba and cached on disk.

All take numpy arrays, outputs included. Rows go to the threads in runs of equal work. Threads are
an argument because asking for their number inside a kernel would keep it from being cached.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from learnsolve.kernels.threads import MATH, kernel


@njit(fastmath=MATH, cache=True)
def _first_row(indptr, part, parts):
    """First row of a part, where a row weighs one more than its entries."""
    low, high = 0, indptr.size - 1
    target = (indptr[high] + high) * part // parts
    while low < high:
        middle = (low + high) // 2
        if indptr[middle] + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@njit(fastmath=MATH, cache=True)
def _row_product(indptr, indices, values, x, row):
    total = x.dtype.type(0)
    # Unsigned, for numba asks of every other index whether it counts from the end.
    for p in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
        total += values[p] * x[np.uint64(indices[p])]
    return total


@kernel
def _vector(indptr, indices, values, b, x, y, subtract, threads):
    for t in prange(threads):
        for row in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            total = _row_product(indptr, indices, values, x, row)
            y[row] = b[row] - total if subtract else total


@kernel
def _columns(indptr, indices, values, b, x, y, subtract, threads):
    width = x.shape[1]
    for t in prange(threads):
        total = np.empty(width, x.dtype)
        for row in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            total[:] = 0
            for p in range(indptr[row], indptr[row + 1]):
                value, source = values[p], x[indices[p]]
                for c in range(width):
                    total[c] += value * source[c]
            target, right = y[row], b[row]
            for c in range(width):
                target[c] = right[c] - total[c] if subtract else total[c]


def spmv(indptr: Any, indices: Any, values: Any, x: Any, y: Any, threads: int) -> None:
    """Write ``A x`` to `y`.

    Parameters
    ----------
    indptr : (m + 1,) array, int32 or int64
    indices : (nnz,) array, int32 or int64
    values : (nnz,) array
    x, y : (n,) and (m,) or (n, k) and (m, k) arrays of the values' dtype
    threads : int

    Examples
    --------
    >>> y = np.empty(2)
    >>> spmv(np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([2.0, 3.0, 4.0]), np.array([1.0, 10.0]), y, 1)
    >>> y
    array([ 2., 43.])
    """
    (_vector if x.ndim == 1 else _columns)(indptr, indices, values, y, x, y, False, threads)


def residual(indptr: Any, indices: Any, values: Any, b: Any, x: Any, r: Any, threads: int) -> None:
    """Write ``b - A x`` to `r`; arguments as for `spmv`.

    Examples
    --------
    >>> r = np.empty(2)
    >>> matrix = np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([2.0, 3.0, 4.0])
    >>> residual(*matrix, np.ones(2), np.array([1.0, 10.0]), r, 1)
    >>> r
    array([ -1., -42.])
    """
    (_vector if x.ndim == 1 else _columns)(indptr, indices, values, b, x, r, True, threads)


@njit(fastmath=MATH, cache=True)
def _relax_row(indptr, indices, values, diagonal, b, x, row, omega):
    d = diagonal[row]
    if d != x.dtype.type(0):
        x[row] += omega * (b[row] - _row_product(indptr, indices, values, x, row)) / d


@kernel
def relax_rows(indptr, indices, values, diagonal, b, x, rows, omega, threads):
    """Over-relax rows that are not coupled, in parallel and in place.

    Parameters
    ----------
    indptr, indices, values : arrays
        The square matrix, as for `spmv`.
    diagonal : (n,) array
        Its diagonal; rows where it is zero are left as they are.
    b, x : (n,) arrays
        Right-hand side and iterate; `x` is overwritten.
    rows : (c,) array, int32 or int64
        Rows of one colour.
    omega : scalar of the values' dtype
    threads : int

    Examples
    --------
    >>> x = np.zeros(2)
    >>> matrix = np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([2.0, 3.0, 4.0])
    >>> relax_rows(*matrix, np.array([2.0, 4.0]), np.ones(2), x, np.array([1]), np.float64(1), 1)
    >>> x
    array([0.  , 0.25])
    """
    for t in prange(threads):
        for c in range(t * rows.size // threads, (t + 1) * rows.size // threads):
            _relax_row(indptr, indices, values, diagonal, b, x, rows[c], omega)


@njit(fastmath=MATH, cache=True)
def gauss_seidel(indptr, indices, values, diagonal, b, x, omega, reverse):
    """One sweep over the rows in their order, or against it, in place, on one thread.

    Parameters
    ----------
    indptr, indices, values, diagonal, b, x, omega
        As for `relax_rows`.
    reverse : bool
        Start at the last row.

    Examples
    --------
    >>> x = np.zeros(2)
    >>> matrix = np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([2.0, 3.0, 4.0])
    >>> gauss_seidel(*matrix, np.array([2.0, 4.0]), np.ones(2), x, np.float64(1), False)
    >>> x
    array([ 0.5  , -0.125])
    """
    n = diagonal.size
    for step in range(n):
        row = n - 1 - step if reverse else step
        _relax_row(indptr, indices, values, diagonal, b, x, row, omega)


@njit(cache=True)
def colouring(indptr, indices):
    """Colour the rows greedily so that rows of one colour are not coupled, either way.

    Parameters
    ----------
    indptr : (n + 1,) array, int32 or int64
    indices : (nnz,) array, int32 or int64

    Returns
    -------
    (n,) int32 array
        Colours from zero, each row's the smallest that no earlier coupled row has.

    Examples
    --------
    >>> colouring(np.array([0, 1, 3, 5]), np.array([0, 0, 1, 1, 2]))
    array([0, 1, 0], dtype=int32)
    """
    n = indptr.size - 1
    start = np.zeros(n + 2, np.int64)
    for p in range(indptr[n]):
        start[indices[p] + 2] += 1
    for column in range(n):
        start[column + 2] += start[column + 1]
    rows = np.empty(indptr[n], indices.dtype)
    for row in range(n):
        for p in range(indptr[row], indptr[row + 1]):
            column = indices[p]
            rows[start[column + 1]] = row
            start[column + 1] += 1
    colours = np.empty(n, np.int32)
    taken_by = np.full(n + 1, -1, np.int64)
    for row in range(n):
        for p in range(indptr[row], indptr[row + 1]):
            if indices[p] < row:
                taken_by[colours[indices[p]]] = row
        for p in range(start[row], start[row + 1]):
            if rows[p] < row:
                taken_by[colours[rows[p]]] = row
        colour = 0
        while taken_by[colour] == row:
            colour += 1
        colours[row] = colour
    return colours


@kernel
def sampled_product(indptr, indices, u, v, out, threads):
    """Write ``sum_k u_ik conj(v_jk)`` to `out` for each stored entry ``(i, j)``.

    Parameters
    ----------
    indptr : (m + 1,) array, int32 or int64
    indices : (nnz,) array, int32 or int64
    u : (m, k) array
    v : (n, k) array
    out : (nnz,) array
    threads : int

    Examples
    --------
    >>> out = np.empty(3)
    >>> u, v = np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]])
    >>> sampled_product(np.array([0, 1, 3]), np.array([0, 0, 1]), u, v, out, 1)
    >>> out
    array([ 3.,  6., 10.])
    """
    for t in prange(threads):
        for row in range(_first_row(indptr, t, threads), _first_row(indptr, t + 1, threads)):
            left = u[row]
            for p in range(indptr[row], indptr[row + 1]):
                right = v[indices[p]]
                total = u.dtype.type(0)
                for c in range(left.size):
                    total += left[c] * np.conj(right[c])
                out[p] = total
