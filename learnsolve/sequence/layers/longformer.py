"""Longformer: a sliding window, and a few global tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from learnsolve.sequence.blocks import blocks
from learnsolve.sequence.functional import apart, check_width
from learnsolve.sequence.places import turned_from


class LongformerState(NamedTuple):
    """What a causal Longformer remembers.

    Attributes
    ----------
    keys, values : (N, S, heads, K) Tensor
        Of the window, at most one less than it.
    global_keys, global_values : (N, G, heads, K) Tensor
    seen : int
        How many tokens there were.
    """

    keys: Tensor
    values: Tensor
    global_keys: Tensor
    global_values: Tensor
    seen: int


class Longformer(nn.Module):
    """Softmax attention to a window, and to and from the first tokens of a sequence.

    Time and memory grow by length times window. A causal one sees the ``window`` tokens of which it is the
    last; another one ``window // 2`` to either side, and its global tokens see all. From a window of the
    length on (causal), or of twice the length, it is full attention.

    Parameters
    ----------
    width, heads : int
    window : int
    anchors : int
        Global tokens: the first ones.
    causal, rotary : bool

    References
    ----------
    Beltagy, Peters and Cohan, *Longformer: the long-document transformer*, 2020, section 3.1.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Longformer
    >>> y, state = Longformer(8, heads=2, window=4)(torch.zeros(3, 9, 8))
    >>> y.shape, state.keys.shape, state.global_keys.shape
    (torch.Size([3, 9, 8]), torch.Size([3, 3, 2, 4]), torch.Size([3, 1, 2, 4]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        window: int = 64,
        *,
        anchors: int = 1,
        causal: bool = True,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        check_width(width, heads, pairs=rotary)
        if window < 1 or anchors < 0:
            raise ValueError(
                f"window is {window} and anchors {anchors}; 1 or more, and 0 or more, are accepted"
            )
        self.heads, self.window, self.anchors, self.causal, self.rotary = (
            heads,
            window,
            anchors,
            causal,
            rotary,
        )
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: LongformerState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, LongformerState | list[LongformerState] | None]:
        """Mix (B, T, width); a causal one goes on from a state, and gives the last one, if packed a list.

        Raises
        ------
        ValueError
            A state is given to one that is not causal, or there are not as many as packed sequences.
        """
        if state is not None and not self.causal:
            raise ValueError("there is a state; only a causal layer accepts one")
        if cu_seqlens is not None:
            states: Any = state
            y, each = apart(self, cu_seqlens, x, states=states)
            return y, each if self.causal else None
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(3, -1))
        begun = 0 if state is None else state.seen
        if self.rotary:
            q, k = turned_from(begun, q, k)
        new = max(0, self.anchors - begun)
        anchors = [one[:, :new] for one in (k, v)]
        if state is not None:
            anchors = [torch.cat(pair, 1) for pair in zip(state[2:4], anchors, strict=True)]
            k, v = (torch.cat(pair, 1) for pair in zip(state[:2], (k, v), strict=True))
        o = self._attended(q, k, v, anchors, begun)
        after = None
        if self.causal:
            low = max(0, k.shape[1] - self.window + 1)
            after = LongformerState(k[:, low:], v[:, low:], anchors[0], anchors[1], begun + x.shape[1])
        elif self.anchors and x.shape[1]:
            whole = [one.transpose(1, 2) for one in (q[:, : self.anchors], k, v)]
            o = torch.cat([scaled_dot_product_attention(*whole).transpose(1, 2), o[:, self.anchors :]], 1)
        return self.out(o.flatten(-2)), after

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, anchors: list[Tensor], begun: int) -> Tensor:
        """Each block of queries with the keys near it and the global ones."""
        length, count = q.shape[1], anchors[0].shape[1]
        if not q.numel():
            return q
        behind, ahead = (self.window - 1, 0) if self.causal else (self.window // 2, self.window // 2)
        q, k, v, seen = blocks(q, k, v, behind, ahead)
        size = q.shape[2]
        place = begun + torch.arange(len(seen) * size, device=q.device).reshape(len(seen), size, 1)
        # Where a global token is near, it is seen already.
        away = place - torch.arange(count, device=q.device)
        far = away > behind
        if not self.causal:
            far = far | (away < -ahead)
        seen = torch.cat([far, seen], 2)[:, None]
        k, v = (
            torch.cat([one[:, None].expand(-1, len(seen), -1, -1, -1), near], 2)
            for one, near in zip(anchors, (k, v), strict=True)
        )
        q, k, v = (one.transpose(-3, -2) for one in (q, k, v))
        o = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return o.transpose(-3, -2).flatten(1, 2)[:, :length]
