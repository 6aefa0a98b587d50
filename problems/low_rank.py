"""Matrices of low rank of which some entries are known: problems of matrix completion, and their truths."""

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.problems.places import distinct, left_out, places_of

BLOCK = 1 << 16
OUTLIERS = (5.0, 10.0)  # how large, in root mean squares of the entries


@dataclass(frozen=True, eq=False)
class LowRankProblem:
    """Entries of a matrix ``M = U @ V.T`` of low rank, with what was done to them.

    Attributes
    ----------
    rows, cols : int64 array, ``(N,)``
        Where the known entries are: distinct, sorted by row, then by column.
    values : float64 array, ``(N,)``
        What is known of them: the truth, with noise, or an outlier.
    shape : tuple of int
        ``(m, n)``.
    rank : int
        ``k``.
    U, V : float64 array, ``(m, k)`` and ``(n, k)``
        Factors of the truth.
    noise_level : float
        Standard deviation of the noise.
    outlier : bool array, ``(N,)``
        Which values are outliers.

    Examples
    --------
    >>> from learnsolve.problems.low_rank import low_rank
    >>> problem = low_rank((40, 30), 2, oversampling=3)
    >>> problem.error(problem.U, problem.V) < 1e-14
    True
    >>> round(problem.error(1.01 * problem.U, problem.V), 12)
    0.01
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    rank: int
    U: NDArray[np.float64]
    V: NDArray[np.float64]
    noise_level: float
    outlier: NDArray[np.bool_]

    def truth(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float64]:
        """Entries of ``M``, without noise.

        Parameters
        ----------
        rows, cols : int array_like, ``(p,)``
            Where.

        Returns
        -------
        float64 array, ``(p,)``

        Raises
        ------
        ValueError
            If the two are not of one length, or there is no such row or column.
        """
        return products(self.U, self.V, rows, cols)

    def error(self, U: ArrayLike, V: ArrayLike) -> float:
        """The distance of ``U @ V.T`` to the truth, ``||U V^T - M||_F / ||M||_F``.

        The difference is the product of ``[M's U, U]`` and ``[M's V, -V]^T``; the norm of the product of
        their triangular factors is that of the difference, down to rounding errors of ``M`` itself, and
        takes ``O((m + n) (k + r)^2)`` operations.

        Parameters
        ----------
        U, V : real array_like, ``(m, r)`` and ``(n, r)``
            Of any rank ``r``.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the factors are not of these shapes.
        """
        U, V = factors_of(U, V, self.shape)
        left, right = _triangle(np.hstack([self.U, U])), _triangle(np.hstack([self.V, V]))
        k = self.rank
        exact = left[:, :k] @ right[:, :k].T
        return float(np.linalg.norm(left[:, k:] @ right[:, k:].T - exact) / np.linalg.norm(exact))

    def held_out(
        self, count: int, seed: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Entries that are not known, drawn uniformly without replacement.

        Parameters
        ----------
        count : int
            How many.
        seed : int
            Of the choice.

        Returns
        -------
        rows, cols : int64 array, ``(count,)``
            Sorted by row, then by column.
        values : float64 array, ``(count,)``
            The truth there.

        Raises
        ------
        ValueError
            If there are not as many.
        """
        m, n = self.shape
        free = m * n - len(self.rows)
        if not 0 <= count <= free:
            raise ValueError(f"count is {count}, but {free} entries are not known")
        ranks = distinct(free, count, np.random.default_rng(seed))
        rows, cols = np.divmod(left_out(self.rows * n + self.cols, ranks), n)
        return rows, cols, self.truth(rows, cols)


