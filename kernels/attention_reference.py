"""Attention with a state in plain torch, step by step: short, slow, and what the other forms must equal.

Shapes are those of `learnsolve.kernels.attention`. Gradients go through.
"""

import torch
from torch import Tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, first: Tensor, pieces: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``S = e^g S + k v'``, ``o = scale S' q``, and the last states.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> attend(one, one, one, None, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 2]]), 1.0)[0].flatten()
    tensor([1., 2.])
    """

    def step(S: Tensor, n: int, t: int) -> Tensor:
        S = S if g is None else g[n, t].exp().unsqueeze(-1) * S
        return S + k[n, t].unsqueeze(-1) * v[n, t].unsqueeze(-2)

    return _scanned(step, q, v, first, pieces, scale)


def substitute(w: Tensor, k: Tensor, b: Tensor, g: Tensor | None, pieces: Tensor) -> Tensor:
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on: u.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> substitute(one, one, one, None, torch.tensor([[0, 0, 2]])).flatten()
    tensor([1., 0.])
    """
    found = {}
    for n, begin, end in pieces.tolist():
        S = b.new_zeros(*k.shape[2:], b.shape[3])
        for t in range(begin, end):
            S = S if g is None else g[n, t].exp().unsqueeze(-1) * S
            found[n, t] = b[n, t] - (w[n, t].unsqueeze(-2) @ S)[..., 0, :]
            S = S + k[n, t].unsqueeze(-1) * found[n, t].unsqueeze(-2)
    rows = [found.get((n, t), b.new_zeros(b.shape[2:])) for n in range(b.shape[0]) for t in range(b.shape[1])]
    return torch.stack(rows).reshape(b.shape) if rows else b.clone()


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """``S = e^g S``, ``S = S + beta k (v - S' k)'``, ``o = scale S' q``, and the last states.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> delta(one, one, one, one[..., 0], None, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 2]]), 1.0)[1]
    tensor([[[[1.]]]])
    """

    def step(S: Tensor, n: int, t: int) -> Tensor:
        S = S if g is None else g[n, t].exp().unsqueeze(-1) * S
        x = k[n, t].unsqueeze(-1)
        u = beta[n, t, :, None, None] * (v[n, t].unsqueeze(-2) - x.mT @ S)
        return S + x * u

    return _scanned(step, q, v, first, pieces, scale)


def _scanned(
    step, q: Tensor, v: Tensor, first: Tensor, pieces: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    found, last = {}, []
    for number, (n, begin, end) in enumerate(pieces.tolist()):
        S = first[number]
        for t in range(begin, end):
            S = step(S, n, t)
            found[n, t] = scale * (q[n, t].unsqueeze(-2) @ S)[..., 0, :]
        last.append(S)
    batch, length = v.shape[:2]
    rows = [found.get((n, t), v.new_zeros(v.shape[2:])) for n in range(batch) for t in range(length)]
    o = torch.stack(rows).reshape(v.shape) if rows else v.clone()
    return o, torch.stack(last) if last else first
