"""Causal convolutions as triangular Toeplitz matrices."""

import torch
from torch import Tensor

from learnsolve.operators.base import Operator


class CausalToeplitz(Operator):
    r"""Lower triangular Toeplitz matrices, one for each channel: :math:`y_t = \sum_j c_j x_{t - j}`.

    Products are convolutions by transforms, and so are solutions: by the power series' inverse, of which
    Newton's iteration doubles the number of known terms, and which `learnsolve.solve` refines.

    Parameters
    ----------
    coefficients : (..., time, channels) Tensor
        :math:`c`, real or complex, single or double precision.

    Raises
    ------
    ValueError
        Shapes do not fit.

    References
    ----------
    Brent and Zimmermann, *Modern computer arithmetic*, 2010, section 4.2 (Newton's method for power series).

    Examples
    --------
    >>> import torch, learnsolve
    >>> from learnsolve.operators import CausalToeplitz
    >>> A = CausalToeplitz(torch.tensor([[1.0], [-0.5], [0.0]], dtype=torch.float64))
    >>> res = learnsolve.solve(A, torch.ones(3, 1, dtype=torch.float64))
    >>> [round(value, 6) for value in res.x.flatten().tolist()], res.method
    ([1.0, 1.5, 1.75], 'substitution')
    """

    lower_triangular = True

    def __init__(self, coefficients: Tensor) -> None:
        if coefficients.ndim < 2 or coefficients.shape[-2] < 1:
            raise ValueError(
                f"coefficients have shape {tuple(coefficients.shape)}; (..., time, channels) is accepted"
            )
        super().__init__(coefficients.shape, coefficients.shape, coefficients.dtype, coefficients.device)
        self.coefficients = coefficients
        self.solvable = bool((coefficients.detach()[..., 0, :] != 0).all())

    def _apply(self, x: Tensor) -> Tensor:
        return _convolved(self.coefficients, x, x.shape[-2])

    def _adjoint(self, y: Tensor) -> Tensor:
        return _convolved(self.coefficients.conj(), y.flip(-2), y.shape[-2]).flip(-2)

    def _inverse(self) -> Tensor:
        """The first terms of the inverse power series."""
        c = self.coefficients
        length = c.shape[-2]
        found, known = 1 / c[..., :1, :], 1
        while known < length:
            known = min(2 * known, length)
            left = -_convolved(c[..., :known, :], found, known)
            left[..., 0, :] += 2
            found = _convolved(found, left, known)
        return found

    def substitute(self, b: Tensor) -> Tensor:
        return _convolved(self._inverse(), b, b.shape[-2])

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        return _convolved(self._inverse().conj(), b.flip(-2), b.shape[-2]).flip(-2)

    def diagonal(self) -> Tensor:
        return self.coefficients[..., :1, :].expand(self.domain_shape)

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.coefficients,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        return CausalToeplitz(*parameters)

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        # At lag j, the sum over t of y[t] and what came j before.
        return (_convolved(x.conj(), y.flip(-2), y.shape[-2]).flip(-2),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return CausalToeplitz(self.coefficients.to(device, dtype))


def _convolved(left: Tensor, right: Tensor, length: int) -> Tensor:
    """The first terms of a product of polynomials along the last axis but one."""
    size = left.shape[-2] + right.shape[-2] - 1
    if left.is_complex():
        product = torch.fft.fft(left, size, dim=-2) * torch.fft.fft(right, size, dim=-2)
        return torch.fft.ifft(product, size, dim=-2)[..., :length, :]
    product = torch.fft.rfft(left, size, dim=-2) * torch.fft.rfft(right, size, dim=-2)
    return torch.fft.irfft(product, size, dim=-2)[..., :length, :]