def low_rank(
    shape: tuple[int, int],
    rank: int,
    *,
    condition: float = 1.0,
    entries: int | None = None,
    oversampling: float | None = None,
    minimum: int | None = None,
    noise: float = 0.0,
    snr: float | None = None,
    outliers: float = 0.0,
    coherence: float = 0.0,
    seed: int = 0,
) -> LowRankProblem:
    r"""A random matrix of low rank, some entries of which are known.

    ``M = Q_m diag(s) Q_n^T``: the factors have orthonormal columns, and the singular values ``s`` go in
    equal ratios from ``condition`` down to 1. The known entries are drawn uniformly without replacement.
    Where a row or a column then has too few, entries of it are added and as many elsewhere taken away.

    Parameters
    ----------
    shape : tuple of int
        ``(m, n)``. Memory is taken for the known entries and the factors only.
    rank : int
        ``k``, at most ``min(m, n)``.
    condition : float
        The largest singular value over the smallest; of no effect in rank one.
    entries : int, optional
        How many entries are known.
    oversampling : float, optional
        The same as a multiple of ``k (m + n - k)``, how many numbers a matrix of rank ``k`` is given by.
        Either this or ``entries`` is needed.
    minimum : int, optional
        How many entries each row and each column has at least. Left out, it is ``rank``, or 0 where there
        are too few entries for that.
    noise : float
        Standard deviation of the normal noise, over the root mean square of the known entries.
    snr : float, optional
        The same in decibels, ``-20 log10(noise)``.
    outliers : float
        This part of the known entries is replaced by values of either sign that are 5 to 10 times as
        large as the entries' root mean square, which is their standard deviation about zero.
    coherence : float
        From 0, where the factors are the orthonormalized columns of normal random matrices, to 1, where
        the rows of these are first multiplied by ``1, 1/2, 1/3, ...`` in random order, so that few of them
        hold most of the factor. In between the multipliers are taken to this power.
    seed : int
        Of everything. The matrix does not depend on which entries are known, nor these on the noise and
        the outliers.

    Returns
    -------
    LowRankProblem

    Raises
    ------
    ValueError
        If a size, a count or a level is out of range; if there are more entries than the matrix has, or
        fewer than ``minimum`` takes; if not exactly one of ``entries`` and ``oversampling`` is given, or
        both ``noise`` and ``snr``.
    TypeError
        If a size or a count is not an integer.

    References
    ----------
    Candès, Recht, *Exact Matrix Completion via Convex Optimization*, Foundations of Computational
    Mathematics 9, 2009 (coherence, and why ``k (m + n - k)`` entries are the least).

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.low_rank import low_rank
    >>> problem = low_rank((200, 100), 3, oversampling=4, condition=100, snr=40)
    >>> len(problem.values) == 4 * 3 * (200 + 100 - 3)
    True
    >>> int(np.bincount(problem.rows, minlength=200).min()) >= 3
    True
    >>> rows, cols, values = problem.held_out(50, seed=1)
    >>> bool((values == problem.truth(rows, cols)).all())
    True
    """
    m, n = _sizes(shape)
    rank = operator.index(rank)
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"rank is {rank}; a {m} x {n} matrix can have 1 to {min(m, n)}")
    if not 1 <= condition < math.inf:
        raise ValueError(f"condition is {condition}; a finite number from 1 on is needed")
    for name, level in (("outliers", outliers), ("coherence", coherence)):
        if not 0 <= level <= 1:
            raise ValueError(f"{name} is {level}; a number from 0 to 1 is needed")
    relative = _relative_noise(noise, snr)
    count = _count(m, n, rank, entries, oversampling)
    least = _minimum(m, n, count, rank, minimum)

    of_factors, of_entries, of_noise, of_outliers = np.random.default_rng(seed).spawn(4)
    roots = np.sqrt(np.geomspace(1, condition, rank)[::-1])
    U = _orthonormal(m, rank, coherence, of_factors) * roots
    V = _orthonormal(n, rank, coherence, of_factors) * roots
    rows, cols = places_of(m, n, count, least, of_entries)
    values = products(U, V, rows, cols)
    size = rms(values)
    if relative:
        values += relative * size * of_noise.standard_normal(count)
    outlier = np.zeros(count, dtype=bool)
    outlier[of_outliers.choice(count, round(outliers * count), replace=False, shuffle=False)] = True
    gross = of_outliers.uniform(*OUTLIERS, size=int(outlier.sum()))
    values[outlier] = size * gross * of_outliers.choice([-1.0, 1.0], size=len(gross))
    return LowRankProblem(rows, cols, values, (m, n), rank, U, V, relative * size, outlier)


