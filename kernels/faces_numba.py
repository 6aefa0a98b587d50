"""Coefficients of a stencil of either kind, one cell or face at a time, for the kernels of the set-up.

They are read through addresses: an array inside a tuple costs two atomic counts of references whenever it is
read.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from learnsolve.kernels.pointers import address, read
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


def layer_of(cells, axis, z0, z1, y0, y1, x0, x1):
    """Sum of the coefficients of the faces before some cells along ``axis``, and how many are not zero.

    None of the cells is the first along it.
    """


@overload(layer_of, jit_options=INLINE)
def _layer_overload(cells, axis, z0, z1, y0, y1, x0, x1):
    if is_faces(cells):

        def face(cells, axis, z0, z1, y0, y1, x0, x1):
            (_, wz, wy, wx), (_, ny, nx) = cells
            weights, total, count = wz if axis == 0 else (wy if axis == 1 else wx), 0.0, 0
            for z in range(z0, z1):
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        w = read(weights, (z * ny + y) * nx + x)
                        total += w
                        count += w > 0
            return total, count

        return face

    def unit(cells, axis, z0, z1, y0, y1, x0, x1):
        (code, before), weights, _, (_, ny, nx) = cells
        step = ny * nx if axis == 0 else (nx if axis == 1 else 1)
        w = weights[0] if axis == 0 else (weights[1] if axis == 1 else weights[2])
        count = 0
        for z in range(z0, z1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    here = (z * ny + y) * nx + x
                    count += np.int64(read(code, here) & read(before, here - step)) >> 6
        return w * count, count if w > 0 else 0

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


def look_of(cells, k, j, i):
    """A number below 2^14 for all that a cell's coefficients can be; -1 where they can be anything.

    It is the cell's code, followed by whether the six cells beside it are unknowns.
    """


@overload(look_of, jit_options=INLINE)
def _look_overload(cells, k, j, i):
    if is_faces(cells):
        return lambda cells, k, j, i: np.int64(-1)

    def unit(cells, k, j, i):
        (code, beside), _, _, (nz, ny, nx) = cells
        here = (k * ny + j) * nx + i
        found = np.int64(read(code, here))
        found = 2 * found + (np.int64(read(beside, here - ny * nx)) >> 6 if k > 0 else 0)
        found = 2 * found + (np.int64(read(beside, here + ny * nx)) >> 6 if k + 1 < nz else 0)
        found = 2 * found + (np.int64(read(beside, here - nx)) >> 6 if j > 0 else 0)
        found = 2 * found + (np.int64(read(beside, here + nx)) >> 6 if j + 1 < ny else 0)
        found = 2 * found + (np.int64(read(beside, here - 1)) >> 6 if i > 0 else 0)
        return 2 * found + (np.int64(read(beside, here + 1)) >> 6 if i + 1 < nx else 0)

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
        w, shift, look = cells[1], cells[2], look_of(cells, k, j, i)
        z = (look >> 6 & 3) - (look >> 5 & 1) - (look >> 4 & 1)
        y = (look >> 8 & 3) - (look >> 3 & 1) - (look >> 2 & 1)
        x = (look >> 10 & 3) - (look >> 1 & 1) - (look & 1)
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
