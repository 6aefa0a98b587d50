"""Grid kernels for the CPU. Each works row by row in buffers that stay in the first-level cache.

``smooth`` is skewed in time: while stage ``m`` (a prolongation, half a red-black sweep, or the
restriction of the residual) works on slab ``s``, stage ``m + 1`` works on slab ``s - 1``, so that
any number of stages reads the arrays from memory once. Blocks of slabs run in parallel; what
stages leave open where two blocks meet is finished in a second, short phase. The result is
that of the plain sweeps.
"""

import numpy as np
from numba import njit, prange
from numba.extending import overload

from learnsolve.kernels.stencil import FaceStencil
from learnsolve.kernels.threads import MATH, kernel


def _is_face_stencil(stencil):
    return getattr(stencil, "instance_class", None) is FaceStencil


def _product(stencil, x, k, j, out):
    """``A x`` along row ``(k, j)``, zero on inactive cells.

    Each loop writes one array and reads at most eight: past that LLVM gives up on proving that they do
    not overlap, and does not vectorise. Counts are cast, for an integer times a single precision number is
    a double in numba.
    """


@overload(_product, jit_options={"fastmath": MATH})
def _product_overload(stencil, x, k, j, out):
    if _is_face_stencil(stencil):

        def face(stencil, x, k, j, out):
            nz, ny, nx = x.shape
            row, own, wx = x[k, j], stencil.diagonal[k, j], stencil.wx[k, j]
            # At the grid's edge the coefficient is the zero of the first layer, and the value the cell's
            # own: what lies on the far side may not be computed yet.
            jp, jw = (j + 1, j + 1) if j + 1 < ny else (j, 0)
            jm = j - 1 if j > 0 else j
            north, south = x[k, jp], x[k, jm]
            wn, ws = stencil.wy[k, jw], stencil.wy[k, j]
            for i in range(nx):
                out[i] = own[i] * row[i] - (wn[i] * north[i] + ws[i] * south[i])
            if nz > 1:
                kp, kw = (k + 1, k + 1) if k + 1 < nz else (k, 0)
                km = k - 1 if k > 0 else k
                up, down = x[kp, j], x[km, j]
                wu, wd = stencil.wz[kw, j], stencil.wz[k, j]
                for i in range(nx):
                    out[i] -= wu[i] * up[i] + wd[i] * down[i]
            if nx > 1:
                last = nx - 1
                out[0] -= wx[1] * row[1]
                out[last] -= wx[last] * row[last - 1]
                before, after, left, right, inner = row[: nx - 2], row[2:], wx[1:last], wx[2:], out[1:last]
                for i in range(nx - 2):
                    inner[i] -= left[i] * before[i] + right[i] * after[i]

        return face

    def unit(stencil, x, k, j, out):
        nz, ny, nx = x.shape
        kind = x.dtype.type
        zero = kind(0)
        row, code, shift = x[k, j], stencil.code[k, j], stencil.shift[0]
        cz, cy, cx = stencil.weights[0], stencil.weights[1], stencil.weights[2]
        jp, cn = (j + 1, cy) if j + 1 < ny else (j, zero)
        jm, cs = (j - 1, cy) if j > 0 else (j, zero)
        kp, cu = (k + 1, cz) if k + 1 < nz else (k, zero)
        km, cd = (k - 1, cz) if k > 0 else (k, zero)
        for i in range(0, nx, max(nx - 1, 1)):
            along = (row[i - 1] if i > 0 else zero) + (row[i + 1] if i + 1 < nx else zero)
            across = cn * x[k, jp, i] + cs * x[k, jm, i] + cu * x[kp, j, i] + cd * x[km, j, i]
            c = np.int32(code[i])
            d = kind(c & 3) * cz + kind((c >> 2) & 3) * cy + kind((c >> 4) & 3) * cx + shift
            out[i] = (d * row[i] - across - cx * along) * kind(c >> 6)
        if nx < 3:
            return
        last = nx - 1
        before, centre, after = row[: nx - 2], row[1:last], row[2:]
        north, south, up, down = x[k, jp, 1:last], x[k, jm, 1:last], x[kp, j, 1:last], x[km, j, 1:last]
        inner, byte = out[1:last], code[1:last]
        if nz > 1:
            for i in range(nx - 2):
                c = np.int32(byte[i])
                d = kind(c & 3) * cz + kind((c >> 2) & 3) * cy + kind((c >> 4) & 3) * cx + shift
                across = cn * north[i] + cs * south[i] + cu * up[i] + cd * down[i]
                inner[i] = (d * centre[i] - across - cx * (before[i] + after[i])) * kind(c >> 6)
        else:
            for i in range(nx - 2):
                c = np.int32(byte[i])
                d = kind((c >> 2) & 3) * cy + kind((c >> 4) & 3) * cx + shift
                across = cn * north[i] + cs * south[i]
                inner[i] = (d * centre[i] - across - cx * (before[i] + after[i])) * kind(c >> 6)

    return unit


