"""Two coupled recurrences on a grid in plain torch, a wavefront at a time: what the other forms must equal.

Shapes are those of `learnsolve.kernels.coupled_plane`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


@torch.no_grad()
def coupled_plane(a: Sequence[Tensor], b: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``h1`` follows both along the columns, and ``h2`` both along the rows.

    Examples
    --------
    >>> one, none = torch.ones(1, 2, 2, 1), torch.zeros(1, 2, 1)
    >>> h1, h2 = coupled_plane([one] * 4, [one] * 2, [none] * 2)
    >>> h1[0, ..., 0].tolist(), h2[0, ..., 0].tolist()
    ([[1.0, 3.0], [1.0, 5.0]], [[1.0, 1.0], [3.0, 5.0]])
    """
    groups, rows, columns, channels = b[0].shape
    # A frame before the first row and column: zeros, and what was there.
    h1, h2 = (one.new_zeros(groups, rows + 1, columns + 1, channels) for one in b)
    h1[:, 1:, 0], h2[:, 1:, 0] = first
    for v, t in _fronts(rows, columns, b[0].device):
        left, above = (slice(None), v + 1, t), (slice(None), v, t + 1)
        along = a[0][:, v, t] * h1[left] + a[1][:, v, t] * h2[left] + b[0][:, v, t]
        h2[:, v + 1, t + 1] = a[2][:, v, t] * h1[above] + a[3][:, v, t] * h2[above] + b[1][:, v, t]
        h1[:, v + 1, t + 1] = along
    return h1[:, 1:, 1:], h2[:, 1:, 1:]


@torch.no_grad()
def coupled_plane_adjoint(a: Sequence[Tensor], y: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The adjoint, from the last row and column on.

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> z1, z2 = coupled_plane_adjoint([one] * 4, [one] * 2)
    >>> z1[0, ..., 0].tolist(), z2[0, ..., 0].tolist()
    ([[5.0, 2.0], [2.0, 1.0]], [[5.0, 2.0], [2.0, 1.0]])
    """
    groups, rows, columns, channels = y[0].shape
    # Coefficients come a place later; beyond the last row and column there is nothing.
    across = [pad(one[:, :, 1:].conj(), (0, 0, 0, 1)) for one in a[:2]]
    down = [pad(one[:, 1:].conj(), (0, 0, 0, 0, 0, 1)) for one in a[2:]]
    z1, z2 = (one.new_zeros(groups, rows + 1, columns + 1, channels) for one in y)
    for v, t in reversed(list(_fronts(rows, columns, y[0].device))):
        right, below = z1[:, v, t + 1], z2[:, v + 1, t]
        z1[:, v, t] = y[0][:, v, t] + across[0][:, v, t] * right + down[0][:, v, t] * below
        z2[:, v, t] = y[1][:, v, t] + across[1][:, v, t] * right + down[1][:, v, t] * below
    return z1[:, :rows, :columns], z2[:, :rows, :columns]


def _fronts(rows: int, columns: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Places that do not wait for each other, from the first corner on."""
    if rows and columns:
        for front in range(rows + columns - 1):
            v = torch.arange(max(0, front - columns + 1), min(rows, front + 1), device=device)
            yield v, front - v
