"""Reformer: attention among tokens that hash alike."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from learnsolve.sequence.blocks import blocks, remembered, side_by_side
from learnsolve.sequence.functional import check_width, sequences
from learnsolve.sequence.places import rotation, turned

# Of a token's score with itself, so that it is seen where nothing else is.
ITSELF = -1e5


class ReformerState(NamedTuple):
    """What a causal Reformer remembers, of each sequence, head, round of hashing and bucket.

    Attributes
    ----------
    keys, values : (N * heads * rounds * buckets, window - 1, K) Tensor
        The latest last; before the first one there are zeros.
    had : (N * heads * rounds * buckets,) int64 Tensor
        How many tokens there were.
    seen : (N,) int64 Tensor
        How many tokens there were of each sequence.
    """

    keys: Tensor
    values: Tensor
    had: Tensor
    seen: Tensor


class Reformer(nn.Module):
    r"""Softmax attention among tokens of one bucket, with queries that are keys too.

    .. math:: h(x) = \arg\max [x R; -x R]

    Of each round of hashing the tokens of a bucket are put side by side, and each attends to the ``window``
    ones of which it is the last, or to as many on either side if it is not causal; rounds are weighed by
    their softmax's denominators. As published, tokens are sorted by buckets and cut into chunks of equal
    length, whose bounds move with every later token: what a token sees would depend on what comes after it.
    Here it does not, so that tokens can come one by one. With one bucket and a window of the length it is
    full attention with shared queries and keys; a token sees itself only where it sees nothing else.

    Parameters
    ----------
    width, heads : int
    window : int
        Tokens of a bucket that are attended to.
    buckets : int
        One, or an even number.
    rounds : int
    causal, rotary : bool

    References
    ----------
    Kitaev, Kaiser and Levskaya, *Reformer: the efficient transformer*, ICLR 2020, section 2.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Reformer
    >>> y, state = Reformer(8, heads=2, window=4, buckets=6, rounds=2)(torch.zeros(3, 5, 8))
    >>> y.shape, state.keys.shape
    (torch.Size([3, 5, 8]), torch.Size([72, 3, 4]))
    """

    rotations: Tensor

    def __init__(
        self,
        width: int,
        heads: int = 4,
        window: int = 32,
        *,
        buckets: int = 8,
        rounds: int = 2,
        causal: bool = True,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        check_width(width, heads, pairs=rotary)
        if window < 1 or rounds < 1 or buckets < 1 or (buckets > 1 and buckets % 2):
            raise ValueError(
                f"window is {window}, rounds {rounds} and buckets {buckets}; positive numbers, of buckets "
                "one or an even number, are accepted"
            )
        self.heads, self.window, self.buckets, self.rounds = heads, window, buckets, rounds
        self.causal, self.rotary = causal, rotary
        self.project = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("rotations", torch.randn(rounds, width // heads, buckets // 2))

    def hashes(self, x: Tensor) -> Tensor:
        """Buckets of vectors (..., K), of each round, (..., rounds)."""
        if self.buckets == 1:
            return torch.zeros(*x.shape[:-1], self.rounds, dtype=torch.int64, device=x.device)
        turned_ = torch.einsum("...k,rkb->...rb", x.detach(), self.rotations.to(x.dtype))
        return torch.cat([turned_, -turned_], -1).argmax(-1)

    def forward(
        self, x: Tensor, state: ReformerState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, ReformerState | None]:
        """Mix (B, T, width); a causal one goes on from a state, and gives the last one.

        Raises
        ------
        ValueError
            A state is given to one that is not causal.
        """
        if state is not None and not self.causal:
            raise ValueError("there is a state; only a causal layer accepts one")
        pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
        sizes = (pieces[:, 2] - pieces[:, 1]).to(x.device)
        number = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes)
        seen = torch.zeros_like(sizes) if state is None else state.seen
        q, v = (one.flatten(0, 1).unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(2, -1))
        # Tokens, heads and rounds, each with its bucket.
        bucket = self.hashes(q)
        place = torch.arange(len(q), device=x.device) - (sizes.cumsum(0) - sizes)[number] + seen[number]
        k = normalize(q, dim=-1, eps=1e-6)
        q = q * q.shape[-1] ** -0.5
        if self.rotary:
            turns = rotation(place[:, None], 1, q.shape[-1])
            q, k = (turned(one[None], turns, halves=True)[0] for one in (q, k))
        heads = torch.arange(self.heads, device=x.device)[:, None]
        rounds = torch.arange(self.rounds, device=x.device)
        owner = ((number[:, None, None] * self.heads + heads) * self.rounds + rounds) * self.buckets + bucket
        order = owner.flatten().argsort(stable=True)
        token, head = order // (self.heads * self.rounds), order // self.rounds % self.heads
        count = len(sizes) * self.heads * self.rounds * self.buckets
        rows = [one[token, head] for one in (q, k, v)]
        o, weight, after = self._by_buckets(rows, owner.flatten()[order], count, state)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        o, weight = (one[back].unflatten(0, owner.shape) for one in (o, weight))
        o = (weight.softmax(-1)[..., None] * o).sum(-2)
        y = self.out(o.flatten(1)).reshape(x.shape)
        return y, None if after is None else ReformerState(*after, seen + sizes)

    def _by_buckets(
        self, rows: list[Tensor], owner: Tensor, count: int, state: ReformerState | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor] | None]:
        """What each token makes of its bucket, the logarithm of its denominator, and what is remembered."""
        room = self.window - 1
        had = torch.zeros(count, dtype=torch.int64, device=owner.device) if state is None else state.had
        kept = None if state is None else [state.keys, state.values]
        bounds, place, streams = side_by_side(owner, count, room, rows, kept, had)
        if not len(owner):
            keys, values = (remembered(one, bounds, room) for one in streams[1:])
            return rows[2], rows[2].sum(-1), (keys, values, had) if self.causal else None
        whose = torch.repeat_interleave(torch.arange(count, device=owner.device), bounds.diff())
        q, k, v = (one[None, :, None] for one in streams)
        ahead = 0 if self.causal else room
        q, k, v, near = blocks(q, k, v, room, ahead, whose)
        q, k, v = (one.squeeze(3) for one in (q, k, v))
        scores = torch.einsum("bnik,bnjk->bnij", q, k).masked_fill(~near, -torch.inf)
        own = torch.arange(q.shape[2], device=q.device)
        scores[..., own, own + room] = ITSELF
        weight = scores.logsumexp(-1)
        o = torch.einsum("bnij,bnjv->bniv", torch.exp(scores - weight[..., None]), v)
        o, weight = o[0].flatten(0, 1)[place], weight[0].flatten()[place]
        if not self.causal:
            return o, weight, None
        keys, values = (remembered(one, bounds, room) for one in streams[1:])
        return o, weight, (keys, values, had + torch.bincount(owner, minlength=count))
