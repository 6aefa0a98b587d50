"""RAdam over all parameters as one vector: of few and small tensors, calls cost more than sums."""

from typing import Any

import torch
from torch import Tensor, nn


class JoinedRAdam(torch.optim.RAdam):
    """RAdam, whose moments are those of the vector of all parameters.

    Parameters
    ----------
    parameters : list of nn.Parameter
        Of one dtype, on one device. One without a gradient counts as of a zero gradient.
    **options
        Of `torch.optim.RAdam`.

    References
    ----------
    L. Liu and others, *On the variance of the adaptive learning rate and beyond*, ICLR 2020.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.joined import JoinedRAdam
    >>> network = torch.nn.Linear(2, 1)
    >>> network(torch.ones(1, 2)).sum().backward()
    >>> JoinedRAdam(list(network.parameters()), lr=0.1).step()
    """

    def __init__(self, parameters: list[nn.Parameter], **options: Any) -> None:
        self.parts = parameters
        super().__init__([nn.Parameter(self._vector())], foreach=False, **options)

    def _vector(self) -> Tensor:
        return torch.cat([one.detach().flatten() for one in self.parts])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters, from where they are now."""
        vector = self.param_groups[0]["params"][0]
        vector.copy_(self._vector())
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parts]
        vector.grad = torch.cat([one.flatten() for one in grads])
        loss = super().step(closure)
        for part, new in zip(self.parts, vector.split([one.numel() for one in self.parts]), strict=True):
            part.copy_(new.view_as(part))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        for part in self.parts:
            part.grad = None
