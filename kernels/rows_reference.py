"""Least squares by rows in plain torch, one row after the other: the truth for the other forms.

The problems are those of `learnsolve.kernels.rows_numba`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# A gradient that was reduced so far says nothing more.
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-13}


class Rows(NamedTuple):
    """Least-squares problems of all rows.

    Attributes
    ----------
    indptr, indices : (m + 1,) and (nnz,) integer tensors
    values : (nnz,) tensor
    weights : (nnz,) tensor
        Empty for ones.
    offset : (n,) tensor
    W : (n, k) tensor
    ridge, base : (k, k) tensors
    unobserved : float
    loss : int
        0 squares, 1 Huber's, 2 trimmed.
    reach : float
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    weights: Tensor
    offset: Tensor
    W: Tensor
    ridge: Tensor
    base: Tensor
    unobserved: float
    loss: int
    reach: float


def normal_equations(
    rows: Rows, U: Tensor, first: int = 0, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The matrices ``(count, k, k)`` and right-hand sides ``(count, k)`` of rows, weighted as ``U`` says."""
    m, k = len(U) - first if count is None else count, U.shape[1]
    G, y = U.new_zeros(m, k, k), U.new_zeros(m, k)
    for place in range(m):
        i = first + place
        part = slice(int(rows.indptr[i]), int(rows.indptr[i + 1]))
        places = rows.indices[part].long()
        F, x = rows.W[places], rows.values[part] - rows.offset[places]
        w = _weights(rows, part, x - F @ U[i])
        G[place] = len(x) * rows.ridge + rows.base + F.T @ ((w - rows.unobserved)[:, None] * F)
        y[place] = F.T @ (w * x)
    return G, y


def cg(rows: Rows, U: Tensor, steps: int, rtol: float) -> Tensor:
    """Steps of conjugate gradients from ``U`` on; rows without entries become zero."""
    rtol = max(rtol, ROUNDING[U.dtype])
    G, y = normal_equations(rows, U)
    found = U.clone()
    for i in range(len(U)):
        if rows.indptr[i] == rows.indptr[i + 1]:
            found[i] = 0
            continue
        r = y[i] - G[i] @ found[i]
        p, rr = r.clone(), r @ r
        first = rr.clone()
        for _ in range(steps):
            q = G[i] @ p
            curvature = p @ q
            if not (rr > rtol**2 * first and curvature > 0):
                break
            found[i] += rr / curvature * p
            r = r - rr / curvature * q
            before, rr = rr, r @ r
            p = r + rr / before * p
    return found


def _weights(rows: Rows, part: slice, left: Tensor) -> Tensor:
    w = rows.weights[part] if len(rows.weights) else torch.ones_like(left)
    if rows.loss == 1:
        return w * torch.clamp(
            rows.reach / left.abs().clamp(min=1e-300 if left.dtype == torch.float64 else 1e-30), max=1
        )
    if rows.loss == 2:
        return w * (left.abs() <= rows.reach)
    return w
