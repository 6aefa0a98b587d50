"""A completion that goes on while entries come in."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.completion.entries import Duplicates, Entries, as_entries
from learnsolve.completion.result import Completion
from learnsolve.operators.sampled import InMemory, RowProblems

Array = NDArray[np.float64]
# Entries that came lately are put in order with the others when they are this share of them.
LATE = 0.05


class Stream:
    r"""Keeps a completion up to date with new entries, at a cost that goes with their rows and columns.

    Each time the rows that got entries are fitted anew, then their columns, the others held. An entry at a
    place that is known takes the place of the old one. Rows and columns that are new extend the matrix. From
    time to time, ``learnsolve.complete(stream.entries, rank, x0=stream.completion)`` sweeps over all.

    Parameters
    ----------
    completion : Completion
    entries : as for `learnsolve.complete`
        Those that it was made of.
    shape : (m, n), optional
    regularization, shrinkage : float
        :math:`\lambda` and :math:`\mu` of `learnsolve.complete`.
    bias : bool
        Fit the numbers of rows and columns too; as when the completion was made.
    rounds : int
        How often the new rows and columns are fitted.
    duplicates : {"average", "refuse"}
        Of the entries given here.

    Attributes
    ----------
    completion : Completion
        As of now: its history and status are those of the one that was given.

    Raises
    ------
    ValueError
        The shape of the entries is not the completion's, or an option is not as described.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> from learnsolve.completion import Stream
    >>> known = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    >>> stream = Stream(learnsolve.complete(known, 1), known)
    >>> stream.add([8], [2], [27.0])  # of a ninth row
    >>> stream.completion.predict(8, [0, 5]).round(3).tolist()
    [9.0, 54.0]
    """

    def __init__(
        self,
        completion: Completion,
        entries: Any,
        *,
        shape: tuple[int, int] | None = None,
        regularization: float = 0.0,
        shrinkage: float = 0.0,
        bias: bool = False,
        rounds: int = 2,
        duplicates: Duplicates = "average",
    ) -> None:
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}; a positive number is accepted")
        for name, value in (("regularization", regularization), ("shrinkage", shrinkage)):
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; a number that is not negative is accepted")
        known = as_entries(entries, shape, duplicates=duplicates)
        if known.shape != completion.shape:
            raise ValueError(
                f"the completion is of a matrix {completion.shape}, the entries of {known.shape}"
            )
        self.completion, self._known = completion, known
        self._memory = InMemory(known.rows, known.cols, known.values, known.shape)
        self._late: list[NDArray[Any]] = [np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)]
        self._bias, self._rounds = bias, rounds
        self._how = RowProblems("exact", ridge=regularization, shrinkage=shrinkage)

    @property
    def entries(self) -> tuple[NDArray[np.integer], NDArray[np.integer], Array]:
        """All that are known now: rows, columns, values."""
        self._settle()
        return self._known.rows, self._known.cols, self._known.values

    def add(self, rows: ArrayLike, cols: ArrayLike, values: ArrayLike) -> None:
        """Take new entries in.

        Raises
        ------
        ValueError
            They are not finite, not as many of each, or an index is negative.
        """
        given = tuple(np.atleast_1d(np.asarray(part)) for part in (rows, cols, values))
        if given[0].size == 0:
            return
        for name, index in zip(("rows", "cols"), given[:2], strict=True):
            if not np.issubdtype(index.dtype, np.integer) or index.min() < 0 or index.max() >= 2**31 - 1:
                raise ValueError(f"{name} must be integers from 0 to {2**31 - 2}")
        shape = tuple(
            max(size, int(index.max()) + 1)
            for size, index in zip(self.completion.shape, given[:2], strict=True)
        )
        new = as_entries(given, (shape[0], shape[1]), duplicates="keep")
        late: tuple[NDArray[Any], ...] = (new.rows, new.cols, new.values)
        self._late = [np.concatenate(pair) for pair in zip(self._late, late, strict=True)]
        self._extend((shape[0], shape[1]))
        if self._late[0].size > LATE * self._known.nnz:
            self._settle()
        lines = [self._lines(index, transposed) for transposed, index in enumerate((new.rows, new.cols))]
        for _ in range(self._rounds):
            for transposed, (touched, part) in enumerate(lines):
                self._fit(touched, part, bool(transposed))

    def _extend(self, shape: tuple[int, int]) -> None:
        """Rows of zeros for what is new."""
        now = self.completion
        grown = [
            np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]))])
            for part, size in zip((now.U, now.V, now.row_bias, now.col_bias), (*shape, *shape), strict=True)
        ]
        self.completion = replace(
            now, x=(grown[0], grown[1]), row_bias=grown[2], col_bias=grown[3], extras=dict(now.extras)
        )

    def _settle(self) -> None:
        """Put those that came lately in order with the others."""
        known, shape = self._known, self.completion.shape
        if self._late[0].size == 0 and known.shape == shape:
            return
        old: tuple[NDArray[Any], ...] = (known.rows, known.cols, known.values)
        joined = [np.concatenate(pair) for pair in zip(old, self._late, strict=True)]
        rows, cols, values = _last(joined[0], joined[1], joined[2])
        self._known = Entries(rows, cols, values, shape)
        self._memory = InMemory(rows, cols, values, shape)
        self._late = [part[:0] for part in self._late]

    def _lines(self, index: NDArray[np.integer], transposed: int) -> tuple[NDArray[np.integer], InMemory]:
        """Which rows, or columns, have new entries, and all entries of these."""
        touched = np.unique(index)
        lines = self._memory.by_column if transposed else self._memory.by_row
        old = touched[touched < lines.indptr.size - 1]
        lengths = lines.indptr[old + 1] - lines.indptr[old]
        ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) + np.repeat(lines.indptr[old] - (ends - lengths), lengths)
        late = [self._late[1], self._late[0]] if transposed else self._late[:2]
        mine = np.isin(late[0], touched)
        major = np.concatenate(
            [np.repeat(np.searchsorted(touched, old), lengths), np.searchsorted(touched, late[0][mine])]
        )
        minor = np.concatenate([lines.indices[places], late[1][mine]])
        values = np.concatenate([lines.values[places], self._late[2][mine]])
        size = self.completion.shape[1 - transposed]
        return touched, InMemory(*_last(major.astype(np.int32), minor, values), (touched.size, size))

    def _fit(self, touched: NDArray[np.integer], part: InMemory, transposed: bool) -> None:
        now = self.completion
        fixed, free = (now.U, now.V) if transposed else (now.V, now.U)
        own, other = (now.col_bias, now.row_bias) if transposed else (now.row_bias, now.col_bias)
        start = free[touched]
        if self._bias:
            fixed = np.column_stack([fixed, np.ones(len(fixed))])
            start = np.column_stack([start, own[touched]])
        found, _ = part.solve_rows(fixed, start, self._how, offset=other + now.mean)
        # These arrays are nobody else's: `_extend` has copied them.
        if self._bias:
            own[touched] = found[:, -1]
            found = found[:, :-1]
        free[touched] = found


def _last(
    rows: NDArray[np.integer], cols: NDArray[np.integer], values: Array
) -> tuple[NDArray[np.integer], NDArray[np.integer], Array]:
    """Entries in order, and of those at one place the last."""
    order = np.lexsort((cols, rows))
    rows, cols, values = rows[order], cols[order], values[order]
    last = np.ones(rows.size, bool)
    last[:-1] = (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])
    return rows[last], cols[last], values[last]
