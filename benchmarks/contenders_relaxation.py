"""Conjugate gradients whose over-relaxation is fixed, found by a bandit meanwhile, or predicted.

The problems are the steps of the heat equation. Bandits begin anew in each run: it is their settings that are
chosen, and what they have learned of a sequence is not taken to the next.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import learnsolve
from benchmarks.contenders import Kind, Phase, data_seed, part_of
from benchmarks.online import RTOL, solve_all, solver
from learnsolve.online import ChebCB, LogBarrier, Policy, TsallisINF, TunedSSORCG
from learnsolve.problems.heat import Heat
from learnsolve.training.protocol import Choice, Contender, LogUniform, Uniform

SYSTEMS = 200
# Unknowns along each axis, and how often the diffusion rises and falls within a sequence.
GRIDS: dict[Phase, int] = {"tune": 24, "evaluate": 32}
PERIODS: dict[Phase, int] = {"tune": 1, "evaluate": 3}
ARMS = Choice(5, 10, 20)


def sequence(grid: int, dt: float, systems: int, start: float) -> tuple[list[Any], list[Any]]:
    """Systems of a simulation that begins at some time, and where each solve begins."""
    heat, steps, starts = Heat(grid, dt), [], []
    heat.t = start
    method, M = solver("heat", 1.5)
    for _ in range(systems):
        steps.append(heat.problem())
        starts.append(heat.u)
        step = steps[-1]
        found = learnsolve.solve(step.A, step.b, x0=heat.u, method=method, M=M, rtol=RTOL, check=True)
        heat.accept(found.x)
    return steps, starts


def data(phase: Phase, seeds: Sequence[int], share: float) -> dict[int, tuple[list[Any], list[Any]]]:
    """A sequence for each seed; they begin at different times."""
    systems = part_of(SYSTEMS, share)
    starts = {seed: float(np.random.default_rng(data_seed(phase, seed)).random()) for seed in seeds}
    dt = PERIODS[phase] / SYSTEMS
    return {seed: sequence(GRIDS[phase], dt, systems, start) for seed, start in starts.items()}


def total(problems: tuple[list[Any], list[Any]], method: Any, M: Any = None) -> float:
    """Iterations of a whole sequence."""
    return float(sum(solve_all(*problems, method, M)["iterations"]))


def tuning(policy: Callable[..., Policy]) -> Callable[[dict[str, Any], Any, int], float]:
    """A run of a policy with its settings."""

    def run(settings: dict[str, Any], problems: Any, seed: int) -> float:
        method = TunedSSORCG(policy(seed=seed, **settings), arms=settings["arms"])
        return total(problems[seed], method)

    return run


def contenders(share: float) -> dict[str, Contender]:
    """The methods."""
    return {
        "no preconditioner": Contender(lambda settings, problems, seed: total(problems[seed], "cg"), {}),
        "fixed omega": Contender(
            lambda settings, problems, seed: total(problems[seed], *solver("heat", settings["omega"])),
            {"omega": Uniform(1.0, 1.95)},
        ),
        "tsallis-inf": Contender(
            tuning(TsallisINF), {"arms": ARMS, "estimator": Choice("doubly-robust", "importance")}
        ),
        "log-barrier": Contender(tuning(LogBarrier), {"arms": ARMS, "scale": LogUniform(0.1, 10.0)}),
        "chebcb": Contender(
            tuning(ChebCB),
            {"arms": ARMS, "degree": Choice(3, 5, 10), "exploration": LogUniform(3.0, 300.0)},
        ),
        "young": Contender(lambda settings, problems, seed: total(problems[seed], TunedSSORCG("young")), {}),
    }


KIND = Kind("iterations of a sequence", "less", contenders, data)
