"""Completion of noisy matrices of low rank: alternating minimization with several penalties, and others."""

from collections.abc import Callable, Sequence
from typing import Any

import learnsolve
from benchmarks.contenders import Kind, Phase, data_seed, part_of
from learnsolve.problems.low_rank import LowRankProblem, low_rank
from learnsolve.training.protocol import Choice, Contender, LogUniform

MATRICES = 2
# The second phase has matrices of another shape that are harder to find: less is known of them.
PROBLEMS: dict[Phase, dict[str, Any]] = {
    "tune": {"shape": (200, 150), "rank": 5, "condition": 10.0, "oversampling": 3.0, "noise": 0.1},
    "evaluate": {
        "shape": (300, 100), "rank": 5, "condition": 10.0, "oversampling": 2.5, "noise": 0.1,
        "coherence": 0.3,
    },
}  # fmt: skip


def data(phase: Phase, seeds: Sequence[int], share: float) -> dict[int, list[LowRankProblem]]:
    """Matrices for each seed."""
    count = part_of(MATRICES, share)
    return {
        seed: [
            low_rank(seed=(data_seed(phase, seed) + number) % 2**32, **PROBLEMS[phase])
            for number in range(count)
        ]
        for seed in seeds
    }


def completed(method: str, **fixed: Any) -> Callable[[dict[str, Any], Any, int], float]:
    """A run of a method with its settings: the mean relative error of the whole matrix.

    More than one counts as one: so much is the error of a matrix of zeros.
    """

    def run(settings: dict[str, Any], problems: Any, seed: int) -> float:
        errors = []
        for problem in problems[seed]:
            entries = problem.rows, problem.cols, problem.values
            found = learnsolve.complete(
                entries, method=method, shape=problem.shape, seed=seed, **fixed, **settings
            )
            errors.append(min(problem.error(found.U, found.V), 1.0))
        return sum(errors) / len(errors)

    return run


def contenders(share: float) -> dict[str, Contender]:
    """The methods."""
    rank = {"rank": Choice(3, 4, 5, 6, 7, 8)}
    return {
        "plain": Contender(completed("altmin"), rank),
        "regularization": Contender(completed("altmin"), {**rank, "regularization": LogUniform(1e-5, 1e-1)}),
        "shrinkage": Contender(completed("altmin"), {**rank, "shrinkage": LogUniform(1e-4, 1.0)}),
        "huber": Contender(completed("altmin", robust="huber"), rank),
        "reweighted": Contender(completed("irls"), rank),
        "growing rank": Contender(completed("altmin"), {}),
    }


KIND = Kind("relative error", "less", contenders, data)
