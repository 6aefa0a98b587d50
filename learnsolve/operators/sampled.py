"""A matrix of low rank seen at sampled places only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from learnsolve.kernels import sampled_numba
from learnsolve.kernels.threads import threads

Array = NDArray[np.float64]
RowSolver = Literal["exact", "cg", "sketch"]


@dataclass(frozen=True)
class Lines:
    """Sampled places by line: the rows of a matrix, or its columns.

    Attributes
    ----------
    indptr : (lines + 1,) int64 array
        Where each line begins.
    indices : (nnz,) int32 array
        The place in its line of each entry, rising.
    order : (nnz,) int64 array
        Which of the entries, in the order in which they were given, stands here.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    order: NDArray[np.int64]


def lines_of(major: NDArray[np.integer], minor: NDArray[np.integer], shape: tuple[int, int]) -> Lines:
    """Sort places by line."""
    numbers = np.arange(major.size, dtype=np.int64)
    matrix = scipy.sparse.coo_array((numbers, (major, minor)), shape=shape).tocsr()
    matrix.sort_indices()
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return Lines(indptr, indices, matrix.data)


class Sampled:
    """Where a matrix is known, and what can be done there with a product ``U V^T``.

    Parameters
    ----------
    rows, cols : (nnz,) integer arrays
        The places, each at most once.
    shape : (m, n)

    Examples
    --------
    >>> sampled = Sampled(np.array([0, 1, 1]), np.array([1, 0, 1]), (2, 2))
    >>> U, V = np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])
    >>> sampled.residual(np.array([4.0, 6.0, 9.0]), U, V)
    array([0., 0., 1.])
    """

    def __init__(self, rows: NDArray[np.integer], cols: NDArray[np.integer], shape: tuple[int, int]) -> None:
        self.shape = shape
        self.nnz = rows.size
        self.by_row = lines_of(rows, cols, shape)
        self.by_column = lines_of(cols, rows, (shape[1], shape[0]))

    def residual(
        self, values: Array, U: Array, V: Array, row_bias: Array | None = None, col_bias: Array | None = None
    ) -> Array:
        """``values - (U V^T)`` at the places, less the biases of rows and columns.

        Parameters
        ----------
        values : (nnz,) array
            In the order in which the places were given.
        U, V : (m, k) and (n, k) arrays
        row_bias, col_bias : (m,) and (n,) arrays, optional

        Returns
        -------
        (nnz,) array
        """
        lines = self.by_row
        left, out = values[lines.order], np.empty(self.nnz)
        if row_bias is not None:
            left -= np.repeat(row_bias, np.diff(lines.indptr))
        offset = np.zeros(self.shape[1]) if col_bias is None else col_bias
        sampled_numba.residual(
            lines.indptr, lines.indices, left, offset, _flat(U), _flat(V), out, threads(self.nnz)
        )
        found = np.empty(self.nnz)
        found[lines.order] = out
        return found

    def matrix(self, values: Array) -> scipy.sparse.csr_array:
        """The sparse matrix of values at the places."""
        lines = self.by_row
        return scipy.sparse.csr_array((values[lines.order], lines.indices, lines.indptr), shape=self.shape)

    def solve_rows(
        self,
        values: Array,
        features: Array,
        start: Array,
        *,
        transposed: bool = False,
        offset: Array | None = None,
        weights: Array | None = None,
        ridge: float = 0.0,
        solver: RowSolver = "exact",
        steps: int = 2,
        rtol: float = 0.0,
        seed: int = 0,
    ) -> Array:
        r"""Least squares of every row (or column) of the values on the features of its places.

        For row ``i`` it minimises :math:`\sum_j w_{ij} (x_{ij} - o_j - u_i \cdot f_j)^2 + \lambda n_i
        |u_i|^2` over :math:`u_i`, where :math:`n_i` counts the row's entries. ``"cg"`` makes steps of
        conjugate gradients from ``start``, preconditioned by the Gram matrix of all features: of a row with
        many entries drawn at random the own one is close to it. ``"sketch"`` makes as many steps as ``rtol``
        asks for, at most ``steps``, preconditioned by the row's own Gram matrix after its entries were added
        up with random signs in ``4 k`` buckets (a CountSketch).

        Parameters
        ----------
        values : (nnz,) array
            In the order in which the places were given.
        features : (n, k) array
            ``(m, k)`` if transposed.
        start : (m, k) array
            ``(n, k)`` if transposed.
        transposed : bool
            Solve for columns.
        offset : (n,) array, optional
            ``o``; ``(m,)`` if transposed.
        weights : (nnz,) array, optional
            ``w``, not negative.
        ridge : float
            Lambda.
        solver : {"exact", "cg", "sketch"}
        steps : int
            Most steps of conjugate gradients.
        rtol : float
            What the gradient of a row is to be reduced to.
        seed : int
            Of the sketches.

        Returns
        -------
        array of the shape of ``start``
        """
        lines = self.by_column if transposed else self.by_row
        n, k = features.shape
        scale = max(float(np.abs(features).max()), 1e-300)
        floor = max(np.sqrt(ridge), 1e-14 * scale)
        R = np.asarray(np.linalg.qr(np.concatenate([features / np.sqrt(n), floor * np.eye(k)]), mode="r"))
        # In the coordinates R u the Gram matrix of all features, ridge included, is n times the identity.
        back = np.linalg.inv(R)
        W, x = _flat(features @ back), _flat(start @ R.T)
        given = (
            lines.indptr,
            lines.indices,
            values[lines.order],
            np.empty(0) if weights is None else weights[lines.order],
            np.zeros(n) if offset is None else offset,
            W,
            _flat(ridge * (back.T @ back)),
            x,
        )
        if solver == "exact":
            sampled_numba.rows_exact.parallel(*given, threads(self.nnz * k))
        elif solver == "sketch":
            sampled_numba.rows_sketched.parallel(*given, 4 * k, seed, rtol, steps, threads(self.nnz * k))
        else:
            sampled_numba.rows_cg.parallel(*given, steps, rtol, threads(self.nnz * k))
        return x @ back.T


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=np.float64)
