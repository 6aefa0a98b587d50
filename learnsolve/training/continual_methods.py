"""Methods that learn one task after the other: what each of them adds to plain training."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from learnsolve.training.continual import Learner, Method, StreamResult, TaskStream, learn_stream
from learnsolve.training.fit import FitResult
from learnsolve.training.isolated_masks import IsolatedMasks
from learnsolve.training.options import FitOptions
from learnsolve.training.seeding import seed_of
from learnsolve.training.task_hypernetwork import TaskHypernetwork
from learnsolve.training.weight_importance import squared_gradients


@dataclass(frozen=True)
class FineTune(Method):
    """Train on each task as if there were no other: what forgets most, and the row to be compared with.

    Examples
    --------
    >>> from learnsolve.training.continual_methods import FineTune
    >>> FineTune().name
    'fine-tune'
    """

    name: ClassVar[str] = "fine-tune"

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        return Learner(self, network, stream, options)


@dataclass(frozen=True)
class Joint(Method):
    """Train on many tasks at a time, each batch of one of them: the row that sees what others may not.

    Parameters
    ----------
    tasks : {"so far", "all"}
        Each time on the task that is new and those before it; or on all of the stream from the beginning.

    Raises
    ------
    ValueError
        ``tasks`` is neither.

    Examples
    --------
    >>> from learnsolve.training.continual_methods import Joint
    >>> Joint("all").tasks
    'all'
    """

    name: ClassVar[str] = "joint"
    tasks: Literal["so far", "all"] = "so far"

    def __post_init__(self) -> None:
        if self.tasks not in ("so far", "all"):
            raise ValueError(f"tasks is {self.tasks!r}; 'so far' and 'all' are accepted")

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        return _JointLearner(self, network, stream, options)


class _JointLearner(Learner):
    """Batches of any of several tasks."""

    method: Joint

    def batches(self, number: int, generator: torch.Generator) -> Any:
        count = len(self.stream.tasks) if self.method.tasks == "all" else self.index + 1
        drawn = int(torch.randint(count, (), generator=generator))
        return self.stream.tasks[drawn].batches(number, generator)


@dataclass(frozen=True)
class EWC(Method):
    """Elastic weight consolidation: what mattered to earlier tasks is held where it was.

    To the loss is added ``strength / 2 sum_j sum_i F_ji (w_i - w*_ji)^2`` over the tasks j before, with the
    weights ``w*_j`` at the end of task j and F_j from `squared_gradients`.

    Parameters
    ----------
    strength : float
        At least zero. It has to make up for the size of the batches from which F comes.
    batches : int
        From which F comes.

    Raises
    ------
    ValueError
        A number is not accepted.

    References
    ----------
    Kirkpatrick and others, *Overcoming catastrophic forgetting in neural networks*, PNAS 114, 2017.

    Examples
    --------
    >>> from learnsolve.training.continual_methods import EWC
    >>> EWC(strength=10.0).batches
    64
    """

    name: ClassVar[str] = "ewc"
    strength: float = 100.0
    batches: int = 64

    def __post_init__(self) -> None:
        if not self.strength >= 0 or self.batches < 1:
            raise ValueError(
                f"strength is {self.strength} and batches {self.batches}; at least 0, and at least 1, are "
                "accepted"
            )

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        return _EWCLearner(self, network, stream, options)


class _EWCLearner(Learner):
    """The loss with a spring on each weight for each task before."""

    method: EWC

    def __init__(self, method: EWC, network: nn.Module, stream: TaskStream, options: FitOptions) -> None:
        super().__init__(method, network, stream, options)
        self.springs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        return super().loss(network, batch) + self.penalty()

    def penalty(self) -> Tensor | float:
        """What the springs hold; zero in the first task."""
        weights = dict(self.network.named_parameters())
        pulls = [
            (stiffness[name] * (weights[name] - rest[name]).square()).sum()
            for rest, stiffness in self.springs
            for name in rest
        ]
        return self.method.strength / 2 * torch.stack(pulls).sum() if pulls else 0.0

    def finish(self, result: FitResult) -> None:
        seed = seed_of(self.options.seed, "ewc", self.index)
        stiffness = squared_gradients(
            self.network, self.stream.loss, self.task.batches, self.method.batches, seed
        )
        weights = dict(self.network.named_parameters())
        self.springs.append(({name: weights[name].detach().clone() for name in stiffness}, stiffness))


@dataclass(frozen=True)
class Replay(Method):
    """Some batches of earlier tasks are kept, and one of them is learned beside each new one.

    Of all batches that were ever trained on each is kept with the same probability (a reservoir). A batch
    is kept whole, for one of linear systems cannot be taken apart. The loss is that of the new batch plus
    ``weight`` times that of a kept one; batches of a task are used when the task is over.

    Parameters
    ----------
    memory : int
        Batches.
    weight : float
        Of the kept batch.

    Raises
    ------
    ValueError
        A number is not accepted.

    References
    ----------
    Vitter, *Random sampling with a reservoir*, ACM Transactions on Mathematical Software 11, 1985:
    algorithm R.

    Chaudhry and others, *On tiny episodic memories in continual learning*, 2019.

    Examples
    --------
    >>> from learnsolve.training.continual_methods import Replay
    >>> Replay(memory=8).weight
    1.0
    """

    name: ClassVar[str] = "replay"
    memory: int = 32
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.memory < 1 or not self.weight >= 0:
            raise ValueError(
                f"memory is {self.memory} and weight {self.weight}; at least 1, and at least 0, are accepted"
            )

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        return _ReplayLearner(self, network, stream, options)


class _ReplayLearner(Learner):
    """Pairs of a new batch and a kept one."""

    method: Replay

    def __init__(self, method: Replay, network: nn.Module, stream: TaskStream, options: FitOptions) -> None:
        super().__init__(method, network, stream, options)
        self.seen = 0
        self.kept: list[Any] = []
        self.earlier: list[Any] = []
        self.generator = torch.Generator().manual_seed(seed_of(options.seed, "replay", 0))

    def begin(self, index: int) -> None:
        super().begin(index)
        self.earlier = list(self.kept)

    def batches(self, number: int, generator: torch.Generator) -> Any:
        new = self.task.batches(number, generator)
        self.offer(new)
        if not self.earlier:
            return new, None
        return new, self.earlier[int(torch.randint(len(self.earlier), (), generator=generator))]

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        new, old = batch
        value = super().loss(network, new)
        return value if old is None else value + self.method.weight * super().loss(network, old)

    def offer(self, batch: Any) -> None:
        """Keep a batch, perhaps, and forget another for it."""
        self.seen += 1
        if len(self.kept) < self.method.memory:
            self.kept.append(batch)
            return
        place = int(torch.randint(self.seen, (), generator=self.generator))
        if place < self.method.memory:
            self.kept[place] = batch


# The methods, by their names.
CONTINUAL_METHODS: dict[str, type[Method]] = {
    method.name: method for method in (FineTune, Joint, EWC, Replay, TaskHypernetwork, IsolatedMasks)
}


def compare_methods(
    network: nn.Module, stream: TaskStream, methods: Mapping[str, Method], options: FitOptions
) -> dict[str, StreamResult]:
    """Learn one stream with several methods, each from a copy of one network.

    Fine-tuning and joint training come first, whether asked for or not: a method is worth what it gains
    over the one, and how near it comes to the other.

    Parameters
    ----------
    network : torch.nn.Module
        It stays as it is.
    stream : TaskStream
    methods : mapping of str to Method
        By the names they shall have in the result.
    options : FitOptions
        Of each task's training, for all methods.

    Returns
    -------
    dict of str to StreamResult

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As from `learnsolve.training.continual.learn_stream`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.problems.digit_streams import digit_loss, split_digits
    >>> from learnsolve.training import FitOptions
    >>> from learnsolve.training.continual import TaskStream
    >>> from learnsolve.training.continual_methods import EWC, compare_methods
    >>> stream = TaskStream(split_digits(5), digit_loss)
    >>> list(compare_methods(torch.nn.Linear(64, 10), stream, {"ewc": EWC()}, FitOptions(steps=2)))
    ['fine-tune', 'joint', 'ewc']
    """
    rows = {FineTune.name: FineTune(), Joint.name: Joint(), **methods}
    return {
        name: learn_stream(copy.deepcopy(network), stream, method, options) for name, method in rows.items()
    }
