"""The entries of a Matrix Market file one by one: those of one place are not added up."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets import matrix_market
from learnsolve.datasets.matrix_market_header import Header


def read_entries(
    path: str | os.PathLike, *, max_bytes: int = 1 << 33
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any], tuple[int, int]]:
    r"""Rows, columns and values of a Matrix Market file; it is trusted as little as by `matrix_market.read`.

    Parameters
    ----------
    path : str or os.PathLike
        A file of text, compressed if its name ends in ``.gz``.
    max_bytes : int
        Refuse a matrix that would take more memory than this, before any is taken.

    Returns
    -------
    rows, cols : int64 array, ``(N,)``
        Sorted by row, then by column. A place that comes twice is there twice, in the order of the file.
    values : array, ``(N,)``
        Of the dtype that `matrix_market.read` gives. Symmetric matrices come back in full, and so do those
        in the array format.
    shape : tuple of int
        ``(m, n)``.

    Raises
    ------
    DataError
        As from `matrix_market.read`, but for sums that are too large.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.datasets.matrix_market_entries import read_entries
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "A.mtx"
    >>> _ = path.write_text("%%MatrixMarket matrix coordinate real general\n2 3 3\n2 1 4\n1 3 1\n2 1 5\n")
    >>> rows, cols, values, shape = read_entries(path)
    >>> rows.tolist(), cols.tolist(), values.tolist(), shape
    ([0, 1, 1], [2, 0, 0], [1.0, 4.0, 5.0], (2, 3))
    """
    header, records = matrix_market.records_of(path, max_bytes)
    shape = header.rows, header.columns
    if header.format == "array":
        rows, cols = np.indices(shape).reshape(2, -1)
        return rows, cols, matrix_market._dense(records, header, path).ravel(), shape
    return *_places(records, header), shape


def _places(records: np.ndarray, header: Header) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    rows, cols, values = records["row"] - 1, records["column"] - 1, matrix_market._values(records, header)
    if header.symmetry != "general":
        off = rows != cols
        mirrored = matrix_market._mirrored(values[off], header.symmetry)
        rows, cols = np.concatenate([rows, cols[off]]), np.concatenate([cols, rows[off]])
        values = np.concatenate([values, mirrored])
    order = np.lexsort((cols, rows))
    return rows[order], cols[order], values[order]
