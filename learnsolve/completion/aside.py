"""Entries that are kept aside, to judge a completion by."""

import numpy as np

from learnsolve.arrays import turns
from learnsolve.completion.entries import Entries

# With fewer entries than so many times the degrees of freedom each is needed to find the matrix, and so few
# tell whether it is found.
FEW, ENOUGH = 3.5, 50


def keep_aside(known: Entries, share: float | None, rank: int, seed: int) -> tuple[Entries, Entries | None]:
    """Divide entries into those to fit and those to judge by, which are None where none can be spared.

    Parameters
    ----------
    known : Entries
    share : float, optional
        Of all; by default 2 %, at most 10 000, and 50 where barely enough is known.
    rank : int
        How many every row and column keeps, and one more.
    seed : int

    Examples
    --------
    >>> from learnsolve.completion.entries import as_entries
    >>> known = as_entries(np.ones((50, 40)))
    >>> fit, aside = keep_aside(known, 0.1, 2, seed=0)
    >>> fit.nnz, aside.nnz
    (1800, 200)
    """
    few = known.nnz < FEW * rank * (sum(known.shape) - rank)
    wanted = min(-(-known.nnz // 50), ENOUGH if few else 10_000) if share is None else int(share * known.nnz)
    if wanted == 0:
        return known, None
    order = np.random.default_rng(seed).choice(known.nnz, min(known.nnz, 20 * wanted), replace=False)
    spare = [np.bincount(index, minlength=size) - rank - 1 for index, size in zip(
        (known.rows, known.cols), known.shape, strict=True)]  # fmt: skip
    # Of the first so many of a row in this order, that many can be spared; those of both a row and a column.
    chosen = order[
        (turns(known.rows[order]) < spare[0][known.rows[order]])
        & (turns(known.cols[order]) < spare[1][known.cols[order]])
    ][:wanted]
    if chosen.size == 0:
        return known, None
    kept = np.ones(known.nnz, bool)
    kept[chosen] = False
    return known.some(kept), known.some(np.sort(chosen))


def some_of(known: Entries, most: int = 100_000) -> Entries:
    """So many entries, evenly spread.

    Examples
    --------
    >>> from learnsolve.completion.entries import as_entries
    >>> some_of(as_entries(np.ones((50, 40))), 10).nnz
    10
    """
    return known.some(np.linspace(0, known.nnz - 1, min(known.nnz, most)).astype(np.int64))
