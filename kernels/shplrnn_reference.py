"""Shallow piecewise-linear maps in plain torch, a time at a time: what the other forms must equal.

Shapes are those of `learnsolve.kernels.shplrnn`.
"""

import torch
from torch import Tensor


def step(weights: tuple[Tensor, ...], z: Tensor, clipped: bool) -> Tensor:
    """One time of states (..., M), differentiable.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> step((one / 2, torch.ones(1, 1), torch.ones(1, 1), 0 * one, one), torch.tensor([[2.0]]), True)
    tensor([[2.]])
    """
    a, w1, w2, h1, h2 = weights
    sums = z @ w2.mT
    active = torch.relu(sums + h2)
    if clipped:
        active = active - torch.relu(sums)
    return a * z + active @ w1.mT + h1


def orbit(
    weights: tuple[Tensor, ...],
    first: Tensor,
    targets: Tensor,
    drive: Tensor,
    alpha: float,
    every: int,
    clipped: bool,
    length: int,
) -> Tensor:
    """States of all times, differentiable.

    Examples
    --------
    >>> one, none = torch.ones(1), torch.zeros(1, 0, 1)
    >>> half = (one / 2, torch.zeros(1, 1), torch.zeros(1, 1), 0 * one, one)
    >>> orbit(half, torch.ones(1, 1), none, none, 0.0, 1, True, 3).flatten().tolist()
    [0.5, 0.25, 0.125]
    """
    z, out = first, []
    for t in range(length):
        z = step(weights, z, clipped)
        if drive.shape[1]:
            z = z + drive[:, t]
        out.append(z)
        if targets.shape[1] and (t + 1) % every == 0:
            target = targets[:, t]
            z = torch.where(target.isnan(), z, (1 - alpha) * z + alpha * target.nan_to_num())
    return torch.stack(out, 1) if out else first[:, None][:, :0]


def jacobian(weights: tuple[Tensor, ...], z: Tensor, clipped: bool) -> Tensor:
    """``diag(a) + w1 diag(slopes) w2`` at each of the states (..., M).

    Examples
    --------
    >>> one = torch.ones(1)
    >>> plain = (one / 2, torch.ones(1, 1), torch.ones(1, 1), 0 * one, one)
    >>> jacobian(plain, torch.tensor([[1.0], [-2.0]]), False).flatten().tolist()
    [1.5, 0.5]
    """
    a, w1, w2, _, h2 = weights
    sums = z @ w2.mT
    slopes = (sums + h2 > 0).to(z.dtype)
    if clipped:
        slopes = slopes - (sums > 0).to(z.dtype)
    return torch.diag_embed(a.expand(z.shape)) + (w1 * slopes.unsqueeze(-2)) @ w2


def exponents(
    weights: tuple[Tensor, ...], first: Tensor, frame: Tensor, transient: int, steps: int, clipped: bool
) -> Tensor:
    """Sums of the logarithms of what directions, the rows of ``frame`` (count, M), are stretched by.

    Examples
    --------
    >>> none = torch.zeros(2, 2)
    >>> map = (torch.tensor([2.0, 0.5]), none, none, torch.zeros(2), torch.zeros(2))
    >>> exponents(map, torch.zeros(2), torch.eye(2), 0, 10, True) / 10
    tensor([ 0.6931, -0.6931])
    """
    z, Q, total = first, frame.mT, frame.new_zeros(len(frame))
    for t in range(transient + steps):
        Q, R = torch.linalg.qr(jacobian(weights, z, clipped) @ Q)
        z = step(weights, z, clipped)
        if t >= transient:
            total = total + R.diagonal().abs().log()
    return total
