"""The two ways in which a 5- or 7-point operator is stored; every grid kernel takes either.

Both describe ``(A x)_i = d_i x_i - sum_f w_f x_f`` over the faces ``f`` of cell ``i``.
Arrays always have three axes ``(nz, ny, nx)``; a plane has ``nz = 1``.
"""

from typing import Any, NamedTuple

# A cell's own over-relaxation is stored in 16 bits, for the sweeps are bound by what they read.
RELAXATION_UNIT = 2.0**-14


class UnitStencil(NamedTuple):
    """Constant coefficients on a masked grid, one byte a cell.

    Vectors must be zero on inactive cells: the kernels sum over all neighbours unchecked.

    Attributes
    ----------
    code : (nz, ny, nx) uint8
        Bits 0-1, 2-3 and 4-5: how many of the two faces across z, y and x count towards the
        diagonal (a face to an unknown or to a zero value; not a face to a solid).
        Bit 6: the cell is an unknown.
    weights : (3,) array of the vectors' dtype
        Coefficient of every face across z, y and x; ``weights[0]`` is zero in a plane.
    shift : (1,) array of the vectors' dtype
        Absorption term added to the diagonal.
    """

    code: Any
    weights: Any
    shift: Any


class FaceStencil(NamedTuple):
    """Variable coefficients.

    Attributes
    ----------
    diagonal : (nz, ny, nx) array
        Zero on inactive cells.
    wz, wy, wx : (nz, ny, nx) arrays
        Coefficient of the face between a cell and the one before it along the axis; zero where
        either is not an unknown and in the first layer. ``wz`` may be ``(1, 1, 1)`` in a plane.
    """

    diagonal: Any
    wz: Any
    wy: Any
    wx: Any


Stencil = UnitStencil | FaceStencil
