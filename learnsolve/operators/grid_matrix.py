"""From an assembled matrix on a grid back to the grid: `grid_from_matrix`."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from learnsolve.operators.grid import GridPoisson
from learnsolve.operators.grid_stencil import AIR, FLUID

Array = NDArray[Any]
ROUNDING = 64 * np.finfo(np.float64).eps


def grid_from_matrix(matrix: Any, shape: Sequence[int]) -> GridPoisson:
    """The grid operator of an assembled 5- or 7-point matrix, for methods that ask for a grid.

    A row that holds nothing but its diagonal stands for a cell that is no unknown: its answer is its
    right-hand side by its diagonal, which is the caller's to set. What a row has in excess of its couplings
    is a coupling to values outside, if a neighbour of the cell is missing, and absorption otherwise.

    Parameters
    ----------
    matrix : (n, n) scipy sparse array or matrix
        Real and symmetric over the unknowns, no coupling positive, no row's sum negative; row ``i`` belongs
        to cell ``i`` in C order. Couplings of an unknown to a cell that is none are kept as those to a
        fixed value are: they count in the diagonal alone.
    shape : (ny, nx) or (nz, ny, nx)
        The grid's.

    Returns
    -------
    GridPoisson
        In float64.

    Raises
    ------
    TypeError
        The matrix is complex, or not sparse.
    ValueError
        The matrix is not square of ``prod(shape)`` rows, couples cells that are no neighbours, is not
        symmetric, or has a positive coupling, or a row whose sum is negative. The message names the row.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> from learnsolve.operators import GridPoisson, grid_from_matrix
    >>> assembled = GridPoisson(np.zeros((6, 5), int), boundary="dirichlet").to_scipy()
    >>> A = grid_from_matrix(assembled, (6, 5))
    >>> A
    <GridPoisson 6x5, 30 unknowns, float64, variable coefficients, positive definite>
    >>> learnsolve.solve(A, np.ones((6, 5)), method="cg", M="multigrid").success
    True
    """
    if not scipy.sparse.issparse(matrix):
        raise TypeError(f"the matrix is {type(matrix).__name__}; a scipy sparse array or matrix is accepted")
    size, sizes = prod(shape), tuple(int(n) for n in shape)
    if len(sizes) not in (2, 3) or matrix.shape != (size, size):
        raise ValueError(f"the matrix is {matrix.shape}, the grid {sizes}; two or three axes, a row a cell")
    found = matrix.tocsr()
    rows = np.repeat(np.arange(size, dtype=np.int64), np.diff(found.indptr))
    return grid_from_couplings(*couplings(rows, found.indices.astype(np.int64), found.data, sizes))


def couplings(
    rows: Array, columns: Array, values: Array, shape: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Entries of a matrix on a grid by the neighbour that they couple to.

    Parameters
    ----------
    rows, columns : (nnz,) int64 array
        Numbers of cells in C order.
    values : (nnz,) array
        The entries; those of one place add up.
    shape : tuple of int
        The grid's.

    Returns
    -------
    diagonal : array
        Of each cell, in the grid's shape.
    before, after : (dims, ...) array
        Entries towards the neighbours along each axis.

    Raises
    ------
    TypeError
        The values are complex.
    ValueError
        An entry couples cells that are no neighbours.
    """
    if np.iscomplexobj(values):
        raise TypeError("the matrix is complex; a real one is accepted")
    steps = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    distance, known = columns - rows, values == 0
    found = [np.zeros(prod(shape)) for _ in range(1 + 2 * len(shape))]
    at = np.unravel_index(rows, shape)
    here = distance == 0
    np.add.at(found[0], rows[here], values[here].astype(np.float64))
    known |= here
    for axis, (step, count) in enumerate(zip(steps, shape, strict=True)):
        for side, fits in ((-1, at[axis] > 0), (1, at[axis] < count - 1)):
            there = (distance == side * step) & fits & ~known
            np.add.at(found[1 + axis + (len(shape) if side > 0 else 0)], rows[there], values[there])
            known |= there
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise ValueError(
            f"row {rows[first]} has an entry in column {columns[first]}, which is no neighbour of its cell "
            f"on a grid of {shape}; a 5- or 7-point matrix in C order is accepted"
        )
    fields = [field.reshape(shape) for field in found]
    return fields[0], np.stack(fields[1 : 1 + len(shape)]), np.stack(fields[1 + len(shape) :])


