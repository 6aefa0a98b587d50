"""CPU kernels of the multigrid's levels on graphs: multicolour relaxation, fused with the transfers."""

from numba import njit, prange

from learnsolve.kernels.threads import MATH


@njit(fastmath=MATH, cache=True)
def _relax(indptr, indices, weights, inverse, b, x, order, lo, hi, omega):
    for p in range(lo, hi):
        i = order[p]
        total = b[i]
        for q in range(indptr[i], indptr[i + 1]):
            total += weights[q] * x[indices[q]]
        x[i] += omega * (total * inverse[i] - x[i])


@njit(parallel=True, fastmath=MATH, cache=True)
def _relax_colour(indptr, indices, weights, inverse, b, x, order, lo, hi, omega, threads):
    for t in prange(threads):
        begin, end = lo + t * (hi - lo) // threads, lo + (t + 1) * (hi - lo) // threads
        _relax(indptr, indices, weights, inverse, b, x, order, begin, end, omega)


@njit(fastmath=MATH, cache=True)
def smooth(
    indptr, indices, weights, diagonal, inverse, b, x, order, colours,
    coarse_x, coarse_b, aggregate, omega, prolongs, sweeps, reverse, fresh, restricts, threads,
):  # fmt: skip
    """The graph's twin of `learnsolve.kernels.grid_numba.smooth`, with multicolour Gauss-Seidel sweeps.

    ``order`` lists the unknowns colour by colour, ``colours`` where each colour begins in it.
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
        lo, hi = colours[c], colours[c + 1]
        if hi - lo < 8192 or threads == 1:
            _relax(indptr, indices, weights, inverse, b, x, order, lo, hi, omega)
        else:
            _relax_colour(indptr, indices, weights, inverse, b, x, order, lo, hi, omega, threads)
    if restricts:
        coarse_b[:] = 0
        for i in range(n):
            total = b[i] - diagonal[i] * x[i]
            for q in range(indptr[i], indptr[i + 1]):
                total += weights[q] * x[indices[q]]
            if aggregate[i] >= 0:
                coarse_b[aggregate[i]] += total
