"""The processes that train together under ``torch.distributed``; one where it is not initialised."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


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

    def wrapped(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network with its gradients averaged over the processes."""
        return DistributedDataParallel(network) if self.count > 1 else network

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
