"""Causal softmax attention: to all that came before, to a window of it, or within chunks."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from learnsolve.sequence.blocks import blocks
from learnsolve.sequence.functional import apart, check_heads, sequences

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
        if window is None:
            return apart(partial(sliding_window_attention, scale=scale), cu_seqlens, q, k, v)
        return _packed(q, k, v, window, scale, cu_seqlens)
    if initial_state is not None:
        _check_state(initial_state, k, v)
        k, v = (torch.cat(pair, 1) for pair in zip(initial_state, (k, v), strict=True))
    kept = k.shape[1] if window is None else min(window - 1, k.shape[1])
    state = tuple(one[:, one.shape[1] - kept :] for one in (k, v))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if q.numel() == 0 or v.numel() == 0:
        return v[:, v.shape[1] - q.shape[1] :], state
    if q.shape[1] == k.shape[1] and (window is None or k.shape[1] <= window):
        # All that came before, for which torch needs no room by the square of the length.
        q, k, v = (one.transpose(-3, -2) for one in (q, k, v))
        o = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        return o.transpose(-3, -2), state
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


def _packed(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None, cu_seqlens: Tensor
) -> tuple[Tensor, list[Pair]]:
    """Packed sequences in one go: no token sees one of another sequence."""
    pieces = sequences(q.shape[0], q.shape[1], cu_seqlens)
    begins, ends = pieces[:, 1], pieces[:, 2]
    starts = torch.maximum(begins, ends - window + 1).tolist()
    states = [(k[:, low:high], v[:, low:high]) for low, high in zip(starts, ends.tolist(), strict=True)]
    if q.numel() == 0 or v.numel() == 0:
        return v, states
    owner = torch.repeat_interleave(torch.arange(len(pieces)), ends - begins).to(q.device)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    return _by_blocks(q, k, v, window, scale, owner), states


def _by_blocks(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, owner: Tensor | None = None
) -> Tensor:
    """Each block of queries with the keys near it, of the same owner if any."""
    length = q.shape[1]
    q, k, v, seen = blocks(q, k, v, window - 1, owner=owner)
    return _attended(q, k, v, seen[:, None], scale).flatten(1, 2)[:, :length]


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk: int,
    *,
    scale: float | None = None,
    initial_state: Pair | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Any]:
    r"""Softmax attention of each token to itself and to what came before in its chunk.

    Chunks do not overlap, so that time and memory grow by length times chunk.

    Parameters
    ----------
    q, k, v, scale, cu_seqlens
        As for `sliding_window_attention`.
    chunk : int
        Tokens of a chunk; the first begins with the sequence.
    initial_state : (keys, values), optional
        (N, S, H, K) and (N, S, H, V): what came before in the chunk that is not full; S is less than the
        chunk. Of packed sequences a list.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (keys, values), or a list of such, one for each packed sequence

    Raises
    ------
    ValueError
        Shapes do not fit, the chunk is not positive, or ``cu_seqlens`` does not rise from 0 to T.

    References
    ----------
    Ma and others, *Mega: moving average equipped gated attention*, ICLR 2023, section 3.5.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import chunked_attention
    >>> v = torch.tensor([2.0, 4.0, 6.0]).reshape(1, 3, 1, 1)
    >>> chunked_attention(0 * v, 0 * v, v, chunk=2)[0].flatten().tolist()
    [2.0, 3.0, 6.0]
    """
    check_heads(q, k, v)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; a positive number is accepted")
    if cu_seqlens is not None:
        mix = partial(_chunked, chunk=chunk, scale=scale)
        return apart(mix, cu_seqlens, q, k, v, states=initial_state)
    return _chunked(q, k, v, initial_state, chunk=chunk, scale=scale)


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, state: Pair | None = None, *, chunk: int, scale: float | None
) -> tuple[Tensor, Pair]:
    """Attention within chunks, of which the first may be begun."""
    if state is not None:
        _check_state(state, k, v)
        k, v = (torch.cat(pair, 1) for pair in zip(state, (k, v), strict=True))
    whole, begun = k.shape[1], k.shape[1] - q.shape[1]
    if begun >= chunk:
        raise ValueError(f"the state has {begun} tokens of a chunk of {chunk}; fewer are accepted")
    open_ = whole // chunk * chunk
    after = k[:, open_:], v[:, open_:]
    if q.numel() == 0 or v.numel() == 0:
        return v[:, begun:], after
    # A short sequence needs no more than its own room.
    size = min(chunk, whole)
    behind = -whole % size
    q = pad(q, (0, 0, 0, 0, begun, behind))
    k, v = (pad(one, (0, 0, 0, 0, 0, behind)) for one in (k, v))
    q, k, v = (one.unflatten(1, (-1, size)).transpose(-3, -2) for one in (q, k, v))
    o = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return o.transpose(-3, -2).flatten(1, 2)[:, begun:whole], after
