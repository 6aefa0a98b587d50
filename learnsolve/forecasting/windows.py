"""Windows of a series, what is before and what follows, and how far forecasts are from it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Range = tuple[int, int]
Forecast = Callable[[Tensor], Tensor]


class Errors(NamedTuple):
    """How far forecasts are from what came, over all windows, variates and times ahead.

    Attributes
    ----------
    mse, mae : float
        Mean squared and mean absolute error, in the units of the values.
    """

    mse: float
    mae: float


def windows(values: Tensor, look_back: int, horizon: int, targets: Range) -> Tensor:
    """All windows whose last ``horizon`` times are in a range; what is before may come from before it.

    Parameters
    ----------
    values : (T, V) Tensor
    look_back, horizon : int
    targets : (int, int)
        First time, and last time and one.

    Returns
    -------
    (n, V, look_back + horizon) Tensor
        A view.

    Raises
    ------
    ValueError
        There is no such window, or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> windows(torch.arange(6.0)[:, None], 2, 1, (4, 6)).squeeze(1).tolist()
    [[2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]
    """
    first, end = targets
    if values.ndim != 2 or min(look_back, horizon) < 1 or not 0 <= first <= end <= len(values):
        raise ValueError(
            f"values have shape {tuple(values.shape)}, look_back is {look_back}, horizon {horizon} and "
            f"targets {targets}; (T, V), positive numbers and times up to T are accepted"
        )
    begin = max(first - look_back, 0)
    if end - begin < look_back + horizon:
        raise ValueError(
            f"of {end - begin} times up to {end} no window has {look_back} before and {horizon} ahead;"
            " a shorter look-back or horizon, or a longer series, is accepted"
        )
    return values[begin:end].unfold(0, look_back + horizon, 1)


def errors(
    forecast: Forecast,
    values: Tensor,
    look_back: int,
    horizon: int,
    targets: Range,
    *,
    stride: int = 1,
    chunk: int = 256,
) -> Errors:
    """Errors of a forecast over windows of a range.

    Parameters
    ----------
    forecast : callable
        Of (n, V, look_back) gives (n, V, horizon).
    values : (T, V) Tensor
    look_back, horizon, targets
        As of `windows`.
    stride : int
        Take every so many windows.
    chunk : int
        Windows at a time.

    Examples
    --------
    >>> import torch
    >>> values = torch.arange(9.0)[:, None]
    >>> errors(lambda x: repeated(x, 2), values, 3, 2, (3, 9))
    Errors(mse=2.5, mae=1.5)
    """
    found = errors_by_window(forecast, values, look_back, horizon, targets, stride=stride, chunk=chunk).mean(
        0
    )
    return Errors(float(found[0]), float(found[1]))


@torch.no_grad()
def errors_by_window(
    forecast: Forecast,
    values: Tensor,
    look_back: int,
    horizon: int,
    targets: Range,
    *,
    stride: int = 1,
    chunk: int = 256,
) -> Tensor:
    """Mean squared and mean absolute error of each window, (n, 2), in float64; arguments as of `errors`.

    Examples
    --------
    >>> import torch
    >>> values = torch.tensor([1.0, 1.0, 3.0])[:, None]
    >>> errors_by_window(lambda x: repeated(x, 1), values, 1, 1, (0, 3)).tolist()
    [[0.0, 0.0], [4.0, 2.0]]
    """
    found = []
    for part in windows(values, look_back, horizon, targets)[::stride].split(chunk):
        away = (forecast(part[..., :look_back]) - part[..., look_back:]).double().flatten(1)
        found.append(torch.stack([away.square().mean(1), away.abs().mean(1)], 1))
    return torch.cat(found)


def repeated(x: Tensor, horizon: int) -> Tensor:
    """The last value, again and again.

    Examples
    --------
    >>> import torch
    >>> repeated(torch.tensor([[1.0, 2.0]]), 3)
    tensor([[2., 2., 2.]])
    """
    return x[..., -1:].expand(*x.shape[:-1], horizon)
