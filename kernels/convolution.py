"""Causal convolutions of each channel by few taps: each call goes to the form that suits the tensors' device.

On the CPU, in single and double precision, that is numba's, on a GPU Triton's, elsewhere the reference in
plain torch. Shapes: ``x`` and results (groups, time, channels), ``weight`` (taps, channels), of which the
first meets the present, ``first`` (n, span, channels), what stands before each sequence, or (n, 0, channels)
where nothing does, and ``pieces`` (n, 3): of each its group, first time, and last time and one. Nothing is
recorded for differentiation.
"""

import torch
from torch import Tensor

from learnsolve.kernels import convolution_reference, forms
from learnsolve.kernels.memory import inputs, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64)


def convolve(x: Tensor, weight: Tensor, first: Tensor, pieces: Tensor, dilation: int) -> Tensor:
    """``y[t] = sum of weight[j] x[t - j dilation]``.

    Examples
    --------
    >>> x, weight = torch.tensor([1.0, 2, 3]).reshape(1, 3, 1), torch.tensor([[1.0], [10.0]])
    >>> convolve(x, weight, torch.zeros(1, 1, 1), torch.tensor([[0, 0, 3]]), 1).flatten().tolist()
    [1.0, 12.0, 23.0]
    """
    if forms.by_triton(x):
        from learnsolve.kernels import convolution_triton

        return convolution_triton.convolve(x, weight, _full(first, weight, dilation), pieces, dilation)
    if not forms.by_numba(x, _NUMBA):
        with torch.no_grad():
            return convolution_reference.convolve(x, weight, _full(first, weight, dilation), pieces, dilation)
    from learnsolve.kernels import convolution_numba

    out = torch.zeros(x.shape, dtype=x.dtype)
    given = inputs(x, weight, first, pieces)
    convolution_numba.convolve(*given, dilation, *views(out), threads(x.numel()))
    return out


def convolve_adjoint(
    x: Tensor, weight: Tensor, first: Tensor, pieces: Tensor, dilation: int, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``x``, ``weight`` and ``first``."""
    if forms.by_triton(x):
        from learnsolve.kernels import convolution_triton

        whole = _full(first, weight, dilation)
        dx, dw, df = convolution_triton.convolve_adjoint(x, weight, whole, pieces, dilation, dy)
        return dx, dw, df[:, whole.shape[1] - first.shape[1] :]
    if not forms.by_numba(x, _NUMBA):
        with torch.enable_grad():
            x, weight, first = (one.detach().requires_grad_() for one in (x, weight, first))
            y = convolution_reference.convolve(x, weight, _full(first, weight, dilation), pieces, dilation)
            fresh = x, weight, first
            dx, dw, df = torch.autograd.grad(y, fresh, dy, allow_unused=True, materialize_grads=True)
        return dx, dw, df
    from learnsolve.kernels import convolution_numba

    found = [
        torch.zeros(shape, dtype=x.dtype) for shape in (x.shape, (len(pieces), *weight.shape), first.shape)
    ]
    given = inputs(x, weight, first, pieces)
    convolution_numba.convolve_adjoint(*given, dilation, *inputs(dy), *views(*found), threads(x.numel()))
    return found[0], found[1].sum(0), found[2]


def _full(first: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """What stands before, with zeros where nothing does."""
    span = (len(weight) - 1) * dilation
    return first if first.shape[1] else first.new_zeros(len(first), span, weight.shape[1])
