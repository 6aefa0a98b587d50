"""Binary trees with labels, and their traversals: by rules, by machines, and as a task."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, Literal, Self

import numpy as np

from learnsolve.problems.recursion import (
    END,
    EQUALS,
    PADDING,
    Call,
    Move,
    Recursion,
    RecursiveTask,
    Term,
    Words,
)

Order = Literal["pre", "in", "post"]
Encoding = Literal["brackets", "polish"]
# Label, left and right are the arguments of a node.
ORDERS: dict[str, tuple[int | Call, ...]] = {
    "pre": (0, Call(1), Call(2)),
    "in": (Call(1), 0, Call(2)),
    "post": (Call(1), Call(2), 0),
}
LEAF = "."
ENCODINGS: dict[str, tuple[str | int, ...]] = {
    "brackets": ("(", 0, 1, 2, ")"),
    "polish": (0, 1, 2),
}


def _known(order: str, encoding: str) -> None:
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; {', '.join(ORDERS)} are accepted")
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding is {encoding!r}; {', '.join(ENCODINGS)} are accepted")


@cache
def traversal(order: Order, encoding: Encoding = "brackets") -> Recursion:
    """The labels of a tree, in an order.

    A tree is the term ``(".",)``, or ``("node", (label,), left, right)``.

    Parameters
    ----------
    order : {"pre", "in", "post"}
    encoding : {"brackets", "polish"}
        Whether brackets stand about a node; a leaf is a dot in both.

    Raises
    ------
    ValueError
        There is no such order or encoding.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import traversal
    >>> leaf = (".",)
    >>> tree = ("node", ("a",), ("node", ("b",), leaf, leaf), leaf)
    >>> recursion = traversal("in")
    >>> for expression in recursion.reduction(tree, parallel=True):
    ...     print(*recursion.written(expression))
    in ( a ( b . . ) . )
    in ( b . . ) a in .
    in . b in . a
    b a
    """
    _known(order, encoding)
    syntax = {LEAF: (LEAF,), "node": ENCODINGS[encoding]}
    return Recursion(order, syntax, {LEAF: (), "node": ORDERS[order]})


@dataclass(frozen=True)
class TraversalMachine:
    """A traversal, by a machine that reads the words of a tree once, with a stack, and writes at once.

    On the stack is each node that is not read to its end: its label, and how many of its two subtrees are
    done. A label is written when it is read, when the left subtree is done, or when both are. States say
    what a word was: ``descend`` at a label, ``return`` at a leaf, ``skip`` at a bracket. Before the root the
    stack is empty, and so it is after it; how high it was is the depth of the recursion.

    Parameters
    ----------
    order : {"pre", "in", "post"}

    Raises
    ------
    ValueError
        There is no such order.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import TraversalMachine
    >>> for move in TraversalMachine("in").moves(("a", "b", ".", ".", ".")):
    ...     print(move.state, move.read, *move.written)
    descend a
    descend b
    return . b
    return . a
    return .
    """

    order: Order = "in"

    def __post_init__(self) -> None:
        _known(self.order, "brackets")

    def moves(self, words: Words) -> Iterator[Move]:
        """What it does with a tree, word by word."""
        writes = list(ORDERS).index(self.order)
        stack: list[tuple[str, int]] = []
        for word in words:
            if word in "()":
                yield Move("skip", word, ())
                continue
            if word != LEAF:
                stack.append((word, 0))
                yield Move("descend", word, (word,) if writes == 0 else ())
                continue
            labels: list[str] = []
            while stack:
                label, done = stack.pop()
                if done + 1 == writes:
                    labels.append(label)
                if done == 0:
                    stack.append((label, 1))
                    break
            yield Move("return", word, tuple(labels))

    def unfold(self, words: Words, *, parallel: bool = False) -> Iterator[Move]:
        """A step of the reduction, for which it needs no stack: words of an expression, read once.

        After a call it keeps the label, and counts subtrees and brackets that are still open, which tells
        where each of the two subtrees ends.

        Parameters
        ----------
        words : tuple of str
            As of `Recursion.written`.
        parallel : bool
            Whether all calls are unfolded, instead of the leftmost one.

        Examples
        --------
        >>> from learnsolve.problems.structural_recursion import TraversalMachine, output
        >>> for move in TraversalMachine("in").unfold(("in", "a", ".", ".")):
        ...     print(move.state, move.read, *move.written)
        copy in
        call a in
        left . . a in
        right . .
        """
        writes, call = list(ORDERS).index(self.order), self.order
        state, label = "copy", ""
        calls, outer = True, False
        subtrees = brackets = 0
        for word in words:
            after = state
            written: Words = (word,)
            if state == "copy" and word == call and calls:
                written, after, outer, calls = (), "call", False, parallel
            elif state == "call" and word == "(":
                written, outer = (), True
            elif state == "call" and word == LEAF:
                written, after = (), "copy"
            elif state == "call":
                label, after, subtrees = word, "left", 1
                written = (label, call) if writes == 0 else (call,)
            elif state in ("left", "right"):
                subtrees += {LEAF: -1, "(": 0, ")": 0}.get(word, 1)
                brackets += {"(": 1, ")": -1}.get(word, 0)
                if not subtrees and not brackets:
                    written += (label,) if writes == ("left", "right").index(state) + 1 else ()
                    if state == "left":
                        written, after, subtrees = (*written, call), "right", 1
                    else:
                        after = "close" if outer else "copy"
            elif state == "close":
                written, after = (), "copy"
            yield Move(state, word, written)
            state = after


@dataclass(frozen=True)
class Traversal(RecursiveTask):
    """Traversal of a random binary tree whose labels differ.

    The depth is drawn evenly; then a tree of this depth and of at most so many nodes. Deeper trees need not
    be longer.

    Parameters
    ----------
    mode, parallel
        As of `RecursiveTask`.
    order : {"pre", "in", "post"}
    encoding : {"brackets", "polish"}
    depths : (int, int)
        The least and the most: how many nodes there are from the root to the last one.
    nodes : int
        The most that there are, where so many fit.
    labels : int
        Of which each node has another one.

    Raises
    ------
    ValueError
        A number is out of range, or there is no such order or encoding.

    References
    ----------
    Zhang, Tigges, Zhang, Biderman, Raginsky and Ringer, *Transformer-based models are not yet perfect at
    learning to emulate structural recursion*, 2024, arXiv 2401.12947.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import Traversal
    >>> task = Traversal(order="pre", depths=(2, 2), nodes=3)
    >>> (row,), _ = task.batch(1, 20, seed=0)
    >>> task.text(row)
    '( n4 ( n2 . . ) ( n6 . . ) ) = n4 n2 n6 ;'
    """

    name: ClassVar[str] = "tree-traversal"
    shortest: ClassVar[int] = 4
    order: Order = "in"
    encoding: Encoding = "brackets"
    depths: tuple[int, int] = (1, 3)
    nodes: int = 7
    labels: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "depths", tuple(self.depths))
        _known(self.order, self.encoding)
        low, high = self.depths
        if not 1 <= low <= high <= self.nodes <= self.labels:
            raise ValueError(
                f"depths are {self.depths}, nodes {self.nodes} and labels {self.labels}; a least depth of 1 "
                "or more, a most, as many nodes or more, and as many labels or more, are accepted"
            )

    @property
    def recursion(self) -> Recursion:
        return traversal(self.order, self.encoding)

    @property
    def words(self) -> Words:
        labels = (f"n{number}" for number in range(self.labels))
        return *labels, LEAF, "(", ")", self.order, EQUALS, END, PADDING

    def at(self, depth: int) -> Self:
        return replace(self, depths=(depth, depth))

    def _term(self, length: int, rng: np.random.Generator) -> Term:
        depth = int(rng.integers(self.depths[0], self.depths[1] + 1))
        labels = [f"n{number}" for number in rng.permutation(self.labels)]
        # Trees that do not fit are drawn again of fewer nodes, down to a path.
        for nodes in range(self.nodes, depth - 1, -1):
            term = _tree(depth, nodes, iter(labels), rng)
            given, asked = self.example(term)
            words = len(given) + len(asked) + 2
            if words <= length:
                return term
        raise ValueError(f"length is {length}; {words} or more is accepted for the depth {depth}")


def _tree(depth: int, nodes: int, labels: Iterator[str], rng: np.random.Generator) -> Term:
    """A tree of this depth, of so many nodes at most."""
    if not depth:
        return (LEAF,)
    label = next(labels)
    spare = nodes - depth
    other = int(rng.integers(0, min(depth - 1, spare) + 1))
    share = int(rng.integers(other, spare + 1)) if other else 0
    deep = _tree(depth - 1, nodes - 1 - share, labels, rng)
    beside = _tree(other, share, labels, rng)
    left, right = (deep, beside) if rng.random() < 0.5 else (beside, deep)
    return "node", (label,), left, right
