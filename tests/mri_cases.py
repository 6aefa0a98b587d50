"""Simulated scans, and where a real one is."""

import os
from pathlib import Path

import numpy as np
import torch

from learnsolve.mri import Sampling
from learnsolve.operators import sense

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "mri"
SCAN = Path(os.environ.get("LEARNSOLVE_DATA", FOLDER)) / "brain16_flash128.h5"


def scan(shape=(64, 48), coils=6, noise=0.05, seed=0, dtype=torch.complex64):
    """An image of ellipses with a smooth phase, smooth coils around it, and its full k-space."""
    rng = np.random.default_rng(seed)
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = np.zeros(shape)
    for size, y, x, value in ((0.85, 0, 0, 1.0), (0.3, 0.3, 0.2, -0.5), (0.2, -0.4, -0.3, 0.8)):
        image[((v - y) / size) ** 2 + ((u - x) / size) ** 2 < 1] += value
    image = image * np.exp(1j * (u + 0.5 * v**2))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack(
        [np.exp(-((u - np.cos(a)) ** 2) - (v - np.sin(a)) ** 2 + 1j * (a + u * v)) for a in angles]
    )
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    image, maps = torch.tensor(image, dtype=dtype), torch.tensor(maps, dtype=dtype)
    full = sense(maps, torch.ones(shape, dtype=torch.bool)) @ image
    drawn = rng.standard_normal((2, *full.shape)) * noise / np.sqrt(2)
    return image, maps, full + torch.tensor(drawn[0] + 1j * drawn[1], dtype=dtype)


def undersampled(full, kind="random", acceleration=3.0, axis=-2):
    sampled = Sampling(kind, acceleration, centre=12, axis=axis, seed=1).mask(tuple(full.shape))
    return torch.where(sampled, full, 0), sampled
