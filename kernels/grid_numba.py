"""Grid kernels for the CPU.

``smooth`` is skewed in time: while stage ``m`` (a prolongation, half a red-black sweep, or the
restriction of the residual) works on slab ``s``, stage ``m + 1`` works on slab ``s - 1``, so that
any number of stages reads the arrays from memory once. Blocks of slabs run in parallel; what
stages leave open where two blocks meet is finished in a second, short phase. The result is
that of the plain sweeps.

The loop over a row has no branches, begins at the row's beginning and is vectorised. In the first and last
cell, which lack a neighbour, it takes another row's cell for one; these two are then done over.
"""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.stencil import RELAXATION_UNIT
from learnsolve.kernels.stencil_numba import along, around, centre, counts, row_of
from learnsolve.kernels.threads import INLINE, MATH, kernel


@njit(**INLINE)
def _image(row, x, zero, i, nx, edge):
    """``A x`` in cell ``i`` of a row, zero where it is inactive."""
    return centre(row, i) * read(x, row.here + i) - around(row, x, i, nx, edge) if counts(row, i) else zero


@njit(**INLINE)
def _defect(row, b, x, zero, i, nx, edge):
    """``b - A x``, zero on inactive cells."""
    d, place = centre(row, i), row.here + i
    return read(b, place) - d * read(x, place) + around(row, x, i, nx, edge) if d != zero else zero


@njit(**INLINE)
def _relaxed(row, b, x, omega, zero, i, nx, edge):
    """``x + omega D^-1 (b - A x)``, zero on inactive cells."""
    d, place = centre(row, i), row.here + i
    old = read(x, place)
    defect = read(b, place) - d * old + around(row, x, i, nx, edge)
    return old + omega * defect / d if d != zero else zero


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _relax_slab(stencil, b, x, relaxation, sweep, omega, k, j0, j1, colour, fresh, relaxed):
    """Half a sweep: over-relax the cells of one colour in rows ``j0`` to ``j1`` of plane ``k``.

    ``relaxed`` is scratch of a row's length, for a processor stalls on reads across what it has just written.
    """
    nx, zero, own = x.shape[2], x.dtype.type(0), relaxation.size > 0
    unit = x.dtype.type(RELAXATION_UNIT)
    for j in range(j0, j1):
        row, other = row_of(stencil, x.shape, k, j), colour + k + j
        right, source, target, factors = address(b), address(x), address(x), address(relaxation)
        place = sweep * x.size + row.here
        if fresh:
            for i in range(nx):
                d = centre(row, i)
                factor = unit * x.dtype.type(read(factors, place + i)) if own else omega
                value = factor * read(right, row.here + i) / d if d != zero else zero
                write(target, row.here + i, zero if np.int32(i + other) & 1 else value)
            continue
        out = address(relaxed)
        if own:
            for i in range(row.begin, row.end):
                factor = unit * x.dtype.type(read(factors, place + i))
                write(out, i, _relaxed(row, right, source, factor, zero, i, nx, False))
            for i in (0, nx - 1):
                factor = unit * x.dtype.type(read(factors, place + i))
                write(out, i, _relaxed(row, right, source, factor, zero, i, nx, True))
        else:
            for i in range(row.begin, row.end):
                write(out, i, _relaxed(row, right, source, omega, zero, i, nx, False))
            for i in (0, nx - 1):
                write(out, i, _relaxed(row, right, source, omega, zero, i, nx, True))
        found = address(relaxed)
        for i in range(nx):
            old, value = read(source, row.here + i), read(found, i)
            write(target, row.here + i, old if np.int32(i + other) & 1 else value)


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _prolong_slab(stencil, x, coarse_x, aggregate, k, j0, j1, spread):
    """Add the coarse values; ``spread`` is scratch of a row's length."""
    nz, ny, nx = x.shape
    cz, cy, cx = coarse_x.shape
    zero = x.dtype.type(0)
    for j in range(j0, j1):
        row, values, wide = row_of(stencil, x.shape, k, j), address(coarse_x), address(spread)
        source, target = address(x), address(x)
        if aggregate.size > 0:
            parents = address(aggregate)
            for i in range(nx):
                parent = read(parents, row.here + i)
                if parent >= 0:
                    write(target, row.here + i, read(source, row.here + i) + read(values, parent))
                elif centre(row, i) == zero:
                    write(target, row.here + i, zero)
            continue
        begin = ((k if cz == nz else k >> 1) * cy + (j if cy == ny else j >> 1)) * cx
        if cx == nx:
            for i in range(nx):
                write(wide, i, read(values, begin + i))
        else:
            for i in range(nx >> 1):
                value = read(values, begin + i)
                write(wide, 2 * i, value)
                write(wide, 2 * i + 1, value)
            if nx & 1:
                write(wide, nx - 1, read(values, begin + (nx >> 1)))
        narrow = address(spread)
        for i in range(nx):
            value = read(source, row.here + i) + read(narrow, i)
            write(target, row.here + i, value if centre(row, i) != zero else zero)