def products(
    U: NDArray[np.float64], V: NDArray[np.float64], rows: ArrayLike, cols: ArrayLike
) -> NDArray[np.float64]:
    """Entries of ``U @ V.T``, a block at a time.

    Parameters
    ----------
    U, V : float64 array, ``(m, r)`` and ``(n, r)``
        The factors.
    rows, cols : int array_like, ``(p,)``
        Where.

    Returns
    -------
    float64 array, ``(p,)``

    Raises
    ------
    ValueError
        If ``rows`` and ``cols`` are not of one length, or there is no such row or column.

    Examples
    --------
    >>> import numpy as np
    >>> products(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0], [5.0]]), [0, 1], [2, 0]).tolist()
    [5.0, 6.0]
    """
    rows, cols = np.asarray(rows), np.asarray(cols)
    if rows.ndim != 1 or rows.shape != cols.shape:
        raise ValueError(f"rows and cols are of shapes {rows.shape} and {cols.shape}; one length is needed")
    for name, places, end in (("rows", rows, len(U)), ("cols", cols, len(V))):
        if places.size and not 0 <= places.min() <= places.max() < end:
            raise ValueError(f"{name} holds {places.min()} to {places.max()}; there are 0 to {end - 1}")
    out = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        out[part] = np.einsum("ij,ij->i", U[rows[part]], V[cols[part]])
    return out


def _triangle(F: NDArray[np.float64]) -> NDArray[np.float64]:
    triangle: Any = np.linalg.qr(F, mode="r")
    return triangle


def rms(values: NDArray[np.float64]) -> float:
    """Root of the mean square."""
    return float(np.linalg.norm(values)) / math.sqrt(len(values))


def factors_of(
    U: ArrayLike, V: ArrayLike, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The factors as arrays; ValueError if they are not those of a matrix of the shape."""
    U, V = np.asarray(U, dtype=np.float64), np.asarray(V, dtype=np.float64)
    m, n = shape
    if U.ndim != 2 or V.ndim != 2 or U.shape[1] != V.shape[1] or (len(U), len(V)) != shape:
        raise ValueError(f"U and V are of shapes {U.shape} and {V.shape}; ({m}, r) and ({n}, r) are needed")
    return U, V


def _sizes(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"shape is {shape!r}; a matrix has two sizes")
    m, n = (operator.index(size) for size in shape)
    if min(m, n) < 1 or m * n >= 2**63:
        raise ValueError(f"shape is {shape!r}; positive sizes, whose product is below 2**63, are needed")
    return m, n


def _relative_noise(noise: float, snr: float | None) -> float:
    if snr is None:
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise is {noise}; a finite number not below zero is needed")
        return noise
    if noise:
        raise ValueError("noise and snr say the same; give one of them")
    if not abs(snr) <= 3000:
        raise ValueError(f"snr is {snr}; decibels from -3000 to 3000 are needed")
    return 10 ** (-snr / 20)


def _count(m: int, n: int, rank: int, entries: int | None, oversampling: float | None) -> int:
    if (entries is None) == (oversampling is None):
        raise ValueError("exactly one of entries and oversampling is needed")
    if oversampling is not None:
        if not 0 < oversampling < math.inf:
            raise ValueError(f"oversampling is {oversampling}; a finite number above zero is needed")
        count = round(oversampling * rank * (m + n - rank))
        given = f"oversampling is {oversampling}, which makes {count} entries"
    else:
        assert entries is not None
        count = operator.index(entries)
        given = f"entries is {count}"
    if not 1 <= count <= m * n:
        raise ValueError(f"{given}; a {m} x {n} matrix has 1 to {m * n}")
    return count


def _minimum(m: int, n: int, count: int, rank: int, minimum: int | None) -> int:
    if minimum is None:
        return rank if rank * max(m, n) <= count else 0
    minimum = operator.index(minimum)
    if not 0 <= minimum <= min(m, n):
        raise ValueError(f"minimum is {minimum}; rows and columns of {m} x {n} can have 0 to {min(m, n)}")
    if minimum * max(m, n) > count:
        raise ValueError(f"minimum is {minimum}, which takes {minimum * max(m, n)} entries, not {count}")
    return minimum


def _orthonormal(size: int, rank: int, coherence: float, rng: np.random.Generator) -> NDArray[np.float64]:
    weights = rng.permutation(np.arange(1.0, size + 1)) ** -coherence
    return np.linalg.qr(rng.standard_normal((size, rank)) * weights[:, None])[0]
