"""Kernels for compressed sparse rows on the GPU, in Triton. Real numbers only.

A program takes a few rows and walks along them together, as many entries (or, for several
vectors, columns) at a time as the rows are long on average. Addresses are 64-bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learnsolve.kernels.grid_triton import on_device


@triton.jit
def rows_kernel(
    indptr, indices, values, diagonal, b, x, y, rows, omega: tl.float64, count, b_stride, x_stride,
    MODE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write ``A x`` (``MODE`` 0) or ``b - A x`` (1) to ``y``, or relax ``rows`` of ``x`` (2)."""
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = n < count
    row = n
    if MODE == 2:
        row = tl.load(rows + n, mask=inside, other=0).to(tl.int64)
    start = tl.load(indptr + row, mask=inside, other=0).to(tl.int64)
    end = tl.load(indptr + row + 1, mask=inside, other=0).to(tl.int64)
    longest = tl.max(end - start, axis=0)
    offset = longest - longest
    total = tl.zeros((ROWS, WIDTH), values.dtype.element_ty)
    while offset < longest:
        p = start[:, None] + offset + tl.arange(0, WIDTH)[None, :]
        stored = p < end[:, None]
        column = tl.load(indices + p, mask=stored, other=0).to(tl.int64)
        value = tl.load(values + p, mask=stored, other=0)
        total += value * tl.load(x + column * x_stride, mask=stored, other=0)
        offset += WIDTH
    product = tl.sum(total, axis=1)
    if MODE == 0:
        tl.store(y + row, product, mask=inside)
    else:
        product = tl.load(b + row * b_stride, mask=inside, other=0) - product
        if MODE == 1:
            tl.store(y + row, product, mask=inside)
        else:
            d = tl.load(diagonal + row, mask=inside, other=0)
            old = tl.load(x + row * x_stride, mask=inside, other=0)
            factor = (tl.zeros((1,), old.dtype) + omega).to(old.dtype)
            step = factor * product / tl.where(d != 0, d, 1)
            tl.store(x + row * x_stride, old + step, mask=inside & (d != 0))


