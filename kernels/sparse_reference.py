"""Kernels for compressed sparse rows in plain torch: the truth against which the others are tested.

They run on every device and in every dtype. ``spmv``, ``residual`` and ``sampled_product`` can be
differentiated any number of times, in the values and in the vectors; ``relax_rows`` and
``gauss_seidel`` write into `x`. Throughout, row ``i`` of the matrix has the columns
``indices[indptr[i]:indptr[i + 1]]``, of any order, and the values beside them.
"""

import torch
from torch import Tensor


def _rows(indptr: Tensor) -> Tensor:
    counts = (indptr[1:] - indptr[:-1]).long()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=indptr.device), counts)


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(values.shape + (1,) * (x.ndim - 1))


def spmv(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """Multiply by a vector or by several: ``A x``.

    Parameters
    ----------
    indptr : (m + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64
    values : (nnz,) tensor
    x : (n,) or (n, k) tensor

    Returns
    -------
    (m,) or (m, k) tensor

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> spmv(indptr, indices, torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 10.0]))
    tensor([ 2., 43.])
    """
    out = torch.zeros((indptr.numel() - 1, *x.shape[1:]), dtype=x.dtype, device=x.device)
    return out.index_add(0, _rows(indptr), _like(values, x) * x[indices.long()])


def residual(indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Residual ``b - A x``.

    Parameters
    ----------
    indptr, indices, values : tensors
        The matrix, as for `spmv`.
    b : (m,) or (m, k) tensor
    x : (n,) or (n, k) tensor

    Returns
    -------
    (m,) or (m, k) tensor

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> residual(indptr, indices, torch.tensor([2.0, 3.0, 4.0]), torch.ones(2), torch.tensor([1.0, 10.0]))
    tensor([ -1., -42.])
    """
    return b - spmv(indptr, indices, values, x)


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
    """Over-relax the given rows at once, in place: a Gauss-Seidel step if they are not coupled.

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

    Examples
    --------
    >>> matrix = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0, 4.0])
    >>> x = torch.zeros(2)
    >>> relax_rows(*matrix, torch.tensor([2.0, 4.0]), torch.ones(2), x, torch.tensor([1]), 1.0)
    >>> x
    tensor([0.0000, 0.2500])
    """
    rows = rows.long()
    d = diagonal[rows]
    inverse = torch.where(d != 0, 1 / torch.where(d != 0, d, 1), 0)
    step = residual(indptr, indices, values, b, x)[rows] * _like(inverse, x)
    x[rows] += omega * step


def gauss_seidel(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    b: Tensor,
    x: Tensor,
    omega: complex,
    reverse: bool,
) -> None:
    """One sweep over the rows in their order, or against it, in place.

    Parameters
    ----------
    indptr, indices, values, diagonal, b, x, omega
        As for `relax_rows`.
    reverse : bool
        Start at the last row.

    Examples
    --------
    >>> matrix = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0, 4.0])
    >>> x = torch.zeros(2)
    >>> gauss_seidel(*matrix, torch.tensor([2.0, 4.0]), torch.ones(2), x, 1.0, False)
    >>> x
    tensor([ 0.5000, -0.1250])
    """
    order = range(diagonal.numel())
    for row in reversed(order) if reverse else order:
        if diagonal[row] != 0:
            entries = slice(int(indptr[row]), int(indptr[row + 1]))
            total = (_like(values[entries], x) * x[indices[entries].long()]).sum(0)
            x[row] += omega * (b[row] - total) / diagonal[row]


def colouring(indptr: Tensor, indices: Tensor) -> Tensor:
    """Colour the rows greedily so that rows of one colour are not coupled, either way.

    Parameters
    ----------
    indptr : (n + 1,) tensor, int32 or int64
    indices : (nnz,) tensor, int32 or int64

    Returns
    -------
    (n,) int32 tensor
        Colours from zero, each row's the smallest that no earlier coupled row has.

    Examples
    --------
    >>> colouring(torch.tensor([0, 1, 3, 5]), torch.tensor([0, 0, 1, 1, 2]))
    tensor([0, 1, 0], dtype=torch.int32)
    """
    coupled: list[set[int]] = [set() for _ in range(indptr.numel() - 1)]
    for row, column in zip(_rows(indptr).tolist(), indices.tolist(), strict=True):
        if row != column:
            coupled[row].add(column)
            coupled[column].add(row)
    colours: list[int] = []
    for row, others in enumerate(coupled):
        taken = {colours[other] for other in others if other < row}
        colours.append(min(set(range(len(taken) + 1)) - taken))
    return torch.tensor(colours, dtype=torch.int32, device=indptr.device)


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

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    >>> sampled_product(indptr, indices, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]))
    tensor([ 3.,  6., 10.])
    """
    product = u[_rows(indptr)] * v[indices.long()].conj()
    return product if u.ndim == 1 else product.sum(1)
