"""Sequences with answers, made by rule: state tracking, recall, copying and arithmetic, of any length."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, NamedTuple

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
    """

    name: ClassVar[str]
    shortest: ClassVar[int] = 1

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Of tokens."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Of answers."""

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
    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Tokens and targets."""


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


# Digits come first, then these.
OPERATIONS = "+-*=()"


@dataclass(frozen=True)
class ModularArithmetic(Task):
    """The value of an expression, asked at its equals sign.

    Parameters
    ----------
    modulus : int
    brackets : bool
        Without, products come before sums.

    References
    ----------
    Deletang and others, *Neural networks and the Chomsky hierarchy*, ICLR 2023, appendix A.1.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import ModularArithmetic
    >>> task = ModularArithmetic()
    >>> tokens, targets = task.batch(1, 6, seed=0)
    >>> task.text(tokens[0]), int(targets[0, -1])
    ('4+2+1=', 2)
    """

    name: ClassVar[str] = "modular-arithmetic"
    shortest: ClassVar[int] = 2
    modulus: int = 5
    brackets: bool = False

    def __post_init__(self) -> None:
        if self.modulus < 2:
            raise ValueError(f"modulus is {self.modulus}; at least two is accepted")

    @property
    def vocabulary(self) -> int:
        """Of tokens: digits, operations, and one that pads on the left."""
        return self.modulus + len(OPERATIONS) + 1

    @property
    def classes(self) -> int:
        """Of answers."""
        return self.modulus

    def text(self, tokens: Tensor) -> str:
        """Tokens as they are written."""
        words = [*map(str, range(self.modulus)), *OPERATIONS, " "]
        return "".join(words[token] for token in tokens.tolist())

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        m = self.modulus
        equals = m + OPERATIONS.index("=")
        tokens = np.full((count, length), m + len(OPERATIONS))
        targets = np.full((count, length), NOTHING)
        for row in range(count):
            if self.brackets:
                words, value = self._bracketed(length - 1, rng)
            else:
                size = length - 1 - (length % 2)
                words = list(rng.integers(0, m, size))
                words[1::2] = list(m + rng.integers(0, 3, size // 2))
                value = self._value(words)
            tokens[row, -len(words) - 1 :] = [*words, equals]
            targets[row, -1] = value
        return tokens, targets

    def _value(self, words: Sequence[int]) -> int:
        """Of digits and operations by turns, products first."""
        total, sign, product = 0, 1, int(words[0])
        for operation, digit in zip(words[1::2], words[2::2], strict=True):
            kind = OPERATIONS[operation - self.modulus]
            if kind == "*":
                product = product * int(digit)
            else:
                total, sign, product = total + sign * product, 1 if kind == "+" else -1, int(digit)
        return (total + sign * product) % self.modulus

    def _bracketed(self, size: int, rng: np.random.Generator) -> tuple[list[int], int]:
        """An expression of so many tokens, and its value."""
        m = self.modulus
        minus, opening, closing = (m + OPERATIONS.index(kind) for kind in "-()")
        if size <= 4:
            digit = int(rng.integers(0, m))
            words = [minus, digit] if size in (2, 4) else [digit]
            return [opening, *words, closing] if size > 2 else words, (
                -digit if size in (2, 4) else digit
            ) % m
        left = int(rng.integers(1, size - 3))
        (first, a), (second, b) = self._bracketed(left, rng), self._bracketed(size - 3 - left, rng)
        kind = int(rng.integers(0, 3))
        value = (a + b, a - b, a * b)[kind] % m
        return [opening, *first, m + kind, *second, closing], value


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


# Of lists, after the ten digits: each opens a bracket.
LISTS = ("[MIN", "[MAX", "[MED", "[SM")


@dataclass(frozen=True)
class ListOps(Task):
    """The value of nested lists of digits: least, greatest, median (rounded down), and sum modulo ten.

    Parameters
    ----------
    depth, arguments : int
        Most of each.

    References
    ----------
    Nangia and Bowman, *ListOps: a diagnostic dataset for latent tree learning*, NAACL 2018; Tay and others,
    *Long range arena*, ICLR 2021, section 2.2.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import ListOps
    >>> task = ListOps(depth=2, arguments=3)
    >>> tokens, targets = task.batch(1, 12, seed=1)
    >>> task.text(tokens[0]).strip(), int(targets[0, -1])
    ('[MED 0 8 [SM 8 4 ] ]', 2)
    """

    name: ClassVar[str] = "list-ops"
    shortest: ClassVar[int] = 4
    depth: int = 10
    arguments: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1 or self.arguments < 2:
            raise ValueError(
                f"depth is {self.depth} and arguments {self.arguments}; at least 1 and 2 are accepted"
            )

    @property
    def vocabulary(self) -> int:
        """Of tokens: digits, four lists, the end of one, and one that pads on the left."""
        return 16

    @property
    def classes(self) -> int:
        """Of answers."""
        return 10

    def text(self, tokens: Tensor) -> str:
        """Tokens as they are written."""
        words = [*map(str, range(10)), *LISTS, "]", ""]
        return " ".join(words[token] for token in tokens.tolist()).strip()

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        tokens = np.full((count, length), 15)
        targets = np.full((count, length), NOTHING)
        for row in range(count):
            words, targets[row, -1] = self._list(
                self.depth, int(rng.integers(max(4, length // 2), length + 1)), rng
            )
            tokens[row, -len(words) :] = words
        return tokens, targets

    def _list(self, depth: int, room: int, rng: np.random.Generator) -> tuple[list[int], int]:
        """A list of at most so many tokens, and its value."""
        kind = int(rng.integers(len(LISTS)))
        count = int(rng.integers(2, min(self.arguments, room - 2) + 1))
        words, values = [10 + kind], []
        # What is left of the room when each argument that is still to come has one token.
        spare = room - 2 - count
        for left in range(count, 0, -1):
            share = spare if left == 1 else int(rng.integers(0, 2 * spare // left + 1))
            if depth > 1 and share >= 3:
                part, value = self._list(depth - 1, min(share, spare) + 1, rng)
            else:
                value = int(rng.integers(10))
                part = [value]
            spare -= len(part) - 1
            words += part
            values.append(value)
        ordered, n = sorted(values), len(values)
        results = ordered[0], ordered[-1], (ordered[(n - 1) // 2] + ordered[n // 2]) // 2, sum(values) % 10
        return [*words, 14], results[kind]


TASKS: dict[str, type[Task]] = {
    one.name: one
    for one in (Parity, ModularArithmetic, WordProblem, Recall, SelectiveCopying, Window, ListOps)
}
