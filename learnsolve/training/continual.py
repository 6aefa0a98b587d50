"""Learning one task after the other: streams of tasks, what a method must say, and how it is judged."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from learnsolve.training.fit import FitProgress, FitResult, Loss, fit
from learnsolve.training.options import FitOptions
from learnsolve.training.seeding import seed_of, seeded
from learnsolve.training.stream_scores import StreamScores, check_better


class StreamTask(Protocol):
    """What a stream asks of a task: a family of equations, a size or contrast, or some digits."""

    @property
    def name(self) -> str:
        """Of the task, and of no other in the stream."""

    def batches(self, number: int, generator: torch.Generator) -> Any:
        """A batch to learn from, as `learnsolve.training.fit` asks for it."""

    def score(self, network: nn.Module) -> float:
        """How good a network is on problems that are held out."""


@dataclass(frozen=True)
class NamedTask:
    """A task out of two functions.

    Parameters
    ----------
    name : str
    batches : callable
        ``batches(number, generator)``, as of `learnsolve.training.fit`.
    score : callable
        ``score(network)``, of problems that ``batches`` never returns; called without gradients.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.continual import NamedTask
    >>> x = torch.linspace(0, 1, 9)[:, None]
    >>> def batches(number, generator):
    ...     drawn = torch.rand(8, 1, generator=generator)
    ...     return drawn, 3 * drawn
    >>> task = NamedTask("thrice", batches, lambda network: (network(x) - 3 * x).square().mean())
    >>> round(float(task.score(lambda x: x)), 3)
    1.417
    """

    name: str
    batches: Callable[[int, torch.Generator], Any]
    score: Callable[[nn.Module], float]


@dataclass(frozen=True)
class TaskStream:
    """Tasks that come one after the other.

    Parameters
    ----------
    tasks : sequence of StreamTask
        In their order.
    loss : callable
        ``loss(network, batch)``, a scalar tensor, of a batch of any of the tasks. It calls ``network(...)``
        and uses nothing else of it, for the weights may be written by another network.
    better : {"more", "less"}
        Scores: "more" for accuracies, "less" for iterations.

    Raises
    ------
    ValueError
        There is no task, two have one name, or ``better`` is neither.

    Examples
    --------
    >>> from learnsolve.problems.digit_streams import digit_loss, permuted_digits
    >>> from learnsolve.training.continual import TaskStream
    >>> TaskStream(permuted_digits(2), digit_loss).names
    ('pixels-1', 'pixels-2')
    """

    tasks: Sequence[StreamTask]
    loss: Loss
    better: Literal["more", "less"] = "more"

    def __post_init__(self) -> None:
        check_better(self.better)
        names = self.names
        if not names:
            raise ValueError("the stream has no task; at least one is needed")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several tasks are named {twice[0]!r}; each needs a name of its own")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, in their order."""
        return tuple(task.name for task in self.tasks)


class Learner:
    """A network on its way through a stream. As it stands, it fine-tunes; methods change a part of it.

    For each task in turn `learn_stream` calls `begin`, trains `network` with `loss` and `batches`, calls
    `after_step` after each step and `finish` at the end, and then judges `network_for` each task.

    Parameters
    ----------
    method : Method
        Its options.
    network : torch.nn.Module
        Trained in place.
    stream : TaskStream
    options : FitOptions
        Of each task's training, but for the seed.

    Attributes
    ----------
    method, network, stream, options
        As given.
    index : int
        Of the task that is being learned; -1 before the first.
    """

    def __init__(self, method: "Method", network: nn.Module, stream: TaskStream, options: FitOptions) -> None:
        self.method, self.network, self.stream, self.options = method, network, stream, options
        self.index = -1

    @property
    def task(self) -> StreamTask:
        """The one that is being learned."""
        return self.stream.tasks[self.index]

    def begin(self, index: int) -> None:
        """Before a task is learned; what requires a gradient after it is trained.

        Parameters
        ----------
        index : int
            Of the task, kept in `index`.
        """
        self.index = index

    def batches(self, number: int, generator: torch.Generator) -> Any:
        """What `loss` gets in a step; as `learnsolve.training.fit` asks for batches.

        Parameters
        ----------
        number : int
            Of the step.
        generator : torch.Generator

        Returns
        -------
        object
            As it stands, a batch of the task.
        """
        return self.task.batches(number, generator)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """What is made small.

        Parameters
        ----------
        network : torch.nn.Module
            `network`.
        batch : object
            From `batches`.

        Returns
        -------
        () Tensor
            As it stands, the loss of the stream.
        """
        return self.stream.loss(network, batch)

    def after_step(self, progress: FitProgress) -> None:
        """After each step: weights may be changed in place, and their gradients are still there.

        Parameters
        ----------
        progress : FitProgress
        """

    def finish(self, result: FitResult) -> None:
        """After a task is learned, before all are judged.

        Parameters
        ----------
        result : FitResult
        """

    def network_for(self, index: int) -> nn.Module:
        """The network to solve a task with, be it learned already or not.

        Parameters
        ----------
        index : int
            Of the task.

        Returns
        -------
        torch.nn.Module
            It is copied before it is judged.
        """
        return self.network


