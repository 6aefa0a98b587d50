"""Parts of one network for one task after the other: what an earlier task uses, a later one cannot change."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from learnsolve.training.masks import WeightMask, mask_weights
from learnsolve.training.seeding import seed_of
from learnsolve.training.sparse_training import draw_masks
from learnsolve.training.weights import mismatch


class TaskMask(WeightMask):
    """A mask on a weight of which parts belong to earlier tasks: those are read, and never trained.

    Attributes
    ----------
    frozen : bool Tensor
        Which entries belong to a task.
    kept : Tensor
        Their values.
    """

    frozen: Tensor
    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("frozen", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("kept", torch.zeros_like(weight.detach()))

    def unmasked(self, weight: Tensor) -> Tensor:
        """Values of earlier tasks where there are any, else the parameter."""
        return torch.where(self.frozen, self.kept, weight)

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> None:
        """Keep for good the entries that are not masked."""
        self.kept.copy_(torch.where(self.mask & ~self.frozen, weight, self.kept))
        self.frozen |= self.mask


class TaskMasks:
    """A network that learns tasks one after the other, and computes for an earlier one what it did.

    Each task has a mask over the weights, drawn at random, which `SparseTraining` may change while the task
    is learned. It may read weights of earlier tasks but not change them, whatever the optimizer does. All
    other parameters, so biases and normalisations, and all buffers, so running statistics, each task has
    for itself: they are few. Which task an input belongs to must be known. Each task starts from the
    network's initial weights where they are free. Backward transfer is therefore zero, to the bit.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place, and used as before.
    density : float
        Share of the weights that a task gets, in (0, 1]; those it shares with earlier tasks included.
    distribution : {"uniform", "erk"}
        How they are shared out among the layers, as for `sparsify`.
    names : iterable of str, optional
        Which weights get masks, as for `mask_weights`.
    seed : int
        Of the masks.

    Raises
    ------
    ValueError
        As `sparsify`, or the network has masks already.

    References
    ----------
    Yildirim, Gok Yildirim, Sokar, Mocanu and Vanschoren, *Continual learning with dynamic sparse training:
    exploring algorithms for effective model updates*, CPAL 2024. There biases and normalisations are shared.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training import FitOptions, fit
    >>> from learnsolve.training.task_masks import TaskMasks
    >>> network = torch.nn.Linear(8, 1)
    >>> tasks = TaskMasks(network, density=0.5)
    >>> def batches(number, generator):
    ...     return torch.randn(16, 8, generator=generator)
    >>> def learn(sign):
    ...     def loss(network, x):
    ...         return torch.nn.functional.mse_loss(network(x)[:, 0], sign * x.sum(1))
    ...     return fit(network, loss, batches, FitOptions(steps=20, learning_rate=0.1))
    >>> x = torch.ones(1, 8)
    >>> tasks.begin("sum"); result = learn(1); tasks.keep(); before = network(x)
    >>> tasks.begin("minus sum"); result = learn(-1); tasks.keep()
    >>> tasks.use("sum"); bool(network(x) == before)
    True
    """

    def __init__(
        self,
        network: nn.Module,
        density: float,
        distribution: str = "uniform",
        *,
        names: Iterable[str] | None = None,
        seed: int = 0,
    ) -> None:
        if any(isinstance(module, WeightMask) for module in network.modules()):
            raise ValueError("the network has masks already; remove_masks removes them")
        self.network, self.density, self.distribution, self.seed = network, density, distribution, seed
        self._masked = mask_weights(network, names, TaskMask)
        # Refuses a density that is too low before anything is learned.
        draw_masks(self._masked, density, distribution, seed)
        inside = {
            id(tensor) for one in self._masked.values() for tensor in (one.original, *one.mask.buffers())
        }
        everything = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self._own = {name: tensor for name, tensor in everything.items() if id(tensor) not in inside}
        self._initial = {name: one.original.detach().clone() for name, one in self._masked.items()}
        self._initial_own = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._learned: str | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that are kept, the first one first."""
        return tuple(self._kept)

    @property
    def used(self) -> float:
        """Share of the weights that belong to a task; at one, a new task can train its own biases alone."""
        frozen = [mask.frozen for mask in self._masks()]
        return sum(int(one.sum()) for one in frozen) / sum(one.numel() for one in frozen)

    @torch.no_grad()
    def begin(self, task: str) -> None:
        """Draw a mask for a new task, and put all that is free back to its initial value.

        Raises
        ------
        ValueError
            The task was learned before, or another one is being learned.
        """
        self._refuse_while_learning()
        if task in self._kept:
            raise ValueError(f"the task {task!r} was learned before: use it, or begin one of another name")
        draw_masks(self._masked, self.density, self.distribution, seed_of(self.seed, f"masks of {task}", 0))
        for name, one in self._masked.items():
            one.original.copy_(self._initial[name])
        for name, tensor in self._own.items():
            tensor.copy_(self._initial_own[name])
        self._learned = task

    @torch.no_grad()
    def keep(self) -> None:
        """End the learning of a task: nothing that it uses changes from here on.

        Raises
        ------
        ValueError
            No task is being learned.
        """
        if self._learned is None:
            raise ValueError("no task is being learned: begin one")
        for one, mask in zip(self._masked.values(), self._masks(), strict=True):
            mask.freeze(one.original)
        self._kept[self._learned] = {
            name: tensor.detach().clone() for name, tensor in self._current().items()
        }
        self._learned = None

    @torch.no_grad()
    def use(self, task: str) -> None:
        """Make the network the one of a task that was learned.

        Raises
        ------
        ValueError
            There is no such task, or one is being learned.
        """
        self._refuse_while_learning()
        if task not in self._kept:
            raise ValueError(f"there is no task {task!r}; there are {', '.join(self._kept) or 'none'}")
        for name, tensor in self._current().items():
            tensor.copy_(self._kept[task][name])

    def tensors(self) -> dict[str, Tensor]:
        """What all tasks have for themselves, for a file; the network's ``state_dict`` has the weights."""
        return {
            f"{task}|{name}": tensor for task, kept in self._kept.items() for name, tensor in kept.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave, for a network of the same ``state_dict``.

        Raises
        ------
        ValueError
            The tensors are not those of tasks of such a network.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            task, _, name = key.rpartition("|")
            found.setdefault(task, {})[name] = tensor
        for task, kept in found.items():
            what = mismatch(self._current(), kept)
            if what is not None:
                raise ValueError(f"the task {task!r} {what}")
        self._kept, self._learned = found, None

    def _masks(self) -> list[TaskMask]:
        return [one.mask for one in self._masked.values() if isinstance(one.mask, TaskMask)]

    def _current(self) -> dict[str, Tensor]:
        """The masks and all that is not masked, as they are in the network now."""
        masks = {f"mask of {name}": one.mask.mask for name, one in self._masked.items()}
        return masks | self._own

    def _refuse_while_learning(self) -> None:
        if self._learned is not None:
            raise ValueError(f"the task {self._learned!r} is being learned: keep it first")
