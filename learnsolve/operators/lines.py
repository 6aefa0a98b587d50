"""Entries of a matrix line by line, sorted in time linear in their number."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.kernels import places_numba

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lines:
    """Sampled entries by line: consecutive rows of a matrix, or columns.

    Attributes
    ----------
    first : int
        The first of the lines.
    indptr : (lines + 1,) int64 array
        Where each line begins.
    indices : (nnz,) integer array
        The place in its line of each entry, rising.
    values : (nnz,) float64 array
    weights : (nnz,) float64 array
        Empty if all are one.
    """

    first: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.integer]
    values: Array
    weights: Array

    @property
    def part(self) -> slice:
        """Which lines these are."""
        return slice(self.first, self.first + self.indptr.size - 1)


def sorted_places(
    rows: NDArray[np.integer],
    cols: NDArray[np.integer],
    values: Array,
    weights: Array | None,
    shape: tuple[int, int],
) -> tuple[NDArray[np.integer], NDArray[np.integer], Array, Array | None]:
    """Entries by row, in a row by column; those of one place as they came."""
    if sum(shape) > 1_000_000 + 20 * rows.size:
        chosen = np.lexsort((cols, rows))
        return rows[chosen], cols[chosen], values[chosen], None if weights is None else weights[chosen]
    payload: NDArray[Any] = values if weights is None else np.arange(rows.size)
    minor, turned_payload = np.empty_like(rows), np.empty_like(payload)
    indptr = places_numba.begins_of(cols, shape[1])
    places_numba.by_line(cols, rows, payload, indptr, minor, turned_payload)
    begins = places_numba.begins_of(rows, shape[0])
    found: NDArray[Any] = np.empty_like(cols)
    order: NDArray[Any] = np.empty_like(payload)
    places_numba.turned(indptr, minor, turned_payload, begins[:-1].copy(), found, order, 0)
    lines: NDArray[Any] = np.repeat(np.arange(shape[0], dtype=rows.dtype), np.diff(begins))
    if weights is None:
        return lines, found, order, None
    return lines, found, values[order], weights[order]


def turned(lines: Lines, size: int) -> Lines:
    """All rows as columns."""
    indptr = places_numba.begins_of(lines.indices, size)
    indices, values = np.empty_like(lines.indices), np.empty_like(lines.values)
    places_numba.turned(
        lines.indptr, lines.indices, lines.values, indptr[:-1].copy(), indices, values, lines.first
    )
    weights = lines.weights
    if weights.size:
        weights = np.empty_like(weights)
        places_numba.turned(
            lines.indptr, lines.indices, lines.weights, indptr[:-1].copy(), indices, weights, lines.first
        )
    return Lines(0, indptr, indices, values, weights)
