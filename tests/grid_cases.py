"""Grids of every kind, small enough for their matrix to be dense."""

import numpy as np
import torch

from learnsolve.operators import GridPoisson
from learnsolve.problems import poisson


def _grids():
    rng = np.random.default_rng(5)
    return {
        "box-2d": poisson.box((12, 9)).A,
        "closed-2d": poisson.box((9, 11), "solid").A,
        "obstacles-2d": poisson.obstacles((16, 14), seed=3).A,
        "maze-2d": poisson.maze((16, 16)).A,
        "jump-3d": poisson.jump((6, 7, 5), 100.0).A,
        "obstacles-3d": poisson.obstacles((8, 7, 6), seed=1, dtype=torch.float32).A,
        "closed-3d": GridPoisson((rng.random((6, 5, 7)) < 0.3).astype(np.int8)),
    }


GRIDS = _grids()


def rows(Q):
    """Vectors on a grid as rows of a matrix."""
    return np.asarray(Q).reshape(len(Q), -1)


def dense(A, M):
    """A cycle as a matrix over the unknowns."""
    active = A.active.reshape(-1)
    columns = []
    for i in active.nonzero()[:, 0]:
        e = torch.zeros(active.numel(), dtype=torch.float64)
        e[i] = 1
        columns.append(M._apply(e.reshape(A.domain_shape)).reshape(-1)[active])
    return torch.stack(columns, 1).numpy()
