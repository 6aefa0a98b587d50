"""First-order recurrences on a grid: each call goes to the form that suits the tensors' device.

On the CPU that is numba's; else the reference in plain torch, a wavefront at a time. All shapes are (groups,
rows, columns, channels). Nothing is recorded for differentiation.
"""

import torch
from torch import Tensor

from learnsolve.kernels import plane_reference
from learnsolve.kernels.memory import inputs, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def plane(across: Tensor, down: Tensor, b: Tensor) -> Tensor:
    """``x[v, t] = across[v, t] x[v, t - 1] + down[v, t] x[v - 1, t] + b[v, t]``.

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> plane(one, one, one)[0, ..., 0].tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """
    return _run("plane", across, down, b)


def plane_adjoint(across: Tensor, down: Tensor, y: Tensor) -> Tensor:
    """The adjoint: ``z[v, t] = y[v, t] + across[v, t + 1]* z[v, t + 1] + down[v + 1, t]* z[v + 1, t]``.

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> plane_adjoint(one, one, one)[0, ..., 0].tolist()
    [[5.0, 2.0], [2.0, 1.0]]
    """
    return _run("plane_adjoint", across, down, y)


def _run(name: str, across: Tensor, down: Tensor, b: Tensor) -> Tensor:
    if b.device.type != "cpu" or b.dtype not in _NUMBA:
        with torch.no_grad():
            found: Tensor = getattr(plane_reference, name)(across, down, b)
            return found
    from learnsolve.kernels import plane_numba

    out = torch.empty(b.shape, dtype=b.dtype)
    getattr(plane_numba, name)(*inputs(across, down, b), *views(out), threads(b.numel()))
    return out
