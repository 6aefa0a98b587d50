"""Causal convolutions of each channel on the GPU, in Triton: a program takes a tile of time by channels.

Shapes are those of `learnsolve.kernels.convolution`. Real numbers only.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.parts import parts

# Of a tile.
TIME, CHANNELS = 32, 32


@triton.jit
def _tile(cuts, channels, TIME: tl.constexpr, CHANNELS: tl.constexpr):
    """Number, sequence, group and times of a part, its sequence's first time and end, and the channels."""
    job, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(channels, CHANNELS)
    part, d = job // blocks, (job % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    line = cuts + 5 * part
    t = tl.load(line + 2) + tl.arange(0, TIME)
    return part, tl.load(line), tl.load(line + 1), t, tl.load(line + 3), tl.load(line + 4), d


@triton.jit
def convolve_kernel(
    x, weight, first, cuts, out, length, channels, count, span, dilation,
    TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``out[t] = sum of weight[j] x[t - j dilation]``."""
    _, piece, group, t, begin, end, d = _tile(cuts, channels, TIME, CHANNELS)
    there, inside = t < end, d < channels
    total = tl.zeros((TIME, CHANNELS), x.dtype.element_ty)
    j = 0
    while j < count:
        s = t - j * dilation
        own, before = there & (s >= begin), there & (s < begin)
        found = tl.load(
            x + (group * length + s)[:, None] * channels + d[None, :],
            mask=own[:, None] & inside[None, :], other=0,
        )  # fmt: skip
        found += tl.load(
            first + (piece * span + span + s - begin)[:, None] * channels + d[None, :],
            mask=before[:, None] & inside[None, :], other=0,
        )  # fmt: skip
        total += found * tl.load(weight + j * channels + d, mask=inside, other=0)[None, :]
        j += 1
    place = (group * length + t)[:, None] * channels + d[None, :]
    tl.store(out + place, total, mask=there[:, None] & inside[None, :])


@triton.jit
def adjoint_kernel(
    x, weight, first, dy, cuts, dx, dfirst, dweight, length, channels, count, span, dilation,
    TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients by what goes in, also by what stands before; of ``dweight`` each part has a share."""
    part, piece, group, t, begin, end, d = _tile(cuts, channels, TIME, CHANNELS)
    inside = d < channels
    own, before = (t >= begin) & (t < end), (t < begin) & (t >= begin - span)
    mine, earlier = own[:, None] & inside[None, :], before[:, None] & inside[None, :]
    place = (group * length + t)[:, None] * channels + d[None, :]
    place_before = (piece * span + span + t - begin)[:, None] * channels + d[None, :]
    here = tl.load(x + place, mask=mine, other=0) + tl.load(first + place_before, mask=earlier, other=0)
    total = tl.zeros((TIME, CHANNELS), x.dtype.element_ty)
    j = 0
    while j < count:
        s = t + j * dilation
        seen = (own | before) & (s >= begin) & (s < end)
        slope = tl.load(
            dy + (group * length + s)[:, None] * channels + d[None, :],
            mask=seen[:, None] & inside[None, :], other=0,
        )  # fmt: skip
        total += slope * tl.load(weight + j * channels + d, mask=inside, other=0)[None, :]
        tl.store(dweight + (part * count + j) * channels + d, tl.sum(slope * here, axis=0), mask=inside)
        j += 1
    tl.store(dx + place, total, mask=mine)
    tl.store(dfirst + place_before, total, mask=earlier)


def convolve(x: Tensor, weight: Tensor, first: Tensor, pieces: Tensor, dilation: int) -> Tensor:
    """``y[t] = sum of weight[j] x[t - j dilation]``, where ``first`` stands before a sequence.

    Examples
    --------
    >>> convolve(x, weight, first, pieces, 1)  # doctest: +SKIP
    """
    x, weight, first = (one.detach().contiguous() for one in (x, weight, first))
    out = torch.empty_like(x)
    _launch(convolve_kernel, pieces, 0, x, (x, weight, first), (out,), len(weight), first.shape[1], dilation)
    return out


def convolve_adjoint(
    x: Tensor, weight: Tensor, first: Tensor, pieces: Tensor, dilation: int, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``x``, ``weight`` and ``first``.

    Examples
    --------
    >>> convolve_adjoint(x, weight, first, pieces, 1, dy)  # doctest: +SKIP
    """
    x, weight, first, dy = (one.detach().contiguous() for one in (x, weight, first, dy))
    span = first.shape[1]
    dx, dfirst = torch.empty_like(x), torch.empty_like(first)
    shares = x.new_empty(len(_cuts(pieces, span)), *weight.shape)
    out = dx, dfirst, shares
    _launch(adjoint_kernel, pieces, span, x, (x, weight, first, dy), out, len(weight), span, dilation)
    return dx, shares.sum(0), dfirst


def _cuts(pieces: Tensor, before: int) -> Tensor:
    """Of each part its sequence, group, first time, and the sequence's first time and end, on the CPU.

    The first part begins so many times before its sequence.
    """
    pieces = pieces.detach().cpu()
    wider = pieces.clone()
    wider[:, 1] -= before
    bounds, found = parts(wider, TIME)
    owner = torch.repeat_interleave(torch.arange(len(pieces)), bounds.diff())
    return torch.cat([owner[:, None], found[:, :2], pieces[owner][:, 1:]], 1)


def _launch(
    kernel: Any,
    pieces: Tensor,
    before: int,
    x: Tensor,
    given: tuple[Tensor, ...],
    out: tuple[Tensor, ...],
    *sizes: int,
) -> None:
    cuts = _cuts(pieces, before).contiguous()
    length, channels = x.shape[1:]
    jobs = len(cuts) * triton.cdiv(channels, CHANNELS)
    if jobs:
        with on_device(x):
            kernel[(jobs,)](
                *given, cuts.to(x.device), *out, length, channels, *sizes, TIME=TIME, CHANNELS=CHANNELS
            )
