"""What MEGA, TCNCA and SeqBoat share: keys of one projection, and gated attention within chunks."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from learnsolve.sequence.functional import apart
from learnsolve.sequence.places import rotation, turned
from learnsolve.sequence.window import chunked_attention


class SharedKeys(nn.Module):
    r"""Queries and keys of one head, from the same channels: :math:`\gamma \odot z + \beta`, each its own.

    They are turned by their position, so that only distances count.

    Parameters
    ----------
    channels : int
        An even number.

    References
    ----------
    Hua, Dai, Liu and Le, *Transformer quality in linear time*, ICML 2022, section 3.1.

    Examples
    --------
    >>> import torch
    >>> q, k = SharedKeys(4)(torch.zeros(2, 3, 4), torch.arange(3))
    >>> q.shape
    torch.Size([2, 3, 1, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"keys have {channels} channels; an even number is accepted")
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(2, channels))
        self.beta = nn.Parameter(torch.zeros(2, channels))

    def forward(self, z: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, T, 1, channels) of (B, T, channels) at (T,) places."""
        turns = rotation(places[:, None], 1, z.shape[-1])
        both = z[:, :, None] * self.gamma + self.beta
        q, k = turned(both, turns, halves=True).split(1, 2)
        return q, k


class ChunkState(NamedTuple):
    """What a gated attention within chunks remembers.

    Attributes
    ----------
    smoothed : tuple of Tensor
        Of what stands before it: averages, or what convolutions look back at.
    keys : (N, S, 1, K) Tensor
    values : (N, S, 1, V) Tensor
        Of the chunk that is not full.
    """

    smoothed: Any
    keys: Tensor
    values: Tensor


class GatedChunks(nn.Module):
    r"""Gated attention within chunks, of tokens that something smoothed along time.

    .. math:: m = \mathrm{silu}(\mathrm{smooth}(x)), \quad v = \mathrm{silu}(W_v x), \quad
        z, r = \mathrm{silu}(W_{zr} m), \quad u = \sigma(W_u m)

        h = \mathrm{silu}(W_x m + W_h (r \odot \mathrm{attention}(q(z), k(z), v))), \qquad y = u \odot (h - x)

    Where it is ``plain``, that is attention alone: :math:`q, k, v` of :math:`m`, and a projection.

    Parameters
    ----------
    smooth : nn.Module
        ``y, state = smooth(x, state)`` of (B, T, width).
    width : int
    chunk : int
        Tokens that are attended to at most.
    hidden, keys : int, optional
        Channels of values, twice the width by default, and of keys, a quarter but at least 16.
    plain : bool
        Without gates.
    """

    def __init__(
        self, smooth: nn.Module, width: int, chunk: int, hidden: int | None, keys: int | None, plain: bool
    ) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        keys = max(width // 4 // 2 * 2, 16) if keys is None else keys
        if min(width, chunk, hidden) < 1:
            raise ValueError(
                f"width is {width}, chunk {chunk} and hidden {hidden}; positive numbers are accepted"
            )
        self.smooth, self.chunk, self.plain = smooth, chunk, plain
        self.sizes = (keys, hidden) if plain else (keys, hidden, width, width)
        self.mixed = nn.Linear(width, sum(self.sizes))
        self.value = None if plain else nn.Linear(width, hidden)
        self.keys = SharedKeys(keys)
        self.out = nn.Linear(hidden, width)

    def forward(
        self, x: Tensor, state: ChunkState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, ChunkState | list[ChunkState]]:
        """Mix (B, T, width); goes on from a state, and gives the last one, of packed sequences a list."""
        if cu_seqlens is not None:
            states: Any = state
            return apart(self, cu_seqlens, x, states=states)
        m, smoothed = self.smooth(x, None if state is None else state.smoothed)
        m = silu(m)
        z, r, *gates = self.mixed(m).split(self.sizes, -1)
        v = r if self.value is None else silu(self.value(x))
        begun = 0 if state is None else state.keys.shape[1]
        z = z if self.plain else silu(z)
        q, k = self.keys(z, torch.arange(begun, begun + x.shape[1], device=x.device))
        before = None if state is None else (state.keys, state.values)
        o, after = chunked_attention(q, k, v.unsqueeze(2), self.chunk, initial_state=before)
        keys, values = after
        kept = ChunkState(smoothed, self._from_the_first(keys, begun + x.shape[1]), values)
        if not gates:
            return self.out(o[:, :, 0]), kept
        update, direct = gates
        h = silu(direct + self.out(silu(r) * o[:, :, 0]))
        return torch.sigmoid(update) * (h - x), kept

    @staticmethod
    def _from_the_first(keys: Tensor, end: int) -> Tensor:
        """Keys as if the chunk that is not full had begun at place zero."""
        places = torch.full((1, 1), -(end - keys.shape[1]), device=keys.device)
        return turned(keys, rotation(places, 1, keys.shape[-1]), halves=True)
