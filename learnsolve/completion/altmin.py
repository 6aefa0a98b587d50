"""Alternating minimization: the factor of the rows by least squares, then that of the columns, and so on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from learnsolve.completion.anderson import Anderson
from learnsolve.completion.entries import Entries
from learnsolve.completion.result import balanced_svd
from learnsolve.operators.sampled import SKETCHES, Loss, RowProblems, RowSolver, Sampled, Sketch

Array = NDArray[np.float64]
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
    sketch : {"countsketch", "srht", "leverage"}
        Which, see `learnsolve.operators.sampled.RowProblems`.
    initial : {"spectral", "random"}
        Singular vectors of the known entries with zeros elsewhere, or normal numbers.
    acceleration : int
        Of how many earlier sweeps Anderson's acceleration makes use, where only squares of residuals are
        minimised; zero for none.

    References
    ----------
    Gu, Song, Yin and Zhang, *Low rank matrix completion via robust alternating minimization in nearly linear
    time*, ICLR 2024; Jain, Netrapalli and Sanghavi, *Low-rank matrix completion using alternating
    minimization*, STOC 2013.
    """

    solver: Literal["auto", "exact", "cg", "sketch"] = "auto"
    steps: int = 2
    sketch: Sketch = "countsketch"
    initial: Literal["spectral", "random"] = "spectral"
    acceleration: int = 4

    def __post_init__(self) -> None:
        if self.solver not in ("auto", "exact", "cg", "sketch"):
            raise ValueError(f"solver is {self.solver!r}; 'auto', 'exact', 'cg' and 'sketch' are accepted")
        if self.sketch not in SKETCHES:
            raise ValueError(f"sketch is {self.sketch!r}; {', '.join(SKETCHES)} are accepted")
        if self.initial not in ("spectral", "random"):
            raise ValueError(f"initial is {self.initial!r}; 'spectral' and 'random' are accepted")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a positive number is accepted")
        if self.acceleration < 0:
            raise ValueError(f"acceleration is {self.acceleration}; zero or more sweeps are accepted")


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


