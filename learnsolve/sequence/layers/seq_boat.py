"""SeqBoat: local attention among those tokens that ask for it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from learnsolve.sequence.blocks import remembered, side_by_side
from learnsolve.sequence.functional import sequences
from learnsolve.sequence.layers.gated_attention import SharedKeys
from learnsolve.sequence.layers.mega import MovingAverage
from learnsolve.sequence.window import sliding_window_attention


class SeqBoatState(NamedTuple):
    """What a SeqBoat remembers: the averages, and the last active tokens.

    Attributes
    ----------
    averages : (N, averages, width) Tensor
    keys : (N, window - 1, K) Tensor
    values : (N, window - 1, V) Tensor
        The latest last; before the first one there are zeros.
    active : (N,) int64 Tensor
        How many were active so far.
    """

    averages: Tensor
    keys: Tensor
    values: Tensor
    active: Tensor


class SeqBoat(nn.Module):
    r"""Moving averages for all tokens, and a gated attention unit for the active ones (SMA).

    .. math:: m = \mathrm{silu}(\mathrm{EMA}(x)), \qquad p = \mathrm{softmax}(W_p m / e^\theta)_1, \qquad
        \text{active where } p > 1/2

        z, r, v = \mathrm{silu}(W_{zrv} m), \qquad h = W_h (r \odot \mathrm{attention}(q(z), k(z), v))

        y = \mathrm{silu}(W_x m + p \, h + x)

    The active tokens are put side by side, each attends to itself and to the ``window - 1`` active ones
    before it, however long ago, and what comes out goes back to its place. Elsewhere :math:`h` is zero, and
    costs nothing. Through :math:`p` the gradient reaches the choice.

    Parameters
    ----------
    width : int
    window : int
        Active tokens that are attended to at most.
    averages : int
        Of each channel.
    hidden, keys : int, optional
        Channels of values, twice the width by default, and of keys, a quarter but at least 16.

    Attributes
    ----------
    activated : (tokens,) bool Tensor
        Which were active in the last call.

    References
    ----------
    Ren, Liu, Wang, Xu, Zhu and Zhai, *Sparse modular activation for efficient sequence modeling*, NeurIPS
    2023, sections 3 and 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import SeqBoat
    >>> layer = SeqBoat(8, window=4)
    >>> y, state = layer(torch.randn(3, 5, 8))
    >>> y.shape, bool(layer.activated.sum() == state.active.sum())
    (torch.Size([3, 5, 8]), True)
    """

    activated: Tensor

    def __init__(
        self,
        width: int,
        window: int = 64,
        *,
        averages: int = 16,
        hidden: int | None = None,
        keys: int | None = None,
    ) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        keys = max(width // 4 // 2 * 2, 16) if keys is None else keys
        if min(width, window, hidden) < 1:
            raise ValueError(
                f"width is {width}, window {window} and hidden {hidden}; positive numbers are accepted"
            )
        self.window, self.sizes = window, (keys, hidden, hidden)
        self.smooth = MovingAverage(width, averages)
        self.choose = nn.Linear(width, 2)
        self.temperature = nn.Parameter(torch.tensor(math.log(math.sqrt(width))))
        self.direct = nn.Linear(width, width)
        self.unit = nn.Linear(width, sum(self.sizes))
        self.keys = SharedKeys(keys)
        self.out = nn.Linear(hidden, width)
        self.activated = torch.zeros(0, dtype=torch.bool)

    @property
    def rate(self) -> float:
        """Share of the tokens that were active in the last call."""
        return float(self.activated.float().mean()) if len(self.activated) else 0.0

    def forward(
        self, x: Tensor, state: SeqBoatState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, SeqBoatState]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
        before = None if state is None else state.averages
        m, averages = self.smooth(x, before, cu_seqlens=cu_seqlens)
        m = silu(m)
        flat = m.flatten(0, 1)
        chances = (self.choose(flat) * torch.exp(-self.temperature)).softmax(-1)[:, 1]
        self.activated = (chances > 0.5).detach()
        token = self.activated.nonzero()[:, 0]
        owner = torch.repeat_interleave(torch.arange(len(pieces)), pieces[:, 2] - pieces[:, 1]).to(x.device)
        h, kept = self._attended(flat[token], owner[token], len(pieces), state)
        h = torch.zeros_like(flat).index_copy(0, token, chances[token, None] * h)
        return silu(self.direct(m) + h.reshape(x.shape) + x), SeqBoatState(averages, *kept)

    def _attended(
        self, rows: Tensor, owner: Tensor, count: int, state: SeqBoatState | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """What the unit makes of active tokens, in the order of their sequences; and what it remembers."""
        room = self.window - 1
        z, r, v = silu(self.unit(rows)).split(self.sizes, -1)
        had = torch.zeros(count, dtype=torch.int64, device=rows.device) if state is None else state.active
        sizes = torch.bincount(owner, minlength=count)
        rank = torch.arange(len(rows), device=rows.device) - (sizes.cumsum(0) - sizes)[owner]
        q, k = self.keys(z[None], had[owner] + rank)
        # Remembered ones ask for nothing, but are asked for.
        kept = None if state is None else [state.keys, state.values]
        bounds, place, streams = side_by_side(owner, count, room, [q[0, :, 0], k[0, :, 0], v], kept, had)
        q, k, v = (one[None, :, None] for one in streams)
        o, _ = sliding_window_attention(q, k, v, self.window, cu_seqlens=bounds)
        keys, values = (remembered(one, bounds, room) for one in streams[1:])
        return self.out(o[0, place, 0] * r), (keys, values, had + sizes)
