"""Additive attention: a running softmax over time, for each channel of the keys."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from learnsolve.sequence.attention import linear_attention
from learnsolve.sequence.functional import check_heads, sequences

State = tuple[Tensor, Tensor]


def additive_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    scale: float = 1.0,
    turn: Callable[[Tensor], Tensor] | None = None,
    initial_state: State | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, State]:
    r"""Attention whose state is a mean: each channel of the keys weighs all that came by its exponential.

    .. math:: S_t = \frac{\sum_{s \le t} e^{k_s} v_s^T}{\sum_{s \le t} e^{k_s}}, \qquad
        o_t = \text{scale} \cdot S_t^T q_t

    As a recurrence that is linear attention with the decay :math:`z_{t-1} - z_t`, where z is the running
    logarithm of the sum. Since numerator and denominator are sums, tokens without an order, as those of a
    picture, need one pass: ``causal=False`` takes all of them at once.

    Parameters
    ----------
    q, k : (B, T, H, K) Tensor
        Keys are logarithms of weights.
    v : (B, T, H, V) Tensor
    causal : bool
    scale : float
    turn : callable, optional
        What turns queries and weights, (B, T, H, K), by their places.
    initial_state : (S, z), optional
        (N, H, K, V) and (N, H, K): the mean so far, and the logarithm of the sum of its weights.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (S, z)

    Raises
    ------
    ValueError, TypeError
        As by `linear_attention`.

    References
    ----------
    Qin and others, *You only scan once: efficient multi-dimension sequential modeling with LightNet*, 2024,
    section 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.light import additive_attention
    >>> v = torch.tensor([2.0, 4.0, 6.0]).reshape(1, 3, 1, 1)
    >>> additive_attention(torch.ones_like(v), 0 * v, v)[0].flatten().round(decimals=4).tolist()
    [2.0, 3.0, 4.0]
    >>> additive_attention(torch.ones_like(v), 0 * v, v, causal=False)[0][0, 0].round(decimals=4).item()
    4.0
    """
    check_heads(q, k, v)
    if not causal:
        if initial_state is not None or cu_seqlens is not None:
            raise ValueError("tokens without an order have no initial state, and are not packed")
        z = k.logsumexp(1)
        q, weights = _turned(turn, q, (k - z.unsqueeze(1)).exp())
        S = torch.einsum("bthk,bthv->bhkv", weights, v)
        return scale * torch.einsum("bthk,bhkv->bthv", q, S), (S, z)
    pieces = sequences(q.shape[0], q.shape[1], cu_seqlens)
    bounds = [0, q.shape[1]] if cu_seqlens is None else [0, *pieces[:, 2].tolist()]
    first, before = (None, None) if initial_state is None else initial_state
    count = q.shape[0] if cu_seqlens is None else len(bounds) - 1
    if before is not None and before.shape != (count, *q.shape[2:]):
        raise ValueError(
            f"z of initial_state has shape {tuple(before.shape)}; {(count, *q.shape[2:])} is accepted"
        )
    sums, decays = [], []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        part = k[:, begin:end]
        if before is None:
            z = part.logcumsumexp(1)
            # Of a state of zeros any decay is right.
            earlier = torch.cat([z[:, :1], z[:, :-1]], 1)
        else:
            start = (before if cu_seqlens is None else before[number : number + 1]).unsqueeze(1)
            whole = torch.cat([start, part], 1).logcumsumexp(1)
            z, earlier = whole[:, 1:], whole[:, :-1]
        sums.append(z)
        # Rounding must not make a decay grow.
        decays.append((earlier - z).clamp_max(0))
    z, g = torch.cat(sums, 1), torch.cat(decays, 1)
    q, weights = _turned(turn, q, (k - z).exp())
    o, last = linear_attention(q, weights, v, g, scale=scale, initial_state=first, cu_seqlens=cu_seqlens)
    return o, (last, _ends(sums, before, z, cu_seqlens is not None))


def _turned(turn: Callable[[Tensor], Tensor] | None, *tensors: Tensor) -> list[Tensor]:
    return [one if turn is None else turn(one) for one in tensors]


def _ends(sums: list[Tensor], before: Tensor | None, z: Tensor, packed: bool) -> Tensor:
    """The logarithm of the sum at each sequence's end; of an empty one, what was before."""
    rows = []
    for number, part in enumerate(sums):
        if part.shape[1]:
            rows.append(part[:, -1])
        elif before is not None:
            rows.append(before[number : number + 1] if packed else before)
        else:
            rows.append(z.new_full((1 if packed else z.shape[0], *z.shape[2:]), -torch.inf))
    return torch.cat(rows) if packed else rows[0]
