"""What the two-phase benchmark asks of a kind of learner: its methods, its score, its data in both phases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from learnsolve.training.protocol import Contender
from learnsolve.training.seeding import seed_of

Phase = Literal["tune", "evaluate"]


@dataclass(frozen=True)
class Kind:
    """Methods that can be compared with each other.

    Attributes
    ----------
    score : str
        What is counted.
    better : {"less", "more"}
    contenders : callable
        ``contenders(share)``: the methods, whose trainings have that share of their usual steps.
    data : callable
        ``data(phase, seeds, share)``: for each seed its problems, of which there are that share of the usual
        number. The phases have none in common.
    """

    score: str
    better: Literal["less", "more"]
    contenders: Callable[[float], dict[str, Contender]]
    data: Callable[[Phase, Sequence[int], float], Mapping[int, Any]]


def part_of(usual: int, share: float) -> int:
    """A share of a number, at least one."""
    return max(round(usual * share), 1)


def data_seed(phase: Phase, seed: int) -> int:
    """For the problems of a seed in a phase, and in no other."""
    return seed_of(seed, f"data to {phase} on", 0) % 2**32
