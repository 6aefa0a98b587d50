"""RAdam over all parameters as one vector: of few and small tensors, calls cost more than sums."""

import math
from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8


class JoinedRAdam(torch.optim.Optimizer):
    """What `torch.optim.RAdam` does, with moments of the vector of all parameters.

    Parameters
    ----------
    parameters : list of nn.Parameter
        Of one dtype, on one device. One without a gradient counts as of a zero gradient.
    lr : float
    weight_decay : float
        Added to the gradient.

    References
    ----------
    L. Liu and others, *On the variance of the adaptive learning rate and beyond*, ICLR 2020, algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.joined import JoinedRAdam
    >>> network = torch.nn.Linear(2, 1)
    >>> network(torch.ones(1, 2)).sum().backward()
    >>> JoinedRAdam(list(network.parameters()), lr=0.1).step()
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.parts = parameters
        super().__init__([nn.Parameter(self._vector())], {"lr": lr, "weight_decay": weight_decay})

    def _vector(self) -> Tensor:
        return torch.cat([one.detach().flatten() for one in self.parts])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters, from where they are now."""
        loss = None if closure is None else closure()
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        vector = self._vector()
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parts]
        gradient = torch.cat([one.flatten() for one in grads])
        if group["weight_decay"]:
            gradient.add_(vector, alpha=group["weight_decay"])
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(vector), torch.zeros_like(vector)
        state["step"] += 1
        t, mean, squares = int(state["step"]), state["exp_avg"], state["exp_avg_sq"]
        one, other = BETAS
        mean.lerp_(gradient, 1 - one)
        squares.mul_(other).addcmul_(gradient, gradient, value=1 - other)
        rate = group["lr"] / (1 - one**t)
        longest = 2 / (1 - other) - 1
        length = longest - 2 * t * other**t / (1 - other**t)
        if length > 5:
            above = (length - 4) * (length - 2) * longest
            rectified = math.sqrt(above / ((longest - 4) * (longest - 2) * length) * (1 - other**t))
            vector.addcdiv_(mean, squares.sqrt().add_(EPSILON), value=-rate * rectified)
        else:
            vector.add_(mean, alpha=-rate)
        for part, new in zip(self.parts, vector.split([one.numel() for one in self.parts]), strict=True):
            part.copy_(new.view_as(part))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        for part in self.parts:
            part.grad = None