@njit(fastmath=MATH, error_model="numpy", cache=True)
def _restrict_slab(stencil, b, x, coarse_b, aggregate, k, j0, j1, defects):
    """Add the residual to the coarse right-hand side; ``defects`` is scratch of a row's length."""
    nz, ny, nx = x.shape
    cz, cy, cx = coarse_b.shape
    zero = x.dtype.type(0)
    for j in range(j0, j1):
        row, right, source, out = row_of(stencil, x.shape, k, j), address(b), address(x), address(defects)
        for i in range(row.begin, row.end):
            write(out, i, _defect(row, right, source, zero, i, nx, False))
        for i in (0, nx - 1):
            write(out, i, _defect(row, right, source, zero, i, nx, True))
        if aggregate.size > 0:
            parents = address(aggregate)
            for i in range(nx):
                parent = read(parents, row.here + i)
                if parent >= 0:
                    coarse_b[0, 0, parent] += defects[i]
            continue
        begin = ((k if cz == nz else k >> 1) * cy + (j if cy == ny else j >> 1)) * cx
        found, before, target = address(defects), address(coarse_b), address(coarse_b)
        if cx == nx:
            for i in range(nx):
                write(target, begin + i, read(before, begin + i) + read(found, i))
        else:
            for i in range(nx >> 1):
                pair = read(found, 2 * i) + read(found, 2 * i + 1)
                write(target, begin + i, read(before, begin + i) + pair)
            if nx & 1:
                last = begin + (nx >> 1)
                write(target, last, read(before, last) + read(found, nx - 1))


@njit(fastmath=MATH, cache=True)
def _stage(
    m, s, stencil, b, x, coarse_x, coarse_b, aggregate, relaxation, omega,
    prolongs, halves, first, fresh, scratch,
):  # fmt: skip
    """Stage ``m`` on slab ``s``: a plane of a three-dimensional grid, a row of a plane."""
    nz, ny, _ = x.shape
    k, j0, j1 = (s, 0, ny) if nz > 1 else (0, s, s + 1)
    half = m - prolongs
    if half < 0:
        _prolong_slab(stencil, x, coarse_x, aggregate, k, j0, j1, scratch)
    elif half < halves:
        sweep = (halves - 1 - half if first else half) // 2
        start = fresh and half == 0
        _relax_slab(stencil, b, x, relaxation, sweep, omega, k, j0, j1, first + half, start, scratch)
    else:
        _restrict_slab(stencil, b, x, coarse_b, aggregate, k, j0, j1, scratch)


