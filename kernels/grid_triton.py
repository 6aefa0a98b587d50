"""Grid kernels for the GPU, in Triton. Real numbers only; outputs are given by the caller.

A program works on a tile of rows by cells along x. Neighbours that lie outside the grid are read
as zero through masks, so planes and ragged sizes need no kernels of their own; neighbours shared
by tiles come from the cache. Addresses are 64-bit.

Stencils are passed as four pointers: code, weights, shift and (unused) shift of a `UnitStencil`,
or diagonal, wz, wy and wx of a `FaceStencil`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.stencil import FaceStencil, Stencil

APPLY, RESIDUAL, JACOBI = 0, 1, 2


@triton.jit
def _diagonal(s0, s1, s2, q, inside, FACE: tl.constexpr):
    if FACE:
        return tl.load(s0 + q, mask=inside, other=0)
    else:
        code = tl.load(s0 + q, mask=inside, other=0).to(tl.int32)
        kind: tl.constexpr = s1.dtype.element_ty
        total = (code & 3).to(kind) * tl.load(s1) + ((code >> 2) & 3).to(kind) * tl.load(s1 + 1)
        total += ((code >> 4) & 3).to(kind) * tl.load(s1 + 2) + tl.load(s2)
        return total * (code >> 6).to(kind)


@triton.jit
def _neighbours(s0, s1, s2, s3, x, k, j, i, q, nz, ny, nx, inside, FACE: tl.constexpr):
    layer = tl.cast(ny, tl.int64) * nx
    up, down = inside & (k + 1 < nz), inside & (k > 0)
    north, south = inside & (j + 1 < ny), inside & (j > 0)
    east, west = inside & (i + 1 < nx), inside & (i > 0)
    x_up, x_down = tl.load(x + q + layer, mask=up, other=0), tl.load(x + q - layer, mask=down, other=0)
    x_north, x_south = tl.load(x + q + nx, mask=north, other=0), tl.load(x + q - nx, mask=south, other=0)
    x_east, x_west = tl.load(x + q + 1, mask=east, other=0), tl.load(x + q - 1, mask=west, other=0)
    if FACE:
        total = tl.load(s1 + q + layer, mask=up, other=0) * x_up
        total += tl.load(s1 + q, mask=down, other=0) * x_down
        total += tl.load(s2 + q + nx, mask=north, other=0) * x_north
        total += tl.load(s2 + q, mask=south, other=0) * x_south
        total += tl.load(s3 + q + 1, mask=east, other=0) * x_east
        total += tl.load(s3 + q, mask=west, other=0) * x_west
        return total
    else:
        along_z, along_y, along_x = x_up + x_down, x_north + x_south, x_east + x_west
        return tl.load(s1) * along_z + tl.load(s1 + 1) * along_y + tl.load(s1 + 2) * along_x


@triton.jit
def _residual(s0, s1, s2, s3, b, x, k, j, i, nz, ny, nx, inside, FACE: tl.constexpr):
    q = (k * ny + j) * nx + i
    d = _diagonal(s0, s1, s2, q, inside, FACE)
    total = _neighbours(s0, s1, s2, s3, x, k, j, i, q, nz, ny, nx, inside, FACE)
    value = tl.load(b + q, mask=inside, other=0) - d * tl.load(x + q, mask=inside, other=0) + total
    return tl.where(d != 0, value, 0)


@triton.jit
def point_kernel(
    s0, s1, s2, s3, b, x, out, omega: tl.float64, nz, ny, nx,
    FACE: tl.constexpr, MODE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write ``A x`` (``MODE`` 0), the residual (1) or a Jacobi step (2)."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    i = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    k, j = row // ny, row % ny
    inside = (k < nz) & (i < nx)
    q = row * nx + i
    d = _diagonal(s0, s1, s2, q, inside, FACE)
    old = tl.load(x + q, mask=inside, other=0)
    value = d * old - _neighbours(s0, s1, s2, s3, x, k, j, i, q, nz, ny, nx, inside, FACE)
    if MODE != 0:
        value = tl.load(b + q, mask=inside, other=0) - value
    if MODE == 2:
        factor = (tl.zeros((1, 1), old.dtype) + omega).to(old.dtype)
        value = old + factor * value / tl.where(d != 0, d, 1)
    tl.store(out + q, tl.where(d != 0, value, 0), mask=inside)


@triton.jit
def relax_kernel(
    s0, s1, s2, s3, b, x, omega: tl.float64, colour, nz, ny, nx,
    FACE: tl.constexpr, FRESH: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Half a red-black sweep; a lane owns two cells, one of each colour."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    k, j = row // ny, row % ny
    pair = 2 * (tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :])
    odd = ((k + j + colour) & 1).to(tl.int32)
    i = pair + odd
    inside = (k < nz) & (i < nx)
    q = row * nx + i
    d = _diagonal(s0, s1, s2, q, inside, FACE)
    inverse = tl.where(d != 0, 1 / tl.where(d != 0, d, 1), 0)
    right = tl.load(b + q, mask=inside, other=0)
    factor = (tl.zeros((1, 1), right.dtype) + omega).to(right.dtype)
    if FRESH:
        other = pair + 1 - odd
        tl.store(x + row * nx + other, tl.zeros_like(right), mask=(k < nz) & (other < nx))
        tl.store(x + q, factor * right * inverse, mask=inside)
    else:
        old = tl.load(x + q, mask=inside, other=0)
        total = right + _neighbours(s0, s1, s2, s3, x, k, j, i, q, nz, ny, nx, inside, FACE)
        tl.store(x + q, old + factor * (total * inverse - old), mask=inside)


@triton.jit
def prolong_kernel(
    s0, s1, s2, s3, coarse_x, x, nz, ny, nx, cy, cx,
    FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr,
    FACE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Add to every unknown the value of its coarse cell."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    i = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    k, j = row // ny, row % ny
    inside = (k < nz) & (i < nx)
    q = row * nx + i
    unknown = _diagonal(s0, s1, s2, q, inside, FACE) != 0
    step = tl.load(coarse_x + ((k // FZ) * cy + j // FY) * cx + i // FX, mask=inside & unknown, other=0)
    tl.store(x + q, tl.load(x + q, mask=inside, other=0) + step, mask=inside & unknown)


@triton.jit
def restrict_kernel(
    s0, s1, s2, s3, b, x, coarse_b, nz, ny, nx, cz, cy, cx,
    FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr,
    FACE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sum the residuals of the fine cells of every coarse cell."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    ci = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    ck, cj = row // cy, row % cy
    total = tl.zeros((ROWS, LANES), coarse_b.dtype.element_ty)
    for z in tl.static_range(FZ):
        for y in tl.static_range(FY):
            for w in tl.static_range(FX):
                k, j, i = ck * FZ + z, cj * FY + y, ci * FX + w
                inside = (ci < cx) & (k < nz) & (j < ny) & (i < nx)
                total += _residual(s0, s1, s2, s3, b, x, k, j, i, nz, ny, nx, inside, FACE)
    tl.store(coarse_b + row * cx + ci, total, mask=(ck < cz) & (ci < cx))


def _pointers(stencil: Stencil, *vectors: Tensor) -> tuple[Any, ...]:
    """Check the arguments of a launch and give the stencil's four pointers."""
    dtype = vectors[0].dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Triton kernels work in float32 and float64, not in {dtype}: use the reference form")
    if any(not t.is_contiguous() for t in (*stencil, *vectors)):
        raise ValueError("grid kernels need contiguous tensors")
    face = isinstance(stencil, FaceStencil)
    if any(t.dtype != dtype for t in (*stencil[0 if face else 1 :], *vectors)):
        raise TypeError(f"all tensors of a launch must be of one dtype, here {dtype}")
    if any(t.shape != stencil[0].shape for t in vectors):
        raise ValueError(f"vectors must have the stencil's shape {tuple(stencil[0].shape)}")
    return tuple(stencil) if len(stencil) == 4 else (*stencil, stencil.shift)


