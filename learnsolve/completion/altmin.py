"""Alternating minimization: the factor of the rows by least squares, then that of the columns, and so on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from learnsolve.completion.entries import Entries
from learnsolve.completion.result import balanced_svd
from learnsolve.operators.sampled import RowSolver, Sampled

Array = NDArray[np.float64]
Robust = Literal["huber", "trimmed"]
# Of normal noise, as large as a median of magnitudes of one.
MEDIAN = 1.4826


@dataclass(frozen=True)
class AltMin:
    r"""Alternating minimization, whose row problems need not be solved exactly.

    Parameters
    ----------
    solver : {"auto", "exact", "cg", "sketch"}
        Of the rows: Cholesky's factors of the normal equations at :math:`O(|\Omega_i| k^2 + k^3)`, or steps
        of conjugate gradients at :math:`O(|\Omega_i| k)` each, preconditioned by the Gram matrix of the
        whole factor; or as many as an accuracy asks for that is doubled in every sweep, preconditioned by a
        sketch of the row, which is the paper's way. ``"auto"`` takes the second from rank 16 on.
    steps : int
        Of conjugate gradients with ``"cg"``, each time a row is solved.
    initial : {"spectral", "random"}
        Singular vectors of the known entries with zeros elsewhere, or normal numbers.

    References
    ----------
    Gu, Song, Yin and Zhang, *Low rank matrix completion via robust alternating minimization in nearly linear
    time*, ICLR 2024; Jain, Netrapalli and Sanghavi, *Low-rank matrix completion using alternating
    minimization*, STOC 2013.
    """

    solver: Literal["auto", "exact", "cg", "sketch"] = "auto"
    steps: int = 2
    initial: Literal["spectral", "random"] = "spectral"

    def __post_init__(self) -> None:
        if self.solver not in ("auto", "exact", "cg", "sketch"):
            raise ValueError(f"solver is {self.solver!r}; 'auto', 'exact', 'cg' and 'sketch' are accepted")
        if self.initial not in ("spectral", "random"):
            raise ValueError(f"initial is {self.initial!r}; 'spectral' and 'random' are accepted")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a positive number is accepted")


@dataclass(frozen=True)
class Factors:
    """A matrix ``U V^T + mean + row_bias 1^T + 1 col_bias^T``.

    Attributes
    ----------
    U, V : (m, k) and (n, k) arrays
    mean : float
    row_bias, col_bias : (m,) and (n,) arrays
    """

    U: Array
    V: Array
    mean: float
    row_bias: Array
    col_bias: Array

    def at(self, entries: Entries) -> Array:
        """The matrix at the places of entries."""
        i, j = entries.rows, entries.cols
        found = np.empty(entries.nnz)
        for begin in range(0, entries.nnz, 1 << 20):
            part = slice(begin, begin + (1 << 20))
            np.einsum("pc,pc->p", self.U[i[part]], self.V[j[part]], out=found[part])
        return found + (self.mean + self.row_bias[i] + self.col_bias[j])


def spectral(sampled: Sampled, values: Array, rank: int, seed: int, passes: int = 6) -> tuple[Array, Array]:
    """The first singular vectors of the sparse matrix, times the roots of their values: subspace iteration.

    Rows and columns with more than twice the mean number of entries are scaled down to that, so that none
    has a singular vector of its own.

    Parameters
    ----------
    sampled : Sampled
    values : (nnz,) array
    rank, seed, passes : int

    Returns
    -------
    U, V : (m, rank) and (n, rank) arrays

    Examples
    --------
    >>> rows, cols = np.divmod(np.arange(6), 2)
    >>> U, V = spectral(Sampled(rows, cols, (3, 2)), np.array([1.0, 2, 2, 4, 3, 6]), 1, seed=0)
    >>> np.allclose(U @ V.T, [[1, 2], [2, 4], [3, 6]])
    True
    """
    m, n = sampled.shape
    matrix = sampled.matrix(values)
    counts = [np.diff(lines.indptr) for lines in (sampled.by_row, sampled.by_column)]
    left, right = (np.minimum(1, 2 * count.mean() / np.maximum(count, 1)) for count in counts)
    rng = np.random.default_rng(seed)
    width = min(rank + 5, m, n)
    block = rng.standard_normal((n, width))
    for _ in range(passes):
        block = np.linalg.qr(left[:, None] * (matrix @ (right[:, None] * block)))[0]
        block = np.linalg.qr(right[:, None] * (matrix.T @ (left[:, None] * block)))[0]
    # What a sample of the matrix loses, its size tells.
    share = sampled.nnz / (m * n)
    U, s, V = balanced_svd(left[:, None] * (matrix @ (right[:, None] * block)), block)
    root = np.sqrt(s[:rank] / share)
    return U[:, :rank] * root, V[:, :rank] * root


def entry_weights(left: Array, robust: Robust | None, given: Array | None) -> Array | None:
    """What each entry counts, by its residual: Huber's weights, or none beyond three standard deviations.

    Parameters
    ----------
    left : (nnz,) array
        Residuals; their median magnitude stands for the noise.
    robust : {"huber", "trimmed"}, optional
    given : (nnz,) array, optional
        Weights to multiply them with.

    Examples
    --------
    >>> entry_weights(np.array([1.0, -1.0, 1.0, 50.0]), "trimmed", None).tolist()
    [1.0, 1.0, 1.0, 0.0]
    """
    if robust is None:
        return given
    size = np.abs(left)
    sigma = max(MEDIAN * float(np.median(size)), 1e-300)
    if robust == "huber":
        weights = np.minimum(1.0, 1.345 * sigma / np.maximum(size, 1e-300))
    else:
        weights = (size <= 3 * sigma).astype(np.float64)
    return weights if given is None else weights * given


def accuracy(sweep: int) -> float:
    """To which the rows of a sweep are solved: it is doubled in each.

    Examples
    --------
    >>> accuracy(0), accuracy(3)
    (0.1, 0.0125)
    """
    return max(0.1 * 0.5**sweep, 1e-10)


def sweeps(
    entries: Entries,
    sampled: Sampled,
    start: Factors,
    options: AltMin,
    *,
    regularization: float = 0.0,
    bias: bool = False,
    robust: Robust | None = None,
) -> Iterator[tuple[Factors, Array]]:
    """Sweep after sweep, from factors on.

    Parameters
    ----------
    entries : Entries
    sampled : Sampled
        Of their places.
    start : Factors
    options : AltMin
    regularization : float
        Lambda of ``Sampled.solve_rows``.
    bias : bool
        Fit biases too.
    robust : {"huber", "trimmed"}, optional
        ``"trimmed"`` begins with five sweeps of Huber's weights.

    Yields
    ------
    factors : Factors
    left : (nnz,) array
        The residuals at the entries.
    """
    rank = start.U.shape[1]
    solver: RowSolver = options.solver if options.solver != "auto" else "exact" if rank < 16 else "cg"
    now, left, number = start, entries.values - start.at(entries), 0
    while True:
        kind: Robust | None = "huber" if robust == "trimmed" and number < 5 else robust
        weights = entry_weights(left, kind, entries.weights)
        rows: dict[str, Any] = {"solver": solver, "steps": options.steps}
        if solver == "sketch":
            rows |= {"steps": 100, "rtol": accuracy(number), "seed": number}
        for transposed in (False, True):
            now = _half(now, entries.values, sampled, transposed, bias, weights, regularization, rows)
        left = sampled.residual(entries.values - now.mean, now.U, now.V, now.row_bias, now.col_bias)
        number += 1
        yield now, left


def _half(
    now: Factors,
    values: Array,
    sampled: Sampled,
    transposed: bool,
    bias: bool,
    weights: Array | None,
    ridge: float,
    rows: dict[str, Any],
) -> Factors:
    """One factor by least squares, with its biases, the other held."""
    fixed, free = (now.U, now.V) if transposed else (now.V, now.U)
    own, other = (now.col_bias, now.row_bias) if transposed else (now.row_bias, now.col_bias)
    if bias:
        fixed = np.column_stack([fixed, np.ones(len(fixed))])
        free = np.column_stack([free, own])
    found = sampled.solve_rows(
        values - now.mean,
        fixed,
        free,
        transposed=transposed,
        offset=other,
        weights=weights,
        ridge=ridge,
        **rows,
    )
    if bias:
        found, own = found[:, :-1], found[:, -1].copy()
    if transposed:
        return replace(now, V=found, col_bias=own)
    return replace(now, U=found, row_bias=own)
