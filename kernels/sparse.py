"""Kernels for compressed sparse rows: each call goes to the form that suits the tensors' device.

On the CPU that is numba's, on views of the tensors' memory; on a GPU Triton's for real numbers;
else the reference in plain torch. Calls are not recorded for differentiation. Indices are not
checked: a column out of range is undefined behaviour.
"""

from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import sparse_reference
from learnsolve.kernels.memory import scalar, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def _form(x: Tensor) -> str:
    if x.device.type == "cpu" and x.dtype in _NUMBA:
        return "numba"
    if x.device.type == "cuda" and x.dtype in (torch.float32, torch.float64):
        return "triton"
    return "reference"


def _check(indptr: Tensor, b: Tensor | None, x: Tensor, out: Tensor, *same: Tensor) -> None:
    expected = (indptr.numel() - 1, *x.shape[1:])
    for t in (out,) if b is None else (b, out):
        if tuple(t.shape) != expected:
            raise ValueError(f"expected a vector of shape {expected}, got {tuple(t.shape)}")
    if any(t.dtype != x.dtype or t.device != x.device for t in (out, *same)):
        raise TypeError("the matrix's values and all vectors must be of one dtype and on one device")
    if out.is_conj() or out.is_neg():
        raise ValueError("a vector to be overwritten must not be a lazily conjugated or negated view")