def grid_from_couplings(diagonal: Array, before: Array, after: Array) -> GridPoisson:
    """The operator of the arrays that `couplings` gives for all cells; raises as `grid_from_matrix`."""
    dims, shape = diagonal.ndim, diagonal.shape
    for name, field in (("diagonal", diagonal), ("coupling", before), ("coupling", after)):
        if not np.isfinite(field).all():
            raise ValueError(f"a {name} of the matrix is NaN or infinite")
    for field in (before, after):
        if (field > 0).any():
            row = int(np.argmax((field > 0).any(axis=0)))
            raise ValueError(
                f"row {row} has a positive coupling; a grid operator has none (A x)_i = d x_i - sum w x"
            )
    unknown = (before != 0).any(axis=0) | (after != 0).any(axis=0)
    if not unknown.any():
        raise ValueError("no row couples two cells: the matrix is diagonal")
    coupled = np.zeros(shape)
    open_sides = np.zeros(shape)
    faces = []
    for axis in range(dims):
        lower, upper = -before[axis], -after[axis]
        here, there = _beside(axis, dims)
        inner = unknown[here] & unknown[there]
        apart = np.abs(lower[there] - upper[here]) > ROUNDING * np.maximum(lower[there], upper[here])
        if (apart & inner).any():
            row = np.ravel_multi_index(np.argwhere(apart & inner)[0], unknown[here].shape)
            raise ValueError(f"the matrix is not symmetric along axis {axis}, first at face {row}")
        weight = np.where(inner, lower[there], 0.0)
        coupled[there] += weight
        coupled[here] += weight
        open_sides += _missing(unknown, axis)
        padded = [(1, 1) if a == axis else (0, 0) for a in range(dims)]
        faces.append(np.pad(weight, padded))
    excess = np.where(unknown, diagonal - coupled, 0.0)
    excess[np.abs(excess) <= ROUNDING * np.abs(diagonal)] = 0.0
    if (excess < 0).any():
        row = int(np.argmax(excess.reshape(-1) < 0))
        raise ValueError(
            f"row {row} sums to {excess.flat[row]}; no row of a grid operator has a negative sum"
        )
    outward = np.where(open_sides > 0, excess / np.maximum(open_sides, 1), 0.0)
    for axis in range(dims):
        sides = np.pad(unknown, [(1, 1) if a == axis else (0, 0) for a in range(dims)])
        low, high = _beside(axis, dims)
        wide = np.pad(outward, [(1, 1) if a == axis else (0, 0) for a in range(dims)])
        # Of a face between an unknown and none the unknown's share; of two that are none nothing is read.
        faces[axis] += np.where(sides[low] & ~sides[high], wide[low], 0.0)
        faces[axis] += np.where(~sides[low] & sides[high], wide[high], 0.0)
    absorption = np.where(open_sides > 0, 0.0, excess)
    return GridPoisson(
        np.where(unknown, FLUID, AIR),
        coefficients=tuple(faces),
        absorption=absorption if absorption.any() else None,
        boundary="dirichlet",
    )


def _beside(axis: int, dims: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All cells but the last, and all but the first, along an axis."""
    here, there = [slice(None)] * dims, [slice(None)] * dims
    here[axis], there[axis] = slice(None, -1), slice(1, None)
    return tuple(here), tuple(there)


def _missing(unknown: Array, axis: int) -> Array:
    """How many of the two neighbours along an axis are no unknowns, of cells that are."""
    padded = np.pad(unknown, [(1, 1) if a == axis else (0, 0) for a in range(unknown.ndim)])
    count = unknown.shape[axis]
    sides = [np.take(padded, np.arange(start, start + count), axis) for start in (0, 2)]
    return np.where(unknown, 2.0 - sides[0] - sides[1], 0.0)
