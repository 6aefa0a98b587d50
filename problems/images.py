"""Images of which some pixels are known: inpainting as matrix completion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.problems.low_rank import factors_of, products, rms
from learnsolve.problems.places import places_of


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """An image of which some pixels are known.

    Attributes
    ----------
    rows, cols : int64 array, ``(N,)``
        Where the known pixels are: distinct, sorted by row, then by column.
    values : float64 array, ``(N,)``
        The known pixels.
    shape : tuple of int
        ``(m, n)``.
    held_out : tuple of arrays, each ``(m n - N,)``
        Rows, columns and values of all other pixels, in the same order.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.images import image_mask
    >>> problem = image_mask(np.ones((8, 8)), 0.75)
    >>> problem.rmse(np.full((8, 1), 2.0), np.ones((8, 1)))
    1.0
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    held_out: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

    def rmse(self, U: ArrayLike, V: ArrayLike) -> float:
        """The root mean square of ``U @ V.T`` less the image, over the pixels that are held out.

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
        rows, cols, values = self.held_out
        return rms(products(*factors_of(U, V, self.shape), rows, cols) - values)


def image_mask(image: ArrayLike, fraction: float, *, seed: int = 0) -> MaskedImage:
    """Part of the pixels of an image, to fill in the others from.

    The pixels are drawn uniformly without replacement, but for this: where there are enough for it, each
    row and each column has one at least.

    Parameters
    ----------
    image : real array_like, ``(m, n)``
        One channel.
    fraction : float
        Of the pixels that are known.
    seed : int
        Of the choice.

    Returns
    -------
    MaskedImage

    Raises
    ------
    ValueError
        If the image is not finite or has not two dimensions; if none of its pixels would be known, or all.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.images import image_mask
    >>> problem = image_mask(np.outer(np.arange(1, 5), np.arange(1, 6)), 0.4, seed=1)
    >>> len(problem.values), len(problem.held_out[2])
    (8, 12)
    >>> bool((problem.values == (problem.rows + 1) * (problem.cols + 1)).all())
    True
    """
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 2:
        raise ValueError(f"an image has two dimensions, not the shape {pixels.shape}")
    if not np.isfinite(pixels).all():
        raise ValueError("the image holds values that are not finite")
    m, n = pixels.shape
    if not 0 < fraction < 1 or not 0 < round(fraction * m * n) < m * n:
        raise ValueError(f"fraction is {fraction}: of {m * n} pixels some must be known, and not all")
    count = round(fraction * m * n)
    rows, cols = places_of(m, n, count, int(count >= max(m, n)), np.random.default_rng(seed))
    known = np.zeros((m, n), dtype=bool)
    known[rows, cols] = True
    r, c = np.nonzero(~known)
    return MaskedImage(rows, cols, pixels[rows, cols], (m, n), (r, c, pixels[r, c]))
