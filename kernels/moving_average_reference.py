"""Sums of exponential moving averages in plain torch, a time at a time: what the other forms must equal.

Shapes are those of `learnsolve.kernels.moving_average`.
"""

import torch
from torch import Tensor


def average(x: Tensor, q: Tensor, c: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """``h[t] = q h[t - 1] + x[t]`` of each state, ``y[t] = sum of c h[t]``, and the last states.

    Examples
    --------
    >>> x, half = torch.ones(1, 3, 1), torch.full((1, 1), 0.5)
    >>> y, last = average(x, half, 2 * half, torch.zeros(1, 1, 1), torch.tensor([[0, 0, 3]]))
    >>> y.flatten().tolist(), last.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    y, last = torch.zeros_like(x), []
    for h, (group, begin, end) in zip(first, pieces.tolist(), strict=True):
        for t in range(begin, end):
            h = q * h + x[group, t]
            y = y.index_put((torch.tensor(group), torch.tensor(t)), (c * h).sum(0))
        last.append(h)
    return y, torch.stack(last) if last else first
