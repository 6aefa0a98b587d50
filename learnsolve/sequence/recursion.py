"""How networks answer word by word: whole answers, where they first fail, and what they say by themselves."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from learnsolve.sequence.backbone import Backbone
from learnsolve.sequence.training import JUDGED, NOTHING
from learnsolve.training.seeding import seed_of


class Recursive(Protocol):
    """What makes data of known depth; see `learnsolve.problems.structural_recursion`."""

    def stratified(self, depths: Sequence[int], count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets: so many sequences of each depth, one depth after the other."""


class Marks(NamedTuple):
    """How sequences were answered.

    Attributes
    ----------
    exact : (B,) bool Tensor
        Whether all is right.
    right : (B,) float32 Tensor
        The share that is right of what is asked, each word after the right ones.
    first : (B,) int64 Tensor
        The number of the first wrong word of the answer; its length, where all is right.
    """

    exact: Tensor
    right: Tensor
    first: Tensor


@torch.no_grad()
def mark(network: Backbone, tokens: Tensor, targets: Tensor, *, chunk: int = 64) -> Marks:
    """Mark the answers to sequences.

    Up to its first wrong word an answer that the network gives by itself has the right words before it, which
    are those that stand in ``tokens``. So one call at all positions finds the first wrong word of greedy
    decoding, and whether there is one; `greedy` gives all words of it.

    Parameters
    ----------
    network : Backbone
    tokens : (B, T) int64 Tensor
        With the answers.
    targets : (B, T) int64 Tensor
        The word after each token, `NOTHING` where none is asked; at least one is in each sequence.
    chunk : int
        How many sequences are answered at a time.

    Raises
    ------
    ValueError
        Shapes differ, or of a sequence nothing is asked.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> from learnsolve.sequence.recursion import mark
    >>> network = BackboneOptions(vocabulary=5, classes=5, width=8).build()
    >>> tokens = torch.tensor([[1, 2, 3, 4]])
    >>> answers = network(tokens)[0].argmax(-1)
    >>> mark(network, tokens, torch.where(tokens > 1, answers, -100))
    Marks(exact=tensor([True]), right=tensor([1.]), first=tensor([3]))
    """
    asked = _asked(tokens, targets)
    device = next(network.parameters()).device
    answers = torch.cat(
        [network(part.to(device))[0].argmax(-1).to(tokens.device) for part in tokens.split(chunk)]
    )
    wrong = (answers != targets) & asked
    count = asked.sum(1)
    # Of what is asked up to and with each position, the first wrong one is the last.
    before = (asked & (wrong.cumsum(1) == 0)).sum(1)
    return Marks(before == count, 1 - wrong.sum(1) / count, before)


@torch.no_grad()
def greedy(network: Backbone, tokens: Tensor, targets: Tensor) -> Tensor:
    """What the network answers by itself, each word after its own words, by the states that they leave.

    Parameters
    ----------
    network : Backbone
    tokens, targets : (B, T) int64 Tensor
        As of `mark`. Only tokens up to the first position at which something is asked are read.

    Returns
    -------
    (B, T) int64 Tensor
        Where something is asked, the answer; `NOTHING` elsewhere.

    Raises
    ------
    ValueError
        As `mark`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> from learnsolve.sequence.recursion import greedy
    >>> network = BackboneOptions(vocabulary=5, classes=5, width=8).build()
    >>> tokens = torch.tensor([[1, 2, 3, 4]])
    >>> answers = greedy(network, tokens, torch.where(tokens > 2, tokens, -100))
    >>> torch.equal(answers[:, 2:], network.generate(tokens[:, :3], 2))
    True
    """
    asked = _asked(tokens, targets)
    device = next(network.parameters()).device
    begins, counts = asked.long().argmax(1), asked.sum(1)
    found = torch.full_like(targets, NOTHING)
    for begin in begins.unique().tolist():
        rows = (begins == begin).nonzero().squeeze(1)
        most = int(counts[rows].max())
        given = tokens[rows, : begin + 1]
        said = network.generate(given.to(device), most).to(tokens.device)
        found[rows, begin : begin + most] = torch.where(asked[rows, begin : begin + most], said, NOTHING)
    return found


def by_depth(
    network: Backbone,
    task: Recursive,
    depths: Sequence[int],
    *,
    length: int,
    count: int = 128,
    seed: int = 0,
    chunk: int = 64,
) -> dict[int, Marks]:
    """How the answers are right at each depth of a recursion: what tells one from a short cut.

    Parameters
    ----------
    network : Backbone
    task : Recursive
    depths : sequence of int
    length : int
        Of sequences.
    count : int
        For each depth.
    seed, chunk : int

    Returns
    -------
    dict of int to Marks
        By depth.

    Raises
    ------
    ValueError
        As from ``task.stratified``.

    Examples
    --------
    >>> from learnsolve.problems.structural_recursion import Successor
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> from learnsolve.sequence.recursion import by_depth
    >>> task = Successor()
    >>> network = BackboneOptions(task.vocabulary, task.classes, width=8).build()
    >>> found = by_depth(network, task, (0, 3), length=15, count=2)
    >>> {depth: marks.exact.shape for depth, marks in found.items()}
    {0: torch.Size([2]), 3: torch.Size([2])}
    """
    tokens, targets = task.stratified(depths, count, length, seed_of(seed, "depths", JUDGED))
    marks = mark(network, tokens, targets, chunk=chunk)
    parts = [Marks(*(one[at * count : (at + 1) * count] for one in marks)) for at in range(len(depths))]
    return dict(zip(depths, parts, strict=True))


def _asked(tokens: Tensor, targets: Tensor) -> Tensor:
    """Where something is asked."""
    asked = targets != NOTHING
    if tokens.shape != targets.shape or tokens.ndim != 2 or not bool(asked.any(1).all()):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and targets {tuple(targets.shape)}; the same (B, T), "
            "with something asked in each sequence, are accepted"
        )
    return asked
