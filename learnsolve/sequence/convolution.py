"""Causal convolutions of each channel, with gradients, states and packed sequences."""

from typing import Any, Literal

import torch
from torch import Tensor

from learnsolve.kernels import convolution
from learnsolve.sequence.functional import sequences

# Taps from which on transforms are faster.
MANY = 64


class _Convolve(torch.autograd.Function):
    """A product with a banded lower triangular Toeplitz matrix for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, first: Tensor, pieces: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, taps, first, pieces)
        ctx.dilation = dilation
        return convolution.convolve(x, taps, first, pieces, dilation)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, taps, first, pieces = ctx.saved_tensors
        return *convolution.convolve_adjoint(x, taps, first, pieces, ctx.dilation, dy), None, None


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    activation: Literal["silu"] | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    method: Literal["auto", "direct", "fft"] = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Causal convolution of each channel; no sequence sees another one, nor its own future.

    .. math:: y_t = b + \sum_{j=0}^{W - 1} w_{W - 1 - j} \, x_{t - j \cdot \text{dilation}}

    Parameters
    ----------
    x : (B, T, D) Tensor
        float32 or float64; other floating dtypes are computed in float32.
    weight : (D, W) Tensor
        The last tap meets the present, as in `torch.nn.functional.conv1d`.
    bias : (D,) Tensor, optional
    dilation : int
        Steps from one tap to the next.
    activation : "silu", optional
        Of what is returned.
    initial_state : (N, D, (W - 1) dilation) Tensor, optional
        What came before each sequence; zeros by default. N is B, or the number of packed sequences.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1.
    method : {"auto", "direct", "fft"}
        Taps one by one, or by transforms, which "auto" takes for more than 64 taps.

    Returns
    -------
    y : (B, T, D) Tensor
    final_state : (N, D, (W - 1) dilation) Tensor
        The last of what went in.

    Raises
    ------
    ValueError
        Shapes do not fit, an option is unknown, or ``cu_seqlens`` does not rise from 0 to T.
    TypeError
        A dtype is no real floating one.

    References
    ----------
    Yang, Wang, Zhang, Shen and Kim, *Parallelizing linear transformers with the delta rule over sequence
    length*, NeurIPS 2024, section 3.4 (the short convolution); Gu and others, *Combining recurrent,
    convolutional, and continuous-time models with linear state-space layers*, NeurIPS 2021, section 3 (the
    long one).

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import causal_conv
    >>> x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> y, state = causal_conv(x, torch.tensor([[10.0, 1.0]]))
    >>> y.flatten().tolist(), state.tolist()
    ([1.0, 12.0, 23.0], [[[3.0]]])
    """
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        found = f"x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        raise ValueError(f"{found}; (B, T, D) and (D, W) of at least one tap are accepted")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; {tuple(weight.shape[:1])} is accepted")
    if dilation < 1 or activation not in (None, "silu") or method not in ("auto", "direct", "fft"):
        raise ValueError(
            f"dilation is {dilation}, activation {activation!r} and method {method!r}; a positive number, "
            "'silu' or None, and 'auto', 'direct' or 'fft' are accepted"
        )
    pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
    span = (weight.shape[1] - 1) * dilation
    shape = (len(pieces), x.shape[2], span)
    if initial_state is not None and initial_state.shape != shape:
        raise ValueError(f"initial_state has shape {tuple(initial_state.shape)}; {shape} is accepted")
    tensors = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state}
    for name, one in tensors.items():
        if one is not None and not one.is_floating_point():
            raise TypeError(f"{name} is of {one.dtype}; real floating dtypes are accepted")
    double = any(one is not None and one.dtype == torch.float64 for one in tensors.values())
    dtype, wanted = torch.float64 if double else torch.float32, torch.promote_types(x.dtype, weight.dtype)
    rows = x.to(dtype)
    # Without a state nothing stands before, which kernels know by its having no rows.
    first = rows.new_zeros(len(pieces), 0, x.shape[2])
    first = first if initial_state is None else initial_state.to(dtype).mT
    taps = weight.to(dtype).flip(1).T
    if method == "fft" or (method == "auto" and weight.shape[1] > MANY):
        y = _by_transforms(rows, taps, first, pieces, dilation)
    else:
        y = _Convolve.apply(rows, taps, first, pieces, dilation)
    y = y if bias is None else y + bias.to(dtype)
    y = torch.nn.functional.silu(y) if activation == "silu" else y
    return y.to(wanted), _last(rows, first, None if cu_seqlens is None else pieces, span).to(wanted)


def _last(x: Tensor, first: Tensor, pieces: Tensor | None, span: int) -> Tensor:
    """What stood last in each sequence: channels, and then times."""
    if pieces is None:
        kept = x[:, max(0, x.shape[1] - span) :]
        if kept.shape[1] < span and first.shape[1]:
            kept = torch.cat([first[:, first.shape[1] - span + kept.shape[1] :], kept], 1)
        if kept.shape[1] < span:
            kept = torch.nn.functional.pad(kept, (0, 0, span - kept.shape[1], 0))
        return kept.mT
    rows = []
    for one, (group, begin, end) in zip(first, pieces.tolist(), strict=True):
        kept = torch.cat([one, x[group, max(begin, end - span) : end]])
        kept = kept[max(0, len(kept) - span) :]
        rows.append(torch.nn.functional.pad(kept, (0, 0, span - len(kept), 0)))
    return torch.stack(rows).mT if rows else first.new_zeros(0, x.shape[2], span)


def _by_transforms(x: Tensor, taps: Tensor, first: Tensor, pieces: Tensor, dilation: int) -> Tensor:
    """Circular convolutions, long enough that nothing comes around."""
    span, before = (len(taps) - 1) * dilation, first.shape[1]
    spread = taps.new_zeros(span + 1, taps.shape[1])
    spread = spread.index_copy(0, torch.arange(len(taps), device=x.device) * dilation, taps)
    found: list[list[Tensor]] = [[] for _ in range(len(x))]
    for one, (group, begin, end) in zip(first, pieces.tolist(), strict=True):
        whole = torch.cat([one, x[group, begin:end]])
        size = len(whole) + span
        product = torch.fft.rfft(whole, size, dim=0) * torch.fft.rfft(spread, size, dim=0)
        found[group].append(torch.fft.irfft(product, size, dim=0)[before : len(whole)])
    return torch.stack([torch.cat(rows) for rows in found]) if found else x
