"""Functions by structural recursion: their rules, how they reduce, and tasks to learn them from examples."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from learnsolve.problems.tasks import NOTHING, Array, Batch, Task

# A constructor's name, then its arguments, which are terms.
Term = tuple
Words = tuple[str, ...]


class Call(NamedTuple):
    """In a rule: the function itself, of the argument with this number."""

    argument: int


class Pending(NamedTuple):
    """In an expression: the function of a term, not unfolded yet."""

    term: Term


Expression = tuple[str | Pending, ...]


@dataclass(frozen=True)
class Recursion:
    r"""A function by structural recursion, as a programming language has it: one rule for each constructor.

    What a rule says is a sequence, of words, of numbers of arguments, which are written as they are, and of
    calls. A call has an argument of the constructor, thus a smaller term: every reduction ends. With
    :math:`f(C\,x_1 \dots x_n) \to w_C`, a step replaces a pending call by what its rule says.

    Parameters
    ----------
    name : str
        How a pending call is written, before its argument.
    syntax : mapping
        For each constructor how it is written: words, and numbers of arguments.
    rules : mapping
        For each constructor what the function of it is.

    Raises
    ------
    ValueError
        Rules and syntax are not of the same constructors, or a rule names an argument that is not written.

    References
    ----------
    Zhang, Tigges, Zhang, Biderman, Raginsky and Ringer, *Transformer-based models are not yet perfect at
    learning to emulate structural recursion*, 2024, arXiv 2401.12947.

    Examples
    --------
    The length of a list of b, in unary digits:

    >>> from learnsolve.problems.recursion import Call, Recursion
    >>> syntax = {"nil": ("nil",), "b": ("b", 0)}
    >>> length = Recursion("length", syntax, {"nil": (), "b": ("1", Call(0))})
    >>> for expression in length.reduction(("b", ("b", ("nil",)))):
    ...     print(*length.written(expression))
    length b b nil
    1 length b nil
    1 1 length nil
    1 1
    """

    name: str
    syntax: Mapping[str, Sequence[str | int]]
    rules: Mapping[str, Sequence[str | int | Call]]

    def __post_init__(self) -> None:
        if self.syntax.keys() != self.rules.keys():
            raise ValueError(
                f"rules are of {', '.join(self.rules)}; one for each of {', '.join(self.syntax)} is accepted"
            )
        for constructor, rule in self.rules.items():
            known = {item for item in self.syntax[constructor] if isinstance(item, int)}
            named = {item.argument if isinstance(item, Call) else item for item in rule}
            unknown = {item for item in named if isinstance(item, int)} - known
            if unknown:
                raise ValueError(f"the rule of {constructor} names arguments {unknown}; {known} are accepted")

    def unfolded(self, term: Term) -> Expression:
        """One step: what the rule says of a term."""
        found: list[str | Pending] = []
        for item in self.rules[term[0]]:
            if isinstance(item, Call):
                found.append(Pending(term[1 + item.argument]))
            elif isinstance(item, int):
                found += self.text(term[1 + item])
            else:
                found.append(item)
        return tuple(found)

    def reduction(self, term: Term, *, parallel: bool = False) -> Iterator[Expression]:
        """Expressions from the call of a term to its value.

        Parameters
        ----------
        term : tuple
        parallel : bool
            A step unfolds all pending calls, instead of the leftmost one.
        """
        expression: Expression = (Pending(term),)
        yield expression
        while any(isinstance(item, Pending) for item in expression):
            expression = self._step(expression, parallel)
            yield expression

    def _step(self, expression: Expression, parallel: bool) -> Expression:
        found: list[str | Pending] = []
        unfolds = True
        for item in expression:
            if unfolds and isinstance(item, Pending):
                found += self.unfolded(item.term)
                unfolds = parallel
            else:
                found.append(item)
        return tuple(found)

    def value(self, term: Term) -> Words:
        """What the function of a term is, written."""
        found: list[str] = []
        waiting: list[str | Pending] = [Pending(term)]
        while waiting:
            item = waiting.pop()
            if isinstance(item, Pending):
                waiting += reversed(self.unfolded(item.term))
            else:
                found.append(item)
        return tuple(found)

    def depth(self, term: Term) -> int:
        """How many calls the longest chain of calls has below the first.

        Examples
        --------
        >>> from learnsolve.problems.structural_recursion import SUCCESSOR, positive
        >>> SUCCESSOR.depth(positive(8)), SUCCESSOR.depth(positive(7))
        (0, 2)
        """
        level, found = [term], -1
        while level:
            found += 1
            below = (item for one in level for item in self.unfolded(one))
            level = [item.term for item in below if isinstance(item, Pending)]
        return found

    def text(self, term: Term) -> Words:
        """A term, written."""
        found: list[str] = []
        waiting: list[str | Term] = [term]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                found.append(item)
                continue
            # A basic value, such as a label, has no syntax of its own.
            parts = self.syntax.get(item[0], (item[0],))
            waiting += [part if isinstance(part, str) else item[1 + part] for part in reversed(parts)]
        return tuple(found)

    def written(self, expression: Expression) -> Words:
        """An expression, written."""
        found: list[str] = []
        for item in expression:
            found += (self.name, *self.text(item.term)) if isinstance(item, Pending) else (item,)
        return tuple(found)


class Move(NamedTuple):
    """What an abstract machine did with a word.

    Attributes
    ----------
    state : str
        In which it was.
    read : str
    written : tuple of str
    """

    state: str
    read: str
    written: Words


def output(moves: Iterable[Move]) -> Words:
    """All that a machine wrote."""
    return tuple(word for move in moves for word in move.written)


# Between what is given and what is asked, and between steps; after the last word; and after that.
EQUALS, END, PADDING = "=", ";", " "


@dataclass(frozen=True)
class RecursiveTask(Task):
    """What tasks of a structural recursion share: words, an equals sign, and then the words that are asked.

    At the equals sign and after each word of the answer the next one is asked, and at last the end. What
    follows pads.

    Parameters
    ----------
    mode : {"full", "reduction"}
        Whether the value is asked at once, or all expressions on the way to it.
    parallel : bool
        Whether a step of the reduction unfolds all pending calls, instead of the leftmost one.

    Attributes
    ----------
    recursion : Recursion
    words : tuple of str
        All, in the order of their tokens.
    """

    mode: Literal["full", "reduction"] = "full"
    parallel: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("full", "reduction"):
            raise ValueError(f"mode is {self.mode!r}; full and reduction are accepted")

    @property
    @abstractmethod
    def recursion(self) -> Recursion:
        """The function that is to be learned."""

    @property
    @abstractmethod
    def words(self) -> Words:
        """All words."""

    @abstractmethod
    def at(self, depth: int) -> Self:
        """The task of which all calls have this depth; see `Recursion.depth`."""

    @abstractmethod
    def _term(self, length: int, rng: np.random.Generator) -> Term:
        """A term, which with its answer has at most so many words."""

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return len(self.words)

    @property
    def classes(self) -> int:
        """Of answers: any word."""
        return len(self.words)

    def example(self, term: Term) -> tuple[Words, Words]:
        """What is given and what is asked for a term, without the equals sign between and the end."""
        if self.mode == "full":
            return self._turned(self.recursion.text(term)), self._turned(self.recursion.value(term))
        steps = self.recursion.reduction(term, parallel=self.parallel)
        given, *rest = (self._turned(self.recursion.written(step)) for step in steps)
        return given, tuple(word for step in rest for word in (EQUALS, *step))[1:]

    def _turned(self, words: Words) -> Words:
        """How an expression is laid out."""
        return words

    def stratified(self, depths: Sequence[int], count: int, length: int, seed: int) -> Batch:
        """For each depth as many sequences, one depth after the other.

        Parameters
        ----------
        depths : sequence of int
        count : int
            For each.
        length, seed : int

        Raises
        ------
        ValueError
            A number is too small, or the length for a depth.
        """
        parts = [self.at(depth).batch(count, length, (seed, depth)) for depth in depths]
        return Batch(torch.cat([one.tokens for one in parts]), torch.cat([one.targets for one in parts]))

    def text(self, tokens: Tensor) -> str:
        """Tokens as they are written."""
        return " ".join(self.words[token] for token in tokens.tolist()).rstrip()

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        number = {word: token for token, word in enumerate(self.words)}
        tokens = np.full((count, length), number[PADDING])
        targets = np.full((count, length), NOTHING)
        for row in range(count):
            given, asked = self.example(self._term(length, rng))
            line = [number[word] for word in (*given, EQUALS, *asked, END)]
            tokens[row, : len(line)] = line
            targets[row, len(given) : len(line) - 1] = line[len(given) + 1 :]
        return tokens, targets
