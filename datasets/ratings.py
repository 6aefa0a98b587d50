"""Ratings, or other entries of a matrix by the names of their row and column, out of files.

MovieLens in its three layouts (``u.data``, ``ratings.dat``, ``ratings.csv``), other text with one entry on
each line, and Matrix Market. MovieLens: https://grouplens.org/datasets/movielens/
"""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.matrix_market_entries import read_entries
from learnsolve.datasets.rating_lines import merged, parts_of

SEPARATORS = {"csv": ",", "tsv": "\t", "dat": "::"}
FORMATS = (*SEPARATORS, "mtx")
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".data": "tsv",
    ".base": "tsv",
    ".test": "tsv",
    ".dat": "dat",
    ".mtx": "mtx",
}


@dataclass(frozen=True, eq=False)
class Ratings:
    """Known entries of a matrix whose rows and columns have names.

    Attributes
    ----------
    rows, cols : int64 array, ``(N,)``
        Where the entries are, from zero on.
    values : float64 array, ``(N,)``
        The entries, all finite.
    shape : tuple of int
        ``(m, n)``.
    row_labels, col_labels : int64 or str array, ``(m,)`` and ``(n,)``
        What the file calls the rows and the columns, ascending.
    timestamps : int64 array, ``(N,)``, or None
        As in the file; None where it has none.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.datasets.ratings import Ratings
    >>> rows, cols, values = np.array([0, 1]), np.array([0, 0]), np.array([5.0, 3.5])
    >>> users, films = np.array(["ann", "bob"]), np.array([7])
    >>> ratings = Ratings(rows, cols, values, (2, 1), users, films, None)
    >>> len(ratings), str(ratings.row_labels[ratings.rows[1]])
    (2, 'bob')
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    row_labels: NDArray[Any]
    col_labels: NDArray[Any]
    timestamps: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.values)


def read_ratings(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    separator: str | None = None,
    columns: Sequence[int | str] | None = None,
    skip_header: bool | None = None,
    max_bytes: int = 1 << 33,
) -> Ratings:
    r"""Read ratings, one on each line: a row, a column, a value, and perhaps a time.

    Parameters
    ----------
    path : str or os.PathLike
        A file of text in UTF-8, compressed if its name ends in ``.gz``.
    format : {"csv", "tsv", "dat", "mtx"}, optional
        Fields with commas, tabs or ``::`` between them, or a Matrix Market file. Left out, the name decides:
        ``.csv``; ``.tsv``, ``.data``, ``.base`` and ``.test``; ``.dat``; ``.mtx``; each also with ``.gz``.
    separator : str, optional
        What stands between the fields, in place of what the format says. Around a separator of one
        character, fields may stand in double quotes.
    columns : sequence of int or str, optional
        The fields that hold the row, the column, the value and the time, or the first three of these; by
        number from zero on, or by name in the header. Left out, they are the first ones, and there are
        times if the fourth field of the first rating is an integer.
    skip_header : bool, optional
        Whether the first line is a header. Left out, it is if fields are chosen by name, or if none of the
        first three is a number.
    max_bytes : int
        Refuse ratings that take more memory than this. Reading takes up to about four times as much.

    Returns
    -------
    Ratings
        In the order of the file; what is rated twice is there twice, and `learnsolve.complete` takes the
        mean by default. Labels are integers if all in the file are, without leading zeros, and strings
        otherwise. A Matrix Market file has its own numbers for labels, from 1 on, also of empty rows and
        columns; its ratings are sorted by row, then by column.

    Raises
    ------
    DataError
        If the file is damaged or holds no ratings; if a line has too few fields or is too long, a row or
        column has no name, a value is not a finite number, or a time is not an integer. The message names
        the file, the line and what was expected there.
    ValueError
        If an argument is wrong, or the name of the file does not tell its format.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.datasets.ratings import read_ratings
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ratings.dat"
    >>> _ = path.write_text("12::7::5::978300760\n3::7::3.5::978302109\n")
    >>> ratings = read_ratings(path)
    >>> ratings.shape, ratings.rows.tolist(), ratings.row_labels.tolist(), ratings.values.tolist()
    ((2, 1), [1, 0], [3, 12], [5.0, 3.5])
    """
    kind = _kind(path, format, separator)
    if kind == "mtx":
        if any(option is not None for option in (separator, columns, skip_header)):
            raise ValueError(
                "separator, columns and skip_header are for files of text, not for Matrix Market"
            )
        return _from_matrix(path, max_bytes)
    separator = separator or SEPARATORS[kind]
    if set(separator) & set('"\r\n'):
        raise ValueError(f"separator is {separator!r}; it cannot hold a quote or a line end")
    _check_columns(columns, skip_header)
    try:
        with _opened(path) as stream:
            parts = parts_of(stream, path, separator.encode(), columns, skip_header, max_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(path, f"the compressed data is damaged or cut short ({error})") from error
    rows = merged([part.rows for part in parts], path)
    cols = merged([part.cols for part in parts], path)
    times = [part.times for part in parts if part.times is not None]
    return Ratings(
        rows.codes,
        cols.codes,
        np.concatenate([part.values for part in parts]),
        (len(rows.labels), len(cols.labels)),
        rows.labels,
        cols.labels,
        np.concatenate(times) if times else None,
    )


def split(ratings: Ratings, fraction: float, seed: int = 0) -> tuple[Ratings, Ratings]:
    """Part ratings at random.

    Parameters
    ----------
    ratings : Ratings
        All of them.
    fraction : float
        Of the ratings that are held out, rounded up.
    seed : int
        Of the choice.

    Returns
    -------
    training, held_out : Ratings
        Of the same shape, with the same labels, each in the order of the original.

    Raises
    ------
    ValueError
        If nothing would be left for training.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.datasets.ratings import Ratings, split
    >>> one = np.arange(10)
    >>> training, held_out = split(Ratings(one, one, one / 2, (10, 10), one, one, None), 0.2)
    >>> len(training), len(held_out), held_out.shape
    (8, 2, (10, 10))
    """
    held = math.ceil(fraction * len(ratings))
    if not 0 <= held < len(ratings):
        raise ValueError(f"fraction is {fraction}: of {len(ratings)} ratings, {held} would be held out")
    mask = np.zeros(len(ratings), dtype=bool)
    mask[np.random.default_rng(seed).permutation(len(ratings))[:held]] = True
    return _chosen(ratings, ~mask), _chosen(ratings, mask)


def _chosen(ratings: Ratings, mask: NDArray[np.bool_]) -> Ratings:
    return replace(
        ratings,
        rows=ratings.rows[mask],
        cols=ratings.cols[mask],
        values=ratings.values[mask],
        timestamps=None if ratings.timestamps is None else ratings.timestamps[mask],
    )


def _kind(path: str | os.PathLike, format: str | None, separator: str | None) -> str:
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is {format!r}; {', '.join(map(repr, FORMATS))} are accepted")
    if separator == "":
        raise ValueError("separator is empty")
    suffix = Path(os.fspath(path).removesuffix(".gz")).suffix.lower()
    kind = format or SUFFIXES.get(suffix) or (separator and "csv")
    if not kind:
        raise ValueError(f"{os.fspath(path)}: the name does not tell the format; give format or separator")
    return kind


def _check_columns(columns: Sequence[int | str] | None, skip_header: bool | None) -> None:
    if columns is None:
        return
    right = all(isinstance(c, str) or (isinstance(c, int) and c >= 0) for c in columns)
    if len(columns) not in (3, 4) or len(set(columns)) < len(columns) or not right:
        raise ValueError(f"columns is {columns!r}; three or four different names or numbers are needed")
    if skip_header is False and any(isinstance(c, str) for c in columns):
        raise ValueError("columns has names, which are looked up in the header, but skip_header is False")


def _opened(path: str | os.PathLike) -> Any:
    return gzip.open(path, "rb") if os.fspath(path).endswith(".gz") else open(path, "rb")


def _from_matrix(path: str | os.PathLike, max_bytes: int) -> Ratings:
    rows, cols, values, (m, n) = read_entries(path, max_bytes=max_bytes)
    if values.dtype.kind == "c":
        raise DataError(path, "expected real values, the matrix is complex")
    if not len(values):
        raise DataError(path, "the file holds no ratings")
    labels = np.arange(1, m + 1), np.arange(1, n + 1)
    return Ratings(rows, cols, values.astype(np.float64), (m, n), *labels, None)
