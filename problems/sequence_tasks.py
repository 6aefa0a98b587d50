"""Sequences with answers, made by rule, of any length: state tracking, recall, copying, and expressions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import numpy as np

from learnsolve.problems.digits import Digits
from learnsolve.problems.expressions import ListOps, ModularArithmetic
from learnsolve.problems.structural_recursion import Successor, Traversal
from learnsolve.problems.tasks import NOTHING, Array, Batch, Task
from learnsolve.problems.text import Text

__all__ = [
    "GROUPS",
    "NOTHING",
    "TASKS",
    "Batch",
    "Digits",
    "ListOps",
    "ModularArithmetic",
    "Parity",
    "Recall",
    "SelectiveCopying",
    "Successor",
    "Task",
    "Text",
    "Traversal",
    "Window",
    "WordProblem",
]


@dataclass(frozen=True)
class Parity(Task):
    """Whether the ones so far are an odd number, asked at the end or everywhere.

    Parameters
    ----------
    everywhere : bool

    References
    ----------
    Grazzi and others, *Unlocking state-tracking in linear RNNs through negative eigenvalues*, ICLR 2025,
    section 5.1.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Parity
    >>> tokens, targets = Parity().batch(1, 5, seed=0)
    >>> tokens.tolist(), targets.tolist()
    ([[1, 1, 1, 0, 0]], [[1, 0, 1, 1, 1]])
    """

    name: ClassVar[str] = "parity"
    everywhere: bool = True

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return 2

    @property
    def classes(self) -> int:
        """Of answers."""
        return 2

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        tokens = rng.integers(0, 2, (count, length))
        targets = tokens.cumsum(1) % 2
        if not self.everywhere:
            targets[:, :-1] = NOTHING
        return tokens, targets


def _composed(elements: list[tuple[int, ...]]) -> Array:
    """Numbers of products: entry a, b is that of b after a."""
    place = {element: number for number, element in enumerate(elements)}
    table = [[place[tuple(second[i] for i in first)] for second in elements] for first in elements]
    return np.array(table, dtype=np.int64)


def _even(permutation: Sequence[int]) -> bool:
    size = len(permutation)
    return sum(permutation[i] > permutation[j] for i in range(size) for j in range(i + 1, size)) % 2 == 0


GROUPS: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "S3": lambda: list(permutations(range(3))),
    "A5": lambda: [one for one in permutations(range(5)) if _even(one)],
    "S5": lambda: list(permutations(range(5))),
}


@dataclass(frozen=True)
class WordProblem(Task):
    """Products of a group's elements: which element the tokens so far make.

    Parameters
    ----------
    group : {"S3", "A5", "S5"}

    References
    ----------
    Merrill, Petty and Sabharwal, *The illusion of state in state-space models*, ICML 2024, section 5.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import WordProblem
    >>> task = WordProblem("A5")
    >>> tokens, targets = task.batch(2, 8, seed=0)
    >>> task.vocabulary, bool((tokens[:, 0] == targets[:, 0]).all())
    (60, True)
    """

    name: ClassVar[str] = "word-problem"
    group: str = "S3"

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"group is {self.group!r}; {', '.join(GROUPS)} are accepted")

    @property
    def vocabulary(self) -> int:
        """Of tokens: the group's order."""
        return len(GROUPS[self.group]())

    @property
    def classes(self) -> int:
        """Of answers."""
        return self.vocabulary

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        table = _composed(GROUPS[self.group]())
        tokens = rng.integers(0, len(table), (count, length))
        targets = tokens.copy()
        for t in range(1, length):
            targets[:, t] = table[targets[:, t - 1], tokens[:, t]]
        return tokens, targets