def spmv(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Multiply by a vector or by several: ``y = A x``.

    Parameters
    ----------
    indptr : (m + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64
    values : (nnz,) tensor
    x : (n,) or (n, k) tensor of the values' dtype
    y : (m,) or (m, k) tensor, optional
        Overwritten; allocated if not given.

    Returns
    -------
    tensor
        `y`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    TypeError
        Several dtypes or devices.

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> spmv(indptr, indices, torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 10.0]))
    tensor([ 2., 43.])
    """
    return _product(indptr, indices, values, None, x, y)


def residual(
    indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, x: Tensor, r: Tensor | None = None
) -> Tensor:
    """Residual ``r = b - A x``.

    Parameters
    ----------
    indptr, indices, values, x
        As for `spmv`.
    b : (m,) or (m, k) tensor
    r : (m,) or (m, k) tensor, optional
        Overwritten; allocated if not given.

    Returns
    -------
    tensor
        `r`.

    Raises
    ------
    ValueError, TypeError
        As `spmv`.

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> residual(indptr, indices, torch.tensor([2.0, 3.0, 4.0]), torch.ones(2), torch.tensor([1.0, 10.0]))
    tensor([ -1., -42.])
    """
    return _product(indptr, indices, values, b, x, r)


def _product(
    indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor | None, x: Tensor, out: Tensor | None
) -> Tensor:
    if out is None:
        out = torch.empty((indptr.numel() - 1, *x.shape[1:]), dtype=x.dtype, device=x.device)
    vectors: tuple[Tensor, ...] = (x,) if b is None else (b, x)
    _check(indptr, b, x, out, values, *vectors)
    form = _form(x)
    matrix = (indptr, indices, values)
    if form == "numba" and out.is_contiguous():
        from learnsolve.kernels import sparse_numba

        kernel: Any = sparse_numba.spmv if b is None else sparse_numba.residual
        vectors = tuple(t.contiguous() for t in vectors)
        kernel(*views(*matrix, *vectors, out), threads(indices.numel()))
    elif form == "triton" and out.is_contiguous():
        from learnsolve.kernels import sparse_triton

        kernel = sparse_triton.spmv if b is None else sparse_triton.residual
        kernel(*matrix, *(t.contiguous() for t in vectors), out)
    else:
        kernel = sparse_reference.spmv if b is None else sparse_reference.residual
        with torch.no_grad():
            out.copy_(kernel(*matrix, *vectors))
    return out


def relax_rows(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    b: Tensor,
    x: Tensor,
    rows: Tensor,
    omega: complex,
) -> None:
    """Over-relax rows that are not coupled, in parallel and in place: a Gauss-Seidel step.

    Parameters
    ----------
    indptr, indices, values : tensors
        The square matrix, as for `spmv`.
    diagonal : (n,) tensor
        Its diagonal; rows where it is zero are left as they are.
    b, x : (n,) or (n, k) tensors
        Right-hand side and iterate; `x` is overwritten.
    rows : (c,) tensor, int32 or int64
        Rows of one colour of `colouring`.
    omega : number
        Over-relaxation.

    Raises
    ------
    ValueError, TypeError
        As `spmv`.

    Examples
    --------
    >>> matrix = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0, 4.0])
    >>> x = torch.zeros(2)
    >>> relax_rows(*matrix, torch.tensor([2.0, 4.0]), torch.ones(2), x, torch.tensor([1]), 1.0)
    >>> x
    tensor([0.0000, 0.2500])
    """
    _check(indptr, b, x, x, values, diagonal, b)
    form = _form(x)
    if form == "reference":
        with torch.no_grad():
            sparse_reference.relax_rows(indptr, indices, values, diagonal, b, x, rows, omega)
        return
    for vectors in _paired_columns(b, x):
        if form == "numba":
            from learnsolve.kernels import sparse_numba

            kernel: Any = sparse_numba.relax_rows
            arrays = views(indptr, indices, values, diagonal, *vectors, rows)
            kernel(*arrays, scalar(omega, x), threads(rows.numel()))
        else:
            from learnsolve.kernels import sparse_triton

            sparse_triton.relax_rows(indptr, indices, values, diagonal, *vectors, rows, float(omega.real))


def _paired_columns(b: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(b, x)] if x.ndim == 1 else list(zip(b.unbind(1), x.unbind(1), strict=True))


def gauss_seidel(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    b: Tensor,
    x: Tensor,
    omega: complex,
    reverse: bool = False,
) -> None:
    """One sweep over the rows in their order, or against it, in place; on the CPU alone.

    Parameters
    ----------
    indptr, indices, values, diagonal, b, x, omega
        As for `relax_rows`.
    reverse : bool
        Start at the last row.

    Raises
    ------
    NotImplementedError
        Tensors that are not on the CPU.
    ValueError, TypeError
        As `spmv`.

    Examples
    --------
    >>> matrix = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0, 4.0])
    >>> x = torch.zeros(2)
    >>> gauss_seidel(*matrix, torch.tensor([2.0, 4.0]), torch.ones(2), x, 1.0)
    >>> x
    tensor([ 0.5000, -0.1250])
    """
    if x.device.type != "cpu":
        raise NotImplementedError(
            f"a sweep in the rows' order is serial and runs on the CPU alone, not on {x.device}: "
            "use relax_rows, colour by colour, or move the tensors"
        )
    _check(indptr, b, x, x, values, diagonal, b)
    if _form(x) == "reference":
        with torch.no_grad():
            sparse_reference.gauss_seidel(indptr, indices, values, diagonal, b, x, omega, reverse)
        return
    from learnsolve.kernels import sparse_numba

    kernel: Any = sparse_numba.gauss_seidel
    for vectors in _paired_columns(b, x):
        arrays = views(indptr, indices, values, diagonal, *vectors)
        kernel(*arrays, scalar(omega, x), bool(reverse))


def colouring(indptr: Tensor, indices: Tensor) -> Tensor:
    """Colour the rows greedily so that rows of one colour are not coupled, either way.

    Parameters
    ----------
    indptr : (n + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64

    Returns
    -------
    (n,) int32 tensor
        Colours from zero, on the device of `indptr`. Computed on the CPU.

    Examples
    --------
    >>> colouring(torch.tensor([0, 1, 3, 5]), torch.tensor([0, 0, 1, 1, 2]))
    tensor([0, 1, 0], dtype=torch.int32)
    """
    from learnsolve.kernels import sparse_numba

    colours = sparse_numba.colouring(*views(indptr.cpu(), indices.cpu()))
    return torch.from_numpy(colours).to(indptr.device)


def sampled_product(indptr: Tensor, indices: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Entries of ``u v^H`` where the matrix has entries: its gradient in a product with a vector.

    Parameters
    ----------
    indptr : (m + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64
    u : (m,) or (m, k) tensor
    v : (n,) or (n, k) tensor

    Returns
    -------
    (nnz,) tensor
        ``sum_k u_ik conj(v_jk)`` for each stored entry ``(i, j)``.

    Raises
    ------
    ValueError, TypeError
        As `spmv`.

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> sampled_product(indptr, indices, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]))
    tensor([ 3.,  6., 10.])
    """
    _check(indptr, None, v, u, v)
    form = _form(u)
    if form == "reference":
        with torch.no_grad():
            return sparse_reference.sampled_product(indptr, indices, u, v)
    out = torch.empty(indices.shape, dtype=u.dtype, device=u.device)
    u, v = ((t if t.ndim == 2 else t[:, None]).contiguous() for t in (u, v))
    if form == "numba":
        from learnsolve.kernels import sparse_numba

        kernel: Any = sparse_numba.sampled_product
        kernel(*views(indptr, indices, u, v, out), threads(indices.numel()))
    else:
        from learnsolve.kernels import sparse_triton

        sparse_triton.sampled_product(indptr, indices, u, v, out)
    return out
