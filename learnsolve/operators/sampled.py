"""A matrix of low rank seen at sampled places only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from learnsolve.kernels import places_numba, rows_numba, sampled_numba
from learnsolve.kernels.threads import threads

Array = NDArray[np.float64]
RowSolver = Literal["exact", "cg", "sketch"]
Sketch = Literal["count", "hadamard", "leverage"]
SKETCHES = {"count": 0, "hadamard": 1, "leverage": 2}
Loss = Literal["huber", "trimmed"]
LOSSES = {None: 0, "huber": 1, "trimmed": 2}


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


@dataclass(frozen=True)
class RowProblems:
    r"""How the least-squares problems of all rows, or columns, are posed and solved.

    For row ``i`` with entries :math:`\Omega_i` it minimises over :math:`u_i`

    .. math:: \sum_{j \in \Omega_i} w_{ij} \rho(x_{ij} - o_j - u_i \cdot f_j)
        + \omega \sum_{j \notin \Omega_i} (u_i \cdot f_j)^2 + \lambda n_i |u_i|^2

    with :math:`n_i` the number of its entries, or 1 if :math:`\omega > 0`.

    Attributes
    ----------
    solver : {"exact", "cg", "sketch"}
        Cholesky's factors of the normal equations; or steps of conjugate gradients from what is given,
        preconditioned by the Gram matrix of all features (of a row with many entries drawn at random the own
        one is close to it); or as many as ``rtol`` asks for, preconditioned by the Gram matrix of a sketch
        of the row's own features with ``4 k`` rows.
    steps : int
        Most steps of conjugate gradients.
    rtol : float
        What the gradient of a row is to be reduced to.
    sketch : {"count", "hadamard", "leverage"}
        By random signs and buckets (CountSketch); by a subsampled randomized Hadamard transform (SRHT); or
        of entries that are drawn by their leverage scores in the whole factor.
    seed : int
        Of the sketches.
    ridge : float
        :math:`\lambda`.
    unobserved : float
        :math:`\omega`.
    loss : {"huber", "trimmed"}, optional
        :math:`\rho`: squares; or Huber's with a bend at ``reach``, or none beyond ``reach``, both by weights
        at the residuals of what is given.
    reach : float
    nonnegative : bool
        Over vectors that are not negative, by ``steps`` rounds of coordinate descent.
    """

    solver: RowSolver = "exact"
    steps: int = 2
    rtol: float = 0.0
    sketch: Sketch = "count"
    seed: int = 0
    ridge: float = 0.0
    unobserved: float = 0.0
    loss: Loss | None = None
    reach: float = 0.0
    nonnegative: bool = False


class Sampled(ABC):
    """Known entries of a matrix, and what can be done at their places with a product ``U V^T``.

    Attributes
    ----------
    shape : (m, n)
    nnz : int
    """

    shape: tuple[int, int]
    nnz: int

    @abstractmethod
    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All rows, or columns, in blocks."""

    def residual(
        self, U: Array, V: Array, row_bias: Array | None = None, col_bias: Array | None = None
    ) -> Iterator[tuple[Lines, Array]]:
        """Blocks of rows, and of each the values less ``U V^T`` and the biases.

        Parameters
        ----------
        U, V : (m, k) and (n, k) arrays
        row_bias, col_bias : (m,) and (n,) arrays, optional
        """
        offset, U, V = np.zeros(self.shape[1]) if col_bias is None else col_bias, _flat(U), _flat(V)
        for lines in self.blocks():
            left, out = lines.values, np.empty(lines.values.size)
            if row_bias is not None:
                left = left - np.repeat(row_bias[lines.part], np.diff(lines.indptr))
            size = threads(left.size * U.shape[1])
            sampled_numba.residual(lines.indptr, lines.indices, left, offset, U[lines.part], V, out, size)
            yield lines, out

    def times(
        self, X: Array, transposed: bool = False, change: Callable[[Array], Array] | None = None
    ) -> Array:
        """The sparse matrix of the entries times ``X``, or its transpose times ``X``.

        Parameters
        ----------
        X : (n, k) array
            ``(m, k)`` if transposed.
        transposed : bool
        change : callable, optional
            From an array of values to those that stand for them.

        Returns
        -------
        (m, k) or (n, k) array
        """
        X = _flat(X)
        out = np.empty((self.shape[int(transposed)], X.shape[1]))
        for lines in self.blocks(transposed):
            values = lines.values if change is None else change(lines.values)
            size = threads(values.size * X.shape[1])
            sampled_numba.rows_sum.parallel(lines.indptr, lines.indices, values, X, out[lines.part], size)
        return out

    def counts(self, transposed: bool = False) -> tuple[NDArray[np.int64], Array]:
        """How many entries each row, or column, has, and the sums of their squares."""
        counts = np.zeros(self.shape[int(transposed)], np.int64)
        squares = np.zeros(counts.size)
        for lines in self.blocks(transposed):
            counts[lines.part] = np.diff(lines.indptr)
            squares[lines.part] = np.add.reduceat(
                np.append(np.square(lines.values), 0.0), np.minimum(lines.indptr[:-1], lines.values.size)
            )
        squares[counts == 0] = 0.0
        return counts, squares

    def mean(self) -> float:
        """Of the values, weighted."""
        total = weight = 0.0
        for lines in self.blocks():
            if lines.weights.size:
                total, weight = (
                    total + float(lines.values @ lines.weights),
                    weight + float(lines.weights.sum()),
                )
            else:
                total, weight = total + float(lines.values.sum()), weight + lines.values.size
        return total / weight

    def solve_rows(
        self,
        features: Array,
        start: Array,
        how: RowProblems | None = None,
        *,
        transposed: bool = False,
        offset: Array | None = None,
        measure: bool = False,
    ) -> tuple[Array, float]:
        """Least squares of every row, or column, on the features of its places.

        Parameters
        ----------
        features : (n, k) array
            ``(m, k)`` if transposed.
        start : (m, k) array
            ``(n, k)`` if transposed.
        how : RowProblems, optional
        transposed : bool
            Solve for columns.
        offset : (n,) array, optional
            ``o``; ``(m,)`` if transposed.
        measure : bool
            Add up the squares of the residuals, which then are not weighted.

        Returns
        -------
        solution : array of the shape of ``start``
        squares : float
            NaN unless asked for.
        """
        how = how or RowProblems()
        n, k = features.shape
        back, ridge, base = whitening(features, how)
        W, x = _flat(features @ back), _flat(np.linalg.solve(back, start.T).T)
        total = 0.0
        for lines in self.blocks(transposed):
            size = threads(lines.values.size * k)
            squares = np.zeros(lines.indptr.size - 1 if measure else 0)
            given = (
                lines.indptr, lines.indices, lines.values, lines.weights,
                np.zeros(n) if offset is None else offset,
                W, ridge, base, float(how.unobserved), LOSSES[how.loss], float(how.reach), x[lines.part],
            )  # fmt: skip
            if how.nonnegative:
                rows_numba.rows_nonnegative.parallel(*given, how.steps, squares, size)
            elif how.solver == "exact":
                rows_numba.rows_exact.parallel(*given, squares, size)
            else:
                buckets, steps = (4 * k, how.steps) if how.solver == "sketch" else (0, how.steps)
                rows_numba.rows_cg.parallel(
                    *given, SKETCHES[how.sketch], buckets, how.seed, how.rtol, steps, squares, size
                )
            total += float(squares.sum())
        return x @ back.T, total if measure else float("nan")


