"""Sums of exponential moving averages of each channel, with gradients, states and packed sequences."""

from typing import Any, Literal

import torch
from torch import Tensor

from learnsolve.kernels import moving_average as kernels
from learnsolve.sequence.convolution import causal_conv
from learnsolve.sequence.functional import sequences


class _Average(torch.autograd.Function):
    """A product with a lower triangular Toeplitz matrix for each channel, semiseparable too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, c: Tensor, first: Tensor, pieces: Tensor) -> Any:
        y, last, kept = kernels.average(x, q, c, first, pieces, kept=any(ctx.needs_input_grad))
        ctx.save_for_backward(x, q, c, first, pieces, kept)
        return y, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> Any:
        x, q, c, first, pieces, kept = ctx.saved_tensors
        return *kernels.average_adjoint(x, q, c, first, pieces, kept, dy, dlast), None


def moving_average(
    x: Tensor,
    q: Tensor,
    c: Tensor,
    *,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    method: Literal["auto", "scan", "fft"] = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Several exponential moving averages of each channel, summed with weights.

    .. math:: h_{t, n} = q_n h_{t-1, n} + x_t, \qquad y_t = \sum_n c_n h_{t, n}

    Over time that is the convolution with :math:`K_l = \sum_n c_n q_n^l`. One pass keeps the states of all n
    in the processor's caches, and writes only ``y``.

    Parameters
    ----------
    x : (B, T, D) Tensor
        float32 or float64; other floating dtypes are computed in float32.
    q, c : (N, D) Tensor
        Decays, of any sign, and weights.
    initial_state : (M, N, D) Tensor, optional
        :math:`h_0` of each sequence; zero by default. M is B, or the number of packed sequences.
    cu_seqlens : (M + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1.
    method : {"auto", "scan", "fft"}
        In one pass, which "auto" takes, or by the transform of the convolution.

    Returns
    -------
    y : (B, T, D) Tensor
    final_state : (M, N, D) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, the method is unknown, or ``cu_seqlens`` does not rise from 0 to T; transforms take
        no packed sequences and no states.
    TypeError
        A dtype is no real floating one.

    References
    ----------
    Ma and others, *Mega: moving average equipped gated attention*, ICLR 2023, section 3.1 and equation 5.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import moving_average
    >>> half = torch.full((1, 1), 0.5)
    >>> y, state = moving_average(torch.ones(1, 3, 1), half, half)
    >>> y.flatten().tolist(), state.item()
    ([0.5, 0.75, 0.875], 1.75)
    """
    if x.ndim != 3 or q.ndim != 2 or q.shape != c.shape or q.shape[1] != x.shape[2]:
        found = f"x {tuple(x.shape)}, q {tuple(q.shape)} and c {tuple(c.shape)}"
        raise ValueError(f"{found}; (B, T, D), (N, D) and the same are accepted")
    if method not in ("auto", "scan", "fft"):
        raise ValueError(f"method is {method!r}; 'auto', 'scan' and 'fft' are accepted")
    for name, one in (("x", x), ("q", q), ("c", c), ("initial_state", initial_state)):
        if one is not None and not one.is_floating_point():
            raise TypeError(f"{name} is of {one.dtype}; real floating dtypes are accepted")
    pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
    shape = (len(pieces), *q.shape)
    if initial_state is not None and initial_state.shape != shape:
        raise ValueError(f"initial_state has shape {tuple(initial_state.shape)}; {shape} is accepted")
    wanted = torch.promote_types(torch.promote_types(x.dtype, q.dtype), c.dtype)
    dtype = wanted if wanted == torch.float64 else torch.float32
    rows, rates, weights = x.to(dtype), q.to(dtype), c.to(dtype)
    if method == "fft":
        if cu_seqlens is not None or initial_state is not None:
            raise ValueError("transforms take neither packed sequences nor states; method='scan' does")
        y, last = _by_transforms(rows, rates, weights)
        return y.to(wanted), last.to(wanted)
    first = rows.new_zeros(shape) if initial_state is None else initial_state.to(dtype)
    y, last = _Average.apply(rows, rates, weights, first, pieces)
    return y.to(wanted), last.to(wanted)


def kernel(q: Tensor, c: Tensor, length: int) -> Tensor:
    r"""Convolution kernel :math:`K_l = \sum_n c_n q_n^l`, (length, D).

    Examples
    --------
    >>> half = torch.full((1, 1), 0.5)
    >>> kernel(half, half, 3).flatten().tolist()
    [0.5, 0.25, 0.125]
    """
    return _weighed(c, _powers(q, length))


def _powers(q: Tensor, length: int) -> Tensor:
    """Powers of decays, from the zeroth on, (N, length, D)."""
    found = torch.ones_like(q)[:, None]
    while found.shape[1] < length:
        found = torch.cat([found, found * (found[:, -1:] * q[:, None])], 1)
    return found[:, :length]


def _weighed(c: Tensor, powers: Tensor) -> Tensor:
    """Their sum with weights, (length, D): one after the other, which needs no copy in another order."""
    found = torch.zeros_like(powers[0])
    for weight, one in zip(c, powers, strict=True):
        found = torch.addcmul(found, weight, one)
    return found


def _by_transforms(x: Tensor, q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The product by transforms, and the last state by its own sum."""
    length = x.shape[1]
    powers = _powers(q, length)
    taps = _weighed(c, powers).flip(0).T if length else q.new_zeros(q.shape[1], 1)
    y, _ = causal_conv(x, taps, method="fft")
    backwards = x.flip(1)
    return y, torch.stack([(one * backwards).sum(1) for one in powers], 1)
