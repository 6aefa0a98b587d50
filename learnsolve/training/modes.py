"""Training and evaluation mode, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def mode(network: torch.nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode for a while; afterwards each module has its own back.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.modes import mode
    >>> network = torch.nn.Dropout()
    >>> with mode(network, training=False):
    ...     network.training
    False
    >>> network.training
    True
    """
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        yield
    finally:
        for module, own in modes.items():
            module.training = own
