"""Coefficients of a stencil of either kind, one cell or face at a time, for the kernels of the set-up.

They are read through addresses: an array inside a tuple costs two atomic counts of references whenever it is
read.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.stencil_numba import is_face_stencil
from learnsolve.kernels.threads import INLINE


def located(stencil):
    """Where a stencil's arrays are: what the other functions take. The stencil must outlive it."""


@overload(located, jit_options=INLINE)
def _located_overload(stencil):
    if is_face_stencil(stencil):

        def faces(stencil):
            fields = address(stencil.diagonal), address(stencil.wz), address(stencil.wy), address(stencil.wx)
            return fields, stencil.diagonal.shape

        return faces

    def unit(stencil):
        w, code = stencil.weights, stencil.code
        return (address(code), address(code)), (w[0], w[1], w[2]), stencil.shift[0], code.shape

    return unit


def is_faces(cells):
    """Whether what is located is a `FaceStencil`, by its type."""
    return len(cells) == 2


def shape_of(stencil):
    """The grid's shape."""


@overload(shape_of, jit_options=INLINE)
def _shape_of_overload(stencil):
    if is_face_stencil(stencil):
        return lambda stencil: stencil.diagonal.shape
    return lambda stencil: stencil.code.shape


def face_of(cells, axis, k, j, i):
    """Coefficient of the face between cell ``(k, j, i)`` and the one before it along ``axis``."""


@overload(face_of, jit_options=INLINE)
def _face_overload(cells, axis, k, j, i):
    if is_faces(cells):

        def face(cells, axis, k, j, i):
            (diagonal, wz, wy, wx), (_, ny, nx) = cells
            here = (k * ny + j) * nx + i
            if axis == 0:
                # In a plane there may be no such array.
                return read(wz, here) if k > 0 else 0 * read(diagonal, 0)
            return read(wy, here) if axis == 1 else read(wx, here)

        return face

    def unit(cells, axis, k, j, i):
        (code, before), weights, _, (_, ny, nx) = cells
        here = (k * ny + j) * nx + i
        if axis == 0:
            step, w, edge = ny * nx, weights[0], k == 0
        elif axis == 1:
            step, w, edge = nx, weights[1], j == 0
        else:
            step, w, edge = 1, weights[2], i == 0
        return w * (0 if edge else np.int64(read(code, here) & read(before, here - step)) >> 6)

    return unit


def diagonal_of(cells, k, j, i):
    """The diagonal entry of a cell; zero if the cell is not an unknown."""


@overload(diagonal_of, jit_options=INLINE)
def _diagonal_overload(cells, k, j, i):
    if is_faces(cells):

        def face(cells, k, j, i):
            (diagonal, _, _, _), (_, ny, nx) = cells
            return read(diagonal, (k * ny + j) * nx + i)

        return face

    def unit(cells, k, j, i):
        (code, _), w, shift, (_, ny, nx) = cells
        c = np.int32(read(code, (k * ny + j) * nx + i))
        d = (c & 3) * w[0] + ((c >> 2) & 3) * w[1] + ((c >> 4) & 3) * w[2] + shift
        return d * (c >> 6)

    return unit


def looks_of(cells, k, j, out):
    """A number for each cell of a row, into ``out``: what differs in a coefficient has another one.

    In a `UnitStencil` it is below 2^14 and the same for the whole grid: the cell's code, followed by whether
    the six cells beside it are unknowns. In a `FaceStencil` it is negative, and says no more than whether the
    cell is as the one before it.
    """


