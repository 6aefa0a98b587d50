"""Orthogonal wavelets over the last two axes."""

import torch
from torch import Tensor

from learnsolve.operators.base import Operator

# Daubechies' filter with two vanishing moments.
ROOT = 3**0.5
LOW = tuple(c / (4 * 2**0.5) for c in (1 + ROOT, 3 + ROOT, 3 - ROOT, 1 - ROOT))


class Wavelet(Operator):
    """Daubechies' orthogonal wavelets of four taps, periodic, over the last two axes.

    Parameters
    ----------
    shape : tuple of int
        Of the arrays; the last two must be divisible by ``2**levels``.
    levels : int
        Each halves the approximation, which is the top left corner of the coefficients.
    dtype : torch.dtype
    device : torch.device or str

    References
    ----------
    Daubechies, *Orthonormal bases of compactly supported wavelets*, Communications on Pure and Applied
    Mathematics 41, 1988, section 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import Wavelet
    >>> W = Wavelet((4, 4), 1, dtype=torch.float64)
    >>> coefficients = W @ torch.ones(4, 4, dtype=torch.float64)
    >>> coefficients.round(decimals=6)[:3, :3] + 0.0
    tensor([[2., 2., 0.],
            [2., 2., 0.],
            [0., 0., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int,
        *,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(shape) < 2 or levels < 0 or any(n % 2**levels for n in shape[-2:]):
            raise ValueError(
                f"shape is {tuple(shape)}; two axes that {levels} levels halve evenly are accepted last"
            )
        super().__init__(shape, shape, dtype, device)
        self.levels = levels

    def _apply(self, x: Tensor) -> Tensor:
        found = x.clone()
        for level in range(self.levels):
            height, width = (n >> level for n in x.shape[-2:])
            part = found[..., :height, :width]
            part = _analysis(part)
            part = _analysis(part.mT).mT
            found[..., :height, :width] = part
        return found

    def _adjoint(self, y: Tensor) -> Tensor:
        found = y.clone()
        for level in reversed(range(self.levels)):
            height, width = (n >> level for n in y.shape[-2:])
            part = found[..., :height, :width]
            part = _synthesis(part.mT).mT
            found[..., :height, :width] = _synthesis(part)
        return found

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "Wavelet":
        return Wavelet(self.domain_shape, self.levels, dtype=dtype, device=device)


def _analysis(x: Tensor) -> Tensor:
    """Low and high halves along the last axis."""
    a, b, c, d = LOW
    even, odd = x[..., 0::2], x[..., 1::2]
    next_even, next_odd = even.roll(-1, -1), odd.roll(-1, -1)
    low = a * even + b * odd + c * next_even + d * next_odd
    high = d * even - c * odd + b * next_even - a * next_odd
    return torch.cat([low, high], -1)


def _synthesis(y: Tensor) -> Tensor:
    """The adjoint of `_analysis`, and its inverse."""
    a, b, c, d = LOW
    low, high = y.chunk(2, -1)
    previous_low, previous_high = low.roll(1, -1), high.roll(1, -1)
    even = a * low + d * high + c * previous_low + b * previous_high
    odd = b * low - c * high + d * previous_low - a * previous_high
    return torch.stack([even, odd], -1).flatten(-2)