class InMemory(Sampled):
    """Entries in memory, by row and by column.

    Parameters
    ----------
    rows, cols : (nnz,) integer arrays
        The places, each at most once, in any order.
    values : (nnz,) array
    shape : (m, n)
    weights : (nnz,) array, optional

    Examples
    --------
    >>> known = InMemory(np.array([0, 1, 1]), np.array([1, 0, 1]), np.array([4.0, 6.0, 9.0]), (2, 2))
    >>> U, V = np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])
    >>> [left.tolist() for _, left in known.residual(U, V)]
    [[0.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        rows: NDArray[np.integer],
        cols: NDArray[np.integer],
        values: Array,
        shape: tuple[int, int],
        weights: Array | None = None,
    ) -> None:
        self.shape, self.nnz = shape, rows.size
        # Kernels are compiled for each type that they meet.
        kind = np.int32 if max(shape) < 2**31 else np.int64
        rows, cols, values = np.ascontiguousarray(rows, kind), np.ascontiguousarray(cols, kind), _flat(values)
        weights = None if weights is None else _flat(weights)
        if places_numba.rising(rows, cols) >= 0:
            rows, cols, values, weights = sorted_places(rows, cols, values, weights, shape)
        self.by_row = Lines(
            0,
            places_numba.begins_of(rows, shape[0]),
            cols,
            values,
            np.empty(0) if weights is None else weights,
        )
        self.by_column = turned(self.by_row, shape[1])

    def holding(self, values: Array) -> "InMemory":
        """Other values at the same places, in the order of rows."""
        lines, (m, _) = self.by_row, self.shape
        rows = np.repeat(np.arange(m, dtype=lines.indices.dtype), np.diff(lines.indptr))
        return InMemory(rows, lines.indices, values, self.shape)

    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All of them at once."""
        yield self.by_column if transposed else self.by_row

    def matrix(self, values: Array | None = None) -> scipy.sparse.csr_array:
        """The sparse matrix of the entries, or of others at their places, by row."""
        lines = self.by_row
        data = lines.values if values is None else values
        return scipy.sparse.csr_array((data, lines.indices, lines.indptr), shape=self.shape)


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


def whitening(features: Array, how: RowProblems) -> tuple[Array, Array, Array]:
    """Coordinates ``R u`` of a row's answer in which the Gram matrix of all features is ``n``.

    Returns
    -------
    back : (k, k) array
        ``R^-1``; the identity for answers that must not be negative.
    ridge, base : (k, k) arrays
        What an entry of a row, and the row as such, add to the matrix of its normal equations there.
    """
    n, k = features.shape
    gram, back = features.T @ features, np.eye(k)
    if not how.nonnegative:
        scale = max(float(np.abs(features).max()), 1e-300)
        floor = max(np.sqrt(how.ridge), 1e-14 * scale)
        try:
            root = np.linalg.cholesky(gram / n + floor**2 * np.eye(k))
            if root.diagonal().min() < 1e-5 * root.diagonal().max():
                raise np.linalg.LinAlgError
            back = np.linalg.inv(root.T)
        except np.linalg.LinAlgError:
            stacked = np.concatenate([features / np.sqrt(n), floor * np.eye(k)])
            back = np.linalg.inv(np.asarray(np.linalg.qr(stacked, mode="r")))
    damping = how.ridge * (back.T @ back)
    if how.unobserved:
        # With zeros everywhere else the penalty is one of the row, not of its entries.
        return back, np.zeros((k, k)), _flat(how.unobserved * (back.T @ gram @ back) + damping)
    return back, _flat(damping), np.zeros((k, k))


def _flat(array: Any) -> Array:
    return np.ascontiguousarray(array, dtype=np.float64)
