"""Training of sequence models on tasks that make their own data, and how well they do beyond its lengths."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from learnsolve.sequence.backbone import Backbone, BackboneOptions
from learnsolve.training import FitOptions, FitProgress, FitResult, fit
from learnsolve.training.seeding import seed_of

# Of positions at which nothing is asked.
NOTHING = -100
# Streams of random numbers: what is learned from, and what is judged by.
LEARNED, JUDGED = 0, 1


class Task(Protocol):
    """What makes data; see `learnsolve.problems.sequence_tasks`."""

    @property
    def vocabulary(self) -> int:
        """Of tokens."""

    @property
    def features(self) -> int:
        """Of vectors, where there are no tokens."""

    @property
    def classes(self) -> int:
        """Of answers."""

    @property
    def judged(self) -> "Task":
        """What is judged by."""

    def batch(self, count: int, length: int, seed: Any) -> tuple[Tensor, Tensor]:
        """Tokens and targets, which are `NOTHING` where nothing is asked."""


@dataclass(frozen=True)
class SequenceTraining:
    """What a network learns from and is judged by.

    Parameters
    ----------
    network : BackboneOptions
    fit : FitOptions
    batch : int
        Sequences at a time.
    lengths : (int, int)
        Shortest and longest; each batch has one, drawn evenly.
    judged : tuple of int
        Lengths at which it is judged, by ``count`` sequences each.
    count : int

    Raises
    ------
    ValueError
        A number is not positive, or lengths are in the wrong order.
    """

    network: BackboneOptions
    fit: FitOptions
    batch: int = 64
    lengths: tuple[int, int] = (3, 40)
    judged: tuple[int, ...] = (40, 256)
    count: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.lengths[0] <= self.lengths[1]:
            raise ValueError(
                f"lengths are {self.lengths}; a shortest of 1 or more, and a longest, are accepted"
            )
        if self.batch < 1 or self.count < 1 or not self.judged or min(self.judged) < 1:
            raise ValueError(
                f"batch is {self.batch}, count {self.count} and judged {self.judged}; positive numbers "
                "are accepted"
            )


class Accuracy(NamedTuple):
    """Shares of right answers, and how likely they were held.

    Attributes
    ----------
    everywhere : float
        Of all that is asked.
    last : float
        Of what is asked last in each sequence.
    loss : float
        Mean of the right answers' negative logarithms, in nats.
    """

    everywhere: float
    last: float
    loss: float


@torch.no_grad()
def accuracy(
    network: Backbone, task: Task, length: int, count: int = 256, seed: int = 0, chunk: int = 64
) -> Accuracy:
    """How well a network answers sequences of a length, none of which it was trained on.

    Parameters
    ----------
    network : Backbone
    task : Task
    length, count : int
        Of the sequences.
    seed : int
    chunk : int
        How many are answered at a time.
    """
    device = next(network.parameters()).device
    tokens, targets = task.judged.batch(count, length, (seed_of(seed, "judged", length), JUDGED))
    found, away = [], 0.0
    for part, wanted in zip(tokens.split(chunk), targets.split(chunk), strict=True):
        logits = network(part.to(device))[0].cpu()
        found.append(logits.argmax(-1))
        logits = logits.flatten(0, 1)
        away += float(cross_entropy(logits, wanted.flatten(), ignore_index=NOTHING, reduction="sum"))
    hits, there = torch.cat(found) == targets, targets != NOTHING
    ends = there.long().cumsum(1).argmax(1)
    asked, right = int(there.sum()), int(hits[there].sum())
    last = int(hits[torch.arange(count), ends].sum())
    return Accuracy(right / max(asked, 1), last / count, away / max(asked, 1))


def train(
    training: SequenceTraining,
    task: Task,
    *,
    device: torch.device | str = "cpu",
    folder: str | os.PathLike | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> tuple[Backbone, FitResult]:
    """Train a network on a task.

    Parameters
    ----------
    training : SequenceTraining
    task : Task
    device : torch.device
    folder, callback
        As of `learnsolve.training.fit`.
    record : mapping, optional
        What else says what the run does.

    Returns
    -------
    network, result
        As of `learnsolve.training.fit`; metrics are accuracies and losses, named by length.

    Raises
    ------
    ValueError
        The network's tokens or classes are fewer than the task's, or as from `learnsolve.training.fit`.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Parity
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> from learnsolve.training import FitOptions
    >>> options = BackboneOptions(vocabulary=2, classes=2, width=8, layers=1)
    >>> training = SequenceTraining(options, FitOptions(steps=2), batch=2, judged=(8,), count=4)
    >>> train(training, Parity())[1].finished
    True
    """
    options = training.network
    if options.features != task.features:
        raise ValueError(f"the network has {options.features} features, and the task {task.features}")
    if options.vocabulary < task.vocabulary or options.classes < task.classes:
        raise ValueError(
            f"the network has {options.vocabulary} kinds of tokens and {options.classes} classes; the task "
            f"has {task.vocabulary} and {task.classes}"
        )
    where, seed = torch.device(device), training.fit.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = options.build().to(where)

    def batches(number: int, generator: torch.Generator) -> Sequence[Tensor]:
        low, high = training.lengths
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return [one.to(where) for one in task.batch(training.batch, length, (seed, number, LEARNED))]

    def loss(wrapped: torch.nn.Module, batch: Sequence[Tensor]) -> Tensor:
        tokens, targets = batch
        logits, _ = wrapped(tokens)
        away = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOTHING)
        return away + network.balance()

    def validate(now: torch.nn.Module) -> Mapping[str, float]:
        assert isinstance(now, Backbone)
        found = {length: accuracy(now, task, length, training.count, seed) for length in training.judged}
        everywhere = {f"accuracy_{length}": one.everywhere for length, one in found.items()}
        losses = {f"loss_{length}": one.loss for length, one in found.items()}
        return everywhere | {f"last_{length}": one.last for length, one in found.items()} | losses

    result = fit(
        network,
        loss,
        batches,
        training.fit,
        folder=folder,
        validate=validate,
        callback=callback,
        config=record,
    )
    return network, result
