"""First-order recurrences on a grid in plain torch, a wavefront at a time: what the other form must equal.

Shapes are those of `learnsolve.kernels.plane`.
"""

import torch
from torch import Tensor


def plane(across: Tensor, down: Tensor, b: Tensor) -> Tensor:
    """``x[v, t] = across[v, t] x[v, t - 1] + down[v, t] x[v - 1, t] + b[v, t]``.

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> plane(one, one, one)[0, ..., 0].tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """
    rows, columns = b.shape[1:3]
    # A frame of zeros before the first row and column; of what leaves the grid nothing is read.
    x = b.new_zeros(b.shape[0], rows + 1, columns + 1, b.shape[3])
    for front in range(rows + columns - 1):
        v = torch.arange(max(0, front - columns + 1), min(rows, front + 1), device=b.device)
        t = front - v
        x[:, v + 1, t + 1] = b[:, v, t] + across[:, v, t] * x[:, v + 1, t] + down[:, v, t] * x[:, v, t + 1]
    return x[:, 1:, 1:]


def plane_adjoint(across: Tensor, down: Tensor, y: Tensor) -> Tensor:
    """The adjoint: ``z[v, t] = y[v, t] + across[v, t + 1]* z[v, t + 1] + down[v + 1, t]* z[v + 1, t]``.

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> plane_adjoint(one, one, one)[0, ..., 0].tolist()
    [[5.0, 2.0], [2.0, 1.0]]
    """
    # The same recurrence from the last corner on, where coefficients come a place later.
    across = torch.nn.functional.pad(across[:, :, 1:].conj(), (0, 0, 0, 1))
    down = torch.nn.functional.pad(down[:, 1:].conj(), (0, 0, 0, 0, 0, 1))
    return plane(across.flip(1, 2), down.flip(1, 2), y.flip(1, 2)).flip(1, 2)
