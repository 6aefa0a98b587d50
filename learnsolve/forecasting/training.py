"""Training of networks on windows of a series, and the weights that the validation part likes."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.forecasting.windows import Range, errors_by_window, windows
from learnsolve.training import FitOptions, FitProgress, FitResult, fit


def train(
    network: nn.Module,
    values: Tensor,
    look_back: int,
    horizon: int,
    learned: Range,
    valid: Range,
    options: FitOptions,
    *,
    batch: int = 32,
    stride: int = 8,
    folder: str | os.PathLike | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> FitResult:
    r"""Train a forecaster in place, by mean squared error.

    It ends with the weights that are surest to be better on the validation part than those that it began
    with. They are compared every ``options.validate_every`` steps, by a lower bound of what they gain,

    .. math:: \bar d - s / \sqrt{K},

    where :math:`d_1, \ldots, d_K` is by how much the error is less than at first, in K parts of the
    validation windows that are as long as a horizon, and s is their deviation. If no bound is positive, the
    network stays as it was: windows that overlap are few, however many there are.

    Parameters
    ----------
    network : nn.Module
        Of (B, V, look_back) gives (B, V, horizon).
    values : (T, V) Tensor
        Standardised, on the device of the network.
    look_back, horizon : int
    learned, valid : (int, int)
        Times of the targets that are learned from and compared by, as of
        `learnsolve.forecasting.windows.windows`.
    options : FitOptions
    batch : int
        Windows of a step.
    stride : int
        Of the validation part every so many windows count.
    folder, callback
        As of `learnsolve.training.fit`.
    record : mapping, optional
        What else says what the run does.

    Returns
    -------
    FitResult
        With the metrics "valid", the mean squared error of the weights at that step; "gain", the bound; and
        "best", the largest one so far, zero for the weights at first.

    Raises
    ------
    ValueError
        As from `learnsolve.training.fit`; a part has no window, or a number is not positive.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting import ChimeraOptions, train
    >>> from learnsolve.training import FitOptions
    >>> values = torch.randn(100, 2).cumsum(0)
    >>> network = ChimeraOptions(variates=2, look_back=12, horizon=4, patch=4, width=4).build()
    >>> train(network, values, 12, 4, (0, 60), (60, 80), FitOptions(steps=2), batch=4).finished
    True
    """
    if min(batch, stride) < 1:
        raise ValueError(f"batch is {batch} and stride {stride}; positive numbers are accepted")
    given = windows(values, look_back, horizon, learned)
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    best = {name: one.detach().clone() for name, one in trained.items()}
    begun = judged(network, values, look_back, horizon, valid, stride)
    # Tensors, so that a run that goes on finds them in the checkpoint.
    most = torch.zeros((), dtype=torch.float64)

    def batches(number: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(given), (batch,), generator=generator)
        return given[chosen.to(values.device)]

    def loss(wrapped: nn.Module, some: Tensor) -> Tensor:
        return (wrapped(some[..., :look_back]) - some[..., look_back:]).square().mean()

    def validate(now: nn.Module) -> dict[str, float]:
        found = judged(now, values, look_back, horizon, valid, stride)
        gain = sure_gain(begun - found, max(horizon // stride, 1))
        if gain > most:
            most.fill_(gain)
            for name, one in trained.items():
                best[name].copy_(one)
        return {"valid": float(found.mean()), "gain": gain, "best": float(most)}

    result = fit(
        network, loss, batches, options, folder=folder, validate=validate, callback=callback, config=record,
        carried={**best, "begun": begun, "most": most},
    )  # fmt: skip
    if result.finished:
        with torch.no_grad():
            for name, one in trained.items():
                one.copy_(best[name])
    return result


def judged(
    network: nn.Module, values: Tensor, look_back: int, horizon: int, targets: Range, stride: int
) -> Tensor:
    """Mean squared errors, (n,), of a network in evaluation mode, of every so many windows of a range."""
    mode = network.training
    network.eval()
    try:
        found = errors_by_window(network, values, look_back, horizon, targets, stride=stride)
    finally:
        network.train(mode)
    return found[:, 0]


def sure_gain(gains: Tensor, length: int) -> float:
    """The mean of gains less its standard error, which is that of parts that are as long as a horizon.

    Parameters
    ----------
    gains : (n,) Tensor
        Of windows in their order.
    length : int
        Windows of a part; there are at least two parts, if there are two windows.

    Examples
    --------
    >>> import torch
    >>> sure_gain(torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64), 2)
    1.0
    """
    parts = min(max(len(gains) // length, 2), len(gains))
    means = torch.stack([one.mean() for one in gains.tensor_split(parts)])
    error = float(means.std()) / parts**0.5 if parts > 1 else 0.0
    return float(gains.mean()) - error