def _tile(shape: Sequence[int], cells: int = 512) -> tuple[tuple[int, int], dict[str, int]]:
    """Launch grid and tile for rows of ``shape[2]`` lanes."""
    rows, lanes = shape[0] * shape[1], min(128, triton.next_power_of_2(shape[2]))
    height = min(cells // lanes, triton.next_power_of_2(rows))
    return (triton.cdiv(rows, height), triton.cdiv(shape[2], lanes)), {"ROWS": height, "LANES": lanes}


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Make the tensor's GPU the current one for a launch; nothing for other devices.

    Examples
    --------
    >>> with on_device(torch.zeros(1)):
    ...     pass
    """
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _point(stencil: Stencil, b: Tensor, x: Tensor, out: Tensor, omega: float, mode: int) -> None:
    pointers = _pointers(stencil, b, x, out)
    grid, tile = _tile(x.shape)
    with on_device(x):
        face = isinstance(stencil, FaceStencil)
        point_kernel[grid](*pointers, b, x, out, omega, *x.shape, face, mode, **tile)


def apply(stencil: Stencil, x: Tensor, y: Tensor) -> None:
    """Write ``A x`` to `y`.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator, of tensors on the GPU.
    x, y : (nz, ny, nx) tensors, float32 or float64
        Contiguous; `y` is overwritten.

    Raises
    ------
    TypeError
        Complex numbers, or several dtypes.
    ValueError
        Wrong shape, or a tensor that is not contiguous.

    Examples
    --------
    >>> apply(stencil, x, y)  # doctest: +SKIP
    """
    _point(stencil, x, x, y, 0.0, APPLY)


def residual(stencil: Stencil, b: Tensor, x: Tensor, r: Tensor) -> None:
    """Write ``b - A x`` to `r`, zero where the diagonal is.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x, r : (nz, ny, nx) tensors, float32 or float64
        Contiguous; `r` is overwritten.

    Raises
    ------
    TypeError, ValueError
        As `apply`.

    Examples
    --------
    >>> residual(stencil, b, x, r)  # doctest: +SKIP
    """
    _point(stencil, b, x, r, 0.0, RESIDUAL)


def jacobi(stencil: Stencil, b: Tensor, x: Tensor, out: Tensor, omega: float) -> None:
    """Write ``x + omega D^-1 (b - A x)`` to `out`, zero where the diagonal is.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x, out : (nz, ny, nx) tensors, float32 or float64
        Contiguous; `out` is overwritten and must not be `x`.
    omega : float
        Damping.

    Raises
    ------
    TypeError, ValueError
        As `apply`.

    Examples
    --------
    >>> jacobi(stencil, b, x, out, 0.8)  # doctest: +SKIP
    """
    _point(stencil, b, x, out, omega, JACOBI)


def _relax(stencil: Stencil, b: Tensor, x: Tensor, omega: float, colour: int, fresh: bool) -> None:
    pointers = _pointers(stencil, b, x)
    nz, ny, nx = x.shape
    grid, tile = _tile((nz, ny, (nx + 1) // 2), 256)
    with on_device(x):
        face = isinstance(stencil, FaceStencil)
        relax_kernel[grid](*pointers, b, x, omega, colour, nz, ny, nx, face, fresh, **tile)


def relax(stencil: Stencil, b: Tensor, x: Tensor, omega: float, colour: int) -> None:
    """Half a red-black sweep, in place: over-relax the cells with ``(k + j + i) % 2 == colour``.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x : (nz, ny, nx) tensors, float32 or float64
        Contiguous; `x` is overwritten.
    omega : float
        Over-relaxation.
    colour : {0, 1}
        Which half.

    Raises
    ------
    TypeError, ValueError
        As `apply`.

    Examples
    --------
    >>> relax(stencil, b, x, 1.0, 0)  # doctest: +SKIP
    """
    _relax(stencil, b, x, omega, colour, False)


def _factors(fine: Sequence[int], coarse: Tensor) -> tuple[int, ...]:
    factors = tuple(-(-n // m) for n, m in zip(fine, coarse.shape, strict=True))
    expected = tuple(-(-n // f) for n, f in zip(fine, factors, strict=True))
    if not set(factors) <= {1, 2} or expected != tuple(coarse.shape):
        raise ValueError(f"a coarse grid of {tuple(coarse.shape)} cells does not halve {tuple(fine)}")
    if not coarse.is_contiguous():
        raise ValueError("grid kernels need contiguous tensors")
    return factors


def smooth(
    stencil: Stencil,
    b: Tensor,
    x: Tensor,
    coarse_x: Tensor,
    coarse_b: Tensor,
    omega: float,
    prolongs: int,
    halves: int,
    first: int,
    fresh: bool,
    restricts: int,
) -> None:
    """Add the coarse correction, relax, and restrict the residual, in place, a launch for each.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x : (nz, ny, nx) tensors, float32 or float64
        Contiguous; `x` is overwritten.
    coarse_x, coarse_b : (cz, cy, cx) tensors
        Correction to add (not read unless `prolongs`) and restricted residual (overwritten if
        `restricts`), of as many cells as `x` along each axis or half of them rounded up.
    omega : float
        Over-relaxation.
    prolongs, restricts : {0, 1}
        Whether to begin with the prolongation, and to end with the restriction.
    halves : int
        How many half sweeps, of alternating colour.
    first : {0, 1}
        Colour of the first half sweep.
    fresh : bool
        Let the first half sweep start from zero, whatever `x` holds.

    Raises
    ------
    TypeError, ValueError
        As `apply`; also where the coarse shape does not fit.

    Examples
    --------
    >>> smooth(stencil, b, x, coarse_x, coarse_b, 1.0, 1, 2, 0, False, 0)  # doctest: +SKIP
    """
    pointers, face = _pointers(stencil, b, x), isinstance(stencil, FaceStencil)
    for _ in range(prolongs):
        factors = _factors(x.shape, coarse_x)
        grid, tile = _tile(x.shape)
        with on_device(x):
            sizes = (*x.shape, *coarse_x.shape[1:], *factors)
            prolong_kernel[grid](*pointers, coarse_x, x, *sizes, face, **tile)
    for half in range(halves):
        _relax(stencil, b, x, omega, (first + half) % 2, bool(fresh) and half == 0)
    if restricts:
        factors = _factors(x.shape, coarse_b)
        grid, tile = _tile(coarse_b.shape, 128)
        with on_device(x):
            sizes = (*x.shape, *coarse_b.shape, *factors)
            restrict_kernel[grid](*pointers, b, x, coarse_b, *sizes, face, **tile)
