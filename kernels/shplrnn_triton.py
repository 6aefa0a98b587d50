"""Shallow piecewise-linear maps on the GPU, in Triton: a program follows a sequence, weights in registers.

Shapes are those of `learnsolve.kernels.shplrnn`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device
from learnsolve.kernels.shplrnn import Drawn, Weights

# Entries of a matrix of weights, its sides rounded up to powers of two, that registers hold.
LARGEST = 1 << 14


@triton.jit
def _hidden(z, W2, h2, CLIPPED: tl.constexpr):
    """Sums of the hidden units, and what they give."""
    sums = tl.sum(W2 * z[:, None], axis=0)
    active = tl.maximum(sums + h2, 0)
    if CLIPPED:
        active -= tl.maximum(sums, 0)
    return sums, active


@triton.jit
def _drawn(z, target, alpha, t, every):
    """The state after time ``t``, drawn to its target where there is one."""
    known = (target == target) & (t % every == every - 1)
    return tl.where(known, (1 - alpha) * z + alpha * tl.where(known, target, 0), z), known


@triton.jit
def orbit_kernel(
    a, w1, w2, h1, h2, first, targets, drive, alpha, out, length, every, width, hidden,
    CLIPPED: tl.constexpr, TARGETS: tl.constexpr, KEPT: tl.constexpr, M: tl.constexpr, H: tl.constexpr,
    DRIVE: tl.constexpr,
):  # fmt: skip
    """States of all times of a sequence; ``w1`` and ``w2`` have hidden units side by side."""
    b, m, h = tl.program_id(0).to(tl.int64), tl.arange(0, M), tl.arange(0, H)
    there, unit = m < width, h < hidden
    place, both = m[:, None] * hidden + h[None, :], there[:, None] & unit[None, :]
    W1, W2 = tl.load(w1 + place, mask=both, other=0), tl.load(w2 + place, mask=both, other=0)
    A, base = tl.load(a + m, mask=there, other=0), tl.load(h1 + m, mask=there, other=0)
    shift, strength = tl.load(h2 + h, mask=unit, other=0), tl.load(alpha)
    z = tl.load(first + b * width + m, mask=there, other=0)
    for t in range(length):
        if not KEPT:
            W1, W2 = tl.load(w1 + place, mask=both, other=0), tl.load(w2 + place, mask=both, other=0)
        _, active = _hidden(z, W2, shift, CLIPPED)
        z = A * z + tl.sum(W1 * active[None, :], axis=1) + base
        at = (b * length + t) * width + m
        if DRIVE:
            z += tl.load(drive + at, mask=there, other=0)
        tl.store(out + at, z, mask=there)
        if TARGETS:
            target = tl.load(targets + at, mask=there, other=0)
            z, _ = _drawn(z, target, strength, t, every)


@triton.jit
def adjoint_kernel(
    a, w1, w2, h2, first, targets, alpha, orbit, dy, dw1, dw2, dh2, dfirst, ddrive,
    length, every, width, hidden,
    CLIPPED: tl.constexpr, TARGETS: tl.constexpr, KEPT: tl.constexpr, M: tl.constexpr, H: tl.constexpr,
):  # fmt: skip
    """Of a sequence its shares in the gradients."""
    b, m, h = tl.program_id(0).to(tl.int64), tl.arange(0, M), tl.arange(0, H)
    there, unit = m < width, h < hidden
    place, both = m[:, None] * hidden + h[None, :], there[:, None] & unit[None, :]
    W1, W2 = tl.load(w1 + place, mask=both, other=0), tl.load(w2 + place, mask=both, other=0)
    A, shift = tl.load(a + m, mask=there, other=0), tl.load(h2 + h, mask=unit, other=0)
    strength = tl.load(alpha)
    more_w1, more_w2 = tl.zeros((M, H), W1.dtype), tl.zeros((M, H), W1.dtype)
    more_h2, before = tl.zeros((H,), W1.dtype), tl.zeros((M,), W1.dtype)
    for back in range(length):
        t = length - 1 - back
        if not KEPT:
            W1, W2 = tl.load(w1 + place, mask=both, other=0), tl.load(w2 + place, mask=both, other=0)
        at = (b * length + t) * width + m
        slope = before
        if TARGETS:
            target = tl.load(targets + at, mask=there, other=0)
            _, known = _drawn(slope, target, strength, t, every)
            slope = tl.where(known, (1 - strength) * slope, slope)
        slope += tl.load(dy + at, mask=there, other=0)
        tl.store(ddrive + at, slope, mask=there)
        z = tl.load(orbit + at - width, mask=there & (t > 0), other=0)
        if TARGETS:
            target = tl.load(targets + at - width, mask=there & (t > 0), other=0)
            z, _ = _drawn(z, target, strength, t - 1, every)
        begin = tl.load(first + b * width + m, mask=there & (t == 0), other=0)
        z = tl.where(t > 0, z, begin)
        sums, active = _hidden(z, W2, shift, CLIPPED)
        more_w1 += slope[:, None] * active[None, :]
        given = tl.sum(W1 * slope[:, None], axis=0)
        inner = tl.where(sums + shift > 0, given, 0)
        more_h2 += inner
        if CLIPPED:
            inner -= tl.where(sums > 0, given, 0)
        more_w2 += z[:, None] * inner[None, :]
        before = A * slope + tl.sum(W2 * inner[None, :], axis=1)
    tl.store(dh2 + b * hidden + h, more_h2, mask=unit)
    tl.store(dw1 + b * width * hidden + place, more_w1, mask=both)
    tl.store(dw2 + b * width * hidden + place, more_w2, mask=both)
    tl.store(dfirst + b * width + m, before, mask=there)


def fits(weights: Weights) -> bool:
    """Whether registers hold the matrices of weights.

    Examples
    --------
    >>> fits(weights)  # doctest: +SKIP
    """
    M, H = _tile(weights)
    return M * H <= LARGEST


def orbit(
    weights: Weights, first: Tensor, targets: Tensor, drive: Tensor, drawn: Drawn, clipped: bool, length: int
) -> Tensor:
    """As `learnsolve.kernels.shplrnn.orbit`.

    Raises
    ------
    TypeError
        Several dtypes.
    ValueError
        There are more weights than registers hold.

    Examples
    --------
    >>> orbit(weights, first, targets, drive, Drawn(), True, 10)  # doctest: +SKIP
    """
    a, w1, w2, h1, h2, first, targets, drive = _checked(weights, first, targets, drive)
    out = torch.empty(len(first), length, first.shape[1], dtype=first.dtype, device=first.device)
    if out.numel():
        constants, sizes = _constants(weights, targets, clipped), _sizes(length, drawn, w1)
        with on_device(first):
            orbit_kernel[(len(first),)](
                a, w1, w2, h1, h2, first, targets, drive, _strength(drawn, first), out, *sizes,
                DRIVE=drive.shape[1] > 0, **constants,
            )  # fmt: skip
    return out


def orbit_adjoint(
    weights: Weights,
    first: Tensor,
    targets: Tensor,
    drive: Tensor,
    drawn: Drawn,
    states: Tensor,
    slopes: Tensor,
    clipped: bool,
) -> tuple[Weights, Tensor, Tensor]:
    """As `learnsolve.kernels.shplrnn.orbit_adjoint`.

    Raises
    ------
    TypeError, ValueError
        As by `orbit`.

    Examples
    --------
    >>> orbit_adjoint(weights, first, targets, drive, Drawn(), states, slopes, True)  # doctest: +SKIP
    """
    a, w1, w2, _, h2, first, targets, drive = _checked(weights, first, targets, drive)
    shares = [one.new_zeros(len(first), *one.shape) for one in (w1, w2, h2)]
    dfirst, ddrive = torch.zeros_like(first), torch.empty_like(states)
    if len(first):
        length = slopes.shape[1]
        constants, sizes = _constants(weights, targets, clipped), _sizes(length, drawn, w1)
        with on_device(first):
            adjoint_kernel[(len(first),)](
                a, w1, w2, h2, first, targets, _strength(drawn, first), states.contiguous(),
                slopes.contiguous(), *shares, dfirst, ddrive, *sizes, **constants,
            )  # fmt: skip
    dw1, dw2, dh2 = (one.sum(0) for one in shares)
    da, dh1 = (ddrive * _before(first, targets, drawn, states)).sum((0, 1)), ddrive.sum((0, 1))
    return Weights(da, dw1, dw2.mT, dh1, dh2), dfirst, ddrive[:, : drive.shape[1]]


def _before(first: Tensor, targets: Tensor, drawn: Drawn, states: Tensor) -> Tensor:
    """What each state was made of: the one before it, drawn to its target."""
    before = torch.cat([first[:, None], states[:, :-1]], 1)
    if targets.shape[1]:
        some = slice(drawn.every, None, drawn.every)
        target = targets[:, drawn.every - 1 : -1 : drawn.every]
        mixed = torch.lerp(before[:, some], target.nan_to_num(), drawn.alpha)
        before[:, some] = torch.where(target.isnan(), before[:, some], mixed)
    return before


def _checked(weights: Weights, *others: Tensor) -> list[Tensor]:
    """Contiguous, with hidden units side by side."""
    given = [one.contiguous() for one in (*weights._replace(w2=weights.w2.mT), *others)]
    if len({one.dtype for one in given}) > 1:
        raise TypeError(f"one dtype is accepted, not {sorted({str(one.dtype) for one in given})}")
    if not fits(weights):
        raise ValueError(
            f"w1 is {tuple(weights.w1.shape)}; matrices of up to {LARGEST} entries are accepted, sides "
            "rounded up to powers of two"
        )
    return given


def _tile(weights: Weights) -> tuple[int, int]:
    states, hidden = weights.w1.shape
    return triton.next_power_of_2(states), triton.next_power_of_2(hidden)


def _sizes(length: int, drawn: Drawn, w1: Tensor) -> tuple[int, int, int, int]:
    return length, drawn.every, *w1.shape


def _constants(weights: Weights, targets: Tensor, clipped: bool) -> dict[str, Any]:
    M, H = _tile(weights)
    return {
        "CLIPPED": clipped,
        "TARGETS": targets.shape[1] > 0,
        "KEPT": kept(M, H, targets.dtype),
        "M": M,
        "H": H,
        "num_warps": warps(M, H),
    }


def kept(M: int, H: int, dtype: torch.dtype) -> bool:
    """Whether weights stay in registers, or come out of the cache at each time.

    Examples
    --------
    >>> kept(4, 64, torch.float64), kept(16, 512, torch.float64)
    (True, False)
    """
    return M * H * dtype.itemsize <= 1 << 14


def warps(M: int, H: int) -> int:
    """So many that of each matrix a thread holds 16 entries at most, if there are as many.

    Examples
    --------
    >>> warps(4, 64), warps(16, 512)
    (1, 16)
    """
    return min(max(M * H // 512, 1), 16)


def _strength(drawn: Drawn, first: Tensor) -> Tensor:
    """In the dtype of the states, which a number's way into a kernel would round."""
    return first.new_full((1,), drawn.alpha)
