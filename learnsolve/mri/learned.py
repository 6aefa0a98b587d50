"""Images by a trained network, with a check by k-space that it has not seen."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnsolve.mri.classical import l1_wavelet
from learnsolve.mri.coils import check_kspace, images_of, kspace_of, norm, rss
from learnsolve.mri.examples import split, started
from learnsolve.mri.recurrent_varnet import RecurrentVarNet, RecurrentVarNetOptions
from learnsolve.result import ConvergenceWarning, Result, Status, without_convergence_warnings
from learnsolve.training.shipped import load_network, save_network

KIND = "recurrent-varnet"
# Of the samples outside of the middle, so many are kept from the network to check it by, so often.
ASIDE, TIMES = 0.2, 2
# So much worse than the image that the descent began with may a network foretell them.
LIMIT = 1.1


def load(weights: str | Path) -> RecurrentVarNet:
    """The network of a name that comes with the package, or of a file that `save` wrote.

    Raises
    ------
    WeightsError
        The file is damaged or holds something else.
    FileNotFoundError
        There is no such file or name.
    """
    found: RecurrentVarNet = load_network(
        KIND, weights, lambda **options: RecurrentVarNetOptions(**options).build()
    )
    return found


def save(path: str | Path, network: RecurrentVarNet, **metadata: Any) -> None:
    """Write a network, with what it takes to build it again."""
    save_network(path, KIND, network, **metadata)


@dataclass(frozen=True)
class Score:
    """How well k-space that was kept aside is foretold: errors over its norm.

    Attributes
    ----------
    learned, classical : float
        By the network, and by the image that its descent began with.
    share : float
        Of what the network changes of that image, so much foretells best, between zero and one.
    """

    learned: float
    classical: float
    share: float = 1.0

    @property
    def reliable(self) -> bool:
        """Whether the network is hardly worse than where it began."""
        return bool(np.isfinite(self.learned)) and self.learned <= LIMIT * self.classical


def recurrentvarnet(
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    *,
    weights: str | Path | RecurrentVarNet = "small",
    consistent: bool = False,
    check: bool = True,
    as_kspace: bool = False,
    centred: bool = True,
    seed: int = 0,
) -> Result:
    """Images by a trained `RecurrentVarNet`, as far as a check bears it; where that fails, by `l1_wavelet`.

    The check keeps a fifth of what is sampled outside of the middle from the network, twice, and compares
    what it foretells there with what was measured. Of what the network changes of the image that it began
    with, the share is taken that foretells best. That needs no reference, and takes three times as long.

    Parameters
    ----------
    kspace, sampled, maps, centred
        As for `cg_sense`.
    weights : str, Path or RecurrentVarNet
        A name that comes with the package, a file that ends in ``.safetensors``, or a network.
    consistent : bool
        What was measured replaces what the network makes of it.
    check : bool
    as_kspace : bool
        ``extras["kspace"]`` holds the network's k-space, too; of slices that fell back, what was measured.
    seed : int
        Of what is kept aside.

    Returns
    -------
    Result
        ``x`` holds the magnitudes; ``extras["scores"]`` has a `Score` for each slice, or None where nothing
        could be kept aside, and ``extras["fallback"]`` the numbers of slices that are not the network's.
        ``residuals`` are of the data, before and after the descent.

    Raises
    ------
    ValueError
        Shapes do not fit, or a number is not finite.
    FileNotFoundError, WeightsError
        As from `load`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.mri import RecurrentVarNetOptions
    >>> network = RecurrentVarNetOptions(steps=1, hidden=2, layers=1).build()
    >>> k = torch.ones(2, 16, 16, dtype=torch.complex64)
    >>> sampled = torch.ones(16, 16, dtype=torch.bool)
    >>> res = recurrentvarnet(k, sampled, k / 2**0.5, weights=network, check=False)
    >>> res.x.shape, res.method
    (torch.Size([16, 16]), 'recurrentvarnet')
    """
    began = time.perf_counter()
    check_kspace(kspace)
    network = weights if isinstance(weights, RecurrentVarNet) else load(weights).to(kspace.device)
    slices = kspace.reshape(-1, *kspace.shape[-3:])
    seen = maps.to(kspace.dtype).reshape(slices.shape)
    parts = [
        _slice(network, torch.where(sampled, k, 0), sampled, coils, consistent, check, centred, seed)
        for k, coils in zip(slices, seen, strict=True)
    ]
    x = torch.stack([one.image for one in parts]).reshape(*kspace.shape[:-3], *kspace.shape[-2:])
    history = np.sqrt(np.square(np.array([one.residuals for one in parts])).sum(0))
    extras: dict[str, Any] = {"scores": [one.score for one in parts]}
    extras["fallback"] = fallback = [number for number, one in enumerate(parts) if one.status is not None]
    failed = [one.status for one in parts if one.status not in (None, Status.CONVERGED)]
    result = Result(
        x,
        next(iter(failed), None) or Status.CONVERGED,
        network.options.steps,
        history,
        float(history[1] / max(history[0], 1e-300)),
        time.perf_counter() - began,
        "l1-wavelet" if len(fallback) == len(parts) else "recurrentvarnet",
        extras,
    )
    if as_kspace:
        extras["kspace"] = torch.stack([one.kspace for one in parts]).reshape(kspace.shape)
    if fallback:
        text = f"of {len(parts)} slices {len(fallback)} are by l1-wavelet: the network's failed the check"
        warnings.warn(text, ConvergenceWarning, stacklevel=2)
    return result


@dataclass(frozen=True)
class _Part:
    """A slice: its image and residuals, and how l1-wavelet ended, if it was called."""

    image: Tensor
    kspace: Tensor
    residuals: tuple[float, float]
    score: Score | None
    status: Status | None = None


def _slice(
    network: RecurrentVarNet,
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    consistent: bool,
    check: bool,
    centred: bool,
    seed: int,
) -> _Part:
    score = scored(network, kspace, sampled, maps, centred, seed) if check else None
    if score is None or score.reliable:
        y = completed(network, kspace, sampled, maps, centred, 1.0 if score is None else score.share)
        left = norm(torch.where(sampled, y - kspace, 0))
        y = torch.where(sampled, kspace, y) if consistent else y
        image = rss(images_of(y, centred=centred))
        if torch.isfinite(image).all():
            return _Part(image, y, (norm(kspace), 0.0 if consistent else left), score)
    with without_convergence_warnings():
        other = l1_wavelet(kspace, sampled, maps, centred=centred, seed=seed)
    return _Part(other.x.abs(), kspace, (norm(kspace), float(other.residuals[-1])), score, other.status)


def completed(
    network: RecurrentVarNet, kspace: Tensor, sampled: Tensor, maps: Tensor, centred: bool, share: float = 1.0
) -> Tensor:
    """K-space of a slice as a network completes it, or less of what it changes of where it began."""
    start = started(kspace, sampled, maps, centred)
    y = _run(network, kspace, sampled, maps, centred, start)
    if share == 1:
        return y
    begun = torch.where(sampled, kspace, kspace_of(maps * start.unsqueeze(-3), centred=centred))
    return begun + share * (y - begun)


def scored(
    network: RecurrentVarNet, kspace: Tensor, sampled: Tensor, maps: Tensor, centred: bool, seed: int
) -> Score | None:
    """How well a network foretells some of what was measured; None where nothing can be kept aside."""
    rng = np.random.default_rng(seed)
    errors, sizes, products = np.zeros(2), 0.0, np.zeros(2)
    for _ in range(TIMES):
        try:
            left, aside = split(sampled, centred, rng, ASIDE)
        except ValueError:
            return None
        seen, wanted = torch.where(left, kspace, 0), kspace[..., aside]
        if not seen.any():
            return None
        start = started(seen, left, maps, centred)
        learned = _run(network, seen, left, maps, centred, start)[..., aside] - wanted
        classical = kspace_of(maps * start.unsqueeze(-3), centred=centred)[..., aside] - wanted
        change = learned - classical
        sizes += norm(wanted) ** 2
        errors += norm(learned) ** 2, norm(classical) ** 2
        products += -torch.vdot(change.flatten(), classical.flatten()).real.item(), norm(change) ** 2
    if sizes == 0:
        return None
    share = products[0] / products[1] if products[1] > 0 else 1.0
    found = np.sqrt(errors / sizes)
    return Score(float(found[0]), float(found[1]), float(np.clip(share, 0, 1)))


def _run(
    network: RecurrentVarNet, kspace: Tensor, sampled: Tensor, maps: Tensor, centred: bool, start: Tensor
) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(
            kspace[None], sampled, maps[None], start=start[None], centred=centred, as_kspace=True
        )
    return found[0]
