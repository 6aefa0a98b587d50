"""Learning one task after the other with a sparse mask for each, so that nothing is forgotten."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from learnsolve.training.continual import Learner, Method, TaskStream
from learnsolve.training.fit import FitResult
from learnsolve.training.options import FitOptions
from learnsolve.training.seeding import seed_of
from learnsolve.training.sparse_training import DISTRIBUTIONS, GROWTHS, SparseTraining
from learnsolve.training.task_masks import TaskMasks


@dataclass(frozen=True)
class IsolatedMasks(Method):
    """Each task gets a sparse mask of its own over one network, which changes while the task is learned.

    `TaskMasks` draws it and keeps weights of earlier tasks as they are, so that backward transfer is zero to
    the bit; `SparseTraining` changes it. Which task a problem belongs to must be known. Optimizer and
    schedule begin anew with each task, and so do the counts and averages by which weights grow.

    Parameters
    ----------
    density : float
        Share of the weights that a task gets, in (0, 1]. The more tasks there will be, the less: what earlier
        tasks have, a later one can only read.
    distribution : {"uniform", "erk"}
        How they are shared out among the layers, as for `sparsify`.
    growth : {"gradient", "random", "unfired", "momentum"} or None
        By what new weights are chosen; None for masks that stay as they are drawn.
    every, drop, stop
        As of `SparseTraining`, in the steps of a task: with ``stop * steps`` of at most ``every`` no mask
        changes.
    names : tuple of str, optional
        Which weights get masks, as for `mask_weights`. The others each task has for itself.

    Raises
    ------
    ValueError
        A name or a number is not accepted; at the start of a stream also what `TaskMasks` refuses.

    References
    ----------
    Yildirim, Gok Yildirim, Sokar, Mocanu and Vanschoren, *Continual learning with dynamic sparse training:
    exploring algorithms for effective model updates*, CPAL 2024.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.problems.digit_streams import digit_loss, split_digits
    >>> from learnsolve.training import FitOptions
    >>> from learnsolve.training.continual import TaskStream, learn_stream
    >>> from learnsolve.training.isolated_masks import IsolatedMasks
    >>> network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    >>> stream = TaskStream(split_digits(5), digit_loss)
    >>> method = IsolatedMasks(density=0.2, every=10)
    >>> result = learn_stream(network, stream, method, FitOptions(steps=40, learning_rate=0.01))
    >>> result.scores.backward_transfer, 0.2 < result.learner.masks.used < 0.4
    (0.0, True)
    """

    name: ClassVar[str] = "masks"
    density: float = 0.1
    distribution: str = "uniform"
    growth: str | None = "gradient"
    every: int = 100
    drop: float = 0.5
    stop: float = 0.8
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"there is no distribution {self.distribution!r}; there are {', '.join(DISTRIBUTIONS)}"
            )
        if self.growth is not None and self.growth not in GROWTHS:
            raise ValueError(f"there is no growth {self.growth!r}; there are {', '.join(GROWTHS)} and None")
        for name in ("density", "drop", "stop"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a number in (0, 1] is accepted")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; at least 1 is accepted")

    def start(self, network: nn.Module, stream: TaskStream, options: FitOptions) -> "MaskLearner":
        return MaskLearner(self, network, stream, options)


class MaskLearner(Learner):
    """A stream by `IsolatedMasks`.

    Attributes
    ----------
    masks : TaskMasks
        Of the tasks so far: ``masks.used`` is the share of the weights that they have.
    sparse : SparseTraining or None
        What changes the mask of the task that is being learned, or was learned last.
    """

    method: IsolatedMasks

    def __init__(
        self, method: IsolatedMasks, network: nn.Module, stream: TaskStream, options: FitOptions
    ) -> None:
        super().__init__(method, network, stream, options)
        self.masks = TaskMasks(
            network, method.density, method.distribution, names=method.names, seed=options.seed
        )
        self.sparse: SparseTraining | None = None

    def begin(self, index: int) -> None:
        super().begin(index)
        method = self.method
        self.masks.begin(self.task.name)
        if method.growth is not None:
            self.sparse = SparseTraining(
                self.network,
                steps=self.options.steps,
                growth=method.growth,
                every=method.every,
                drop=method.drop,
                stop=method.stop,
                seed=seed_of(self.options.seed, "masks", index),
            )

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        if self.sparse is not None:
            self.sparse.begin_step()
        return super().loss(network, batch)

    def finish(self, result: FitResult) -> None:
        self.masks.keep()

    def network_for(self, index: int) -> nn.Module:
        """The one network, put to a task: that of an earlier call is changed by it.

        A task that is still to be learned has no mask; it is given the network of the latest that was
        learned, or before all of them the one to begin with.
        """
        name = self.stream.names[index]
        known = self.masks.tasks
        if known:
            self.masks.use(name if name in known else known[-1])
        return self.network
