"""Places of entries drawn at random, with enough of them in each row and each column."""

import math

import numpy as np
from numpy.typing import NDArray

from learnsolve.arrays import turns


def places_of(
    m: int, n: int, count: int, minimum: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of distinct entries, ``minimum`` at least in each row and column."""
    keys = distinct(m * n, count, rng)
    rows, cols = np.divmod(keys, n)
    if min(degrees.min() for degrees in _degrees(rows, cols, m, n)) >= minimum:
        return rows, cols
    cover = _cover(m, n, minimum, rng)
    repaired = _repaired(keys, cover, m, n, minimum, rng)
    if repaired is None:
        others = np.setdiff1d(keys, cover, assume_unique=True)
        repaired = np.concatenate([cover, rng.choice(others, count - len(cover), replace=False)])
        repaired.sort()
    rows, cols = np.divmod(repaired, n)
    return rows, cols


def distinct(population: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` of the integers below ``population``, ascending; all choices are equally likely."""
    if 2 * count > population:
        return left_out(distinct(population, population - count, rng), np.arange(count))
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < count:
        # Draws until as many distinct ones are expected, and a few more for luck.
        open_now, open_then = population - len(keys), population - count
        draws = population * math.log(open_now / open_then)
        more = rng.integers(population, size=int(draws + 3 * math.sqrt(draws)) + 1)
        keys = np.concatenate([keys, more])
        keys.sort()
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    surplus = rng.choice(len(keys), len(keys) - count, replace=False, shuffle=False)
    return np.delete(keys, surplus)


def left_out(keys: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the integers from zero on that are not among the ascending ``keys``, those with these ranks."""
    return ranks + np.searchsorted(keys - np.arange(len(keys)), ranks, side="right")


def _degrees(
    rows: NDArray[np.int64], cols: NDArray[np.int64], m: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.bincount(rows, minlength=m), np.bincount(cols, minlength=n)


def _cover(m: int, n: int, minimum: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Few entries, as keys, that give each row and each column its minimum: ``minimum * max(m, n)``."""
    long, short = max(m, n), min(m, n)
    shifts = rng.choice(short, minimum, replace=False)
    of_long = np.repeat(rng.permutation(long), minimum)
    of_short = rng.permutation(short)[((np.arange(long) % short)[:, None] + shifts).ravel() % short]
    return of_long * n + of_short if m >= n else of_short * n + of_long


def _repaired(
    keys: NDArray[np.int64],
    cover: NDArray[np.int64],
    m: int,
    n: int,
    minimum: int,
    rng: np.random.Generator,
) -> NDArray[np.int64] | None:
    """The keys with some of the cover in place of some of theirs; None if the simple way leads nowhere.

    A row that lacks entries gets just as many new ones of the cover, then a column likewise. As many
    entries are then taken away, at random, where neither the row nor the column needs them.
    """
    spare = rng.permutation(np.setdiff1d(cover, keys, assume_unique=True))
    added = np.empty(0, dtype=np.int64)
    for axis in (0, 1):
        lacking = minimum - _degrees(*np.divmod(np.concatenate([keys, added]), n), m, n)[axis]
        line = np.divmod(spare, n)[axis]
        wanted = turns(line) < lacking[line]
        added = np.concatenate([added, spare[wanted]])
        spare = spare[~wanted]
    surplus = len(added)
    keys = np.concatenate([keys, added])
    while surplus:
        rows, cols = np.divmod(keys, n)
        row_spare, col_spare = (degrees - minimum for degrees in _degrees(rows, cols, m, n))
        free = np.flatnonzero((row_spare[rows] > 0) & (col_spare[cols] > 0))
        if not len(free):
            return None
        free = rng.choice(free, min(2 * surplus, len(free)), replace=False)
        r, c = rows[free], cols[free]
        gone = free[(turns(r) < row_spare[r]) & (turns(c) < col_spare[c])][:surplus]
        keys = np.delete(keys, gone)
        surplus -= len(gone)
    keys.sort()
    return keys