@dataclass(frozen=True)
class Recall(Task):
    """Associative recall of several queries: pairs of key and value, then keys whose values are asked.

    Parameters
    ----------
    pairs : int
    vocabulary_size : int
        Keys are the first half of it, but for the token 0, and values the second.
    power : float
        Of the law by which queries follow soon rather than late.

    References
    ----------
    Arora and others, *Zoology: measuring and improving recall in efficient language models*, ICLR 2024,
    section 3 and appendix.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Recall
    >>> tokens, targets = Recall(pairs=2, vocabulary_size=16).batch(1, 12, seed=0)
    >>> asked = targets[0] >= 0
    >>> int(asked.sum()), bool(set(tokens[0, asked].tolist()) == set(tokens[0, [0, 2]].tolist()))
    (2, True)
    """

    name: ClassVar[str] = "recall"
    pairs: int = 8
    vocabulary_size: int = 128
    power: float = 0.01

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.vocabulary_size // 2 - 1 < self.pairs:
            raise ValueError(
                f"pairs is {self.pairs} and vocabulary_size {self.vocabulary_size}; one pair or more, and "
                "at least two tokens for each and two besides, are accepted"
            )

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return self.vocabulary_size

    @property
    def classes(self) -> int:
        """Of answers."""
        return self.vocabulary_size

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        half, shown = self.vocabulary_size // 2, 2 * self.pairs
        places = (length - shown) // 2
        if places < self.pairs:
            raise ValueError(
                f"length is {length}; {4 * self.pairs} or more is accepted for {self.pairs} pairs"
            )
        keys = 1 + rng.random((count, half - 1)).argsort(1)[:, : self.pairs]
        values = half + rng.random((count, self.vocabulary_size - half)).argsort(1)[:, : self.pairs]
        # Without replacement, by exponential clocks whose rates are the law's.
        rates = np.arange(1, places + 1) ** (self.power - 1.0)
        gaps = (rng.exponential(size=(count, places)) / rates).argsort(1)[:, : self.pairs]
        tokens = rng.integers(0, self.vocabulary_size, (count, length))
        targets = np.full((count, length), NOTHING)
        tokens[:, :shown:2], tokens[:, 1:shown:2] = keys, values
        rows = np.arange(count)[:, None]
        tokens[rows, shown + 2 * gaps] = keys
        targets[rows, shown + 2 * gaps] = values
        return tokens, targets


@dataclass(frozen=True)
class SelectiveCopying(Task):
    """Tokens among noise, asked for in their order at the end.

    Parameters
    ----------
    memorized : int
        How many are to be kept.
    symbols : int
        Of which they are drawn; two more tokens are the noise and the question.

    References
    ----------
    Gu and Dao, *Mamba: linear-time sequence modeling with selective state spaces*, COLM 2024, section 3.1.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import SelectiveCopying
    >>> tokens, targets = SelectiveCopying(memorized=2, symbols=4).batch(1, 8, seed=0)
    >>> [token for token in tokens[0, :6].tolist() if token < 4] == targets[0, 6:].tolist()
    True
    """

    name: ClassVar[str] = "selective-copying"
    memorized: int = 16
    symbols: int = 16

    def __post_init__(self) -> None:
        if self.memorized < 1 or self.symbols < 2:
            raise ValueError(
                f"memorized is {self.memorized} and symbols {self.symbols}; at least 1 and 2 are accepted"
            )

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return self.symbols + 2

    @property
    def classes(self) -> int:
        """Of answers."""
        return self.symbols

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        n = self.memorized
        if length < 2 * n:
            raise ValueError(f"length is {length}; {2 * n} or more is accepted for {n} tokens")
        tokens = np.full((count, length), self.symbols)
        tokens[:, -n:] = self.symbols + 1
        targets = np.full((count, length), NOTHING)
        places = np.sort(rng.random((count, length - n)).argsort(1)[:, :n], axis=1)
        targets[:, -n:] = rng.integers(0, self.symbols, (count, n))
        tokens[np.arange(count)[:, None], places] = targets[:, -n:]
        return tokens, targets


@dataclass(frozen=True)
class Window(Task):
    """Of a stream of bits: the parity of the last ``n``, or whether the first of them is as the last.

    Parameters
    ----------
    n : int
    match : bool
        Delayed match to sample (N-DMS) instead of parity.

    References
    ----------
    Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius and Levina, *Emergent mechanisms for long
    timescales depend on training curriculum and affect performance in memory tasks*, ICLR 2024, section 2.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Window
    >>> tokens, targets = Window(2).batch(1, 6, seed=0)
    >>> tokens.tolist(), targets.tolist()
    ([[1, 1, 1, 0, 0, 0]], [[-100, 0, 0, 1, 0, 0]])
    """

    name: ClassVar[str] = "window"
    n: int = 4
    match: bool = False

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n is {self.n}; at least two is accepted")

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return 2

    @property
    def classes(self) -> int:
        """Of answers."""
        return 2

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        if length < self.n:
            raise ValueError(f"length is {length}; {self.n} or more is accepted")
        tokens = rng.integers(0, 2, (count, length))
        targets = np.full((count, length), NOTHING)
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self.n, axis=1)
        found = windows[..., 0] == windows[..., -1] if self.match else windows.sum(-1) % 2
        targets[:, self.n - 1 :] = found
        return tokens, targets


# All tasks, by their names.
TASKS: dict[str, type[Task]] = {
    one.name: one
    for one in (
        Parity,
        ModularArithmetic,
        WordProblem,
        Recall,
        SelectiveCopying,
        Window,
        ListOps,
        Digits,
        Text,
        Successor,
        Traversal,
    )
}