@triton.jit
def columns_kernel(
    indptr, indices, values, b, x, y, count, width,
    MODE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write ``A x`` (``MODE`` 0) or ``b - A x`` (1) to ``y`` for several columns."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    inside = row < count
    start = tl.load(indptr + row, mask=inside, other=0).to(tl.int64)
    end = tl.load(indptr + row + 1, mask=inside, other=0).to(tl.int64)
    longest = tl.max(tl.max(end - start, axis=1), axis=0)
    offset = longest - longest
    total = tl.zeros((ROWS, WIDTH), values.dtype.element_ty)
    while offset < longest:
        stored = start + offset < end
        column = tl.load(indices + start + offset, mask=stored, other=0).to(tl.int64)
        value = tl.load(values + start + offset, mask=stored, other=0)
        total += value * tl.load(x + column * width + c, mask=stored & (c < width), other=0)
        offset += 1
    target, mask = row * width + c, inside & (c < width)
    if MODE == 1:
        total = tl.load(b + target, mask=mask, other=0) - total
    tl.store(y + target, total, mask=mask)


@triton.jit
def sampled_kernel(
    indptr, indices, u, v, out, count, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write ``sum_k u_ik v_jk`` for each stored entry."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    start = tl.load(indptr + row, mask=inside, other=0).to(tl.int64)
    end = tl.load(indptr + row + 1, mask=inside, other=0).to(tl.int64)
    longest = tl.max(end - start, axis=0)
    offset = longest - longest
    while offset < longest:
        p = start[:, None] + offset + tl.arange(0, WIDTH)[None, :]
        stored = p < end[:, None]
        column = tl.load(indices + p, mask=stored, other=0).to(tl.int64)
        total = tl.zeros((ROWS, WIDTH), u.dtype.element_ty)
        c = longest - longest
        while c < width:
            left = tl.load(u + row * width + c, mask=inside, other=0)
            total += left[:, None] * tl.load(v + column * width + c, mask=stored, other=0)
            c += 1
        tl.store(out + p, total, mask=stored)
        offset += WIDTH


def _check(*tensors: Tensor) -> None:
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Triton kernels work in float32 and float64, not in {dtype}: use the reference form")
    if any(t.dtype != dtype for t in tensors):
        raise TypeError(f"all tensors of a launch must be of one dtype, here {dtype}")


def _contiguous(*tensors: Tensor) -> None:
    if any(not t.is_contiguous() for t in tensors):
        raise ValueError("sparse kernels need contiguous tensors")


def _tile(count: int, entries: int, rows: int) -> tuple[tuple[int], dict[str, int]]:
    """Launch grid and tile for rows of the matrix's average length."""
    width = min(128, triton.next_power_of_2(max(1, entries // max(1, rows))))
    height = min(512 // width, triton.next_power_of_2(max(1, count)))
    return (triton.cdiv(count, height),), {"ROWS": height, "WIDTH": width}


def _product(matrix: tuple[Tensor, Tensor, Tensor], b: Tensor, x: Tensor, y: Tensor, mode: int) -> None:
    indptr, _, values = matrix
    _check(values, b, x, y)
    _contiguous(*matrix, b, x, y)
    rows = indptr.numel() - 1
    if y.numel() == 0:
        return
    with on_device(x):
        if x.ndim == 1:
            grid, tile = _tile(rows, values.numel(), rows)
            rows_kernel[grid](*matrix, values, b, x, y, indptr, 0.0, rows, 1, 1, mode, **tile)
        else:
            width = min(64, triton.next_power_of_2(x.shape[1]))
            height = 512 // width
            columns = (triton.cdiv(rows, height), triton.cdiv(x.shape[1], width))
            columns_kernel[columns](*matrix, b, x, y, rows, x.shape[1], mode, height, width)


def spmv(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, y: Tensor) -> None:
    """Write ``A x`` to `y`.

    Parameters
    ----------
    indptr : (m + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64
    values : (nnz,) tensor, float32 or float64
    x, y : (n,) and (m,) or (n, k) and (m, k) tensors of the values' dtype, contiguous

    Raises
    ------
    TypeError
        Complex numbers, or several dtypes.
    ValueError
        A tensor that is not contiguous.

    Examples
    --------
    >>> spmv(indptr, indices, values, x, y)  # doctest: +SKIP
    """
    _product((indptr, indices, values), y, x, y, 0)


def residual(indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, x: Tensor, r: Tensor) -> None:
    """Write ``b - A x`` to `r`; arguments and errors as for `spmv`.

    Examples
    --------
    >>> residual(indptr, indices, values, b, x, r)  # doctest: +SKIP
    """
    _product((indptr, indices, values), b, x, r, 1)


def relax_rows(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    b: Tensor,
    x: Tensor,
    rows: Tensor,
    omega: float,
) -> None:
    """Over-relax rows that are not coupled, in place.

    Parameters
    ----------
    indptr, indices, values : tensors
        The square matrix, as for `spmv`.
    diagonal : (n,) tensor
        Its diagonal; rows where it is zero are left as they are.
    b, x : (n,) tensors
        Right-hand side and iterate; `x` is overwritten.
    rows : (c,) tensor, int32 or int64
        Rows of one colour.
    omega : float
        Over-relaxation.

    Raises
    ------
    TypeError, ValueError
        As `spmv`.

    Examples
    --------
    >>> relax_rows(indptr, indices, values, diagonal, b, x, rows, 1.0)  # doctest: +SKIP
    """
    _check(values, diagonal, b, x)
    _contiguous(indptr, indices, values, diagonal, rows)
    if rows.numel() == 0:
        return
    grid, tile = _tile(rows.numel(), values.numel(), diagonal.numel())
    matrix: tuple[Any, ...] = (indptr, indices, values, diagonal)
    with on_device(x):
        rows_kernel[grid](*matrix, b, x, x, rows, omega, rows.numel(), b.stride(0), x.stride(0), 2, **tile)


def sampled_product(indptr: Tensor, indices: Tensor, u: Tensor, v: Tensor, out: Tensor) -> None:
    """Write ``sum_k u_ik v_jk`` to `out` for each stored entry ``(i, j)``.

    Parameters
    ----------
    indptr : (m + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64
    u, v : (m,) and (n,) or (m, k) and (n, k) tensors, float32 or float64, contiguous
    out : (nnz,) tensor
        Overwritten.

    Raises
    ------
    TypeError, ValueError
        As `spmv`.

    Examples
    --------
    >>> sampled_product(indptr, indices, u, v, out)  # doctest: +SKIP
    """
    _check(u, v, out)
    _contiguous(indptr, indices, u, v, out)
    if out.numel() == 0:
        return
    rows = indptr.numel() - 1
    grid, tile = _tile(rows, out.numel(), rows)
    with on_device(u):
        sampled_kernel[grid](indptr, indices, u, v, out, rows, u.numel() // max(1, rows), **tile)
