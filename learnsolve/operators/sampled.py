"""A matrix of low rank seen at sampled places only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.kernels import places_numba, rows, sparse
from learnsolve.kernels.rows_reference import Rows
from learnsolve.operators.lines import Lines, sorted_places, turned

Array = NDArray[np.float64]
RowSolver = Literal["exact", "cg", "sketch"]
Sketch = Literal["countsketch", "srht", "leverage"]
SKETCHES = {"countsketch": 0, "srht": 1, "leverage": 2}
Loss = Literal["huber", "trimmed"]
LOSSES = {None: 0, "huber": 1, "trimmed": 2}


@dataclass(frozen=True)
class RowProblems:
    r"""How the least-squares problems of all rows, or columns, are posed and solved.

    For row ``i`` with entries :math:`\Omega_i` it minimises over :math:`u_i`

    .. math:: \sum_{j \in \Omega_i} w_{ij} \rho(x_{ij} - o_j - u_i \cdot f_j)
        + \omega \sum_{j \notin \Omega_i} (u_i \cdot f_j)^2 + (\lambda n_i + \mu) |u_i|^2

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
    sketch : {"countsketch", "srht", "leverage"}
        By random signs and buckets; by a subsampled randomized Hadamard transform; or of entries that are
        drawn by their leverage scores in the whole factor.
    seed : int
        Of the sketches.
    ridge : float
        :math:`\lambda`.
    shrinkage : float
        :math:`\mu`.
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
    sketch: Sketch = "countsketch"
    seed: int = 0
    ridge: float = 0.0
    shrinkage: float = 0.0
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
    device : torch.device
        Where rows are solved.
    """

    shape: tuple[int, int]
    nnz: int
    device = torch.device("cpu")

    @abstractmethod
    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All rows, or columns, in blocks."""

    def tensors(self, transposed: bool = False) -> Iterator[tuple[Lines, tuple[Tensor, ...]]]:
        """Blocks, and their indptr, indices, values and weights on the device."""
        for lines in self.blocks(transposed):
            arrays = (lines.indptr, lines.indices, lines.values, lines.weights)
            yield lines, tuple(torch.from_numpy(array) for array in arrays)

    def there(self, array: Any) -> Tensor:
        """An array of factors on the device."""
        return torch.from_numpy(_flat(array)).to(self.device)

    def residual(
        self, U: Array, V: Array, row_bias: Array | None = None, col_bias: Array | None = None
    ) -> Iterator[tuple[Lines, Array]]:
        """Blocks of rows, and of each the values less ``U V^T`` and the biases.

        Parameters
        ----------
        U, V : (m, k) and (n, k) arrays
        row_bias, col_bias : (m,) and (n,) arrays, optional
        """
        left, right = self.there(U), self.there(V)
        for lines, (indptr, indices, values, _) in self.tensors():
            found = (values - sparse.sampled_product(indptr, indices, left[lines.part], right)).cpu().numpy()
            if row_bias is not None:
                found -= np.repeat(row_bias[lines.part], np.diff(lines.indptr))
            if col_bias is not None:
                found -= col_bias[lines.indices]
            yield lines, found

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
        right = self.there(X)
        out = np.empty((self.shape[int(transposed)], right.shape[1]))
        for lines, (indptr, indices, values, _) in self.tensors(transposed):
            if change is not None:
                values = self.there(change(lines.values))
            out[lines.part] = sparse.spmv(indptr, indices, values, right).cpu().numpy()
        return out

    def holding(self, values: Array) -> "InMemory":
        """Other values at the same places, in the order of rows; in memory."""
        raise NotImplementedError(f"{type(self).__name__} does not hold its places in memory")

    def counts(self, transposed: bool = False) -> tuple[NDArray[np.int64], Array]:
        """How many entries each row, or column, has, and the sums of their squares."""
        counts = np.zeros(self.shape[int(transposed)], np.int64)
        squares = np.zeros(counts.size)
        for lines in self.blocks(transposed):
            counts[lines.part] = np.diff(lines.indptr)
            # What overflows is seen by who looks at the sums.
            with np.errstate(over="ignore"):
                of_entries = np.append(np.square(lines.values), 0.0)
                squares[lines.part] = np.add.reduceat(of_entries, lines.indptr[:-1])
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
        back, ridge, base = whitening(features, how)
        x = self.there(np.linalg.solve(back, start.T).T)
        W, near, far = (self.there(array) for array in (features @ back, ridge, base))
        shift = self.there(np.zeros(len(features)) if offset is None else offset)
        found, total = np.empty(x.shape), 0.0
        for lines, (indptr, indices, values, weights) in self.tensors(transposed):
            problems = Rows(
                indptr, indices, values, weights, shift, W, near, far,
                float(how.unobserved), LOSSES[how.loss], float(how.reach),
            )  # fmt: skip
            squares = x.new_empty(len(indptr) - 1) if measure else None
            found[lines.part] = _solved(problems, x[lines.part], how, squares).cpu().numpy()
            total += float(squares.sum()) if squares is not None else float("nan")
        return found @ back.T, total


def _solved(problems: Rows, x: Tensor, how: RowProblems, squares: Tensor | None) -> Tensor:
    if how.nonnegative:
        return rows.nonnegative(problems, x, how.steps, squares)
    if how.solver == "exact":
        return rows.exact(problems, x, squares)
    if how.solver == "cg":
        return rows.cg(problems, x, how.steps, how.rtol, squares)
    sketch = {"sketch": SKETCHES[how.sketch], "buckets": 4 * x.shape[1], "seed": how.seed}
    return rows.cg(problems, x, how.steps, how.rtol, squares, **sketch)


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
        rows, cols = (np.require(index, kind, ["C", "W"]) for index in (rows, cols))
        values = np.require(values, np.float64, ["C", "W"])
        weights = None if weights is None else np.require(weights, np.float64, ["C", "W"])
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
        """See `Sampled.holding`."""
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
        floor = max(np.sqrt(how.ridge + how.shrinkage / n), 1e-14 * scale)
        try:
            root = np.linalg.cholesky(gram / n + floor**2 * np.eye(k))
            if root.diagonal().min() < 1e-5 * root.diagonal().max():
                raise np.linalg.LinAlgError
            back = np.linalg.inv(root.T)
        except np.linalg.LinAlgError:
            stacked = np.concatenate([features / np.sqrt(n), floor * np.eye(k)])
            back = np.linalg.inv(np.asarray(np.linalg.qr(stacked, mode="r")))
    squares = back.T @ back
    if how.unobserved:
        # With zeros everywhere else the penalty is one of the row, not of its entries.
        base = how.unobserved * (back.T @ gram @ back) + (how.ridge + how.shrinkage) * squares
        return back, np.zeros((k, k)), _flat(base)
    return back, _flat(how.ridge * squares), _flat(how.shrinkage * squares)


def products_at(
    indptr: NDArray[np.integer], indices: NDArray[np.integer], U: Array, V: Array
) -> NDArray[np.float64]:
    """``U V^T`` at the places of compressed rows.

    Examples
    --------
    >>> places = np.array([0, 1]), np.array([1])
    >>> products_at(*places, np.array([[2.0]]), np.array([[3.0], [4.0]])).tolist()
    [8.0]
    """
    tensors = (torch.from_numpy(array) for array in (indptr, indices, _flat(U), _flat(V)))
    return sparse.sampled_product(*tensors).numpy()


def _flat(array: Any) -> Array:
    return np.require(array, np.float64, ["C", "W"])
