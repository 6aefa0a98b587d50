"""Recurrences on a grid as triangular systems: to solve is to sweep, as relaxations in their order do."""

import torch
from torch import Tensor

from learnsolve.kernels import plane as kernels
from learnsolve.operators.base import Operator


class GridRecurrence(Operator):
    r"""Unit lower triangular matrices of two bands, one for each channel.

    .. math:: y_{vt} = x_{vt} - a_{vt} x_{v,t-1} - c_{vt} x_{v-1,t}

    To solve with it is the recurrence :math:`x_{vt} = a_{vt} x_{v,t-1} + c_{vt} x_{v-1,t} + b_{vt}` on a
    grid, of which all places of an anti-diagonal are independent.

    Parameters
    ----------
    across, down : (..., rows, columns, channels) Tensor
        :math:`a` and :math:`c`, real or complex; the first of a row, or of a column, has nothing to act on.

    Raises
    ------
    ValueError
        Shapes do not fit.

    References
    ----------
    Saad, *Iterative methods for sparse linear systems*, second edition, 2003, section 11.6.2 (level
    scheduling).

    Examples
    --------
    >>> import torch, learnsolve
    >>> from learnsolve.operators import GridRecurrence
    >>> one = torch.ones(2, 2, 1, dtype=torch.float64)
    >>> learnsolve.solve(GridRecurrence(one, one), one).x[..., 0].tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """

    lower_triangular = True
    solvable = True

    def __init__(self, across: Tensor, down: Tensor) -> None:
        if across.ndim < 3 or down.shape != across.shape or down.dtype != across.dtype:
            found = f"{across.dtype} of shape {tuple(across.shape)} and {down.dtype} of {tuple(down.shape)}"
            raise ValueError(
                f"coefficients are {found}; (..., rows, columns, channels), both of one dtype, are accepted"
            )
        super().__init__(across.shape, across.shape, across.dtype, across.device)
        self.across, self.down = across, down

    def _apply(self, x: Tensor) -> Tensor:
        return x - self.across * _later(x, -2) - self.down * _later(x, -3)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y - _earlier(self.across.conj() * y, -2) - _earlier(self.down.conj() * y, -3)

    def substitute(self, b: Tensor) -> Tensor:
        return kernels.plane(*self._grouped(b)).reshape(b.shape)

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        return kernels.plane_adjoint(*self._grouped(b)).reshape(b.shape)

    def _grouped(self, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (-1, *b.shape[-3:])
        return self.across.reshape(shape), self.down.reshape(shape), b.reshape(shape)

    def diagonal(self) -> Tensor:
        return torch.ones(self.domain_shape, dtype=self.dtype, device=self.device)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.across, self.down

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        return GridRecurrence(*parameters)

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return -y * _later(x, -2).conj(), -y * _later(x, -3).conj()

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return GridRecurrence(self.across.to(device, dtype), self.down.to(device, dtype))


def _later(x: Tensor, axis: int) -> Tensor:
    """Each place's predecessor, and zero for the first."""
    return torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.narrow(axis, 0, x.shape[axis] - 1)], axis)


def _earlier(x: Tensor, axis: int) -> Tensor:
    """Each place's successor, and zero for the last."""
    return torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), torch.zeros_like(x.narrow(axis, 0, 1))], axis)
