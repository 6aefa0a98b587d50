"""Classes of whole series, by Chimera."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learnsolve.forecasting.chimera import ChimeraEncoder
from learnsolve.training import FitOptions, FitProgress, FitResult, fit


class ChimeraClassifier(nn.Module):
    """Which class a series of several variates is of: the mean of a `ChimeraEncoder`'s places, read linearly.

    Parameters
    ----------
    variates, classes : int
    patch : int
        Times that make one place.
    **encoder
        As of `learnsolve.forecasting.chimera.ChimeraEncoder`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting import ChimeraClassifier
    >>> ChimeraClassifier(3, 2, patch=4)(torch.zeros(5, 3, 20)).shape
    torch.Size([5, 2])
    """

    def __init__(self, variates: int, classes: int, patch: int = 1, **encoder: Any) -> None:
        super().__init__()
        if min(variates, classes, patch) < 1:
            raise ValueError(
                f"variates are {variates}, classes {classes} and patch {patch}; positive numbers are accepted"
            )
        self.variates = variates
        self.encoder = ChimeraEncoder(variates, patch, **encoder)
        width = self.encoder.variate.shape[-1]
        self.norm, self.out = nn.RMSNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of series (B, V, T).

        Raises
        ------
        ValueError
            ``x`` has another shape, or is shorter than a patch.
        """
        if x.ndim != 3 or x.shape[1] != self.variates or x.shape[2] < self.encoder.patch:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; (B, {self.variates}, T), T of {self.encoder.patch} or more, "
                "is accepted"
            )
        found: Tensor = self.out(self.norm(self.encoder(x)).mean((1, 2)))
        return found


def train_classifier(
    network: ChimeraClassifier,
    series: Tensor,
    classes: Tensor,
    options: FitOptions,
    *,
    batch: int = 32,
    callback: Callable[[FitProgress], Any] | None = None,
) -> FitResult:
    """Train a classifier in place, by cross entropy.

    Parameters
    ----------
    network : ChimeraClassifier
    series : (N, V, T) Tensor
    classes : (N,) int64 Tensor
    options : FitOptions
    batch : int
        Series of a step.
    callback
        As of `learnsolve.training.fit`.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        There are not as many classes as series.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting import ChimeraClassifier, train_classifier
    >>> from learnsolve.training import FitOptions
    >>> network, x = ChimeraClassifier(2, 2, patch=2, width=4), torch.randn(8, 2, 6)
    >>> train_classifier(network, x, torch.arange(8) % 2, FitOptions(steps=2), batch=4).finished
    True
    """
    if classes.shape != series.shape[:1]:
        raise ValueError(
            f"series have shape {tuple(series.shape)} and classes {tuple(classes.shape)}; (N, V, T) and (N,) "
            "are accepted"
        )

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(series), (batch,), generator=generator).to(series.device)
        return series[chosen], classes[chosen]

    def loss(wrapped: nn.Module, some: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(wrapped(some[0]), some[1])

    return fit(network, loss, batches, options, callback=callback)
