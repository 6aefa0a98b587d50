"""The processes that train together under ``torch.distributed``; one where it is not initialised."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from learnsolve.training.options import FitOptions
from learnsolve.training.run_folder import parts_begun_with


def part_of(name: str) -> int | None:
    """The part that a tensor belongs to by its name, ``part<i>.*``; None for those of no part.

    Examples
    --------
    >>> part_of("part3.alpha"), part_of("alpha")
    (3, None)
    """
    first, dot, _ = name.partition(".")
    number = first.removeprefix("part")
    return int(number) if dot and first.startswith("part") and number.isdecimal() else None


class Processes:
    """How many processes there are, which this one is, and what they agree on.

    Parameters
    ----------
    device : torch.device
        Where tensors must be for the processes to exchange them.
    """

    def __init__(self, device: torch.device) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        self.device = device
        self.count = dist.get_world_size() if distributed else 1
        self.rank = dist.get_rank() if distributed else 0

    def parts(self, parts: int) -> range:
        """Which parts of a step's batch are this process's.

        Raises
        ------
        ValueError
            They cannot be shared evenly.
        """
        if parts % self.count:
            raise ValueError(
                f"a step's batch has {parts} parts, which {self.count} processes cannot share; take a number "
                "of processes that divides it, or a run of other parts"
            )
        return range(self.rank, parts, self.count)

    def from_owners(self, tensors: Mapping[str, Tensor]) -> None:
        """Let every process have tensors named ``part<i>.*`` as the process of part i has them."""
        if self.count == 1:
            return
        for name in sorted(tensors):
            owner = part_of(name)
            if owner is not None:
                there = tensors[name].to(self.device, copy=True)
                dist.broadcast(there, owner % self.count)
                tensors[name].copy_(there)

    def wrapped(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network with its gradients averaged over the processes."""
        if self.count == 1:
            return network
        # Some networks have weights that some options leave without a use.
        return DistributedDataParallel(network, find_unused_parameters=True)

    def alone(self, wrapped: torch.nn.Module) -> AbstractContextManager[None]:
        """A while in which gradients of a `wrapped` network add up here, and are not averaged yet."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is raised on any process."""
        if self.count == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.float64, device=self.device)
        return tuple(value > 0 for value in self.mean(raised).tolist())

    def wait(self) -> None:
        """Until all processes are here: what one wrote before, the others can read after."""
        self.any_of(False)


def with_parts(options: FitOptions, folder: str | os.PathLike | None) -> FitOptions:
    """Options that say of how many parts a batch is: as in the folder's run, or as there are processes.

    Examples
    --------
    >>> from learnsolve.training import FitOptions, with_parts
    >>> with_parts(FitOptions(steps=10), None).parts
    1
    """
    if options.parts:
        return options
    begun = None if folder is None else parts_begun_with(folder)
    return replace(options, parts=begun or Processes(torch.device("cpu")).count)