def _along_row(stencil, k, j, out):
    """Coefficient of the face between cells ``i - 1`` and ``i`` of row ``(k, j)``."""


@overload(_along_row, jit_options={"fastmath": MATH})
def _along_row_overload(stencil, k, j, out):
    if _is_face_stencil(stencil):

        def face(stencil, k, j, out):
            row = stencil.wx[k, j]
            for i in range(row.size):
                out[i] = row[i]

        return face

    def unit(stencil, k, j, out):
        code = stencil.code[k, j]
        for i in range(1, code.size):
            out[i] = stencil.weights[2] * ((code[i] >> 6) & (code[i - 1] >> 6))

    return unit


def _subtract_from(stencil, right, k, j, out):
    """``out = right - out`` where the diagonal is not zero, else zero."""


@overload(_subtract_from, jit_options={"fastmath": MATH})
def _subtract_from_overload(stencil, right, k, j, out):
    if _is_face_stencil(stencil):

        def face(stencil, right, k, j, out):
            own = stencil.diagonal[k, j]
            zero = out.dtype.type(0)
            for i in range(out.size):
                out[i] = right[i] - out[i] if own[i] != zero else zero

        return face

    def unit(stencil, right, k, j, out):
        code = stencil.code[k, j]
        zero = out.dtype.type(0)
        least = 64 if stencil.shift[0] != zero else 65
        for i in range(out.size):
            out[i] = right[i] - out[i] if np.int32(code[i]) >= least else zero

    return unit


def _diagonal(stencil, k, j, out):
    """The diagonal along row ``(k, j)``, zero on inactive cells."""


@overload(_diagonal, jit_options={"fastmath": MATH})
def _diagonal_overload(stencil, k, j, out):
    if _is_face_stencil(stencil):

        def face(stencil, k, j, out):
            row = stencil.diagonal[k, j]
            for i in range(row.size):
                out[i] = row[i]

        return face

    def unit(stencil, k, j, out):
        code, shift = stencil.code[k, j], stencil.shift[0]
        cz, cy, cx = stencil.weights[0], stencil.weights[1], stencil.weights[2]
        kind = out.dtype.type
        for i in range(code.size):
            c = np.int32(code[i])
            out[i] = (kind(c & 3) * cz + kind((c >> 2) & 3) * cy + kind((c >> 4) & 3) * cx + shift) * kind(
                c >> 6
            )

    return unit


@njit(fastmath=MATH, cache=True)
def _relax_row(stencil, b, x, omega, k, j, colour, fresh, sums, diagonal):
    """Half a sweep along one row: over-relax the cells of one colour."""
    row, right = x[k, j], b[k, j]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    start = (colour + k + j) & 1
    _diagonal(stencil, k, j, diagonal)
    if fresh:
        for i in range(row.size):
            d = diagonal[i]
            value = omega * right[i] * (one / d if d != zero else zero)
            row[i] = value if (i & 1) == start else zero
        return
    _product(stencil, x, k, j, sums)
    for i in range(row.size):
        d = diagonal[i]
        inverse = one / d if d != zero else zero
        old = row[i]
        value = old + omega * (right[i] - sums[i]) * inverse
        row[i] = value if (i & 1) == start else old


