"""First-order recurrences: each call goes to the form that suits the tensors' device.

On the CPU that is numba's; on a GPU, for real numbers, Triton's; else cyclic reduction in torch. Nothing
is recorded for differentiation. Shapes: ``b`` and results (groups, time, channels); ``a`` likewise, or with
one group or one time for all; ``pieces`` (n, 3), of each sequence its group, first time, and last time and
one; states (n, channels).
"""

import torch
from torch import Tensor

from learnsolve.kernels import forms, recurrence_cyclic
from learnsolve.kernels.memory import inputs, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def diagonal(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """``x[t] = a[t] x[t - 1] + b[t]`` of each sequence, and its last value.

    Examples
    --------
    >>> a, b = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> diagonal(a, b, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))[1].item()
    1.75
    """
    if forms.by_triton(b):
        from learnsolve.kernels import recurrence_triton

        return recurrence_triton.diagonal(a, b, first, pieces)
    if not forms.by_numba(b, _NUMBA):
        return recurrence_cyclic.diagonal(a, b, first, pieces)
    from learnsolve.kernels import recurrence_numba

    out, last = torch.empty(b.shape, dtype=b.dtype), torch.empty_like(first)
    recurrence_numba.diagonal(*inputs(a, b, first, pieces), *views(out, last), threads(b.numel()))
    return out, last


def diagonal_adjoint(a: Tensor, y: Tensor, beyond: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint: ``z[t] = y[t] + conj(a[t + 1]) z[t + 1]``, and ``conj(a[0]) z[0]``.

    Examples
    --------
    >>> a, y = torch.full((1, 1, 1), 0.5), torch.ones(1, 3, 1)
    >>> diagonal_adjoint(a, y, torch.zeros(1, 1), torch.tensor([[0, 0, 3]]))[0][0, 0].item()
    1.75
    """
    if forms.by_triton(y):
        from learnsolve.kernels import recurrence_triton

        return recurrence_triton.diagonal_adjoint(a, y, beyond, pieces)
    if not forms.by_numba(y, _NUMBA):
        return recurrence_cyclic.diagonal_adjoint(a, y, beyond, pieces)
    from learnsolve.kernels import recurrence_numba

    out, before = torch.empty(y.shape, dtype=y.dtype), beyond.detach().clone()
    recurrence_numba.diagonal_adjoint(*inputs(a, y, pieces), *views(out, before), threads(y.numel()))
    return out, before