class Method(ABC):
    """How to learn a task without losing those before: options, from which each stream gets a `Learner`.

    Attributes
    ----------
    name : str
        In tables.
    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        """What learns a stream with a network.

        Parameters
        ----------
        network : torch.nn.Module
            May be trained in place.
        stream : TaskStream
        options : FitOptions
            Of each task's training.

        Returns
        -------
        Learner
        """


@dataclass(frozen=True)
class StreamResult:
    """What came of a stream.

    Attributes
    ----------
    scores : StreamScores
        On held-out problems, after each task.
    fits : tuple of FitResult
        How the training of each task ended.
    learner : Learner
        ``learner.network_for(j)`` is the network for task j.
    """

    scores: StreamScores
    fits: tuple[FitResult, ...] = field(repr=False)
    learner: Learner = field(repr=False)


def learn_stream(
    network: nn.Module,
    stream: TaskStream,
    method: Method,
    options: FitOptions,
    *,
    callback: Callable[[str, FitProgress], Any] | None = None,
) -> StreamResult:
    """Learn the tasks of a stream one after the other, and judge all of them after each one.

    Each task gets the whole of ``options.steps``, with a schedule and an optimizer of its own; its batches
    depend on ``options.seed`` and its place. One process learns; `torch.distributed` is not used.

    Parameters
    ----------
    network : torch.nn.Module
        Methods that need no other network train it in place.
    stream : TaskStream
    method : Method
        One of `learnsolve.training.continual_methods`, or another.
    options : FitOptions
        Of each task's training.
    callback : callable, optional
        Called with the task's name and a `FitProgress` after each step; a true return value ends the
        training of this task, and the next begins.

    Returns
    -------
    StreamResult

    Raises
    ------
    TypeError
        ``method`` is no `Method`.
    ValueError, RuntimeError
        As from `learnsolve.training.fit`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.problems.digit_streams import digit_loss, permuted_digits
    >>> from learnsolve.training import FitOptions
    >>> from learnsolve.training.continual import TaskStream, learn_stream
    >>> from learnsolve.training.continual_methods import FineTune
    >>> network = torch.nn.Linear(64, 10)
    >>> stream = TaskStream(permuted_digits(2), digit_loss)
    >>> result = learn_stream(network, stream, FineTune(), FitOptions(steps=30, learning_rate=0.01))
    >>> result.scores.backward_transfer < 0
    True
    """
    if not isinstance(method, Method):
        raise TypeError(f"method is {method!r}; a Method is accepted, such as FineTune()")
    learner = method.start(network, stream, options)
    untrained = _scores(learner)
    fits, rows = [], []
    for index, name in enumerate(stream.names):
        learner.begin(index)

        def report(progress: FitProgress, name: str = name) -> Any:
            learner.after_step(progress)
            return callback is not None and callback(name, progress)

        own = replace(options, seed=seed_of(options.seed, "task", index))
        fits.append(fit(learner.network, learner.loss, learner.batches, own, callback=report))
        learner.finish(fits[-1])
        rows.append(_scores(learner))
    scores = StreamScores(stream.names, np.array(rows), np.array(untrained), stream.better)
    return StreamResult(scores, tuple(fits), learner)


def _scores(learner: Learner) -> list[float]:
    """The held-out score of every task."""
    scores = []
    for index, task in enumerate(learner.stream.tasks):
        network = copy.deepcopy(learner.network_for(index)).eval()
        device = next(network.parameters()).device
        with torch.no_grad(), seeded(seed_of(learner.options.seed, "score", index), device):
            scores.append(float(task.score(network)))
    return scores
