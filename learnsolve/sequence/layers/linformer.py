"""Linformer: keys and values compressed along the length."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from learnsolve.sequence.functional import apart, check_width
from learnsolve.sequence.places import turned_from

# Queries whose weights are held at a time: those of all take room by the square of the length.
AT_ONCE = 1024


class LinformerState(NamedTuple):
    """What a causal Linformer remembers.

    Attributes
    ----------
    summary_keys, summary_values : (N, S, heads, K) Tensor
        Of the blocks that are full.
    keys, values : (N, T, heads, K) Tensor
        Of the one that is not.
    """

    summary_keys: Tensor
    summary_values: Tensor
    keys: Tensor
    values: Tensor


class Linformer(nn.Module):
    r"""Softmax attention to summaries: :math:`\mathrm{softmax}(Q (E^T K)^T / \sqrt{d}) \, F^T V`.

    As published that is not causal, and of a largest length, ``block``; :math:`E` and :math:`F` are
    ``(block, rank)``. A causal one cuts the sequence into blocks, of any number: a token sees the ``rank``
    summaries of each full block before its own, and the tokens of its own up to itself. That takes time by
    the length's square times rank over block, and room by the length. Where the rank is the block's length
    and :math:`E` and :math:`F` are the identity, either is full attention.

    Parameters
    ----------
    width, heads : int
    block, rank : int
    causal, rotary : bool

    References
    ----------
    Wang, Li, Khabsa, Fang and Ma, *Linformer: self-attention with linear complexity*, 2020, section 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Linformer
    >>> y, state = Linformer(8, heads=2, block=4, rank=2)(torch.zeros(3, 9, 8))
    >>> y.shape, state.summary_keys.shape, state.keys.shape
    (torch.Size([3, 9, 8]), torch.Size([3, 4, 2, 4]), torch.Size([3, 1, 2, 4]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        block: int = 64,
        rank: int = 16,
        *,
        causal: bool = True,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        check_width(width, heads, pairs=rotary)
        if not 1 <= rank <= block:
            raise ValueError(f"rank is {rank} of blocks of {block}; 1 to the block's length is accepted")
        self.heads, self.block, self.causal, self.rotary = heads, block, causal, rotary
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.E = nn.Parameter(torch.randn(block, rank) / math.sqrt(block))
        self.F = nn.Parameter(torch.randn(block, rank) / math.sqrt(block))
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: LinformerState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, LinformerState | list[LinformerState] | None]:
        """Mix (B, T, width); a causal one goes on from a state, and gives the last one, if packed a list.

        Raises
        ------
        ValueError
            A state, or a sequence longer than its block, is given to one that is not causal, or there are not
            as many states as packed sequences.
        """
        if not self.causal and state is not None:
            raise ValueError("there is a state; only a causal layer accepts one")
        if cu_seqlens is not None:
            states: Any = state
            y, each = apart(self, cu_seqlens, x, states=states)
            return y, each if self.causal else None
        if not self.causal and x.shape[1] > self.block:
            raise ValueError(
                f"there are {x.shape[1]} tokens; a layer that is not causal accepts up to {self.block}"
            )
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(3, -1))
        done = 0 if state is None else state.summary_keys.shape[1] // self.E.shape[1] * self.block
        begun = 0 if state is None else state.keys.shape[1]
        if self.rotary:
            q, k = turned_from(done + begun, q, k)
        q = q * q.shape[-1] ** -0.5
        if not self.causal:
            keys, values = self._summaries(k, self.E), self._summaries(v, self.F)
            weights = torch.einsum("bthk,bshk->bhts", q, keys).softmax(-1)
            return self.out(torch.einsum("bhts,bshv->bthv", weights, values).flatten(-2)), None
        o, after = self._causal(q, k, v, state, begun)
        return self.out(o.flatten(-2)), after

    @staticmethod
    def _summaries(one: Tensor, weights: Tensor) -> Tensor:
        """Of (..., T, heads, K) the sums over time with each column of weights, (..., rank, heads, K)."""
        return torch.einsum("...thk,tr->...rhk", one, weights[: one.shape[-3]])

    def _causal(
        self, q: Tensor, k: Tensor, v: Tensor, state: LinformerState | None, begun: int
    ) -> tuple[Tensor, LinformerState]:
        """Attention to the summaries of full blocks, and to the tokens of one's own."""
        block, rank, length = self.block, self.E.shape[1], q.shape[1]
        if state is not None:
            k, v = (torch.cat(pair, 1) for pair in zip(state[2:], (k, v), strict=True))
        whole = k.shape[1]
        full = whole // block
        fresh = [
            self._summaries(one[:, : full * block].unflatten(1, (full, block)), weights).flatten(1, 2)
            for one, weights in ((k, self.E), (v, self.F))
        ]
        if state is not None:
            fresh = [torch.cat(pair, 1) for pair in zip(state[:2], fresh, strict=True)]
        after = LinformerState(fresh[0], fresh[1], k[:, full * block :], v[:, full * block :])
        if not length:
            return v[:, whole:], after
        rest = -whole % block
        q = pad(q, (0, 0, 0, 0, begun, rest)).unflatten(1, (-1, block))
        k, v = (pad(one, (0, 0, 0, 0, 0, rest)).unflatten(1, (-1, block)) for one in (k, v))
        # Blocks count from the first one here; those before it have summaries in the state alone.
        before, count, size = fresh[0].shape[1] // rank - full, q.shape[1], max(1, AT_ONCE // block)
        parts = []
        for first in range(0, count, size):
            last = min(first + size, count)
            summaries = [one[:, : (before + last - 1) * rank] for one in fresh]
            given: list[Any] = [one[:, first:last] for one in (q, k, v)]
            given += [*summaries, before + first, rank]
            if count > size:
                parts.append(checkpoint(_attended, *given, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(_attended(*given))
        return torch.cat(parts, 1).flatten(1, 2)[:, begun:whole], after


def _attended(
    q: Tensor, k: Tensor, v: Tensor, summary_keys: Tensor, summary_values: Tensor, before: int, rank: int
) -> Tensor:
    """What blocks, the first after so many others, make of summaries and of their own tokens."""
    count, block = q.shape[1:3]
    near = torch.einsum("bnthk,bnshk->bnhts", q, k)
    near = near.masked_fill(torch.ones(block, block, device=q.device).triu(1).bool(), -torch.inf)
    far = torch.einsum("bnthk,bshk->bnhts", q, summary_keys)
    number = torch.arange(before, before + count, device=q.device)
    later = torch.arange(far.shape[-1], device=q.device) // rank >= number[:, None]
    far = far.masked_fill(later[:, None, None], -torch.inf)
    weights = torch.cat([far, near], -1).softmax(-1)
    o = torch.einsum("bnhts,bshv->bnthv", weights[..., : far.shape[-1]], summary_values)
    return o + torch.einsum("bnhts,bnshv->bnthv", weights[..., far.shape[-1] :], v)
