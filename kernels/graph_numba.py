"""CPU kernels of the multigrid's levels on graphs: multicolour relaxation, fused with the transfers."""

from numba import njit, prange

from learnsolve.kernels.pointers import address, read
from learnsolve.kernels.threads import INLINE, MATH


@njit(**INLINE)
def _coupled(starts, indices, weights, x, i, total):
    """``total + sum_j w_ij x_j``."""
    for q in range(read(starts, i), read(starts, i + 1)):
        total += read(weights, q) * read(x, read(indices, q))
    return total


@njit(fastmath=MATH, cache=True)
def _relax(indptr, indices, weights, diagonal, inverse, relaxation, sweep, b, x, order, lo, hi, omega):
    matrix = address(indptr), address(indices), address(weights)
    scales, right, values, places = address(inverse), address(b), address(x), address(order)
    if relaxation.size > 0:
        middle, own, place = address(diagonal), address(relaxation), sweep * x.size
        for p in range(lo, hi):
            i = read(places, p)
            total = _coupled(*matrix, values, i, read(right, i))
            x[i] += read(own, place + i) * (total - read(middle, i) * x[i])
        return
    for p in range(lo, hi):
        i = read(places, p)
        total = _coupled(*matrix, values, i, read(right, i))
        x[i] += omega * (total * read(scales, i) - x[i])


@njit(parallel=True, fastmath=MATH, cache=True)
def _relax_colour(
    indptr, indices, weights, diagonal, inverse, relaxation, sweep, b, x, order, lo, hi, omega, threads
):
    for t in prange(threads):
        begin, end = lo + t * (hi - lo) // threads, lo + (t + 1) * (hi - lo) // threads
        _relax(indptr, indices, weights, diagonal, inverse, relaxation, sweep, b, x, order, begin, end, omega)


@njit(fastmath=MATH, cache=True)
def smooth(
    indptr, indices, weights, diagonal, inverse, b, x, order, colours,
    coarse_x, coarse_b, aggregate, relaxation, omega, prolongs, sweeps, reverse, fresh, restricts, threads,
):  # fmt: skip
    """The graph's twin of `learnsolve.kernels.grid_numba.smooth`, with multicolour Gauss-Seidel sweeps.

    ``order`` lists the unknowns colour by colour, ``colours`` where each colour begins in it. ``relaxation``,
    of shape ``(sweeps, n)``, replaces ``omega``, or is empty.
    """
    n = x.size
    if fresh:
        x[:] = 0
    if prolongs:
        for i in range(n):
            if aggregate[i] >= 0:
                x[i] += coarse_x[aggregate[i]]
    count = colours.size - 1
    for half in range(sweeps * count):
        c = half % count
        c = count - 1 - c if reverse else c
        sweep = sweeps - 1 - half // count if reverse else half // count
        lo, hi = colours[c], colours[c + 1]
        if hi - lo < 8192 or threads == 1:
            _relax(indptr, indices, weights, diagonal, inverse, relaxation, sweep, b, x, order, lo, hi, omega)
        else:
            _relax_colour(
                indptr,
                indices,
                weights,
                diagonal,
                inverse,
                relaxation,
                sweep,
                b,
                x,
                order,
                lo,
                hi,
                omega,
                threads,
            )
    if restricts:
        coarse_b[:] = 0
        matrix, values = (address(indptr), address(indices), address(weights)), address(x)
        for i in range(n):
            total = _coupled(*matrix, values, i, b[i] - diagonal[i] * x[i])
            if aggregate[i] >= 0:
                coarse_b[aggregate[i]] += total
