"""First-order recurrences by cyclic reduction, in plain torch: for devices that no compiled form serves.

Every second unknown is eliminated until one is left, in about 2 log2 of the time's length vectorized steps
and twice the work of a loop; no coefficient is divided by, so that any sign, and zero, will do. Shapes are
those of `learnsolve.kernels.recurrence`.

References
----------
Hockney, *A fast direct solution of Poisson's equation using Fourier analysis*, Journal of the ACM 12, 1965,
section 4; Blelloch, *Prefix sums and their applications*, CMU-CS-90-190, 1990, section 1.4.
"""

import torch
from torch import Tensor


def solved(a: Tensor, b: Tensor) -> Tensor:
    """``x[t] = a[t] x[t - 1] + b[t]`` along the second axis, from ``x[0] = b[0]`` on.

    Examples
    --------
    >>> solved(torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    length = b.shape[1]
    if length < 2:
        return b
    whole = length // 2 * 2
    odd = solved(
        a[:, 1:whole:2] * a[:, 0:whole:2], a[:, 1:whole:2] * b[:, 0:whole:2] + b[:, 1:whole:2]
    )  # fmt: skip
    x = torch.empty_like(b)
    x[:, 1:whole:2], x[:, :1] = odd, b[:, :1]
    x[:, 2::2] = a[:, 2::2] * odd[:, : x[:, 2::2].shape[1]] + b[:, 2::2]
    return x


@torch.no_grad()
def diagonal(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """``x[t] = a[t] x[t - 1] + b[t]`` of each sequence, and its last value.

    Examples
    --------
    >>> a, b = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> diagonal(a, b, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))[1].item()
    1.75
    """
    a, b, last = a.expand(b.shape).clone(), b.clone(), first.clone()
    full = pieces[:, 2] > pieces[:, 1]
    group, begin, end = pieces[full].unbind(1)
    # A sequence begins where nothing before it counts.
    b[group, begin] += a[group, begin] * first[full]
    a[group, begin] = 0
    x = solved(a, b)
    last[full] = x[group, end - 1]
    return x, last


@torch.no_grad()
def diagonal_adjoint(a: Tensor, y: Tensor, beyond: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint: ``z[t] = y[t] + conj(a[t + 1]) z[t + 1]``, and ``conj(a[0]) z[0]``.

    Examples
    --------
    >>> a, y = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> diagonal_adjoint(a, y, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))[1].item()
    0.875
    """
    a, y, before = a.expand(y.shape).conj(), y.clone(), beyond.clone()
    full = pieces[:, 2] > pieces[:, 1]
    group, begin, end = pieces[full].unbind(1)
    y[group, end - 1] += beyond[full]
    following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1).resolve_conj()
    following[group, end - 1] = 0
    z = solved(following.flip(1), y.flip(1)).flip(1)
    before[full] = a[group, begin] * z[group, begin]
    return z, before
