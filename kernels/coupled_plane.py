"""Two coupled recurrences on a grid, one along each axis: each call goes to the form that suits the device.

On the CPU that is numba's; else the reference in plain torch, a wavefront at a time. All shapes are (groups,
rows, columns, channels); what was before the first column is (groups, rows, channels), and before the first
row there is nothing. Nothing is recorded for differentiation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from learnsolve.kernels import coupled_plane_reference, forms
from learnsolve.kernels.memory import inputs, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def coupled_plane(a: Sequence[Tensor], b: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""``h1`` follows both along the columns, and ``h2`` both along the rows.

    .. math::
        h_1[v, t] &= a_1[v, t] h_1[v, t - 1] + a_2[v, t] h_2[v, t - 1] + b_1[v, t] \\
        h_2[v, t] &= a_3[v, t] h_1[v - 1, t] + a_4[v, t] h_2[v - 1, t] + b_2[v, t]

    Parameters
    ----------
    a : four Tensors
    b : two Tensors
    first : two Tensors
        ``h1`` and ``h2`` before the first column.

    Returns
    -------
    h1, h2 : Tensor

    Examples
    --------
    >>> one, none = torch.ones(1, 2, 2, 1), torch.zeros(1, 2, 1)
    >>> h1, h2 = coupled_plane([one] * 4, [one] * 2, [none] * 2)
    >>> h1[0, ..., 0].tolist(), h2[0, ..., 0].tolist()
    ([[1.0, 3.0], [1.0, 5.0]], [[1.0, 1.0], [3.0, 5.0]])
    """
    if not forms.by_numba(b[0], _NUMBA):
        return coupled_plane_reference.coupled_plane(a, b, first)
    from learnsolve.kernels import coupled_plane_numba

    out = [torch.empty(b[0].shape, dtype=b[0].dtype) for _ in range(2)]
    coupled_plane_numba.coupled_plane(*inputs(*a, *b, *first), *views(*out), threads(b[0].numel()))
    return out[0], out[1]


def coupled_plane_adjoint(a: Sequence[Tensor], y: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""The adjoint, from the last row and column on.

    .. math::
        z_1[v, t] &= y_1[v, t] + \bar a_1[v, t + 1] z_1[v, t + 1] + \bar a_3[v + 1, t] z_2[v + 1, t] \\
        z_2[v, t] &= y_2[v, t] + \bar a_2[v, t + 1] z_1[v, t + 1] + \bar a_4[v + 1, t] z_2[v + 1, t]

    Examples
    --------
    >>> one = torch.ones(1, 2, 2, 1)
    >>> z1, z2 = coupled_plane_adjoint([one] * 4, [one] * 2)
    >>> z1[0, ..., 0].tolist(), z2[0, ..., 0].tolist()
    ([[5.0, 2.0], [2.0, 1.0]], [[5.0, 2.0], [2.0, 1.0]])
    """
    if not forms.by_numba(y[0], _NUMBA):
        return coupled_plane_reference.coupled_plane_adjoint(a, y)
    from learnsolve.kernels import coupled_plane_numba

    out = [torch.empty(y[0].shape, dtype=y[0].dtype) for _ in range(2)]
    coupled_plane_numba.coupled_plane_adjoint(*inputs(*a, *y), *views(*out), threads(y[0].numel()))
    return out[0], out[1]
