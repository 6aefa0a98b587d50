"""Shallow piecewise-linear maps of random weights, and what their orbits are drawn to."""

import torch

from learnsolve.kernels.shplrnn import Drawn, Weights

DRAWN = [Drawn(0.3, 1), Drawn(1.0, 3), Drawn(0.0, 1)]


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weights_of(states, hidden, dtype=torch.float64):
    """Of a map that neither dies out nor flies away soon."""
    return Weights(
        draw(states, dtype=dtype, seed=1).tanh(),
        draw(states, hidden, dtype=dtype, seed=2) / hidden**0.5 / 2,
        draw(hidden, states, dtype=dtype, seed=3) / states**0.5 / 2,
        draw(states, dtype=dtype, seed=4) / 10,
        draw(hidden, dtype=dtype, seed=5),
    )


def problem(batch, length, states, dtype=torch.float64, driven=True, targeted=True):
    """First states, targets of which some are missing, what drives, and slopes of the states."""
    targets = draw(batch, length if targeted else 0, states, dtype=dtype, seed=6)
    targets[:1, 3:5], targets[1:2, :4, :1] = torch.nan, torch.nan
    drive = draw(batch, length if driven else 0, states, dtype=dtype, seed=7) / 10
    return (
        draw(batch, states, dtype=dtype, seed=8),
        targets,
        drive,
        draw(batch, length, states, dtype=dtype, seed=9),
    )
