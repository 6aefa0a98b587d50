"""A made series of several variates: trends, seasons, and variates that follow each other."""

import math

import numpy as np
from numpy.typing import NDArray


def coupled_series(
    length: int, variates: int = 5, *, period: int = 24, noise: float = 0.2, seed: int = 0
) -> NDArray[np.float64]:
    r"""Variates that wander, come back with the season, and are driven by the one before, some times ago.

    .. math:: x_v[t] = w_v[t] + s_v[t] + 1.5 \tanh(x_{v-1}[t - d_v]) + \epsilon

    :math:`w_v` goes back to zero in ten times or so, :math:`s_v` is a season of changing strength,
    and :math:`d_v` is a delay of a quarter to half of a period; the first variate follows none.

    Parameters
    ----------
    length, variates : int
    period : int
        Times of a season, at least two.
    noise : float
        Deviation of :math:`\epsilon`.
    seed : int

    Returns
    -------
    (T, V) float64 array

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> from learnsolve.problems.series import coupled_series
    >>> values = coupled_series(200, 3)
    >>> values.shape, bool(abs(values).max() < 10)
    ((200, 3), True)
    """
    if min(length, variates) < 1 or period < 2 or noise < 0:
        raise ValueError(
            f"length is {length}, variates {variates}, period {period}, noise {noise:g}; positive numbers, "
            "a period of 2 or more and a noise of at least 0 are accepted"
        )
    rng = np.random.default_rng(seed)
    delays = rng.integers(max(period // 4, 1), period // 2 + 1, variates)
    # Times before the first one that is kept, so that nothing begins there.
    extra = int(delays.sum()) + 10 * period
    times = np.arange(length + extra)
    found = np.zeros((length + extra, variates))
    steps = rng.standard_normal((length + extra, variates))
    phases, slow = rng.uniform(0, 2 * math.pi, (2, variates)), rng.uniform(6, 12, variates) * period
    for v in range(variates):
        wander = np.zeros(length + extra)
        for t in range(1, length + extra):
            wander[t] = 0.9 * wander[t - 1] + 0.3 * steps[t, v]
        strength = 1 + 0.5 * np.sin(2 * math.pi * times / slow[v] + phases[1, v])
        found[:, v] = wander + strength * np.sin(2 * math.pi * times / period + phases[0, v])
        if v:
            late = np.roll(found[:, v - 1], delays[v])
            late[: delays[v]] = 0
            found[:, v] += 1.5 * np.tanh(late)
        found[:, v] += noise * rng.standard_normal(length + extra)
    kept: NDArray[np.float64] = found[extra:]
    return kept