@njit(fastmath=MATH, cache=True)
def _residual_row(stencil, b, x, k, j, out):
    """``b - A x`` along one row, zero on inactive cells."""
    _product(stencil, x, k, j, out)
    _subtract_from(stencil, b[k, j], k, j, out)


@njit(fastmath=MATH, cache=True)
def _prolong_row(x, coarse_x, aggregate, k, j):
    nz, ny, nx = x.shape
    row = x[k, j]
    if aggregate.size > 0:
        parents = aggregate[k, j]
        for i in range(nx):
            parent = parents[i]
            if parent >= 0:
                row[i] += coarse_x[0, 0, parent]
        return
    cz, cy, cx = coarse_x.shape
    source = coarse_x[k if cz == nz else k >> 1, j if cy == ny else j >> 1]
    if cx == nx:
        for i in range(nx):
            row[i] += source[i]
    else:
        for i in range(nx):
            row[i] += source[i >> 1]


@njit(fastmath=MATH, cache=True)
def _restrict_row(residual, coarse_b, aggregate, k, j, nz, ny):
    nx = residual.size
    if aggregate.size > 0:
        parents = aggregate[k, j]
        for i in range(nx):
            parent = parents[i]
            if parent >= 0:
                coarse_b[0, 0, parent] += residual[i]
        return
    cz, cy, cx = coarse_b.shape
    target = coarse_b[k if cz == nz else k >> 1, j if cy == ny else j >> 1]
    if cx == nx:
        for i in range(nx):
            target[i] += residual[i]
    else:
        for i in range(nx // 2):
            target[i] += residual[2 * i] + residual[2 * i + 1]
        if nx & 1:
            target[nx // 2] += residual[nx - 1]


@njit(fastmath=MATH, cache=True)
def _mask_row(x, diagonal, k, j):
    row = x[k, j]
    zero = x.dtype.type(0)
    for i in range(row.size):
        row[i] = row[i] if diagonal[i] != zero else zero


@njit(fastmath=MATH, cache=True)
def _stage(
    m, s, stencil, b, x, coarse_x, coarse_b, aggregate, omega, prolongs, halves, first, fresh, sums, diagonal
):
    """Stage ``m`` on slab ``s``: a plane of a three-dimensional grid, a row of a plane."""
    nz, ny, _ = x.shape
    if nz > 1:
        k0, k1, j0, j1 = s, s + 1, 0, ny
    else:
        k0, k1, j0, j1 = 0, 1, s, s + 1
    for k in range(k0, k1):
        for j in range(j0, j1):
            if m < prolongs:
                _prolong_row(x, coarse_x, aggregate, k, j)
                _diagonal(stencil, k, j, diagonal)
                _mask_row(x, diagonal, k, j)
            elif m < prolongs + halves:
                half = m - prolongs
                _relax_row(
                    stencil, b, x, omega, k, j, (first + half) & 1, fresh and half == 0, sums, diagonal
                )
            else:
                _residual_row(stencil, b, x, k, j, sums)
                _restrict_row(sums, coarse_b, aggregate, k, j, nz, ny)


@kernel
def smooth(
    stencil, b, x, coarse_x, coarse_b, aggregate, omega, prolongs, halves, first, fresh, restricts, threads
):
    """Prolong ``coarse_x`` into ``x``, do ``halves`` half-sweeps, restrict the residual to ``coarse_b``.

    ``first`` is the colour of the first half-sweep; with ``fresh`` the old ``x`` counts as zero.
    ``aggregate`` gives each cell's coarse unknown (coarse vectors are then ``(1, 1, n)``), or is
    empty where coarse cell ``(k // 2, j // 2, i // 2)`` is meant (an axis of equal length is not halved).
    """
    nz, ny, nx = x.shape
    slabs = nz if nz > 1 else ny
    stages = prolongs + halves + restricts
    blocks = max(1, min(threads, slabs // (2 * stages + 4)))
    if restricts:
        coarse_b[:] = 0
    size = 2 * (slabs // blocks // 2)
    for t in prange(blocks):
        sums, diagonal = np.empty(nx, x.dtype), np.empty(nx, x.dtype)
        lo = t * size
        hi = slabs if t == blocks - 1 else lo + size
        for s in range(lo, hi + stages):
            for m in range(stages):
                q = s - m
                if q >= (lo if t == 0 else lo + m) and q < (hi if t == blocks - 1 else hi - m):
                    _stage(
                        m, q, stencil, b, x, coarse_x, coarse_b, aggregate, omega,
                        prolongs, halves, first, fresh, sums, diagonal,
                    )  # fmt: skip
    for t in prange(blocks - 1):
        sums, diagonal = np.empty(nx, x.dtype), np.empty(nx, x.dtype)
        edge = (t + 1) * size
        for m in range(1, stages):
            for q in range(edge - m, edge + m):
                _stage(
                    m, q, stencil, b, x, coarse_x, coarse_b, aggregate, omega,
                    prolongs, halves, first, fresh, sums, diagonal,
                )  # fmt: skip


@kernel
def apply(stencil, x, y, threads):
    """``y = A x``."""
    nz, ny, _ = x.shape
    rows = nz * ny
    blocks = max(1, min(threads, rows))
    for t in prange(blocks):
        for q in range(t * rows // blocks, (t + 1) * rows // blocks):
            k, j = q // ny, q % ny
            _product(stencil, x, k, j, y[k, j])


@kernel
def residual(stencil, b, x, r, threads):
    """``r = b - A x``, zero on inactive cells."""
    nz, ny, _ = x.shape
    rows = nz * ny
    blocks = max(1, min(threads, rows))
    for t in prange(blocks):
        for q in range(t * rows // blocks, (t + 1) * rows // blocks):
            k, j = q // ny, q % ny
            _residual_row(stencil, b, x, k, j, r[k, j])


@kernel
def jacobi(stencil, b, x, out, omega, threads):
    """``out = x + omega D^-1 (b - A x)``, zero on inactive cells; ``out`` is not ``x``."""
    nz, ny, nx = x.shape
    rows = nz * ny
    blocks = max(1, min(threads, rows))
    for t in prange(blocks):
        sums, diagonal = np.empty(nx, x.dtype), np.empty(nx, x.dtype)
        zero, one = x.dtype.type(0), x.dtype.type(1)
        for q in range(t * rows // blocks, (t + 1) * rows // blocks):
            k, j = q // ny, q % ny
            _residual_row(stencil, b, x, k, j, sums)
            _diagonal(stencil, k, j, diagonal)
            row, target = x[k, j], out[k, j]
            for i in range(nx):
                d = diagonal[i]
                target[i] = row[i] + omega * sums[i] * (one / d) if d != zero else zero


@njit(fastmath=MATH, cache=True)
def gauss_seidel(stencil, b, x, omega, reverse):
    """One lexicographic sweep of successive over-relaxation in place; serial."""
    nz, ny, nx = x.shape
    sums, diagonal = np.empty(nx, x.dtype), np.empty(nx, x.dtype)
    inner = np.empty(nx, x.dtype)
    zero = x.dtype.type(0)
    for q in range(nz * ny):
        q = nz * ny - 1 - q if reverse else q
        k, j = q // ny, q % ny
        row, right = x[k, j], b[k, j]
        _diagonal(stencil, k, j, diagonal)
        _product(stencil, x, k, j, sums)
        _along_row(stencil, k, j, inner)
        step = -1 if reverse else 1
        i = nx - 1 if reverse else 0
        delta = zero
        for _ in range(nx):
            if 0 <= i - step < nx:
                sums[i] -= inner[max(i, i - step)] * delta
            old = row[i]
            if diagonal[i] != zero:
                row[i] = old + omega * (right[i] - sums[i]) / diagonal[i]
            delta = row[i] - old
            i += step
