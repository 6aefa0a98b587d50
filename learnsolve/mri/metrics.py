"""How close an image is to a reference, as fastMRI and Calgary-Campinas count it."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

Array = NDArray[np.float64]
Convention = Literal["fastmri", "calgary"]
# What is darker than this share of the maximum is background.
BACKGROUND = 0.08
WINDOW, K1, K2 = 7, 0.01, 0.03
DEFINITIONS = {
    "fastmri": "NMSE |x - r|^2 / |r|^2 of the volume; PSNR and SSIM (7 x 7 uniform window) with the volume's "
    "maximum as the range",
    "calgary": "each slice divided by its reference's maximum; PSNR and SSIM with the range of both, "
    "means over slices",
}


def _pair(reference: ArrayLike, image: ArrayLike) -> tuple[Array, Array]:
    r, x = (np.asarray(part, dtype=np.float64) for part in (reference, image))
    if r.shape != x.shape or r.ndim < 2:
        raise ValueError(f"reference {r.shape} and image {x.shape}; two of (..., height, width) are accepted")
    if not (np.isfinite(r).all() and np.isfinite(x).all()):
        raise ValueError("an image is not finite")
    if not r.any():
        raise ValueError("the reference is zero everywhere")
    return r.reshape(-1, *r.shape[-2:]), x.reshape(-1, *x.shape[-2:])


def foreground(reference: ArrayLike, share: float = BACKGROUND) -> NDArray[np.bool_]:
    """Where a reference is brighter than a share of its maximum.

    Examples
    --------
    >>> foreground([[0.0, 0.05], [0.1, 1.0]]).tolist()
    [[False, False], [True, True]]
    """
    r = np.asarray(reference)
    return r > share * r.max()


def nmse(reference: ArrayLike, image: ArrayLike, *, where: NDArray[np.bool_] | None = None) -> float:
    r"""Normalised mean square error :math:`|x - r|^2 / |r|^2` of a volume.

    Parameters
    ----------
    reference, image : (..., height, width) arrays
    where : bool array, optional
        Only there, see `foreground`.

    Raises
    ------
    ValueError
        The shapes differ, a number is not finite, or the reference is zero.

    References
    ----------
    Zbontar and others, *fastMRI: an open dataset and benchmarks for accelerated MRI*, arXiv:1811.08839,
    section 5.2.

    Examples
    --------
    >>> nmse([[3.0, 4.0]], [[3.0, 3.0]])
    0.04
    """
    r, x = _pair(reference, image)
    if where is not None:
        there = where.reshape(r.shape)
        if not (r * there).any():
            raise ValueError("the reference is zero wherever it is compared")
        r, x = r[there], x[there]
    return float(np.sum((x - r) ** 2) / np.sum(r**2))


def psnr(reference: ArrayLike, image: ArrayLike, *, convention: Convention = "fastmri") -> float:
    r"""Peak signal-to-noise ratio, :math:`10 \log_{10}(\text{range}^2 / \text{mean square error})` decibels.

    Parameters
    ----------
    reference, image : (..., height, width) arrays
    convention : {"fastmri", "calgary"}
        See `DEFINITIONS`.

    Returns
    -------
    float
        Infinity for equal images.

    Raises
    ------
    ValueError
        As by `nmse`.

    Examples
    --------
    >>> round(psnr([[0.0, 1.0]], [[0.1, 1.0]]), 2)
    23.01
    """
    r, x = _pair(reference, image)
    if convention == "fastmri":
        return _decibels(float(r.max()), r, x)
    return float(np.mean([_decibels(span, a, b) for a, b, span in _slices(r, x)]))


def _decibels(span: float, r: Array, x: Array) -> float:
    error = float(np.mean((x - r) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(span**2 / error))


def _slices(r: Array, x: Array) -> list[tuple[Array, Array, float]]:
    """Slices over the maximum of their references, and the range of both; empty ones are left out."""
    found = []
    for a, b in zip(r, x, strict=True):
        if a.max() > 0:
            a, b = a / a.max(), b / a.max()
            found.append((a, b, float(max(a.max(), b.max()) - min(a.min(), b.min()))))
    return found


def ssim(
    reference: ArrayLike,
    image: ArrayLike,
    *,
    convention: Convention = "fastmri",
    where: NDArray[np.bool_] | None = None,
) -> float:
    """Structural similarity in windows of 7 by 7, the mean over slices.

    Parameters
    ----------
    reference, image : (..., height, width) arrays
        At least 7 by 7.
    convention : {"fastmri", "calgary"}
        See `DEFINITIONS`.
    where : bool array, optional
        Centres of the windows that count; by default all whose window is inside.

    Raises
    ------
    ValueError
        As by `nmse`, or the images are smaller than a window.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli, *Image quality assessment: from error visibility to structural
    similarity*, IEEE Transactions on Image Processing 13, 2004, equation 13.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.random.default_rng(0).random((20, 20))
    >>> ssim(reference, reference)
    1.0
    """
    r, x = _pair(reference, image)
    if min(r.shape[-2:]) < WINDOW:
        raise ValueError(
            f"images are {r.shape[-2]} by {r.shape[-1]}; at least {WINDOW} by {WINDOW} are needed"
        )
    slices = [(a, b, float(r.max())) for a, b in zip(r, x, strict=True)]
    if convention == "calgary":
        slices = _slices(r, x)
    half = WINDOW // 2
    inner = (slice(half, -half), slice(half, -half))
    maps = np.stack([_similarity(a, b, span)[inner] for a, b, span in slices])
    if where is None:
        return float(maps.mean())
    there = where.reshape(r.shape)[:, *inner]
    if convention == "calgary":
        there = there[[a.max() > 0 for a in r]]
    if not there.any():
        raise ValueError("no window is compared")
    return float(maps[there].mean())


def _similarity(r: Array, x: Array, span: float) -> Array:
    """Structural similarity at each pixel."""
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_r, mean_x = uniform_filter(r, WINDOW), uniform_filter(x, WINDOW)
    var_r = unbiased * (uniform_filter(r * r, WINDOW) - mean_r**2)
    var_x = unbiased * (uniform_filter(x * x, WINDOW) - mean_x**2)
    both = unbiased * (uniform_filter(r * x, WINDOW) - mean_r * mean_x)
    a, b = (K1 * span) ** 2, (K2 * span) ** 2
    similarity: Array = (2 * mean_r * mean_x + a) * (2 * both + b)
    similarity /= (mean_r**2 + mean_x**2 + a) * (var_r + var_x + b)
    return similarity


def measures(
    reference: ArrayLike, image: ArrayLike, *, convention: Convention = "fastmri"
) -> dict[str, float]:
    """All measures by name, those of the foreground too; similarity is NaN for images that have no window.

    Examples
    --------
    >>> list(measures([[3.0, 4.0]], [[3.0, 3.0]]))
    ['nmse', 'psnr', 'ssim', 'foreground_nmse', 'foreground_ssim']
    """
    inside = foreground(reference)
    large = min(inside.shape[-2:]) >= WINDOW
    nan = float("nan")
    return {
        "nmse": nmse(reference, image),
        "psnr": psnr(reference, image, convention=convention),
        "ssim": ssim(reference, image, convention=convention) if large else nan,
        "foreground_nmse": nmse(reference, image, where=inside),
        "foreground_ssim": ssim(reference, image, convention=convention, where=inside) if large else nan,
    }


def interval(
    values: ArrayLike, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of a mean, of slices or volumes for instance.

    Examples
    --------
    >>> low, high = interval([1.0, 2.0, 3.0, 4.0])
    >>> 1 < low < 2.5 < high < 4
    True
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if numbers.size == 0:
        raise ValueError("an interval of no values")
    rng = np.random.default_rng(seed)
    means = numbers[rng.integers(numbers.size, size=(draws, numbers.size))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
