"""Anomalies of a series: times at which a forecaster is further off than it was on what it learned from."""

from typing import NamedTuple

import torch
from torch import Tensor

from learnsolve.forecasting.windows import Forecast, Range, windows


class Detection(NamedTuple):
    """How well times are told apart, each by itself.

    Attributes
    ----------
    precision, recall, f1 : float
        Over times; none is counted as found because another one of the same event was.
    """

    precision: float
    recall: float
    f1: float


def scores(
    forecast: Forecast, values: Tensor, look_back: int, horizon: int, times: Range, chunk: int = 256
) -> Tensor:
    """Mean squared error over the variates at each time, by the one window whose forecast holds that time.

    Parameters
    ----------
    forecast : callable
        Of (n, V, look_back) gives (n, V, horizon).
    values : (T, V) Tensor
    look_back, horizon : int
        The shorter the horizon, the more is made of what was just before.
    times : (int, int)
        First time, at least the look-back, and last time and one.
    chunk : int
        Windows at a time.

    Returns
    -------
    (last - first,) Tensor

    Raises
    ------
    ValueError
        Before the first time there is no look-back, or the range is empty.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting.windows import repeated
    >>> values = torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0])[:, None]
    >>> scores(lambda x: repeated(x, 1), values, 1, 1, (1, 5)).tolist()
    [0.0, 0.0, 4.0, 0.0]
    """
    first, end = times
    if not look_back <= first < end <= len(values):
        raise ValueError(f"times are {times}; times from {look_back} up to {len(values)} are accepted")
    begins = list(range(first, end - horizon + 1, horizon))
    if not begins or begins[-1] + horizon < end:
        # The last window shares times with the one before it, if it may; those are scored once.
        begins.append(max(end - horizon, look_back))
    if begins[-1] + horizon > len(values):
        raise ValueError(f"times are {times}; a horizon of {horizon} needs as many times")
    all_of = windows(values, look_back, horizon, (look_back, len(values)))
    found = values.new_zeros(end - first)
    with torch.no_grad():
        for some in torch.tensor(begins).split(chunk):
            part = all_of[(some - look_back).to(values.device)]
            away = (forecast(part[..., :look_back]) - part[..., look_back:]).square().mean(1)
            for begin, one in zip(some.tolist(), away, strict=True):
                low, high = max(first, begin), min(begin + horizon, end)
                found[low - first : high - first] = one[low - begin : high - begin]
    return found


def threshold(given: Tensor, share: float = 0.01) -> float:
    """The score that so large a share of the training part's scores exceeds.

    Raises
    ------
    ValueError
        The share is not in (0, 1), or there are no scores.

    Examples
    --------
    >>> import torch
    >>> threshold(torch.arange(101.0), 0.1)
    90.0
    """
    if not 0 < share < 1 or not given.numel():
        raise ValueError(f"share is {share} of {given.numel()} scores; a share in (0, 1) of some is accepted")
    return float(torch.quantile(given.double(), 1 - share))


def detection(flagged: Tensor, truth: Tensor) -> Detection:
    """Precision, recall and their harmonic mean over times, without adjustment for events.

    Parameters
    ----------
    flagged, truth : (T,) bool Tensor

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> import torch
    >>> detection(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    Detection(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    if flagged.shape != truth.shape or flagged.ndim != 1:
        raise ValueError(
            f"shapes are {tuple(flagged.shape)} and {tuple(truth.shape)}; (T,) twice is accepted"
        )
    hits, found, there = int((flagged & truth).sum()), int(flagged.sum()), int(truth.sum())
    precision, recall = hits / max(found, 1), hits / max(there, 1)
    return Detection(precision, recall, 2 * hits / max(found + there, 1))
