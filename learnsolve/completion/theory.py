"""Alternating minimization as its analysis wants it: fresh entries for every half of a sweep."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learnsolve.completion.altmin import Factors, accuracy, spectral
from learnsolve.completion.entries import Entries
from learnsolve.operators.sampled import InMemory, RowProblems

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RobustAltMin:
    r"""Robust alternating minimization to the letter of the paper.

    The entries are divided at random into :math:`2 T + 1` parts. Of the first come the singular vectors of
    the rows, whose rows are set to zero where they are longer than :math:`2 \mu \sqrt{k / m}`; each half of
    the :math:`T` sweeps has a part of its own, and solves its rows by a sketch and refinement to an accuracy
    of :math:`\epsilon_t = 0.1 \cdot 2^{-t}`. It needs many more entries than `AltMin`, which uses all of
    them all the time, and is here for what is proved of it.

    Parameters
    ----------
    sweeps : int
        ``T``.
    incoherence : float
        :math:`\mu`: rows of the singular vectors are at most :math:`\mu \sqrt{k / m}` long.

    References
    ----------
    Gu, Song, Yin and Zhang, *Low rank matrix completion via robust alternating minimization in nearly linear
    time*, ICLR 2024.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.problems.low_rank import low_rank
    >>> p = low_rank((300, 300), 2, entries=80_000, seed=0)
    >>> res = learnsolve.complete((p.rows, p.cols, p.values), 2, RobustAltMin(8), shape=p.shape, rtol=1e-3)
    >>> res.success
    True
    """

    sweeps: int = 10
    incoherence: float = 3.0

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise ValueError(f"sweeps is {self.sweeps}; a positive number is accepted")
        if not self.incoherence >= 1:
            raise ValueError(f"incoherence is {self.incoherence}; a number of at least 1 is accepted")


def split_sweeps(
    entries: Entries, rank: int, options: RobustAltMin, seed: int
) -> Iterator[tuple[Factors, float]]:
    """The sweeps of `RobustAltMin`.

    Yields
    ------
    factors : Factors
    error : float
        Norm of the residuals at all entries.
    """
    m, n = entries.shape
    turn = np.random.default_rng(seed).integers(2 * options.sweeps + 1, size=entries.nnz)
    U = spectral(_part(entries, turn == 0), rank, seed)[0]
    U = clipped(np.linalg.qr(U)[0], options.incoherence)
    V = np.zeros((n, rank))
    for sweep in range(options.sweeps):
        how = RowProblems("sketch", steps=100, rtol=accuracy(sweep), seed=seed + sweep)
        for transposed in (True, False):
            fixed, free = (U, V) if transposed else (V, U)
            found, _ = _part(entries, turn == 2 * sweep + 2 - transposed).solve_rows(
                np.linalg.qr(fixed)[0], np.zeros_like(free), how, transposed=transposed
            )
            if transposed:
                V = np.linalg.qr(found)[0]
            else:
                U = found
        now = Factors(U, V, 0.0, np.zeros(m), np.zeros(n))
        yield now, float(np.linalg.norm(entries.values - now.at(entries)))


def _part(entries: Entries, chosen: NDArray[np.bool_]) -> InMemory:
    """Of the entries those of a mask."""
    part = entries.some(chosen)
    return InMemory(part.rows, part.cols, part.values, part.shape)


def clipped(U: Array, incoherence: float) -> Array:
    """Rows that are more than twice as long as allowed become zero, the columns orthonormal again.

    Examples
    --------
    >>> U = np.r_[[[10.0]], np.ones((99, 1))] / np.sqrt(199)
    >>> abs(clipped(U, 1.0)[:2]).round(3).tolist()
    [[0.0], [0.101]]
    """
    m, k = U.shape
    longest = 2 * incoherence * np.sqrt(k / m)
    return np.asarray(np.linalg.qr(np.where(np.linalg.norm(U, axis=1, keepdims=True) > longest, 0.0, U))[0])
