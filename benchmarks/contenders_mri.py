"""Reconstruction of simulated scans: weights that are chosen, weights by the noise, and a network.

The network is the one that comes with the package: it was trained on other scans of both kinds of objects,
and has no settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import Kind, Phase, data_seed, part_of
from learnsolve import mri
from learnsolve.mri.learned import load
from learnsolve.mri.recurrent_varnet import RecurrentVarNet
from learnsolve.problems.scans import Scans
from learnsolve.training.protocol import Choice, Contender, LogUniform

# Scans for each seed, pixels along each side, coils, share of a side that is all sampled in the middle.
SCANS, SIZE, COILS, CENTRE = 6, 64, 6, 3 / 16
# Share of heads among the objects; what else there is are bodies of ellipsoids.
HEADS: dict[Phase, float] = {"tune": 1.0, "evaluate": 0.0}
# Kind of mask and acceleration, in turn.
MASKS: dict[Phase, list[tuple[Any, float]]] = {
    "tune": [("random", 4.0)],
    "evaluate": [("equispaced_fraction", 5.0), ("poisson", 6.0)],
}


@dataclass(frozen=True)
class Undersampled:
    """A slice to be reconstructed, with maps that its own k-space tells, and the truth."""

    kspace: Tensor
    sampled: Tensor
    maps: Tensor
    reference: np.ndarray
    inside: np.ndarray


def undersampled(scans: Scans, number: int, kind: Any, acceleration: float) -> Undersampled:
    """A scan of a stream, under a mask of its own."""
    scan = scans[number]
    sampled = mri.Sampling(kind, acceleration, centre=CENTRE, seed=number).mask(scan.kspace.shape)
    kspace = torch.where(sampled, torch.from_numpy(scan.kspace), 0)
    reference = mri.rss(mri.images_of(torch.from_numpy(scan.clean))).numpy()
    return Undersampled(kspace, sampled, mri.espirit(kspace).maps[0], reference, mri.foreground(reference))


def data(phase: Phase, seeds: Sequence[int], share: float) -> dict[int, list[Undersampled]]:
    """Slices for each seed."""
    masks, count = MASKS[phase], max(part_of(SCANS, share), len(MASKS[phase]))
    streams = {
        seed: Scans((SIZE,), (COILS, COILS), heads=HEADS[phase], seed=data_seed(phase, seed))
        for seed in seeds
    }
    return {
        seed: [undersampled(scans, number, *masks[number % len(masks)]) for number in range(count)]
        for seed, scans in streams.items()
    }


@cache
def network() -> RecurrentVarNet:
    """The network that comes with the package."""
    return load("small")


def error(reconstruct: Callable[..., Tensor]) -> Callable[[dict[str, Any], Any, int], float]:
    """A run of a method with its settings: the mean NMSE of the foreground."""

    def run(settings: dict[str, Any], slices: Any, seed: int) -> float:
        return float(
            np.mean(
                [
                    mri.nmse(one.reference, reconstruct(one, **settings).abs().numpy(), where=one.inside)
                    for one in slices[seed]
                ]
            )
        )

    return run


def contenders(share: float) -> dict[str, Contender]:
    """The methods."""

    def by(method: Callable[..., Any], **fixed: Any) -> Callable[[dict[str, Any], Any, int], float]:
        return error(lambda one, **settings: method(one.kspace, one.sampled, one.maps, **fixed, **settings).x)

    weight = {"weight": LogUniform(1e-4, 1e-1)}
    return {
        "zero-filled": Contender(error(lambda one: mri.zero_filled(one.kspace)), {}),
        "cg-sense": Contender(
            by(mri.cg_sense), {"weight": LogUniform(1e-4, 1.0), "maxiter": Choice(3, 5, 10, 20, 40)}
        ),
        "cg-sense, by the noise": Contender(by(mri.cg_sense), {}),
        "l1-wavelet": Contender(by(mri.l1_wavelet), weight),
        "l1-wavelet, by the noise": Contender(by(mri.l1_wavelet), {}),
        "total variation": Contender(by(mri.total_variation), weight),
        "total variation, by the noise": Contender(by(mri.total_variation), {}),
        "recurrentvarnet": Contender(by(mri.recurrentvarnet, weights=network()), {}),
    }


KIND = Kind("NMSE of the foreground", "less", contenders, data)
