"""Causal softmax attention with rotary positions: to all tokens, to a window, or within chunks."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from learnsolve.sequence.functional import apart, check_width
from learnsolve.sequence.places import turned_from
from learnsolve.sequence.window import chunked_attention, sliding_window_attention


class AttentionState(NamedTuple):
    """What attention remembers.

    Attributes
    ----------
    keys, values : (N, S, heads, K) Tensor
        At most one less than the window, if there is one, or than the chunk.
    seen : int
        How many tokens there were.
    """

    keys: Tensor
    values: Tensor
    seen: int


class Attention(nn.Module):
    """Softmax attention.

    Parameters
    ----------
    width, heads : int
    window : int, optional
        How many tokens, the last among them, are attended to; by default all.
    chunk : int, optional
        Instead of a window: tokens of the chunks within which they are attended to.
    rotary : bool
        Whether queries and keys are turned by their position.

    References
    ----------
    Vaswani and others, *Attention is all you need*, NeurIPS 2017, section 3.2; Su and others, *RoFormer*,
    2021, section 3.2.2.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Attention
    >>> y, state = Attention(8, heads=2, window=4)(torch.zeros(3, 5, 8))
    >>> y.shape, state.keys.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 3, 2, 4]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        window: int | None = None,
        chunk: int | None = None,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        if window is not None and chunk is not None:
            raise ValueError(f"window is {window} and chunk {chunk}; one of them is accepted")
        check_width(width, heads, pairs=rotary)
        self.heads, self.window, self.chunk, self.rotary = heads, window, chunk, rotary
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        state: AttentionState | list[AttentionState] | None = None,
        *,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, AttentionState | list[AttentionState]]:
        """Mix (B, T, width); goes on from a state, and gives the last one, of packed sequences a list.

        Raises
        ------
        ValueError
            There is a list of states without packed sequences, or of another length.
        """
        if isinstance(state, list):
            if cu_seqlens is None:
                raise ValueError("there is a list of states; it is accepted with packed sequences")
            return apart(self, cu_seqlens, x, states=state)
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(3, -1))
        seen = 0 if state is None else state.seen
        if self.rotary:
            q, k = turned_from(seen, q, k)
        before = None if state is None else (state.keys, state.values)
        given: dict[str, Any] = {"initial_state": before, "cu_seqlens": cu_seqlens}
        if self.chunk is None:
            o, after = sliding_window_attention(q, k, v, self.window, **given)
        else:
            o, after = chunked_attention(q, k, v, self.chunk, **given)
        if isinstance(after, list):
            assert cu_seqlens is not None
            lengths = cu_seqlens.diff().tolist()
            states = [AttentionState(k, v, n) for (k, v), n in zip(after, lengths, strict=True)]
            return self.out(o.flatten(-2)), states
        keys, values = after
        return self.out(o.flatten(-2)), AttentionState(keys, values, seen + x.shape[1])
