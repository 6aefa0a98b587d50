"""Hypernetworks: one small network that writes the weights of another, for each task its own."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from learnsolve.training.seeding import seed_of, seeded

GENERATORS = ("lstm", "mlp")


class Hypernetwork(nn.Module):
    """A network whose weights another one writes, for each task from a vector of the task's own.

    The weights of the target, in one vector in the order of ``target.named_parameters()``, are cut into
    chunks k = 1..K. With the vector ``e`` of the task and ``c_k`` of the chunk, both learned, a chunk is ::

        w_k = w0_k + V s_k + b,   s_k = LSTM([e, c_k], s_(k-1))   ("lstm")
                                  s_k = MLP([e, c_k])             ("mlp")

    With "lstm" each chunk depends on those before it, and layers on the layers before them. ``w0`` are the
    weights of the target as it is given, and stay as they are. V and b begin with zeros: every task begins
    with the target as it is given.

    Parameters
    ----------
    target : torch.nn.Module
        It is copied. Buffers, and parameters that require no gradient, are shared by all tasks.
    tasks : int
        How many vectors ``e`` there are; `add_task` adds one.
    generator : {"lstm", "mlp"}
        The MLP has two layers of tanh.
    hidden : int
        Units of the LSTM, or of each layer of the MLP.
    embedding : int
        Length of ``e`` and of each ``c_k``.
    chunk : int
        Weights in a chunk; the last chunk is cut where the target ends.
    seed : int
        Of the initial weights.

    Attributes
    ----------
    task : int
        For which task `forward` writes weights; zero at first.
    weights_written : int
        How many a task has.

    Raises
    ------
    ValueError
        A number is too small; there is no such generator; no parameter of the target requires a gradient, or
        those that do are not of one real dtype on one device; or the target has running statistics, which
        each task would take over from the one before.

    References
    ----------
    Chandra, Varshney, Srijith and Gupta, *Continual learning with dependency preserving hypernetworks*, WACV
    2023: recurrent generators, importance in the regulariser, and growth. Only its abstract was at hand: the
    equations here and in `drift` and `grow` are our own.

    von Oswald, Henning, Sacramento and Grewe, *Continual learning with hypernetworks*, ICLR 2020: chunks, and
    the regulariser.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.hypernetwork import Hypernetwork
    >>> target = torch.nn.Linear(3, 1)
    >>> network = Hypernetwork(target, tasks=2, hidden=8, embedding=4, chunk=2)
    >>> network.task = 1
    >>> bool((network(torch.ones(5, 3)) == target(torch.ones(5, 3))).all())
    True
    """

    def __init__(
        self,
        target: nn.Module,
        tasks: int,
        *,
        generator: str = "lstm",
        hidden: int = 40,
        embedding: int = 16,
        chunk: int = 150,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"tasks": tasks, "hidden": hidden, "embedding": embedding, "chunk": chunk}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; at least 1 is accepted")
        if generator not in GENERATORS:
            raise ValueError(f"there is no generator {generator!r}; there are {', '.join(GENERATORS)}")
        written = _written(target)
        self.shapes = {name: parameter.shape for name, parameter in written.items()}
        self.weights_written = sum(shape.numel() for shape in self.shapes.values())
        self.kind, self.hidden, self.seed, self.task = generator, hidden, seed, 0
        self.template = copy.deepcopy(target).requires_grad_(False)
        count = -(-self.weights_written // chunk)
        with self._seeded("vectors", 0):
            self.task_vectors = nn.ParameterList(self._vectors(1, embedding)[0] for _ in range(tasks))
            self.chunk_vectors = nn.Parameter(self._vectors(count, embedding))
        with self._seeded("units", 0):
            self.generator, self.head = self._layers(2 * embedding, hidden, chunk)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the target answers with the weights of `task`."""
        return functional_call(self.template, self.weights(self.task), inputs, options)

    def weights(self, task: int) -> dict[str, Tensor]:
        """The weights of a task, by the names of the target's parameters.

        Parameters
        ----------
        task : int

        Returns
        -------
        dict of str to Tensor
            As functions of the trained parameters, with gradients.

        Raises
        ------
        ValueError
            There is no such task.
        """
        parts = self.flat_weights([task])[0].split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def flat_weights(self, tasks: Sequence[int]) -> Tensor:
        """The weights of several tasks, each in one vector.

        Parameters
        ----------
        tasks : sequence of int
            At least one.

        Returns
        -------
        (tasks, weights_written) Tensor

        Raises
        ------
        ValueError
            There is no such task.
        """
        return self._written_for(self._vectors_of(tasks))

    def target(self, task: int) -> nn.Module:
        """A plain network with the weights of a task, to keep or to train further.

        Parameters
        ----------
        task : int

        Returns
        -------
        torch.nn.Module
            A copy of the target; the parameters that are written require gradients.

        Raises
        ------
        ValueError
            There is no such task.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.training.hypernetwork import Hypernetwork
        >>> Hypernetwork(torch.nn.Linear(3, 1), tasks=1).target(0)
        Linear(in_features=3, out_features=1, bias=True)
        """
        plain = copy.deepcopy(self.template)
        with torch.no_grad():
            for name, values in self.weights(task).items():
                plain.get_parameter(name).copy_(values).requires_grad_()
        return plain

    def drift(self, before: Tensor, importance: Tensor | None = None) -> Tensor:
        """How far the weights of the first J tasks are from what they were: the output regulariser.

        The mean over tasks j = 1..J of ``sum_i F_ji (w_ji - w*_ji)^2``. No gradient goes to the vectors of
        tasks: what is kept are the weights that they stand for.

        Parameters
        ----------
        before : (J, weights_written) Tensor
            ``w*``, as `flat_weights` gave them for tasks 0 to J - 1.
        importance : (J, weights_written) Tensor, optional
            F; by default ones.

        Returns
        -------
        () Tensor

        Raises
        ------
        ValueError
            A tensor has another shape, or there are not so many tasks.

        References
        ----------
        von Oswald, Henning, Sacramento and Grewe, *Continual learning with hypernetworks*, ICLR 2020, without
        the look one step ahead.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.training.hypernetwork import Hypernetwork
        >>> network = Hypernetwork(torch.nn.Linear(3, 1), tasks=2)
        >>> before = network.flat_weights([0]).detach()
        >>> network.drift(before).item(), round(network.drift(before + 1).item(), 5)
        (0.0, 4.0)
        """
        wanted = (len(before), self.weights_written)
        for name, tensor in (("before", before), ("importance", importance)):
            if tensor is not None and tensor.shape != wanted:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; {wanted} is accepted")
        squares = (self._written_for(self._vectors_of(range(len(before))).detach()) - before).square()
        return (squares if importance is None else importance * squares).sum() / len(before)

    def add_task(self) -> int:
        """One task more, with a vector of its own.

        Returns
        -------
        int
            Its number.
        """
        number = len(self.task_vectors)
        with self._seeded("vectors", number):
            self.task_vectors.append(self._vectors(1, self.chunk_vectors.shape[1])[0])
        return number

    def grow(self, units: int) -> None:
        """Widen the generator; what it writes for every task stays the same up to rounding.

        The new units hear all units, and their weights towards them are drawn anew. Nothing leads from
        them to the old units or to the head: these weights begin with zeros and are then learned.
        Optimizers that were made before do not know the new parameters.

        Parameters
        ----------
        units : int
            How many, in the LSTM or in each layer of the MLP.

        Raises
        ------
        ValueError
            ``units`` is not positive.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.training.hypernetwork import Hypernetwork
        >>> network = Hypernetwork(torch.nn.Linear(3, 1), tasks=1, hidden=8)
        >>> network.grow(4)
        >>> network.hidden, network.head.in_features
        (12, 12)
        """
        if units < 1:
            raise ValueError(f"units is {units}; at least 1 is accepted")
        inputs, chunk = 2 * self.chunk_vectors.shape[1], self.head.out_features
        with self._seeded("units", self.hidden):
            generator, head = self._layers(inputs, self.hidden + units, chunk)
        blocks = 4 if self.kind == "lstm" else 1
        with torch.no_grad():
            for old, new in zip(self.generator.parameters(), generator.parameters(), strict=True):
                _put_first(old.unflatten(0, (blocks, -1)), new.unflatten(0, (blocks, -1)))
            for old, new in zip(self.head.parameters(), head.parameters(), strict=True):
                _put_first(old[None], new[None])
        self.generator, self.head, self.hidden = generator, head, self.hidden + units

    def _vectors_of(self, tasks: Sequence[int]) -> Tensor:
        """The vectors of tasks, one below the other."""
        for task in tasks:
            if not 0 <= task < len(self.task_vectors):
                raise ValueError(f"there is no task {task}; there are {len(self.task_vectors)}, from 0 on")
        return torch.stack([self.task_vectors[task] for task in tasks])

    def _written_for(self, vectors: Tensor) -> Tensor:
        """The weights that belong to vectors of tasks."""
        chunks = self.chunk_vectors.expand(len(vectors), -1, -1)
        given = torch.cat((vectors[:, None].expand_as(chunks), chunks), dim=2)
        states = self.generator(given)
        changes = self.head(states[0] if self.kind == "lstm" else states).flatten(1)
        first = torch.cat([self.template.get_parameter(name).flatten() for name in self.shapes])
        return first + changes[:, : self.weights_written]

    def _layers(self, inputs: int, hidden: int, chunk: int) -> tuple[nn.Module, nn.Linear]:
        """Generator and head, with random weights."""
        generator = (
            nn.LSTM(inputs, hidden, batch_first=True)
            if self.kind == "lstm"
            else nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        )
        return generator.to(self._like), nn.Linear(hidden, chunk).to(self._like)

    def _vectors(self, count: int, length: int) -> Tensor:
        """Random vectors."""
        return torch.randn(count, length).to(self._like)

    def _seeded(self, purpose: str, number: int) -> AbstractContextManager[None]:
        """Torch's generators seeded for one purpose."""
        return seeded(seed_of(self.seed, f"hypernetwork {purpose}", number), self._like.device)

    @property
    def _like(self) -> Tensor:
        """A parameter of the dtype and on the device of all."""
        return self.template.get_parameter(next(iter(self.shapes)))


def _written(target: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a target that are written; raises if they or its buffers cannot be."""
    for name, module in target.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise ValueError(
                f"the target's {name or type(module).__name__} has running statistics, which each task would "
                "take over from the one before: make it with track_running_stats=False, or use GroupNorm"
            )
    written = {name: parameter for name, parameter in target.named_parameters() if parameter.requires_grad}
    if not written:
        raise ValueError("the target has no parameter that requires a gradient: there is nothing to write")
    kinds = {(parameter.dtype, parameter.device) for parameter in written.values()}
    if len(kinds) > 1 or next(iter(kinds))[0].is_complex:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"the target's parameters are {found}; one real dtype on one device is accepted")
    return written


def _put_first(old: Tensor, new: Tensor) -> None:
    """In each block the old units' weights, zeros after them, and what the new units begin with below."""
    new[:, : old.shape[1]] = 0
    new[tuple(slice(size) for size in old.shape)] = old
