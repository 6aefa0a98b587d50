"""How alike two attractors are: in state space, in their spectra, and over a few steps ahead."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Variables from which on a histogram has too many bins.
MANY = 6


class Agreement(NamedTuple):
    """Measures of a free run against a series.

    Attributes
    ----------
    state_space : float
        D_stsp of `state_space_divergence`.
    spectrum : float
        D_H of `spectrum_distance`.
    bins : int
        Of each variable, where there are fewer than six.
    smoothing, length : int
        Bins over which spectra were smoothed, and the length to which that refers.
    """

    state_space: float
    spectrum: float
    bins: int
    smoothing: int
    length: int


def agreement(series: ArrayLike, generated: ArrayLike, *, bins: int = 30, smoothing: int = 20) -> Agreement:
    """Both measures.

    Parameters
    ----------
    series : (T, N) array
        What was observed.
    generated : (T', N) array
        A free run, without the transient at its beginning; of more than T times the first T count.
    bins : int
        As of `state_space_divergence`.
    smoothing : int
        As of `spectrum_distance`.

    Examples
    --------
    >>> from learnsolve.dynamics.measures import agreement
    >>> from learnsolve.problems.chaotic import lorenz63
    >>> agreement(lorenz63().orbit(20_000), lorenz63().orbit(20_000, seed=1)).spectrum < 0.1
    True
    """
    true, other = _pair(series, generated)
    other = other[: len(true)]
    return Agreement(
        state_space_divergence(true, other, bins=bins),
        spectrum_distance(true, other, smoothing=smoothing), bins, smoothing, min(len(true), len(other)),
    )  # fmt: skip


def state_space_divergence(
    series: ArrayLike,
    generated: ArrayLike,
    *,
    bins: int = 30,
    method: str = "auto",
    seed: int = 0,
) -> float:
    r"""Kullback-Leibler divergence of where orbits are, :math:`D_{stsp}`.

    Histograms have ``bins`` bins for each variable, from a tenth of a deviation below the least value of
    ``series`` to as much above the largest; to each count 1e-5 is added. Of many variables, each point is the
    centre of a normal distribution of variance one, of the first 10000 points; the divergence is the mean
    over 1000 draws.

    Parameters
    ----------
    series, generated : (T, N) and (T', N) array
    bins : int
    method : {"auto", "bins", "mixture"}
        By itself bins of fewer than six variables.
    seed : int
        Of the draws.

    Returns
    -------
    float
        In nats; infinite where ``generated`` is not finite. Two runs of one system differ too: that is the
        floor, below which figures say nothing.

    Raises
    ------
    ValueError
        Shapes do not fit, or a number or name is not accepted.

    References
    ----------
    Hess and others, *Generalized teacher forcing for learning chaotic dynamics*, ICML 2023, appendix.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.dynamics.measures import state_space_divergence
    >>> x = np.random.default_rng(0).normal(size=(1000, 2))
    >>> state_space_divergence(x, x), state_space_divergence(x, x + 100) > 5
    (0.0, True)
    """
    true, other = _pair(series, generated)
    if method not in ("auto", "bins", "mixture") or bins < 1:
        raise ValueError(
            f"method is {method!r} and bins {bins}; auto, bins, mixture and at least 1 are accepted"
        )
    if not np.isfinite(other).all():
        return math.inf
    if method == "mixture" or (method == "auto" and true.shape[1] >= MANY):
        return _of_mixtures(true, other, np.random.default_rng(seed))
    low, high = true.min(0) - 0.1 * true.std(0), true.max(0) + 0.1 * true.std(0)
    p, q = (_counts(one, low, high, bins) for one in (true, other))
    both = np.union1d(p[0], q[0])
    at_p, at_q = np.zeros(len(both)), np.zeros(len(both))
    at_p[np.searchsorted(both, p[0])], at_q[np.searchsorted(both, q[0])] = p[1], q[1]
    total = float(bins) ** true.shape[1]
    more = 1e-5
    log_p = np.log(at_p + more) - np.log(len(true) + more * total)
    log_q = np.log(at_q + more) - np.log(len(other) + more * total)
    # The bins where neither is, of which there may be millions.
    rest = np.log(len(other) + more * total) - np.log(len(true) + more * total)
    empty = (total - len(both)) * more / (len(true) + more * total) * rest
    return float((np.exp(log_p) * (log_p - log_q)).sum() + empty)


def spectrum_distance(series: ArrayLike, generated: ArrayLike, *, smoothing: int = 20) -> float:
    r"""Hellinger distance of power spectra, :math:`D_H`, the mean over variables.

    Each variable is brought to mean zero and deviation one; its power spectrum is smoothed by a Gaussian with
    a deviation of ``smoothing`` bins, and divided by its sum.

    Parameters
    ----------
    series, generated : (T, N) and (T', N) array
        The longer one is cut.
    smoothing : int
        In bins, so that what it means depends on T: say both.

    Returns
    -------
    float
        In [0, 1]; one where ``generated`` is not finite.

    Raises
    ------
    ValueError
        Shapes do not fit.

    References
    ----------
    Hess and others, *Generalized teacher forcing for learning chaotic dynamics*, ICML 2023, appendix.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.dynamics.measures import spectrum_distance
    >>> t = np.arange(1000)[:, None] * np.pi
    >>> round(spectrum_distance(np.sin(t / 10), np.sin(t / 10)), 6), spectrum_distance(
    ...     np.sin(t / 10), np.sin(t / 2)
    ... ) > 0.9
    (0.0, True)
    """
    true, other = _pair(series, generated)
    if not np.isfinite(other).all():
        return 1.0
    length = min(len(true), len(other))
    p, q = (power_spectra(one[:length], smoothing) for one in (true, other))
    return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(0) / 2).mean())


def power_spectra(x: NDArray, smoothing: int) -> NDArray:
    """Of each variable of (T, N) the smoothed power spectrum, (T // 2 + 1, N), whose sum is one.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.dynamics.measures import power_spectra
    >>> power_spectra(np.array([[1.0], [-1.0], [1.0], [-1.0]]), 0).ravel().tolist()
    [0.0, 0.0, 1.0]
    """
    from scipy.ndimage import gaussian_filter1d

    scale = x.std(0)
    power = np.abs(np.fft.rfft((x - x.mean(0)) / np.where(scale > 0, scale, 1), axis=0)) ** 2
    smooth = gaussian_filter1d(power, smoothing, axis=0) if smoothing > 0 else power
    total = smooth.sum(0)
    return smooth / np.where(total > 0, total, 1)


def prediction_error(
    forecast: Callable[[NDArray, int], NDArray], series: ArrayLike, *, steps: int = 20
) -> float:
    """Mean squared error so many steps ahead, from every time of a series.

    Parameters
    ----------
    forecast : callable
        ``forecast(x, steps)``: of (B, N) what follows, (B, steps, N).
    series : (T, N) array
    steps : int

    Raises
    ------
    ValueError
        The series is not longer than ``steps``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.dynamics.measures import prediction_error
    >>> series = np.arange(10.0)[:, None]
    >>> prediction_error(lambda x, n: x[:, None] + np.arange(1, n + 1)[:, None], series, steps=3)
    0.0
    """
    true = np.asarray(series, float)
    if true.ndim != 2 or not 1 <= steps < len(true):
        raise ValueError(
            f"the series has shape {true.shape} and steps is {steps}; (T, N) and 1 to T - 1 are accepted"
        )
    ahead = np.asarray(forecast(true[:-steps], steps))[:, -1]
    return float(np.nanmean((ahead - true[steps:]) ** 2))


def _pair(series: ArrayLike, generated: ArrayLike) -> tuple[NDArray, NDArray]:
    true, other = np.asarray(series, float), np.asarray(generated, float)
    if true.ndim != 2 or other.ndim != 2 or true.shape[1] != other.shape[1] or not (len(true) and len(other)):
        raise ValueError(
            f"series are of shapes {true.shape} and {other.shape}; (T, N) and (T', N) are accepted"
        )
    true = true[np.isfinite(true).all(1)]
    if not len(true):
        raise ValueError("no time of the series has all its values")
    return true, other


def _counts(x: NDArray, low: NDArray, high: NDArray, bins: int) -> tuple[NDArray, NDArray]:
    """Numbers of bins that are not empty, and how many points they hold; what is outside is in none."""
    width = np.where(high > low, high - low, 1)
    cells = np.floor((x - low) / width * bins)
    inside = ((cells >= 0) & (cells < bins)).all(1)
    number = np.zeros(int(inside.sum()), np.int64)
    for column in cells[inside].T:
        number = number * bins + column.astype(np.int64)
    return np.unique(number, return_counts=True)


def _of_mixtures(true: NDArray, other: NDArray, rng: np.random.Generator) -> float:
    true, other = true[:10_000], other[:10_000]
    drawn = true[rng.integers(len(true), size=1000)] + rng.normal(size=(1000, true.shape[1]))
    return float((_log_density(drawn, true) - _log_density(drawn, other)).mean())


def _log_density(x: NDArray, centres: NDArray) -> NDArray:
    """Of a mixture of normal distributions of variance one, less a constant."""
    from scipy.special import logsumexp

    square = (x**2).sum(1)[:, None] - 2 * x @ centres.T + (centres**2).sum(1)
    return logsumexp(-square / 2, axis=1) - math.log(len(centres))
