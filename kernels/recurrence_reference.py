"""First-order recurrences in plain torch, step by step: short, slow, and what the other forms must equal.

Shapes are those of `learnsolve.kernels.recurrence`. Gradients go through.
"""

import torch
from torch import Tensor


def diagonal(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """``x[t] = a[t] x[t - 1] + b[t]`` of each sequence, and its last value.

    Examples
    --------
    >>> a, b = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> x, last = diagonal(a, b, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))
    >>> x.flatten().tolist(), last.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    a = a.expand(b.shape)
    found, last = {}, []
    for number, (group, begin, end) in enumerate(pieces.tolist()):
        x = first[number]
        for t in range(begin, end):
            x = a[group, t] * x + b[group, t]
            found[group, t] = x
        last.append(x)
    groups, length, channels = b.shape
    rows = [found.get((group, t), b.new_zeros(channels)) for group in range(groups) for t in range(length)]
    whole = torch.stack(rows).reshape(b.shape) if rows else b.clone()
    return whole, torch.stack(last) if last else first


def diagonal_adjoint(a: Tensor, y: Tensor, beyond: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint: ``z[t] = y[t] + conj(a[t + 1]) z[t + 1]``, and ``conj(a[0]) z[0]``.

    Examples
    --------
    >>> a, y = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> z, before = diagonal_adjoint(a, y, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))
    >>> z.flatten().tolist(), before.item()
    ([1.75, 1.5, 1.0], 0.875)
    """
    a = a.expand(y.shape)
    found, before = {}, []
    for number, (group, begin, end) in enumerate(pieces.tolist()):
        carried = beyond[number]
        for t in range(end - 1, begin - 1, -1):
            found[group, t] = y[group, t] + carried
            carried = a[group, t].conj() * found[group, t]
        before.append(carried)
    groups, length, channels = y.shape
    rows = [found.get((group, t), y.new_zeros(channels)) for group in range(groups) for t in range(length)]
    whole = torch.stack(rows).reshape(y.shape) if rows else y.clone()
    return whole, torch.stack(before) if before else beyond