@overload(looks_of, jit_options=INLINE)
def _looks_overload(cells, k, j, out):
    if is_faces(cells):

        def face(cells, k, j, out):
            (diagonal, wz, wy, wx), (nz, ny, nx) = cells
            here = (k * ny + j) * nx
            # Beyond the grid's edge there are no faces; the row's own stand in, in a plane those across y.
            up, north = here + ny * nx if k + 1 < nz else here, here + nx if j + 1 < ny else here
            wz, changes = wz if nz > 1 else wy, address(out)
            for i in range(1, nx - 1):
                q = here + i
                change = read(diagonal, q) != read(diagonal, q - 1)
                change |= read(wx, q) != read(wx, q - 1)
                change |= read(wx, q + 1) != read(wx, q)
                change |= read(wy, q) != read(wy, q - 1)
                change |= read(wy, north + i) != read(wy, north + i - 1)
                change |= read(wz, q) != read(wz, q - 1)
                change |= read(wz, up + i) != read(wz, up + i - 1)
                write(changes, i, np.int32(change))
            out[nx - 1] = 1
            out[0] = -1
            for i in range(1, nx):
                out[i] = out[i - 1] - out[i]

        return face

    def unit(cells, k, j, out):
        (code, beside), _, _, (nz, ny, nx) = cells
        here, plane = (k * ny + j) * nx, ny * nx
        down, below = (here - plane, 1) if k > 0 else (here, 0)
        up, above = (here + plane, 1) if k + 1 < nz else (here, 0)
        south, before = (here - nx, 1) if j > 0 else (here, 0)
        north, after = (here + nx, 1) if j + 1 < ny else (here, 0)
        looks = address(out)
        for i in range(nx):
            look = 2 * np.int32(read(code, here + i)) + below * np.int32(read(beside, down + i) >> 6)
            look = 2 * look + above * np.int32(read(beside, up + i) >> 6)
            look = 2 * look + before * np.int32(read(beside, south + i) >> 6)
            write(looks, i, 4 * (2 * look + after * np.int32(read(beside, north + i) >> 6)))
        for i in range(1, nx):
            out[i] += 2 * (read(beside, here + i - 1) >> 6)
            out[i - 1] += read(beside, here + i) >> 6

    return unit


def outside_of(cells, k, j, i):
    """What the diagonal of a cell has beyond its faces: boundary values and absorption."""


@overload(outside_of, jit_options=INLINE)
def _outside_overload(cells, k, j, i):
    if is_faces(cells):

        def face(cells, k, j, i):
            nz, ny, nx = cells[-1]
            d = diagonal_of(cells, k, j, i)
            d -= face_of(cells, 0, k, j, i) if nz > 1 else 0
            d -= face_of(cells, 0, k + 1, j, i) if k + 1 < nz else 0
            d -= face_of(cells, 1, k, j, i) + face_of(cells, 2, k, j, i)
            d -= face_of(cells, 1, k, j + 1, i) if j + 1 < ny else 0
            return d - (face_of(cells, 2, k, j, i + 1) if i + 1 < nx else 0)

        return face

    def unit(cells, k, j, i):
        (code, beside), w, shift, (nz, ny, nx) = cells
        here = (k * ny + j) * nx + i
        c = np.int64(read(code, here))
        z, y, x = c & 3, c >> 2 & 3, c >> 4 & 3
        z -= np.int64(read(beside, here - ny * nx)) >> 6 if k > 0 else 0
        z -= np.int64(read(beside, here + ny * nx)) >> 6 if k + 1 < nz else 0
        y -= np.int64(read(beside, here - nx)) >> 6 if j > 0 else 0
        y -= np.int64(read(beside, here + nx)) >> 6 if j + 1 < ny else 0
        x -= np.int64(read(beside, here - 1)) >> 6 if i > 0 else 0
        x -= np.int64(read(beside, here + 1)) >> 6 if i + 1 < nx else 0
        return z * w[0] + y * w[1] + x * w[2] + shift

    return unit


@njit(**INLINE)
def faces_of(cells, k, j, i, out):
    """The six face coefficients of a cell: before and after along z, y, x."""
    nz, ny, nx = cells[-1]
    zero = out.dtype.type(0)
    out[0] = face_of(cells, 0, k, j, i) if nz > 1 else zero
    out[1] = face_of(cells, 0, k + 1, j, i) if k + 1 < nz else zero
    out[2] = face_of(cells, 1, k, j, i)
    out[3] = face_of(cells, 1, k, j + 1, i) if j + 1 < ny else zero
    out[4] = face_of(cells, 2, k, j, i)
    out[5] = face_of(cells, 2, k, j, i + 1) if i + 1 < nx else zero
