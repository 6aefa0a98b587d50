"""Mixture of memories: several states, of which each token writes and reads a few."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu, softplus

from learnsolve.sequence.attention import delta_rule, linear_attention
from learnsolve.sequence.convolution import causal_conv
from learnsolve.sequence.functional import sequences
from learnsolve.sequence.layers.delta_net import lasting

Rule = Literal["delta", "gated-delta", "linear", "gated-linear"]


class MixtureState(NamedTuple):
    """What a mixture of memories remembers, of each memory of each sequence.

    Attributes
    ----------
    short : (N * memories, channels, taps - 1) Tensor or None
        Of the short convolutions.
    memory : (N * memories, heads, K, V) Tensor
    """

    short: Tensor | None
    memory: Tensor


class MixtureOfMemories(nn.Module):
    r"""Tokens go to some of several memories, each a recurrence of its own over the tokens it gets.

    .. math:: p = \mathrm{softmax}(W_g x), \qquad
        y = \sum_{m \in \text{top } p} \frac{p_m}{\sum p} \, o_m + o_\text{shared}

    Queries are shared; keys, values and gates are each memory's own. Tokens keep their order within a memory,
    and the short convolutions see a memory's own tokens alone.

    Parameters
    ----------
    width, heads : int
    memories, active : int
        How many there are, and to how many of them a token goes.
    shared : bool
        One more, to which all tokens go.
    rule : {"delta", "gated-delta", "linear", "gated-linear"}
        What a memory is.
    conv : int
        Taps of the short convolutions; zero for none.
    beta_max : float
        As of `DeltaNet`.

    Attributes
    ----------
    balance : Tensor
        Of the last call: one where memories are used alike, up to their number where one takes all. To be
        added to the loss, with a small weight.

    References
    ----------
    Du, Sun, Lan, Hu and Cheng, *MoM: linear sequence modeling with mixture-of-memories*, 2025, section 3;
    Fedus, Zoph and Shazeer, *Switch transformers*, JMLR 23, 2022, equations 4 to 6.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import MixtureOfMemories
    >>> layer = MixtureOfMemories(8, heads=2, memories=4, active=2)
    >>> y, state = layer(torch.zeros(3, 5, 8))
    >>> y.shape, state.memory.shape  # four of each sequence, and the shared one
    (torch.Size([3, 5, 8]), torch.Size([15, 2, 4, 4]))
    """

    balance: Tensor

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        memories: int = 4,
        active: int = 2,
        shared: bool = True,
        rule: Rule = "gated-delta",
        conv: int = 4,
        beta_max: float = 1.0,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads or conv < 0 or not 0 < beta_max <= 2:
            raise ValueError(
                f"width is {width}, heads {heads}, conv {conv} and beta_max {beta_max}; whole heads, taps "
                "or 0, and a number up to 2 are accepted"
            )
        if not 1 <= active <= memories:
            raise ValueError(f"active is {active} of {memories} memories; 1 to {memories} is accepted")
        if rule not in get_args(Rule):
            raise ValueError(f"rule is {rule!r}; {', '.join(get_args(Rule))} are accepted")
        self.heads, self.active, self.shared, self.rule, self.beta_max = heads, active, shared, rule, beta_max
        self.memories, self.count = memories, memories + shared
        self.route = nn.Linear(width, memories, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        # Keys, values, beta and decay of each memory.
        self.write = nn.Parameter(torch.randn(self.count, width, 2 * width + 2 * heads) / width**0.5)
        self.conv = nn.Parameter(torch.empty(3 * width, conv).uniform_(-1, 1) / max(conv, 1) ** 0.5)
        self.rate = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.bias = nn.Parameter(lasting(heads))
        self.gate = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width // heads, eps=1e-5)
        self.out = nn.Linear(width, width, bias=False)
        self.balance = torch.ones(())

    def forward(
        self, x: Tensor, state: MixtureState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, MixtureState]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        pieces = sequences(x.shape[0], x.shape[1], cu_seqlens)
        flat = x.flatten(0, 1)
        chosen, weights = self._routed(flat)
        owner = torch.repeat_interleave(torch.arange(len(pieces)), pieces[:, 2] - pieces[:, 1]).to(x.device)
        # Each choice of a token, in the order of sequence and memory, and within these in the order of time.
        place = (owner[:, None] * self.count + chosen).flatten()
        order = place.argsort(stable=True)
        sizes = torch.bincount(place, minlength=len(pieces) * self.count)
        bounds = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        token = order // chosen.shape[1]
        o, state = self._remembered(flat[token], place[order] % self.count, bounds, state)
        o = self.norm(o).flatten(-2) * weights.flatten()[order, None]
        y = torch.zeros_like(flat).index_add(0, token, o)
        return self.out(y * silu(self.gate(flat))).reshape(x.shape), state

    def _routed(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Memories of each token, (tokens, active and the shared one), and what they weigh."""
        shares = self.route(flat).softmax(-1)
        weights, chosen = shares.topk(self.active, -1)
        if len(flat):
            used = torch.bincount(chosen.flatten(), minlength=self.memories) / chosen.numel()
            self.balance = self.memories * (used * shares.mean(0)).sum()
        weights = weights / weights.sum(-1, keepdim=True)
        if self.shared:
            chosen = torch.cat([chosen, torch.full_like(chosen[:, :1], self.memories)], -1)
            weights = torch.cat([weights, torch.ones_like(weights[:, :1])], -1)
        return chosen, weights

    def _remembered(
        self, rows: Tensor, memory: Tensor, bounds: Tensor, state: MixtureState | None
    ) -> tuple[Tensor, MixtureState]:
        """What memories make of their tokens, one after the other."""
        width = rows.shape[1]
        written = rows.new_zeros(len(rows), self.write.shape[2])
        for number in range(self.count):
            its = (memory == number).nonzero()[:, 0]
            written = written.index_copy(0, its, rows[its] @ self.write[number])
        key_value, beta, decay = written.split([2 * width, self.heads, self.heads], -1)
        mixed, short = torch.cat([self.query(rows), key_value], -1)[None], None
        if self.conv.shape[1]:
            before = None if state is None else state.short
            mixed, short = causal_conv(
                mixed, self.conv, activation="silu", initial_state=before, cu_seqlens=bounds
            )
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in mixed.chunk(3, -1))
        q, k = (normalize(one, dim=-1, eps=1e-6) for one in (q, k))
        g = None
        if self.rule.startswith("gated"):
            g = -self.rate.exp() * softplus(decay[None] + self.bias)
        first = None if state is None else state.memory
        if self.rule.endswith("delta"):
            b = self.beta_max * torch.sigmoid(beta[None])
            o, last = delta_rule(q, k, v, b, g, initial_state=first, cu_seqlens=bounds)
        else:
            o, last = linear_attention(q, k, v, g, initial_state=first, cu_seqlens=bounds)
        return o[0], MixtureState(short, last)
