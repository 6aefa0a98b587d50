"""Least squares by rows: each call goes to the form that suits the tensors' device.

On the CPU that is numba's, on views of the tensors' memory; on a GPU Triton's; else the reference in plain
torch. Nothing is recorded for differentiation.
"""

from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import rows_reference, sparse
from learnsolve.kernels.rows_reference import Rows
from learnsolve.kernels.threads import threads

# Elements of matrices of normal equations that are held at a time on a GPU.
HELD = 1 << 26
# A multiple of the diagonal that makes any finite matrix positive definite.
HIGHEST = 1e10


def _form(U: Tensor) -> str:
    if U.device.type == "cpu" and U.dtype == torch.float64:
        return "numba"
    if U.device.type == "cuda" and U.dtype in (torch.float32, torch.float64):
        return "triton"
    return "reference"


def exact(rows: Rows, U: Tensor, squares: Tensor | None = None) -> Tensor:
    """Every row's least-squares problem by Cholesky's factors of its normal equations.

    A matrix that is not positive definite takes 1e-10 of its largest diagonal element on the diagonal, or as
    many times ten as make it so; a row without entries becomes zero.

    Parameters
    ----------
    rows : Rows
    U : (m, k) tensor
        At whose residuals a loss weighs.
    squares : (m,) tensor, optional
        Overwritten by each row's sum of squared residuals, which are not weighted.

    Returns
    -------
    (m, k) tensor

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> none, zero = one[:0], torch.zeros(1, 1, dtype=torch.float64)
    >>> places = torch.tensor([0, 1]), torch.tensor([0])
    >>> exact(Rows(*places, 6 * one, none, 0 * one, 2 * one[:, None], zero, zero, 0.0, 0, 0.0), zero)
    tensor([[3.]], dtype=torch.float64)
    """
    form = _form(U)
    if form == "numba":
        return _by_numba("rows_exact", rows, U, squares)
    found, step = torch.empty_like(U), max(1, HELD // U.shape[1] ** 2)
    for first in range(0, len(U), step):
        part = slice(first, min(first + step, len(U)))
        if form == "triton":
            from learnsolve.kernels import rows_triton

            G, y = rows_triton.normal_equations(rows, U, first, part.stop - first)
        else:
            G, y = rows_reference.normal_equations(rows, U, first, part.stop - first)
        found[part] = solved(G, y)
    return _measured(rows, found, squares)


def cg(
    rows: Rows,
    U: Tensor,
    steps: int,
    rtol: float = 0.0,
    squares: Tensor | None = None,
    *,
    sketch: int = 0,
    buckets: int = 0,
    seed: int = 0,
) -> Tensor:
    """Steps of conjugate gradients on every row's normal equations.

    Parameters
    ----------
    rows : Rows
    U : (m, k) tensor
        Where to begin.
    steps : int
    rtol : float
        A row ends early where its gradient is so much less than the first.
    squares : (m,) tensor, optional
        As for `exact`.
    sketch, buckets, seed : int
        Precondition by the Gram matrix of a sketch of so many rows; on the CPU, in float64.

    Returns
    -------
    (m, k) tensor

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> none, zero = one[:0], torch.zeros(1, 1, dtype=torch.float64)
    >>> places = torch.tensor([0, 1]), torch.tensor([0])
    >>> cg(Rows(*places, 6 * one, none, 0 * one, 2 * one[:, None], zero, zero, 0.0, 0, 0.0), zero, 1)
    tensor([[3.]], dtype=torch.float64)
    """
    form = _form(U)
    if form == "numba":
        return _by_numba("rows_cg", rows, U, squares, sketch, buckets, seed, rtol, steps)
    if buckets:
        raise NotImplementedError(f"sketches are for float64 on the CPU, not {U.dtype} on {U.device}")
    if form == "triton":
        from learnsolve.kernels import rows_triton

        return _measured(rows, rows_triton.cg(rows, U, steps, rtol), squares)
    return _measured(rows, rows_reference.cg(rows, U, steps, rtol), squares)


def nonnegative(rows: Rows, U: Tensor, steps: int, squares: Tensor | None = None) -> Tensor:
    """Rounds of coordinate descent over vectors that are not negative; on the CPU, in float64.

    Parameters
    ----------
    rows : Rows
    U : (m, k) tensor
        Where to begin.
    steps : int
    squares : (m,) tensor, optional
        As for `exact`.

    Returns
    -------
    (m, k) tensor
    """
    if _form(U) != "numba":
        raise NotImplementedError(f"this is for float64 on the CPU, not {U.dtype} on {U.device}")
    return _by_numba("rows_nonnegative", rows, U, squares, steps)


def solved(G: Tensor, y: Tensor) -> Tensor:
    """Solve with all matrices at once; those that are not positive definite are helped (see `exact`).

    Parameters
    ----------
    G : (m, k, k) tensor
    y : (m, k) tensor

    Returns
    -------
    (m, k) tensor
        NaN for matrices that are not finite, zero for those that are zero.

    Examples
    --------
    >>> solved(2 * torch.eye(2)[None], torch.ones(1, 2))
    tensor([[0.5000, 0.5000]])
    """
    most, lift = G.diagonal(dim1=-2, dim2=-1).amax(dim=-1), 0.0
    found, left = torch.zeros_like(y), torch.nonzero(most > 0).reshape(-1)
    eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
    while len(left) and lift < HIGHEST:
        L, failed = torch.linalg.cholesky_ex(G[left] + (lift * most[left])[:, None, None] * eye)
        good = failed == 0
        found[left[good]] = torch.cholesky_solve(y[left[good], :, None], L[good])[..., 0]
        left, lift = left[~good], max(10 * lift, 1e-10)
    found[left] = torch.nan
    found[most.isnan()] = torch.nan
    return found


def _by_numba(name: str, rows: Rows, U: Tensor, squares: Tensor | None, *options: Any) -> Tensor:
    from learnsolve.kernels import rows_numba

    found = U.clone()
    measured = U.new_empty(0) if squares is None else squares
    tensors = [t.detach().numpy() for t in rows[:8]]
    scalars = (rows.unobserved, rows.loss, rows.reach)
    kernel = getattr(rows_numba, name)
    kernel.parallel(
        *tensors, *scalars, found.numpy(), *options, measured.numpy(), threads(len(rows.values) * U.shape[1])
    )
    return found


def _measured(rows: Rows, U: Tensor, squares: Tensor | None) -> Tensor:
    """``U``, after its rows' sums of squared residuals were written."""
    if squares is not None:
        left = rows.values - rows.offset[rows.indices.long()]
        left = left - sparse.sampled_product(rows.indptr, rows.indices, U, rows.W)
        lengths = rows.indptr[1:] - rows.indptr[:-1]
        squares.copy_(torch.segment_reduce(left * left, "sum", lengths=lengths, initial=0))
    return U
