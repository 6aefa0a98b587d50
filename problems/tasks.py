"""What tasks share that ask for a class after each token of a sequence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.int64]
# Targets of positions at which nothing is asked, as `torch.nn.functional.cross_entropy` ignores them.
NOTHING = -100


class Batch(NamedTuple):
    """Sequences with what is asked of them.

    Attributes
    ----------
    tokens : (B, T) int64 Tensor
        Or float32 of shape (B, T, features).
    targets : (B, T) int64 Tensor
        Class after each token; `NOTHING` where none is asked.
    """

    tokens: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Task(ABC):
    """What all tasks share: ``task.batch(count, length, seed)``, of which the same seed gives the same.

    Attributes
    ----------
    vocabulary, classes : int
        Of tokens, and of answers.
    features : int
        Of vectors, where there are no tokens; else zero.
    judged : Task
        What those are judged by who have learned the task: the task itself, as far as it makes its own data.
    """

    name: ClassVar[str]
    shortest: ClassVar[int] = 1
    features: ClassVar[int] = 0

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Of tokens."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Of answers."""

    @property
    def judged(self) -> "Task":
        """What is judged by."""
        return self

    def batch(self, count: int, length: int, seed: int | Sequence[int]) -> Batch:
        """Sequences of one length.

        Raises
        ------
        ValueError
            A number is too small.
        """
        if count < 1 or length < self.shortest:
            raise ValueError(
                f"{count} sequences of length {length} were asked for; at least one, of length "
                f"{self.shortest} or more, is accepted"
            )
        tokens, targets = self._made(count, length, np.random.default_rng(seed))
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))

    @abstractmethod
    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Any, Array]:
        """Tokens and targets."""
