"""Sequences that are expressions, with their values: modular arithmetic, and nested lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from learnsolve.problems.tasks import NOTHING, Array, Task

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
    operations : str
        Those that occur of ``+-*``; within brackets all do.
    everywhere : bool
        The value so far is asked after each digit too; without brackets only.

    Raises
    ------
    ValueError
        The modulus is less than two, an operation is unknown, or values so far are asked within brackets.

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
    operations: str = "+-*"
    everywhere: bool = False

    def __post_init__(self) -> None:
        if not self.operations or set(self.operations) - set("+-*"):
            raise ValueError(f"operations are {self.operations!r}; one or more of +, - and * are accepted")
        if self.modulus < 2:
            raise ValueError(f"modulus is {self.modulus}; at least two is accepted")
        if self.brackets and self.everywhere:
            raise ValueError("within brackets there is no value so far; everywhere=False is accepted")

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
                kinds = np.array([m + OPERATIONS.index(kind) for kind in self.operations])
                words[1::2] = list(kinds[rng.integers(0, len(kinds), size // 2)])
                values = self._values(words)
                value = values[-1]
                if self.everywhere:
                    targets[row, -len(words) - 1 : -1 : 2] = values
            tokens[row, -len(words) - 1 :] = [*words, equals]
            targets[row, -1] = value
        return tokens, targets

    def _values(self, words: Sequence[int]) -> list[int]:
        """Of digits and operations by turns, products first: the value after each digit."""
        total, sign, product = 0, 1, int(words[0])
        found = [product]
        for operation, digit in zip(words[1::2], words[2::2], strict=True):
            kind = OPERATIONS[operation - self.modulus]
            if kind == "*":
                product = product * int(digit)
            else:
                total, sign, product = total + sign * product, 1 if kind == "+" else -1, int(digit)
            found.append((total + sign * product) % self.modulus)
        return found

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
