"""First-order recurrences on the GPU, in Triton: a program takes some channels of a sequence, tile by tile.

Within a tile of time all steps are made at once, by a scan over pairs of what a step multiplies with and what
it adds. Real numbers only; shapes are those of `learnsolve.kernels.recurrence`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.parts import parts

# A tile, and the times of a part of a long sequence.
TIME, CHANNELS, PART = 64, 32, 1024


@triton.jit
def _after(a, x, b, y):
    """Two steps in one: by ``a`` and ``x``, and then by ``b`` and ``y``."""
    return a * b, b * x + y


@triton.jit
def scan_kernel(
    a, b, first, pieces, out, last, product, length, channels, group_stride, time_stride,
    REVERSE: tl.constexpr, ENDS: tl.constexpr, TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A recurrence, or its adjoint; of ``ENDS`` only what a sequence multiplies with and adds, all in all.

    A step of the adjoint multiplies with the coefficient of the time that follows, the first one with one;
    what comes before the first time takes the last coefficient.
    """
    job = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(channels, CHANNELS)
    piece, d = job // blocks, (job % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    group, begin = tl.load(pieces + 3 * piece), tl.load(pieces + 3 * piece + 1)
    end = tl.load(pieces + 3 * piece + 2)
    row, inside = tl.arange(0, TIME), d < channels
    x = tl.load(first + piece * channels + d, mask=inside & (not ENDS), other=0)
    total = tl.full((CHANNELS,), 1, x.dtype)
    coefficients = a + group * group_stride + d
    done = begin
    while done < end:
        t = done + row
        stored = (t < end)[:, None] & inside[None, :]
        known, at = stored, t
        if REVERSE:
            known, at = stored & (t > begin)[:, None], end + begin - t
            t = at - 1
        factor = tl.load(coefficients[None, :] + at[:, None] * time_stride, mask=known, other=1)
        place = (group * length + t)[:, None] * channels + d[None, :]
        added = tl.load(b + place, mask=stored, other=0)
        factor, added = tl.associative_scan((factor, added), 0, _after)
        added += factor * x[None, :]
        if ENDS:
            total *= tl.sum(tl.where((row == TIME - 1)[:, None], factor, 0), axis=0)
        else:
            tl.store(out + place, added, mask=stored)
        x = tl.sum(tl.where((row == TIME - 1)[:, None], added, 0), axis=0)
        done += TIME
    if REVERSE:
        factor = tl.load(coefficients + begin * time_stride, mask=inside & (begin < end), other=1)
        x, total = x * factor, total * factor
    tl.store(last + piece * channels + d, x, mask=inside)
    if ENDS:
        tl.store(product + piece * channels + d, total, mask=inside)


def diagonal(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """``x[t] = a[t] x[t - 1] + b[t]`` of each sequence, and its last value.

    Within a tile coefficients are multiplied with each other, so that of a growing recurrence they may
    overflow before its values do.

    Parameters
    ----------
    a : (groups or 1, time or 1, channels) tensor
    b : (groups, time, channels) tensor, float32 or float64
    first : (n, channels) tensor
    pieces : (n, 3) int64 tensor

    Returns
    -------
    x : (groups, time, channels) tensor
    last : (n, channels) tensor

    Raises
    ------
    TypeError
        Complex numbers, or several dtypes.

    Examples
    --------
    >>> diagonal(a, b, first, pieces)  # doctest: +SKIP
    """
    return _scanned(a, b, first, pieces, False)


def diagonal_adjoint(a: Tensor, y: Tensor, beyond: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint: ``z[t] = y[t] + a[t + 1] z[t + 1]``, and ``a[0] z[0]``.

    Parameters
    ----------
    a, y, pieces
        As ``a``, ``b`` and ``pieces`` of `diagonal`.
    beyond : (n, channels) tensor
        What is added to the last ``y`` of each sequence.

    Returns
    -------
    z : (groups, time, channels) tensor
    before : (n, channels) tensor

    Raises
    ------
    TypeError
        As by `diagonal`.

    Examples
    --------
    >>> diagonal_adjoint(a, y, beyond, pieces)  # doctest: +SKIP
    """
    return _scanned(a, y, beyond, pieces, True)


def _scanned(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """All sequences side by side, or where times are many their parts, from what these begin with."""
    if b.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"Triton kernels work in float32 and float64, not in {b.dtype}: use the reference form"
        )
    if a.dtype != b.dtype or first.dtype != b.dtype:
        raise TypeError(f"all tensors of a launch must be of one dtype, here {b.dtype}")
    a, b, first = (one.detach().contiguous() for one in (a, b, first))
    if b.shape[1] <= 2 * PART:
        out, last, _ = _launch(a, b, first, pieces, reverse, False)
        return out, last
    bounds, cut = parts(pieces, PART)
    begin, end = bounds[:-1], bounds[1:]
    if reverse:
        cut, begin, end = cut.flip(0), len(cut) - end, len(cut) - begin
    _, added, product = _launch(a, b, torch.empty_like(b[:0]), cut, reverse, True)
    order = torch.stack([torch.zeros_like(begin), begin, end], 1)
    ends, last, _ = _launch(product[None], added[None], first, order, False, False)
    # A part begins with what the one before it ended with, and a sequence's first part with what it is given.
    begins, full = ends[0].roll(1, 0), (begin < end).nonzero()[:, 0]
    begins[begin[full].to(b.device)] = first[full.to(b.device)]
    out, *_ = _launch(a, b, begins, cut, reverse, False)
    return out, last


def _launch(a: Tensor, b: Tensor, first: Tensor, pieces: Tensor, reverse: bool, ends: bool) -> list[Tensor]:
    """Values (of ``ends`` none), last values, and (only of ``ends``) products of coefficients."""
    length, channels = b.shape[1:]
    last = torch.empty((len(pieces), channels), dtype=b.dtype, device=b.device)
    out, product = (torch.empty_like(one) for one in ((b[:0], last) if ends else (b, last[:0])))
    strides = a.shape[1] * channels * (a.shape[0] > 1), channels * (a.shape[1] > 1)
    jobs = len(pieces) * triton.cdiv(channels, CHANNELS)
    if jobs:
        with on_device(b):
            scan_kernel[(jobs,)](
                a, b, first, pieces.to(b.device).contiguous(), out, last, product, length, channels, *strides,
                REVERSE=reverse, ENDS=ends, TIME=TIME, CHANNELS=CHANNELS,
            )  # fmt: skip
    return [out, last, product]
