"""Recurrences as triangular systems: to solve is to scan, to multiply is to look one step back."""

import torch
from torch import Tensor

from learnsolve.kernels import recurrence as kernels
from learnsolve.operators.base import Operator


class Bidiagonal(Operator):
    r"""Unit lower bidiagonal matrices, one for each channel: :math:`y_t = x_t - a_t x_{t-1}`.

    To solve with it is the recurrence :math:`x_t = a_t x_{t-1} + b_t`, which `learnsolve.solve` does in one
    step; the adjoint's solution is the recurrence from the end on.

    Parameters
    ----------
    coefficients : (..., time, channels) Tensor
        :math:`a`, of any sign, real or complex; the first of each sequence has nothing to act on.

    Examples
    --------
    >>> import torch, learnsolve
    >>> from learnsolve.operators import Bidiagonal
    >>> A = Bidiagonal(torch.full((3, 1), 0.5, dtype=torch.float64))
    >>> res = learnsolve.solve(A, torch.ones(3, 1, dtype=torch.float64))
    >>> res.x.flatten().tolist(), res.method
    ([1.0, 1.5, 1.75], 'substitution')
    """

    lower_triangular = True
    solvable = True

    def __init__(self, coefficients: Tensor) -> None:
        if coefficients.ndim < 2:
            raise ValueError(
                f"coefficients have shape {tuple(coefficients.shape)}; (..., time, channels) is accepted"
            )
        super().__init__(coefficients.shape, coefficients.shape, coefficients.dtype, coefficients.device)
        self.coefficients = coefficients

    def _apply(self, x: Tensor) -> Tensor:
        return x - self.coefficients * _later(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y - _earlier(self.coefficients.conj() * y)

    def substitute(self, b: Tensor) -> Tensor:
        a, rows, zeros, pieces = self._grouped(b)
        return kernels.diagonal(a, rows, zeros, pieces)[0].reshape(b.shape)

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        a, rows, zeros, pieces = self._grouped(b)
        return kernels.diagonal_adjoint(a, rows, zeros, pieces)[0].reshape(b.shape)

    def _grouped(self, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length, channels = b.shape[-2:]
        rows = b.reshape(-1, length, channels)
        groups = torch.arange(len(rows))
        pieces = torch.stack([groups, 0 * groups, 0 * groups + length], 1)
        return self.coefficients.reshape(rows.shape), rows, rows.new_zeros(len(rows), channels), pieces

    def diagonal(self) -> Tensor:
        return torch.ones(self.domain_shape, dtype=self.dtype, device=self.device)

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.coefficients,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        return Bidiagonal(parameters[0])

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (-y * _later(x).conj(),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Bidiagonal(self.coefficients.to(device, dtype))


def _later(x: Tensor) -> Tensor:
    """Each time's predecessor, and zero for the first."""
    return torch.nn.functional.pad(x[..., :-1, :], (0, 0, 1, 0))


def _earlier(x: Tensor) -> Tensor:
    """Each time's successor, and zero for the last."""
    return torch.nn.functional.pad(x[..., 1:, :], (0, 0, 0, 1))
