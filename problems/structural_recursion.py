"""The successor of binary numbers, and traversals of trees: recursions to be learned from examples.

The numbers are the inductive type with constructors ``01``, which is one, ``X0``, which doubles, and ``X1``,
which doubles and adds one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from learnsolve.problems.recursion import (
    END,
    EQUALS,
    PADDING,
    Call,
    Move,
    Pending,
    Recursion,
    RecursiveTask,
    Term,
    Words,
    output,
)
from learnsolve.problems.trees import ORDERS, Traversal, TraversalMachine, traversal

__all__ = [
    "ORDERS",
    "SUCCESSOR",
    "Call",
    "Move",
    "Pending",
    "Recursion",
    "RecursiveTask",
    "Successor",
    "SuccessorMachine",
    "Traversal",
    "TraversalMachine",
    "output",
    "positive",
    "traversal",
]

SUCCESSOR = Recursion(
    "s",
    {"01": ("01",), "X0": ("X0", 0), "X1": ("X1", 0)},
    {"01": ("X0", "01"), "X0": ("X1", 0), "X1": ("X0", Call(0))},
)


def positive(number: int) -> Term:
    """A number as a term, its last binary digit outermost.

    Raises
    ------
    ValueError
        The number is less than one.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import SUCCESSOR, positive
    >>> positive(6), SUCCESSOR.value(positive(7))
    (('X0', ('X1', ('01',))), ('X0', 'X0', 'X0', '01'))
    """
    if number < 1:
        raise ValueError(f"number is {number}; 1 or more is accepted")
    term: Term = ("01",)
    for digit in bin(number)[3:]:
        term = (f"X{digit}", term)
    return term


@dataclass(frozen=True)
class SuccessorMachine:
    """The successor, by a machine that goes over the words of a number.

    In the natural order it reads each word once, writes at once, and has three states. From ``carry`` a word
    X1 leads to ``carry``, any other to ``copy``. In the reversed order it has to know where the carry ends
    before it writes its first word: it reads all words in ``count``, with one register for how many words X1
    there were since another one, and goes over them once more, in ``copy`` up to there and in ``carry`` from
    there.

    Parameters
    ----------
    reverse : bool
        Whether the first word is 01.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import SuccessorMachine, output
    >>> for move in SuccessorMachine().moves(("X1", "X0", "01")):
    ...     print(move.state, move.read, *move.written)
    carry X1 X0
    carry X0 X1
    copy 01 01
    >>> output(SuccessorMachine(reverse=True).moves(("01", "X1")))
    ('01', 'X0', 'X0')
    """

    reverse: bool = False

    # In the state carry.
    written: ClassVar[dict[str, Words]] = {"X1": ("X0",), "X0": ("X1",), "01": ("X0", "01")}

    def moves(self, words: Words) -> Iterator[Move]:
        """What it does with a number, word by word."""
        if self.reverse:
            yield from self._from_the_front(words)
            return
        state = "carry"
        for word in words:
            yield Move(state, word, self.written[word] if state == "carry" else (word,))
            if word != "X1":
                state = "copy"

    def _from_the_front(self, words: Words) -> Iterator[Move]:
        ones = 0
        for word in words:
            yield Move("count", word, ())
            ones = ones + 1 if word == "X1" else 0
        for place, word in enumerate(words):
            state = "copy" if place + ones + 1 < len(words) else "carry"
            yield Move(state, word, self.written[word][::-1] if state == "carry" else (word,))

    def unfold(self, words: Words) -> Iterator[Move]:
        """A step of the reduction: words of an expression, read once.

        In the natural order the word after the call is changed, in the reversed order the one before it, so
        that it keeps each word until it has read the next.

        Parameters
        ----------
        words : tuple of str
            As of `Recursion.written`, or the same reversed.

        Examples
        --------
        >>> from learnsolve.problems.structural_recursion import SuccessorMachine, output
        >>> output(SuccessorMachine().unfold(("s", "X1", "X0", "01")))
        ('X0', 's', 'X0', '01')
        >>> output(SuccessorMachine(reverse=True).unfold(("01", "X0", "s", "X0")))
        ('01', 'X1', 'X0')
        """
        changed = {**self.written, "X1": ("X0", SUCCESSOR.name)}
        state = "keep" if self.reverse else "copy"
        kept: Words = ()
        for word in words:
            if word == SUCCESSOR.name:
                yield Move(state, word, changed[kept[0]][::-1] if kept else ())
                state = "copy" if kept else "call"
            elif state == "keep":
                yield Move(state, word, kept)
                kept = (word,)
            else:
                yield Move(state, word, changed[word] if state == "call" else (word,))
                state = "copy"


@dataclass(frozen=True)
class Successor(RecursiveTask):
    """The binary successor.

    How many digits a number has is drawn evenly, up to what fits, and so is each digit after the leading one.
    The depth of the recursion is the length of the carry, how many words X1 come first: ``k`` or more of them
    have the share 2^-k of long numbers, so that examples hardly show long carries.

    Parameters
    ----------
    mode, parallel
        As of `RecursiveTask`.
    reverse : bool
        Whether expressions are written from the leading digit on, that is, from their end.
    oversampled : float
        Of how many of the numbers the length of the carry is drawn first, evenly.
    carries : (int, int) or ()
        The shortest and the longest carry that occur; by default any do.

    Raises
    ------
    ValueError
        A number is out of range.

    References
    ----------
    Zhang, Tigges, Zhang, Biderman, Raginsky and Ringer, *Transformer-based models are not yet perfect at
    learning to emulate structural recursion*, 2024, arXiv 2401.12947.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import Successor
    >>> task = Successor()
    >>> (row,), (asked,) = task.batch(1, 13, seed=1)
    >>> task.text(row), task.text(asked[asked >= 0])
    ('X0 X1 01 = X1 X1 01 ;', 'X1 X1 01 ;')
    >>> (row,), _ = Successor("reduction", reverse=True).at(1).batch(1, 17, seed=0)
    >>> task.text(row)
    '01 X1 X0 X1 s = 01 X1 X0 s X0 = 01 X1 X1 X0 ;'
    """

    name: ClassVar[str] = "binary-successor"
    shortest: ClassVar[int] = 5
    reverse: bool = False
    oversampled: float = 0.0
    carries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "carries", tuple(self.carries))
        if not 0 <= self.oversampled <= 1:
            raise ValueError(f"oversampled is {self.oversampled}; a share from 0 to 1 is accepted")
        if self.carries and not (len(self.carries) == 2 and 0 <= self.carries[0] <= self.carries[1]):
            raise ValueError(f"carries are {self.carries}; a least of 0 or more, and a most, are accepted")

    @property
    def recursion(self) -> Recursion:
        return SUCCESSOR

    @property
    def words(self) -> Words:
        return "01", "X0", "X1", SUCCESSOR.name, EQUALS, END, PADDING

    @property
    def judged(self) -> "Successor":
        """What comes of itself: all carries, and none of them oversampled."""
        return replace(self, oversampled=0.0, carries=())

    def at(self, depth: int) -> Self:
        return replace(self, oversampled=0.0, carries=(depth, depth))

    def _turned(self, words: Words) -> Words:
        return words[::-1] if self.reverse else words

    def _words(self, digits: int, carry: int) -> int:
        """How many there are of a number, its answer, and the signs about them."""
        grown = digits + (carry == digits - 1)
        if self.mode == "full":
            return digits + grown + 2
        steps = carry + 1
        return steps * (digits + 2) + grown + 1

    def _digits(self, length: int) -> tuple[int, int]:
        """The fewest digits with such carries, and the most that fit with the longest carry."""
        low, high = self.carries or (0, length)
        digits = low + 1
        while self._words(digits, min(high, digits - 1)) <= length:
            digits += 1
        if digits == low + 1:
            raise ValueError(
                f"length is {length}; {self._words(digits, low)} or more is accepted for a carry of {low}"
            )
        return low + 1, digits - 1

    def _term(self, length: int, rng: np.random.Generator) -> Term:
        fewest, most = self._digits(length)
        digits = int(rng.integers(fewest, most + 1))
        low, high = self.carries or (0, digits)
        carries = np.arange(low, min(high, digits - 1) + 1)
        # The longest carry has no X0 after it, which would be drawn too.
        shares = 0.5 ** np.minimum(carries + 1, digits - 1)
        if rng.random() < self.oversampled:
            shares = np.ones(len(carries))
        sums = shares.cumsum()
        carry = low + int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
        words = ["X1"] * carry
        if carry < digits - 1:
            words += ["X0", *(f"X{digit}" for digit in rng.integers(0, 2, digits - 2 - carry))]
        term: Term = ("01",)
        for word in reversed(words):
            term = (word, term)
        return term
