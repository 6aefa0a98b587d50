"""A stencil along one row of the grid, for the CPU: a cell's diagonal, and the sum over its neighbours.

``row_of`` gathers what a row needs; ``centre`` and ``around`` are inlined into the loops over its cells.
The result of the operator in an active cell ``i`` is ``centre(row, i) x_i - around(row, x, i, ...)``.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from learnsolve.kernels.pointers import address, read
from learnsolve.kernels.stencil import FaceStencil
from learnsolve.kernels.threads import INLINE


class UnitRow(NamedTuple):
    """A row of a `UnitStencil`: where it and its neighbours begin, and the coefficients towards them."""

    code: Any
    here: Any
    north: Any
    south: Any
    up: Any
    down: Any
    cn: Any
    cs: Any
    cu: Any
    cd: Any
    cz: Any
    cy: Any
    cx: Any
    begin: Any
    end: Any
    shift: Any


class FaceRow(NamedTuple):
    """A row of a `FaceStencil`: where it, its neighbours and the coefficients towards them begin."""

    diagonal: Any
    wz: Any
    wy: Any
    wx: Any
    here: Any
    north: Any
    south: Any
    up: Any
    down: Any
    wn: Any
    ws: Any
    wu: Any
    wd: Any
    begin: Any
    end: Any


def is_face_stencil(stencil: Any) -> bool:
    """Whether numba's type of a stencil is that of a `FaceStencil`."""
    return getattr(stencil, "instance_class", None) is FaceStencil


def _is_face_row(row: Any) -> bool:
    return row.instance_class is FaceRow


def row_of(stencil: Any, shape: Any, k: Any, j: Any) -> Any:
    """Row ``(k, j)``. Beyond the grid's edge lies the row itself, with coefficient zero.

    The cells from ``begin`` to ``end`` have something before and after them in memory: all of the row but
    the first cell of the grid and the last.
    """


@overload(row_of, jit_options=INLINE)
def _row_of(stencil, shape, k, j):
    if is_face_stencil(stencil):

        def face(stencil, shape, k, j):
            nz, ny, nx = shape
            here, plane = (k * ny + j) * nx, ny * nx
            # The first layer's coefficients are zero; a plane may have none across z.
            north, wn = (here + nx, here + nx) if j + 1 < ny else (here, k * plane)
            south = here - nx if j > 0 else here
            up, wu = (here + plane, here + plane) if k + 1 < nz else (here, j * nx)
            down = here - plane if k > 0 else here
            wz, wd = address(stencil.wz), here
            if nz == 1:
                wz, wu, wd = address(stencil.wy), 0, 0
            return FaceRow(
                address(stencil.diagonal), wz, address(stencil.wy), address(stencil.wx),
                here, north, south, up, down, wn, here, wu, wd,
                int(here == 0), nx - int(here + nx == nz * plane),
            )  # fmt: skip

        return face

    kind = as_dtype(stencil.types[1].dtype).type

    def unit(stencil, shape, k, j):
        nz, ny, nx = shape
        here, plane, zero = (k * ny + j) * nx, ny * nx, kind(0)
        cz, cy, cx = stencil.weights[0], stencil.weights[1], stencil.weights[2]
        north, cn = (here + nx, cy) if j + 1 < ny else (here, zero)
        south, cs = (here - nx, cy) if j > 0 else (here, zero)
        up, cu = (here + plane, cz) if k + 1 < nz else (here, zero)
        down, cd = (here - plane, cz) if k > 0 else (here, zero)
        return UnitRow(
            address(stencil.code), here, north, south, up, down, cn, cs, cu, cd, cz, cy, cx,
            int(here == 0), nx - int(here + nx == nz * plane), stencil.shift[0],
        )  # fmt: skip

    return unit


def centre(row: Any, i: Any) -> Any:
    """The diagonal in cell ``i`` of a row, zero where it is inactive."""


@overload(centre, jit_options=INLINE)
def _centre(row, i):
    if _is_face_row(row):
        return lambda row, i: read(row.diagonal, row.here + i)

    kind = as_dtype(row.types[-1]).type

    def unit(row, i):
        # All is cast: integers become long in numba, and an integer times a single precision number a double.
        c = np.int32(read(row.code, row.here + i))
        z, y, x = kind(np.int32(c & 3)), kind(np.int32((c >> 2) & 3)), kind(np.int32((c >> 4) & 3))
        d = z * row.cz + y * row.cy + x * row.cx + row.shift
        return d if c >= 64 else kind(0)

    return unit


def counts(row: Any, i: Any) -> Any:
    """Whether cell ``i`` takes the sum over its neighbours; with faces an inactive cell's sum is zero."""


@overload(counts, jit_options=INLINE)
def _counts(row, i):
    if _is_face_row(row):
        return lambda row, i: True
    return lambda row, i: read(row.code, row.here + i) >= 64


def along(row: Any, i: Any) -> Any:
    """Coefficient between the active cells ``i - 1`` and ``i`` of a row, ``i > 0``."""


@overload(along, jit_options=INLINE)
def _along(row, i):
    if _is_face_row(row):
        return lambda row, i: read(row.wx, row.here + i)

    kind = as_dtype(row.types[-1]).type

    def unit(row, i):
        here = row.here + i
        return row.cx * kind((read(row.code, here) & read(row.code, here - 1)) >> 6)

    return unit


def around(row: Any, x: Any, i: Any, nx: Any, edge: Any) -> Any:
    """``sum_f w_f x_f`` over the faces of an active cell ``i``.

    Without ``edge`` the first and last cell take what lies beside them in memory for a neighbour.
    """


@overload(around, jit_options=INLINE)
def _around(row, x, i, nx, edge):
    if _is_face_row(row):

        def face(row, x, i, nx, edge):
            here = row.here + i
            total = read(row.wy, row.wn + i) * read(x, row.north + i)
            total += read(row.wy, row.ws + i) * read(x, row.south + i)
            total += read(row.wz, row.wu + i) * read(x, row.up + i)
            total += read(row.wz, row.wd + i) * read(x, row.down + i)
            if not edge or i > 0:
                total += read(row.wx, here) * read(x, here - 1)
            if not edge or i + 1 < nx:
                total += read(row.wx, here + 1) * read(x, here + 1)
            return total

        return face

    kind = as_dtype(row.types[-1]).type

    def unit(row, x, i, nx, edge):
        here, inside = row.here + i, kind(0)
        if not edge or i > 0:
            inside += read(x, here - 1)
        if not edge or i + 1 < nx:
            inside += read(x, here + 1)
        total = row.cn * read(x, row.north + i) + row.cs * read(x, row.south + i)
        total += row.cu * read(x, row.up + i) + row.cd * read(x, row.down + i)
        return total + row.cx * inside

    return unit
