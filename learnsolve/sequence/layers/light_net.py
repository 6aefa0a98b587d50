"""LightNet: additive attention with places along several axes, in a single scan."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from learnsolve.sequence.functional import sequences
from learnsolve.sequence.light import additive_attention
from learnsolve.sequence.places import grid, rotation, turned


class LightNetState(NamedTuple):
    """What a causal LightNet remembers.

    Attributes
    ----------
    mean : (N, heads, K, V) Tensor
    weight : (N, heads, K) Tensor
        Logarithm of what the mean weighs.
    seen : (N,) int64 Tensor
        How many tokens there were.
    """

    mean: Tensor
    weight: Tensor
    seen: Tensor


class LightNet(nn.Module):
    """Additive attention, whose output is normalised and gated.

    Parameters
    ----------
    width, heads : int
    keys : int, optional
        Channels of each head's keys; by default width over heads.
    gate : int
        Rank of the output's gate.
    causal : bool
        False for tokens without an order: then one pass sees all of them, whatever axes they have.
    axes : int
        One for sequences, two for pictures, three for volumes. With several, x is (B, places along each axis,
        width), and not causal.
    scans : int
        Of tokens without an order: one pass over all of them, or two running ones from either end, which is
        what recurrences that are causal by nature need.

    References
    ----------
    Qin and others, *You only scan once: efficient multi-dimension sequential modeling with LightNet*, 2024,
    section 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import LightNet
    >>> LightNet(16, heads=2, causal=False, axes=2)(torch.zeros(3, 5, 4, 16))[0].shape
    torch.Size([3, 5, 4, 16])
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        keys: int | None = None,
        gate: int = 16,
        causal: bool = True,
        axes: int = 1,
        scans: int = 1,
    ) -> None:
        super().__init__()
        keys = width // max(heads, 1) if keys is None else keys
        if heads < 1 or width % heads or keys % 2 or axes < 1 or keys < 2 * axes or (causal and axes > 1):
            raise ValueError(
                f"width is {width}, heads {heads}, keys {keys}, axes {axes} and causal {causal}; whole "
                "heads, pairs of keys for each axis, and one axis where it is causal are accepted"
            )
        if scans not in (1, 2) or (causal and scans > 1):
            raise ValueError(
                f"scans is {scans} and causal {causal}; 1, or 2 of what is not causal, is accepted"
            )
        self.heads, self.keys, self.causal, self.axes, self.scans = heads, keys, causal, axes, scans
        self.query = nn.Linear(width, heads * keys, bias=False)
        self.key = nn.Linear(width, heads * keys, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Sequential(nn.Linear(width, gate, bias=False), nn.Linear(gate, width))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: LightNetState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, LightNetState]:
        """Mix (B, places, width); a causal one goes on from a state, and gives the last one."""
        if x.ndim != self.axes + 2:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; a batch, {self.axes} axes and channels are accepted"
            )
        flat = x.flatten(1, -2)
        q, k = (one(flat).unflatten(-1, (self.heads, -1)) for one in (self.query, self.key))
        v = self.value(flat).unflatten(-1, (self.heads, -1))
        places, seen = grid(tuple(x.shape[1:-1])), torch.full((len(x),), prod(x.shape[1:-1]))
        if self.causal:
            pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
            before = torch.zeros(len(pieces), dtype=torch.int64) if state is None else state.seen
            seen = before + pieces[:, 2] - pieces[:, 1]
            # Each sequence counts for itself; those of a batch count alike.
            each = zip(before.tolist(), seen.tolist(), strict=True)
            counted = [torch.arange(first, last) for first, last in each]
            places = torch.cat(counted if cu_seqlens is not None else counted[:1])[:, None]
        turns = rotation(places, self.heads, self.keys)
        q = silu(q)
        if self.scans == 2:
            forth, (mean, weight) = self._attended(q, k, v, turns, causal=True)
            back, _ = self._attended(q.flip(1), k.flip(1), v.flip(1), turns.flip(0), causal=True)
            o = (forth + back.flip(1)) / 2
        else:
            first = None if state is None else (state.mean, state.weight)
            o, (mean, weight) = self._attended(
                q, k, v, turns, causal=self.causal, initial_state=first, cu_seqlens=cu_seqlens
            )
        y = self.norm(o.flatten(-2)) * silu(self.gate(flat))
        return self.out(y).reshape(x.shape), LightNetState(mean, weight, seen)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, turns: Tensor, **options: Any
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Additive attention of queries and keys that are turned by their places."""
        return additive_attention(
            q, k, v, scale=self.keys**-0.5, turn=lambda one: turned(one, turns), **options
        )  # fmt: skip
