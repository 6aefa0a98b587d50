"""How much each weight of a network matters to what it has learned."""

import copy

import torch
from torch import Tensor, nn

from learnsolve.training.fit import Batches, Loss
from learnsolve.training.seeding import seed_of, seeded


def squared_gradients(
    network: nn.Module, loss: Loss, batches: Batches, count: int, seed: int = 0
) -> dict[str, Tensor]:
    """How much each weight matters to a loss: the mean over batches of the squared gradient.

    For a negative log-likelihood and batches of one example this is the diagonal of the empirical Fisher
    information. A loss that is the mean over B examples gives about a B-th of it.

    Parameters
    ----------
    network : torch.nn.Module
        Used in evaluation mode; neither it nor its gradients are changed.
    loss, batches
        As of `learnsolve.training.fit`.
    count : int
        Batches.
    seed : int

    Returns
    -------
    dict of str to Tensor
        For each parameter that requires a gradient, by its name.

    Raises
    ------
    ValueError
        ``count`` is not positive.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.weight_importance import squared_gradients
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> found = squared_gradients(
    ...     network, lambda network, x: network(x).sum(), lambda n, g: torch.tensor([[n + 1.0]]), count=2
    ... )
    >>> found["weight"].item()
    2.5
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least 1 is accepted")
    judged = copy.deepcopy(network).eval()
    weights = {name: weight for name, weight in judged.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for number in range(count):
        generator = torch.Generator().manual_seed(seed_of(seed, "importance", number))
        with seeded(seed_of(seed, "importance loss", number), next(iter(weights.values())).device):
            value = loss(judged, batches(number, generator))
        gradients = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
        for name, gradient in zip(weights, gradients, strict=True):
            sums[name] += gradient.square() / count
    return sums