@kernel
def smooth(
    stencil, b, x, coarse_x, coarse_b, aggregate, relaxation, omega,
    prolongs, halves, first, fresh, restricts, threads,
):  # fmt: skip
    """Prolong ``coarse_x`` into ``x``, do ``halves`` half-sweeps, restrict the residual to ``coarse_b``.

    ``first`` is the colour of the first half-sweep; with ``fresh`` the old ``x`` counts as zero.
    ``aggregate`` gives each cell's coarse unknown (coarse vectors are then ``(1, 1, n)``), or is
    empty where coarse cell ``(k // 2, j // 2, i // 2)`` is meant (an axis of equal length is not halved).
    ``relaxation``, which has an axis for sweeps before those of ``x``, replaces ``omega``, or is empty.
    """
    nz, ny, nx = x.shape
    slabs = nz if nz > 1 else ny
    stages = prolongs + halves + restricts
    blocks = max(1, min(threads, slabs // (2 * stages + 4)))
    if restricts:
        coarse_b[:] = 0
    size = 2 * (slabs // blocks // 2)
    for t in prange(blocks):
        scratch = np.empty(nx, x.dtype)
        lo = t * size
        hi = slabs if t == blocks - 1 else lo + size
        for s in range(lo, hi + stages):
            for m in range(stages):
                q = s - m
                if q >= (lo if t == 0 else lo + m) and q < (hi if t == blocks - 1 else hi - m):
                    _stage(
                        m, q, stencil, b, x, coarse_x, coarse_b, aggregate, relaxation, omega,
                        prolongs, halves, first, fresh, scratch,
                    )  # fmt: skip
    for t in prange(blocks - 1):
        scratch = np.empty(nx, x.dtype)
        edge = (t + 1) * size
        for m in range(1, stages):
            for q in range(edge - m, edge + m):
                _stage(
                    m, q, stencil, b, x, coarse_x, coarse_b, aggregate, relaxation, omega,
                    prolongs, halves, first, fresh, scratch,
                )  # fmt: skip


@kernel
def apply(stencil, x, y, threads):
    """``y = A x``."""
    nz, ny, nx = x.shape
    rows, zero = nz * ny, x.dtype.type(0)
    source, target = address(x), address(y)
    for t in prange(threads):
        for q in range(t * rows // threads, (t + 1) * rows // threads):
            row = row_of(stencil, x.shape, q // ny, q % ny)
            for i in range(row.begin, row.end):
                write(target, row.here + i, _image(row, source, zero, i, nx, False))
            for i in (0, nx - 1):
                write(target, row.here + i, _image(row, source, zero, i, nx, True))


@kernel
def residual(stencil, b, x, r, threads):
    """``r = b - A x``, zero on inactive cells."""
    nz, ny, nx = x.shape
    rows, zero = nz * ny, x.dtype.type(0)
    right, source, target = address(b), address(x), address(r)
    for t in prange(threads):
        for q in range(t * rows // threads, (t + 1) * rows // threads):
            row = row_of(stencil, x.shape, q // ny, q % ny)
            for i in range(row.begin, row.end):
                write(target, row.here + i, _defect(row, right, source, zero, i, nx, False))
            for i in (0, nx - 1):
                write(target, row.here + i, _defect(row, right, source, zero, i, nx, True))


@kernel
def jacobi(stencil, b, x, out, omega, threads):
    """``out = x + omega D^-1 (b - A x)``, zero on inactive cells; ``out`` is not ``x``."""
    nz, ny, nx = x.shape
    rows, zero = nz * ny, x.dtype.type(0)
    right, source, target = address(b), address(x), address(out)
    for t in prange(threads):
        for q in range(t * rows // threads, (t + 1) * rows // threads):
            row = row_of(stencil, x.shape, q // ny, q % ny)
            for i in range(row.begin, row.end):
                write(target, row.here + i, _relaxed(row, right, source, omega, zero, i, nx, False))
            for i in (0, nx - 1):
                write(target, row.here + i, _relaxed(row, right, source, omega, zero, i, nx, True))


@njit(fastmath=MATH, error_model="numpy", cache=True)
def gauss_seidel(stencil, b, x, omega, reverse):
    """One lexicographic sweep of successive over-relaxation in place; serial."""
    nz, ny, nx = x.shape
    zero, step = x.dtype.type(0), -1 if reverse else 1
    # Of a row: what each cell changes by for its own sake, and what of the change of the cell before it.
    own, link = np.empty(nx, x.dtype), np.zeros(nx, x.dtype)
    shift, first = (1, 0) if reverse else (0, 1)
    for q in range(nz * ny):
        q = nz * ny - 1 - q if reverse else q
        row = row_of(stencil, x.shape, q // ny, q % ny)
        right, source, target = address(b), address(x), address(x)
        out, links = address(own), address(link)
        for i in range(row.begin, row.end):
            d = centre(row, i)
            write(out, i, omega * _defect(row, right, source, zero, i, nx, False) / d if d != zero else zero)
        for i in (0, nx - 1):
            d = centre(row, i)
            write(out, i, omega * _defect(row, right, source, zero, i, nx, True) / d if d != zero else zero)
        for i in range(first, nx - 1 + first):
            d = centre(row, i)
            write(links, i, omega * along(row, i + shift) / d if d != zero else zero)
        # Nothing but a product and a sum of each cell waits for the cell before it.
        before, links, out = address(own), address(link), address(own)
        i, change = nx - 1 if reverse else 0, zero
        for _ in range(nx):
            change = read(before, i) + read(links, i) * change
            write(out, i, change)
            i += step
        changes = address(own)
        for i in range(nx):
            write(target, row.here + i, read(source, row.here + i) + read(changes, i))