def spectral(
    sampled: Sampled,
    rank: int,
    seed: int,
    passes: int = 4,
    *,
    share: float | None = None,
    change: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """The first singular vectors of the sparse matrix, times the roots of their values: subspace iteration.

    Rows and columns with more than twice the mean number of entries are scaled down to that, so that none
    has a singular vector of its own.

    Parameters
    ----------
    sampled : Sampled
    rank, seed, passes : int
    share : float, optional
        Of the matrix that the entries stand for; by default as many as there are of all.
    change : callable, optional
        From an array of values to those that stand for them.

    Returns
    -------
    U, V : (m, rank) and (n, rank) arrays

    Examples
    --------
    >>> from learnsolve.operators.sampled import InMemory
    >>> rows, cols = np.divmod(np.arange(6), 2)
    >>> U, V = spectral(InMemory(rows, cols, np.array([1.0, 2, 2, 4, 3, 6]), (3, 2)), 1, seed=0)
    >>> np.allclose(U @ V.T, [[1, 2], [2, 4], [3, 6]])
    True
    """
    m, n = sampled.shape
    share = sampled.nnz / (m * n) if share is None else share
    left, right = (
        np.minimum(1, 2 * count.mean() / np.maximum(count, 1))[:, None]
        for count in (sampled.counts(transposed)[0] for transposed in (False, True))
    )
    rng = np.random.default_rng(seed)
    block = rng.standard_normal((n, min(rank + 5, m, n)))
    for _ in range(passes):
        block = np.linalg.qr(left * sampled.times(right * block, change=change))[0]
        block = np.linalg.qr(right * sampled.times(left * block, transposed=True, change=change))[0]
    # What a sample of the matrix loses, its size tells.
    U, s, V = balanced_svd(left * sampled.times(right * block, change=change), block)
    root = np.sqrt(s[:rank] / share)
    return U[:, :rank] * root, V[:, :rank] * root


def reach(robust: Loss, left: Array) -> float:
    """From which size on a residual counts less: by the noise, for which their median magnitude stands.

    Examples
    --------
    >>> round(reach("trimmed", np.array([1.0, -1.0, 1.0, 50.0])), 2)
    4.45
    """
    sigma = max(MEDIAN * float(np.median(np.abs(left))), 1e-300)
    return (1.345 if robust == "huber" else 3.0) * sigma


def accuracy(sweep: int) -> float:
    """To which the rows of a sweep are solved: it is doubled in each.

    Examples
    --------
    >>> accuracy(0), accuracy(3)
    (0.1, 0.0125)
    """
    return max(0.1 * 0.5**sweep, 1e-10)


@dataclass(frozen=True)
class Objective:
    r"""What is minimised beside the squares of the known entries.

    Attributes
    ----------
    regularization : float
        :math:`\lambda` of `RowProblems`.
    shrinkage : float
        :math:`\mu` there.
    bias : bool
        Fit biases too.
    robust : {"huber", "trimmed"}, optional
        ``"trimmed"`` begins with five sweeps of Huber's weights.
    unobserved : float
        The weight of a zero for each entry that is not known.
    nonnegative : bool
        Both factors.
    """

    regularization: float = 0.0
    shrinkage: float = 0.0
    bias: bool = False
    robust: Loss | None = None
    unobserved: float = 0.0
    nonnegative: bool = False


def sweeps(
    sampled: Sampled,
    start: Factors,
    options: AltMin,
    objective: Objective,
    probe: Entries,
    number: int = 0,
    anderson: Anderson | None = None,
) -> Iterator[tuple[Factors, float]]:
    """Sweep after sweep, from factors on.

    Parameters
    ----------
    sampled : Sampled
    start : Factors
    options : AltMin
    objective : Objective
    probe : Entries
        Some of those that are fitted, from which the noise is estimated.
    number : int
        How many sweeps there were before.
    anderson : Anderson, optional
        Accelerates them.

    Yields
    ------
    factors : Factors
    error : float
        Norm of the residuals at the entries.
    """
    rank = start.U.shape[1] + objective.bias
    solver: RowSolver = options.solver if options.solver != "auto" else "exact" if rank < 16 else "cg"
    now, before = start, float("nan")
    while True:
        how = RowProblems(
            solver,
            options.steps,
            ridge=objective.regularization,
            shrinkage=objective.shrinkage,
            unobserved=objective.unobserved,
            nonnegative=objective.nonnegative,
        )
        if solver == "sketch":
            how = replace(how, steps=100, rtol=accuracy(number), sketch=options.sketch, seed=number)
        if objective.nonnegative:
            how = replace(how, steps=max(options.steps, 5))
        if objective.robust is not None:
            loss: Loss = "huber" if number < 5 else objective.robust
            how = replace(how, loss=loss, reach=reach(loss, probe.values - now.at(probe)))
        begun = now
        if anderson is not None and anderson.ahead is not None:
            begun = _with_columns(now, anderson.ahead)
        found, _ = _half(begun, sampled, False, objective.bias, how)
        found, squares = _half(found, sampled, True, objective.bias, how)
        number += 1
        error = float(np.sqrt(squares))
        if anderson is None or anderson.helped(error):
            now, before = found, error
            if anderson is not None:
                anderson.next(_columns(begun), _columns(found), error)
        yield now, before


def _columns(now: Factors) -> Array:
    """All that belongs to columns."""
    return np.column_stack([now.V, now.col_bias])


def _with_columns(now: Factors, columns: Array) -> Factors:
    return replace(now, V=np.ascontiguousarray(columns[:, :-1]), col_bias=columns[:, -1].copy())


def _half(
    now: Factors, sampled: Sampled, transposed: bool, bias: bool, how: RowProblems
) -> tuple[Factors, float]:
    """One factor by least squares, with its biases, the other held."""
    fixed, free = (now.U, now.V) if transposed else (now.V, now.U)
    own, other = (now.col_bias, now.row_bias) if transposed else (now.row_bias, now.col_bias)
    if bias:
        fixed = np.column_stack([fixed, np.ones(len(fixed))])
        free = np.column_stack([free, own])
    found, squares = sampled.solve_rows(
        fixed, free, how, transposed=transposed, offset=other + now.mean, measure=transposed
    )
    if bias:
        found, own = found[:, :-1], found[:, -1].copy()
    if transposed:
        return replace(now, V=found, col_bias=own), squares
    return replace(now, U=found, row_bias=own), squares
