"""Causal softmax attention, to all that came before or to a window of it."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from learnsolve.sequence.functional import apart, check_heads

Pair = tuple[Tensor, Tensor]


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None = None,
    *,
    scale: float | None = None,
    initial_state: Pair | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Any]:
    r"""Softmax attention of each token to itself and to the ``window - 1`` before it.

    Blocks of the window's length see themselves and the block before, so that time and memory grow by length
    times window.

    Parameters
    ----------
    q, k : (B, T, H, K) Tensor
    v : (B, T, H, V) Tensor
        Of one floating dtype.
    window : int, optional
        By default all that came before.
    scale : float, optional
        :math:`K^{-1/2}` by default.
    initial_state : (keys, values), optional
        (N, S, H, K) and (N, S, H, V): what came before, at most ``window - 1`` of it counts. N is B.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1, and there is no initial state.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (keys, values), or a list of such, one for each packed sequence
        What later tokens may still attend to.

    Raises
    ------
    ValueError
        Shapes do not fit, the window is not positive, or ``cu_seqlens`` does not rise from 0 to T.

    References
    ----------
    Beltagy, Peters and Cohan, *Longformer: the long-document transformer*, 2020, section 3.1; Dao and Gu,
    *Transformers are SSMs*, ICML 2024, on hybrids of both kinds.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import sliding_window_attention
    >>> v = torch.tensor([2.0, 4.0, 6.0]).reshape(1, 3, 1, 1)
    >>> o, _ = sliding_window_attention(0 * v, 0 * v, v, window=2)
    >>> o.flatten().tolist()
    [2.0, 3.0, 5.0]
    """
    check_heads(q, k, v)
    if window is not None and window < 1:
        raise ValueError(f"window is {window}; a positive number, or None for all, is accepted")
    if cu_seqlens is not None:
        if initial_state is not None:
            raise ValueError("packed sequences have no initial state here; give them one by one")
        return apart(partial(sliding_window_attention, window=window, scale=scale), cu_seqlens, q, k, v)
    if initial_state is not None:
        _check_state(initial_state, k, v)
        k, v = (torch.cat(pair, 1) for pair in zip(initial_state, (k, v), strict=True))
    kept = k.shape[1] if window is None else min(window - 1, k.shape[1])
    state = tuple(one[:, one.shape[1] - kept :] for one in (k, v))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if q.numel() == 0 or v.numel() == 0:
        return v[:, v.shape[1] - q.shape[1] :], state
    if window is None or k.shape[1] <= 2 * window:
        rows, columns = (torch.arange(n, device=q.device) for n in (q.shape[1], k.shape[1]))
        away = rows[:, None] + (len(columns) - len(rows)) - columns
        seen = (away >= 0) & (away < (window or len(columns)))
        return _attended(q, k, v, seen, scale), state
    return _by_blocks(q, k, v, window, scale), state


def _check_state(state: Pair, k: Tensor, v: Tensor) -> None:
    for one, new, name in zip(state, (k, v), ("keys", "values"), strict=True):
        fits = one.ndim == 4 and one.shape[0] == new.shape[0] and one.shape[2:] == new.shape[2:]
        if not fits or state[0].shape[1] != state[1].shape[1]:
            shape = ("N", "S", *new.shape[2:])
            raise ValueError(f"{name} of the state have shape {tuple(one.shape)}; {shape} is accepted")


def _attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """By (times, times) of what is seen."""
    q, k, v = (one.transpose(-3, -2) for one in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(-3, -2)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """Each block of queries with its own keys and those of the block before."""
    length, before = q.shape[1], k.shape[1] - q.shape[1]
    count = math.ceil(length / window)
    # Keys begin a block before the queries, padded by what nobody sees.
    ahead, behind = window - min(before, window), count * window - length
    q = pad(q, (0, 0, 0, 0, 0, behind)).unflatten(1, (count, window))
    k, v = (
        pad(one[:, max(0, before - window) :], (0, 0, 0, 0, ahead, behind))
        .unfold(1, 2 * window, window)
        .movedim(-1, 2)
        for one in (k, v)
    )
    places = torch.arange(2 * window, device=q.device)
    away = places[:window, None] + window - places
    seen = ((away >= 0) & (away < window)).expand(count, 1, window, 2 * window).clone()
    seen[0, ..., :ahead] = False
    return _attended(q, k, v, seen, scale).flatten(1, 2)[:, :length]
