"""Training a `RecurrentVarNet`: its loss, and how it is judged on the way."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from learnsolve.mri.examples import Batches, Example, Masking, Source
from learnsolve.mri.metrics import K1, K2, WINDOW
from learnsolve.mri.recurrent_varnet import RecurrentVarNet, RecurrentVarNetOptions
from learnsolve.training.fit import FitProgress, FitResult, fit
from learnsolve.training.options import FitOptions
from learnsolve.training.processes import Processes


@dataclass(frozen=True)
class MRITraining:
    """How a network is trained.

    Parameters
    ----------
    network : RecurrentVarNetOptions
    fit : FitOptions
    masks : Masking
    batch : int
        Slices of a step; they may be of any sizes and numbers of coils.
    l1, l2, ssim : float
        Weights of the loss: mean absolute and root of mean square difference, each over that of the
        reference, and one less structural similarity, which has none of its own where there is no reference.
    save_memory : bool
        Steps are computed again for the gradient and not kept.
    workers : int
        Processes that make slices ahead of time; what comes out is the same.

    Raises
    ------
    ValueError
        A number is out of range.
    """

    network: RecurrentVarNetOptions
    fit: FitOptions
    masks: Masking = field(default_factory=Masking)
    batch: int = 1
    l1: float = 1.0
    l2: float = 0.0
    ssim: float = 1.0
    save_memory: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; a positive number is accepted")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must not be negative")
        weights = (self.l1, self.l2, self.ssim)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(f"l1, l2 and ssim are {weights}; numbers from 0 on, not all zero, are accepted")
        if not (self.l1 or self.l2):
            raise ValueError("l1 and l2 are both zero; structural similarity is accepted beside one of them")


def similarity(reference: Tensor, image: Tensor) -> Tensor:
    """Structural similarity of two images (height, width), which a gradient goes through.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(16, 16)
    >>> round(similarity(x, x).item(), 5)
    1.0
    """
    span = reference.amax()
    pairs = torch.stack([reference, image, reference**2, image**2, reference * image])
    means = torch.nn.functional.avg_pool2d(pairs[:, None], WINDOW, 1)[:, 0]
    mean_r, mean_x, square_r, square_x, product = means
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    var_r, var_x = unbiased * (square_r - mean_r**2), unbiased * (square_x - mean_x**2)
    both = unbiased * (product - mean_r * mean_x)
    a, b = (K1 * span) ** 2, (K2 * span) ** 2
    top = (2 * mean_r * mean_x + a) * (2 * both + b)
    return (top / ((mean_r**2 + mean_x**2 + a) * (var_r + var_x + b))).mean()


def made(training: MRITraining, network: torch.nn.Module, one: Example) -> tuple[Tensor, Tensor]:
    """What a network makes of a slice, and what it should: images, or k-space that was kept aside."""
    found = network(
        torch.where(one.sampled, one.kspace, 0)[None], one.sampled, one.maps[None], start=one.start[None],
        centred=one.centred, save_memory=training.save_memory, as_kspace=one.aside is not None,
    )[0]  # fmt: skip
    if one.aside is None:
        assert one.reference is not None
        return found, one.reference
    return torch.view_as_real(found[..., one.aside]), torch.view_as_real(one.kspace[..., one.aside])


def apart(training: MRITraining, found: Tensor, wanted: Tensor) -> Tensor:
    """The loss of what a network made; of k-space, which is a list of pairs, similarity has no part in it."""
    away = found - wanted
    value = training.l1 * away.abs().mean() / wanted.abs().mean().clamp_min(1e-30)
    if training.l2:
        value = value + training.l2 * _error(found, wanted).sqrt()
    if training.ssim and found.ndim == 2 and min(wanted.shape) >= WINDOW:
        value = value + training.ssim * (1 - similarity(wanted, found))
    return value


def _error(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30)


def train(
    training: MRITraining,
    source: Source,
    held_out: Sequence[Example],
    *,
    device: torch.device | str = "cpu",
    folder: str | os.PathLike | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
    record: Mapping[str, Any] | None = None,
    begin: Mapping[str, Tensor] | None = None,
) -> tuple[RecurrentVarNet, FitResult]:
    """Train a network on slices of a source.

    Parameters
    ----------
    training : MRITraining
    source : callable
        ``source(number)``, a `Full` slice: always the same one for the same number. With workers it must be
        picklable.
    held_out : sequence of Example
        What it is judged by while it trains: the mean of the loss, and the mean and the geometric mean of the
        normalised mean square error.
    device : torch.device
    folder, callback
        As of `learnsolve.training.fit`.
    record : mapping, optional
        What else says what the run does.
    begin : mapping of Tensor, optional
        Weights to begin with.

    Returns
    -------
    network, result
        As of `learnsolve.training.fit`.

    Raises
    ------
    ValueError
        ``begin`` holds no weights of such a network, or as from `learnsolve.training.fit`.
    """
    where = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.fit.seed)
        network = training.network.build().to(where)
    if begin is not None:
        try:
            network.load_state_dict(dict(begin))
        except RuntimeError as error:
            raise ValueError(f"the weights to begin with are of another network: {error}") from None
    processes = Processes(where)
    drawn = training.masks, training.batch, training.fit.seed, training.workers
    ahead = Batches(source, *drawn, processes.count)
    judged = [one.to(where) for one in held_out]

    def loss(wrapped: torch.nn.Module, batch: list[Example]) -> Tensor:
        slices = (made(training, wrapped, one.to(where)) for one in batch)
        return torch.stack([apart(training, *one) for one in slices]).mean()

    def validate(now: torch.nn.Module) -> Mapping[str, float]:
        slices = [made(training, now, one) for one in judged]
        losses = [apart(training, *one).item() for one in slices]
        errors = [_error(*one).item() for one in slices]
        logarithms = [math.log(max(error, 1e-30)) for error in errors]
        return {
            "loss": sum(losses) / len(losses),
            "nmse": sum(errors) / len(errors),
            "geometric_nmse": math.exp(sum(logarithms) / len(errors)),
        }

    result = fit(
        network, loss, ahead, training.fit, folder=folder,
        validate=validate if judged else None, callback=callback, config=record,
    )  # fmt: skip
    return network, result
