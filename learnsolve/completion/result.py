"""What a completion gives back."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.result import Result

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Result):
    """A completed matrix ``U V^T + mean + row_bias 1^T + 1 col_bias^T``; unpacks as ``((U, V), info)``.

    Attributes
    ----------
    x : tuple
        ``(U, V)``.
    iterations : int
        Sweeps and steps of the polish.
    residuals : (iterations + 1,) float64 array
        Norm of the error on the observed entries, before the first and after each iteration.
    relative_residual : float
        The last of them over the norm of the observed values.
    held_out : (iterations + 1,) float64 array
        Root of the mean square error on the entries kept aside; NaN without any.
    mean : float
    row_bias, col_bias : (m,) and (n,) arrays
        Zeros without ``bias``.
    shape : (m, n)

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.problems.low_rank import low_rank
    >>> problem = low_rank((60, 50), 2, oversampling=5, seed=0)
    >>> res = learnsolve.complete((problem.rows, problem.cols, problem.values), 2, shape=problem.shape)
    >>> problem.error(res.U, res.V) < 1e-5
    True
    """

    held_out: Array = field(default_factory=lambda: np.empty(0))
    mean: float = 0.0
    row_bias: Array = field(default_factory=lambda: np.empty(0))
    col_bias: Array = field(default_factory=lambda: np.empty(0))

    @property
    def U(self) -> Array:
        """Factor of the rows, ``(m, k)``."""
        return self.x[0]

    @property
    def V(self) -> Array:
        """Factor of the columns, ``(n, k)``."""
        return self.x[1]

    @property
    def rank(self) -> int:
        """Columns of the factors."""
        return self.U.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return len(self.U), len(self.V)

    def svd(self) -> tuple[Array, Array, Array]:
        """Orthonormal factors and singular values of ``U V^T``: ``(m, k)``, ``(k,)``, ``(n, k)``."""
        return balanced_svd(self.U, self.V)

    def predict(self, rows: ArrayLike, cols: ArrayLike) -> Array:
        """The matrix at places ``(rows, cols)``, which are broadcast; like them in shape.

        Raises
        ------
        IndexError
            An index is out of range.
        """
        i, j = (np.asarray(index) for index in (rows, cols))
        for name, index, size in (("row", i, self.shape[0]), ("column", j, self.shape[1])):
            if index.size and (index.min() < 0 or index.max() >= size):
                raise IndexError(f"{name} {index.min()} to {index.max()}; there are 0 to {size - 1}")
        product = (self.U[i] * self.V[j]).sum(axis=-1)
        return product + (self.mean + self.row_bias[i] + self.col_bias[j])

    def row(self, i: int) -> Array:
        """All of row ``i``, ``(n,)``."""
        return self.predict(i, np.arange(self.shape[1]))

    def top(self, i: int, n: int, exclude: ArrayLike = ()) -> tuple[NDArray[np.int64], Array]:
        """The ``n`` columns with the largest predictions in row ``i``, and those, largest first.

        Parameters
        ----------
        i, n : int
        exclude : integer array
            Columns to leave out, such as those that are known.
        """
        if n < 0:
            raise ValueError(f"n is {n}; it must not be negative")
        found = self.row(i)
        left = np.setdiff1d(np.arange(self.shape[1]), np.asarray(exclude, dtype=np.int64))
        n = min(n, left.size)
        best = left[np.argpartition(-found[left], max(n - 1, 0))[:n]] if n else left[:0]
        best = best[np.argsort(-found[best], kind="stable")]
        return best, found[best]

    def to_dense(self, most: int = 10**8) -> Array:
        """The whole matrix.

        Raises
        ------
        ValueError
            It has more than ``most`` elements.
        """
        m, n = self.shape
        if m * n > most:
            raise ValueError(
                f"the matrix has {m * n:,} elements; to_dense(most={m * n}) makes it all the same"
            )
        return self.U @ self.V.T + (self.mean + self.row_bias[:, None] + self.col_bias)

    def __repr__(self) -> str:
        aside = self.held_out[-1] if self.held_out.size else np.nan
        return (
            f"<Completion {self.status.name}: rank {self.rank}, {self.iterations} iterations, observed error "
            f"{self.relative_residual:.1e}, RMSE aside {aside:.2g}, {self.seconds:.2f} s>"
        )


def balanced_svd(U: Array, V: Array) -> tuple[Array, Array, Array]:
    """Singular vectors and values of ``U V^T``.

    Examples
    --------
    >>> balanced_svd(np.array([[3.0], [4.0]]), np.array([[2.0]]))[1].tolist()
    [10.0]
    """
    left, R = np.linalg.qr(U)
    right, S = np.linalg.qr(V)
    u, s, v = np.linalg.svd(R @ S.T)
    return left @ u, s, right @ v.T


def error_of(res: Any, rows: ArrayLike, cols: ArrayLike, values: ArrayLike) -> float:
    """Root of the mean square error of a completion at known entries.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.completion.result import error_of
    >>> known = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    >>> known[2, 2] = np.nan
    >>> res = learnsolve.complete(known, 1, held_out=0.0)
    >>> error_of(res, 2, 2, 12.0) < 1e-4
    True
    """
    return float(np.sqrt(np.mean(np.square(res.predict(rows, cols) - np.asarray(values)))))
