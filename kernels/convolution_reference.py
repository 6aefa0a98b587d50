"""Causal convolutions of each channel in plain torch: short, slow, and what the other forms must equal.

Shapes are those of `learnsolve.kernels.convolution`. Gradients go through.
"""

import torch
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, first: Tensor, pieces: Tensor, dilation: int) -> Tensor:
    """``y[t] = sum of weight[j] x[t - j dilation]``, where ``first`` stands before a sequence.

    Examples
    --------
    >>> x, weight = torch.tensor([1.0, 2, 3]).reshape(1, 3, 1), torch.tensor([[1.0], [10.0]])
    >>> convolve(x, weight, torch.zeros(1, 1, 1), torch.tensor([[0, 0, 3]]), 1).flatten().tolist()
    [1.0, 12.0, 23.0]
    """
    span = first.shape[1]
    found = {}
    for number, (group, begin, end) in enumerate(pieces.tolist()):
        whole = torch.cat([first[number], x[group, begin:end]])
        y = torch.zeros_like(x[group, begin:end])
        for j in range(len(weight)):
            y = y + weight[j] * whole[span - j * dilation : span - j * dilation + end - begin]
        found[group, begin] = y
    groups = [torch.cat([y for (g, _), y in found.items() if g == group]) for group in range(len(x))]
    return torch.stack(groups) if groups else x.clone()
