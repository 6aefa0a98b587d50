"""Preconditioners of elliptic problems: a network that is trained for a family, and classical ones.

All are used by the same flexible conjugate gradients. The network's weights are learned anew on the family of
each phase, by as many steps; what is carried over is how they are learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import Kind, Phase, data_seed, part_of
from benchmarks.elliptic_preconditioner import FamilyTask, MultiscaleNetwork, flexible_cg, residual_left
from learnsolve.preconditioners import (
    AlgebraicMultigrid,
    IncompleteCholesky,
    Multigrid,
    Preconditioner,
    SSORPreconditioner,
)
from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
from learnsolve.training import FitOptions, fit
from learnsolve.training.protocol import Choice, Contender, LogUniform, Uniform
from learnsolve.training.seeding import seed_of, seeded

FAMILIES: dict[Phase, str] = {"tune": "discs", "evaluate": "along-x"}
# Cells along each side; squares of the network; systems in a batch, and held out; steps of a training.
CELLS, LEVELS, BATCH, HELD_OUT, STEPS = 32, 4, 8, 8, 150

Run = Callable[[dict[str, Any], Any, int], float]


def data(phase: Phase, seeds: Sequence[int], share: float) -> dict[int, FamilyTask]:
    """The family of a phase, with held-out systems for each seed."""
    family = ELLIPTIC_FAMILIES[FAMILIES[phase]]
    # The systems that a task holds out depend on its family's name.
    names = {seed: f"{family.name} {data_seed(phase, seed)}" for seed in seeds}
    held_out = part_of(HELD_OUT, share)
    return {
        seed: FamilyTask(replace(family, name=name), CELLS, BATCH, held_out) for seed, name in names.items()
    }


def classical(make: Callable[..., Preconditioner]) -> Run:
    """A run of a preconditioner with its settings."""

    def run(settings: dict[str, Any], tasks: Any, seed: int) -> float:
        A, b = tasks[seed].held_out
        # PyAMG estimates spectral radii by random vectors.
        np.random.seed(seed)
        M = make(**settings).build(A)
        return float(flexible_cg(A, b, lambda r: M @ r)[1].double().mean())

    return run


def network(steps: int) -> Run:
    """A run of the network: training with its settings, and judgement."""

    def run(settings: dict[str, Any], tasks: Any, seed: int) -> float:
        with seeded(seed_of(seed, "preconditioner", 0), torch.device("cpu")):
            trained = MultiscaleNetwork(settings["channels"], LEVELS)
        options = FitOptions(steps, settings["rate"], settings["schedule"], seed=seed)
        fit(trained, residual_left, tasks[seed].batches, options)
        with torch.no_grad():
            return float(tasks[seed].score(trained))

    return run


def contenders(share: float) -> dict[str, Contender]:
    """The methods."""
    return {
        "diagonal": Contender(lambda settings, tasks, seed: tasks[seed].plain, {}),
        "ssor": Contender(
            classical(SSORPreconditioner),
            {"omega": Uniform(0.8, 1.9), "order": Choice("lexicographic", "multicolor")},
        ),
        "incomplete cholesky": Contender(classical(IncompleteCholesky), {}),
        "algebraic multigrid": Contender(
            classical(AlgebraicMultigrid),
            {"kind": Choice("smoothed_aggregation", "rootnode", "ruge_stuben"), "cycle": Choice("V", "W")},
        ),
        "multigrid": Contender(
            classical(Multigrid),
            {
                "cycle": Choice("V", "W"),
                "sweeps": Choice(1, 2, 3),
                "smoother": Choice("red_black", "chebyshev"),
                "omega": Uniform(0.7, 1.6),
                "strength": Uniform(0.0, 0.5),
            },
        ),
        "network": Contender(
            network(part_of(STEPS, share)),
            {
                "rate": LogUniform(1e-3, 1e-1),
                "channels": Choice(4, 8, 12),
                "schedule": Choice("rex", "linear", "cosine", "constant"),
            },
        ),
    }


KIND = Kind("mean iterations to 1e-6", "less", contenders, data)
