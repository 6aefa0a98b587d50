"""Learning one task after the other with a network that writes the weights for each."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from learnsolve.training.continual import Learner, Method, TaskStream
from learnsolve.training.fit import FitResult
from learnsolve.training.hypernetwork import Hypernetwork
from learnsolve.training.options import FitOptions
from learnsolve.training.seeding import seed_of
from learnsolve.training.weight_importance import squared_gradients


@dataclass(frozen=True)
class TaskHypernetwork(Method):
    """A `Hypernetwork` writes the weights for each task, and keeps what it wrote for earlier ones.

    To the loss is added ``beta`` times `Hypernetwork.drift` from the weights that it wrote for the tasks
    before when the new task began. The network that is given is the target; it stays as it is.

    Parameters
    ----------
    beta : float
        At least zero; with zero nothing is kept.
    importance : int
        Batches from which `squared_gradients` of each task says how much each weight counts, one on average;
        zero to let all count alike.
    growth : int
        Units by which the generator grows before each task after the first.
    generator, hidden, embedding, chunk
        As of `Hypernetwork`.

    Raises
    ------
    ValueError
        ``beta``, ``importance`` or ``growth`` is negative.

    References
    ----------
    Chandra, Varshney, Srijith and Gupta, *Continual learning with dependency preserving hypernetworks*, WACV
    2023.

    von Oswald, Henning, Sacramento and Grewe, *Continual learning with hypernetworks*, ICLR 2020.

    Examples
    --------
    >>> from learnsolve.training.task_hypernetwork import TaskHypernetwork
    >>> TaskHypernetwork(generator="mlp").beta
    0.1
    """

    name: ClassVar[str] = "hypernetwork"
    beta: float = 0.1
    importance: int = 0
    growth: int = 0
    generator: str = "lstm"
    hidden: int = 40
    embedding: int = 16
    chunk: int = 150

    def __post_init__(self) -> None:
        for name in ("beta", "importance", "growth"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 0 is accepted")

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> Learner:
        return _HypernetworkLearner(self, network, stream, options)


class _HypernetworkLearner(Learner):
    """The loss of the written network, and what was written for earlier tasks."""

    method: TaskHypernetwork
    network: Hypernetwork

    def __init__(
        self, method: TaskHypernetwork, network: nn.Module, stream: TaskStream, options: FitOptions
    ) -> None:
        written = Hypernetwork(
            network,
            len(stream.tasks),
            generator=method.generator,
            hidden=method.hidden,
            embedding=method.embedding,
            chunk=method.chunk,
            seed=options.seed,
        )
        super().__init__(method, written, stream, options)
        self.before: Tensor | None = None
        self.importance: list[Tensor] = []

    def begin(self, index: int) -> None:
        super().begin(index)
        network = self.network
        network.task = index
        for task, vector in enumerate(network.task_vectors):
            vector.requires_grad_(task == index)
        if index > 0:
            self.before = network.flat_weights(range(index)).detach()
            if self.method.growth:
                network.grow(self.method.growth)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        value = super().loss(network, batch)
        if self.before is None or not self.method.beta:
            return value
        importance = torch.stack(self.importance) if self.importance else None
        return value + self.method.beta * self.network.drift(self.before, importance)

    def finish(self, result: FitResult) -> None:
        if self.method.importance > 0:
            seed = seed_of(self.options.seed, "hypernetwork", self.index)
            squares = squared_gradients(
                self.network_for(self.index),
                self.stream.loss,
                self.task.batches,
                self.method.importance,
                seed,
            )
            flat = torch.cat([squares[name].flatten() for name in self.network.shapes])
            self.importance.append(flat / flat.mean().clamp(min=torch.finfo(flat.dtype).tiny))

    def network_for(self, index: int) -> nn.Module:
        return self.network.target(index)
