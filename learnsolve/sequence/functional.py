"""Recurrences over sequences, with gradients, initial and final states, and packed sequences."""

from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import recurrence

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class _Diagonal(torch.autograd.Function):
    """The solution of a bidiagonal system; its gradient is the adjoint's."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        x, last = recurrence.diagonal(a, b, first, pieces)
        ctx.save_for_backward(a, x, first, pieces)
        return x, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, x_bar: Tensor, last_bar: Tensor) -> tuple[Tensor | None, ...]:
        a, x, first, pieces = ctx.saved_tensors
        # The last state is the last value, so that what it receives comes from beyond the end.
        b_bar, first_bar = recurrence.diagonal_adjoint(a, x_bar, last_bar, pieces)
        a_bar = None
        if ctx.needs_input_grad[0]:
            before = torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0))
            full = pieces[:, 2] > pieces[:, 1]
            before[pieces[full, 0], pieces[full, 1]] = first[full]
            a_bar = (b_bar * before.conj()).sum_to_size(a.shape)
        return a_bar, b_bar, first_bar, None


def linear_recurrence(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""First-order recurrence of each channel: :math:`x_t = a_t x_{t-1} + b_t`.

    Parameters
    ----------
    a : Tensor
        Broadcasts to ``b``, of any sign, real or complex; constant in time if its time axis has length one.
    b : (B, T, D) Tensor
        float32, float64, complex64 or complex128; other floating dtypes are computed in float32.
    initial_state : (N, D) Tensor, optional
        :math:`x_0` of each sequence; zero by default.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1. By default N is B.

    Returns
    -------
    x : (B, T, D) Tensor
    final_state : (N, D) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, or ``cu_seqlens`` does not rise from 0 to T.
    TypeError
        A dtype is no floating one.

    References
    ----------
    Blelloch, *Prefix sums and their applications*, CMU-CS-90-190, 1990, section 1.4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import linear_recurrence
    >>> x, last = linear_recurrence(torch.tensor(0.5), torch.ones(1, 3, 1))
    >>> x.flatten().tolist(), last.tolist()
    ([1.0, 1.5, 1.75], [[1.75]])
    """
    if b.ndim != 3:
        raise ValueError(f"b has shape {tuple(b.shape)}; (batch, time, channels) is accepted")
    for name, tensor in (("a", a), ("b", b), ("initial_state", initial_state)):
        if tensor is not None and not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(f"{name} is of {tensor.dtype}; floating and complex dtypes are accepted")
    pieces = sequences(b.shape[0], b.shape[1], cu_seqlens)
    wanted = torch.promote_types(a.dtype, b.dtype)
    dtype = wanted if wanted in DTYPES else torch.float32
    first = b.new_zeros(len(pieces), b.shape[2]) if initial_state is None else initial_state
    if first.shape != (len(pieces), b.shape[2]):
        found, expected = tuple(first.shape), (len(pieces), b.shape[2])
        raise ValueError(f"initial_state has shape {found}; {expected} is accepted")
    dtype = torch.promote_types(dtype, first.dtype)
    x, last = _Diagonal.apply(_aligned(a.to(dtype), b), b.to(dtype), first.to(dtype), pieces)
    return (x, last) if wanted in DTYPES else (x.to(wanted), last.to(wanted))


def _aligned(a: Tensor, b: Tensor) -> Tensor:
    """Coefficients (groups or one, times or one, channels)."""
    try:
        shape = torch.broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        shape = torch.Size()
    if shape != b.shape:
        raise ValueError(f"a has shape {tuple(a.shape)}, which does not broadcast to b's {tuple(b.shape)}")
    a = a.reshape((1,) * (3 - a.ndim) + tuple(a.shape))
    return a.expand(a.shape[0], a.shape[1], b.shape[2])


def sequences(batch: int, length: int, cu_seqlens: Tensor | None) -> Tensor:
    """Group, first time, and last time and one of each sequence.

    Raises
    ------
    ValueError
        Bounds do not rise from 0 to the length, or there is more than one group of packed sequences.

    Examples
    --------
    >>> import torch
    >>> sequences(1, 5, torch.tensor([0, 2, 5])).tolist()
    [[0, 0, 2], [0, 2, 5]]
    """
    if cu_seqlens is None:
        return torch.tensor([[group, 0, length] for group in range(batch)], dtype=torch.int64).reshape(-1, 3)
    bounds = cu_seqlens.detach().cpu().to(torch.int64)
    if batch != 1 or bounds.ndim != 1 or len(bounds) < 2:
        found = f"batch {batch} and cu_seqlens of shape {tuple(cu_seqlens.shape)}"
        raise ValueError(f"{found}; packed sequences are one batch, with at least two bounds")
    if bounds[0] != 0 or bounds[-1] != length or bool((bounds.diff() < 0).any()):
        raise ValueError(f"cu_seqlens is {bounds.tolist()}; bounds that rise from 0 to {length} are accepted")
    return torch.stack([0 * bounds[:-1], bounds[:-1], bounds[1:]], 1)
