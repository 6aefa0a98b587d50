"""Known entries of a matrix, in any form in which users have them."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from learnsolve.kernels.places_numba import merged, rising
from learnsolve.operators.lines import sorted_places

Duplicates = Literal["average", "refuse"]


@dataclass(frozen=True)
class Entries:
    """Distinct entries of a matrix.

    Attributes
    ----------
    rows, cols : (nnz,) int32 arrays
        By row, in a row by column; int64 if the shape asks for it.
    values : (nnz,) float64 array
    shape : (m, n)
    weights : (nnz,) float64 array, optional
        How much each counts.
    """

    rows: NDArray[np.integer]
    cols: NDArray[np.integer]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    weights: NDArray[np.float64] | None = None

    @property
    def nnz(self) -> int:
        """How many there are."""
        return self.values.size

    def some(self, chosen: NDArray[Any]) -> "Entries":
        """Those of a mask, or of an array of numbers."""
        weights = None if self.weights is None else self.weights[chosen]
        return Entries(self.rows[chosen], self.cols[chosen], self.values[chosen], self.shape, weights)


def as_entries(
    entries: Any,
    shape: tuple[int, int] | None = None,
    *,
    weights: Any = None,
    duplicates: Duplicates | Literal["keep"] = "average",
) -> Entries:
    """Read and check known entries.

    Parameters
    ----------
    entries : scipy sparse array, (rows, cols, values), masked array, or array
        Of a sparse array what is stored is known, zeros too; of a masked array what is not masked; of
        another what is not NaN.
    shape : (m, n), optional
        Needed with ``(rows, cols, values)``.
    weights : (nnz,) array, optional
        Positive, one for each entry in the order in which they stand in ``entries``.
    duplicates : {"average", "refuse", "keep"}
        What to do if a place comes twice. With ``"keep"`` the entries stay in the order in which they came.

    Returns
    -------
    Entries

    Raises
    ------
    TypeError
        The form is none of these.
    ValueError
        No entry, lengths or a shape that do not fit, an index out of range, a value that is not finite, a
        weight that is not positive, a place that comes twice with ``"refuse"``.

    Examples
    --------
    >>> found = as_entries(np.array([[1.0, np.nan], [np.nan, 2.0]]))
    >>> found.rows.tolist(), found.cols.tolist(), found.values.tolist()
    ([0, 1], [0, 1], [1.0, 2.0])
    """
    if duplicates not in ("average", "refuse", "keep"):
        raise ValueError(f"duplicates is {duplicates!r}; 'average' and 'refuse' are accepted")
    rows, cols, values, found = _read(entries)
    shape = _shape(found, shape)
    if rows.size == 0:
        raise ValueError("no entry is known")
    for name, index, size in (("row", rows, shape[0]), ("column", cols, shape[1])):
        if index.min() < 0 or index.max() >= size:
            raise ValueError(
                f"{name}s {index.min()} to {index.max()} are named; the shape {shape} has 0 to {size - 1}"
            )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        p = int(bad[0])
        raise ValueError(f"the entry at ({rows[p]}, {cols[p]}) is {values[p]}; entries must be finite")
    given = None
    if weights is not None:
        given = np.asarray(weights, dtype=np.float64).reshape(-1)
        if given.size != rows.size:
            raise ValueError(f"there are {given.size} weights for {rows.size} entries")
        if not (np.isfinite(given).all() and (given > 0).all()):
            raise ValueError("weights must be positive and finite")
    kind = np.int32 if max(shape) < 2**31 else np.int64
    rows, cols = np.ascontiguousarray(rows, kind), np.ascontiguousarray(cols, kind)
    values = np.ascontiguousarray(values, np.float64)
    return _distinct(Entries(rows, cols, values, shape, given), duplicates)


def _read(entries: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64], tuple[int, ...] | None]:
    if scipy.sparse.issparse(entries):
        if len(entries.shape) != 2:
            raise ValueError(f"the entries have {len(entries.shape)} axes; two are accepted")
        coo = entries.tocoo()
        return coo.coords[0], coo.coords[1], _real(coo.data), coo.shape
    if isinstance(entries, tuple):
        if len(entries) != 3:
            raise ValueError(f"there are {len(entries)} arrays; (rows, cols, values) are accepted")
        rows, cols, values = (np.asarray(part).reshape(-1) for part in entries)
        if not rows.size == cols.size == values.size:
            raise ValueError(f"there are {rows.size} rows, {cols.size} columns and {values.size} values")
        for name, index in (("rows", rows), ("cols", cols)):
            if index.size and not np.issubdtype(index.dtype, np.integer):
                raise ValueError(f"{name} have dtype {index.dtype}; integers are accepted")
        return rows, cols, _real(values), None
    masked = np.ma.isMaskedArray(entries)
    if not (masked or isinstance(entries, np.ndarray)):
        raise TypeError(
            f"entries are a {type(entries).__name__}; a scipy sparse array, (rows, cols, values), a masked "
            "array or an array with NaN are accepted"
        )
    if entries.ndim != 2:
        raise ValueError(f"the entries have {entries.ndim} axes; two are accepted")
    data = _real(np.asarray(entries.data if masked else entries))
    known = ~np.ma.getmaskarray(entries) if masked else ~np.isnan(data)
    rows, cols = np.nonzero(known)
    return rows, cols, data[rows, cols], entries.shape


def _real(values: NDArray[Any]) -> NDArray[np.float64]:
    if np.iscomplexobj(values) or values.dtype == object:
        raise ValueError(f"values have dtype {values.dtype}; real numbers are accepted")
    return values.astype(np.float64, copy=False)


def _shape(found: tuple[int, ...] | None, shape: tuple[int, int] | None) -> tuple[int, int]:
    if found is None:
        if shape is None:
            raise ValueError("(rows, cols, values) need a shape")
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"shape is {shape}; two positive numbers are accepted")
        return int(shape[0]), int(shape[1])
    if shape is not None and tuple(shape) != tuple(found):
        raise ValueError(f"shape is {shape}, and the entries have {found}")
    return int(found[0]), int(found[1])


def _distinct(entries: Entries, duplicates: Duplicates | Literal["keep"]) -> Entries:
    """In the order of rows, then columns; each place once."""
    if duplicates == "keep" or rising(entries.rows, entries.cols) < 0:
        return entries
    rows, cols, values, weights = sorted_places(
        entries.rows, entries.cols, entries.values, entries.weights, entries.shape
    )
    return merge(Entries(rows, cols, values, entries.shape, weights), duplicates)


def merge(entries: Entries, duplicates: Duplicates, first: int = 0) -> Entries:
    """Sorted entries with each place once; the first row is to be called ``first``."""
    rows, cols, values, weights = entries.rows, entries.cols, entries.values, entries.weights
    p = rising(rows, cols)
    if p < 0:
        return entries
    if duplicates == "refuse":
        i = first + rows[p]
        raise ValueError(f"the entry at ({i}, {cols[p]}) comes twice; duplicates='average' takes means")
    left = merged(rows, cols, values, np.empty(0) if weights is None else weights)
    weights = None if weights is None else weights[:left]
    return Entries(rows[:left], cols[:left], values[:left], entries.shape, weights)
