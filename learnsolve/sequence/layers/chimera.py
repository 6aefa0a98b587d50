"""Chimera: state spaces in two dimensions, along time and across variates."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from learnsolve.sequence.layers.delta_net import lasting
from learnsolve.sequence.state_space import Discretization
from learnsolve.sequence.state_space_2d import Pair, state_space_2d

# Steps in time at first: of what progresses over tens to thousands of times, and of what comes back soon.
TREND, SEASONAL = (1e-3, 0.1), (0.1, 1.0)
# Steps across variates, whose number is small.
VARIATES = (0.1, 1.0)


class ChimeraState(NamedTuple):
    """What a `Chimera` remembers along time: of each of its heads both states.

    Attributes
    ----------
    along : (heads, B, V, inner, N) Tensor
    across : (heads, B, V, inner, N) Tensor
    """

    along: Tensor
    across: Tensor


class _Head(nn.Module):
    """A selective state space along time and across variates, in one direction of the latter."""

    def __init__(
        self,
        inner: int,
        state: int,
        steps: tuple[float, float],
        *,
        groups: int,
        coupled: bool,
        reverse: bool,
        discretization: Discretization,
    ) -> None:
        super().__init__()
        count = groups or inner
        self.inner, self.state, self.reverse, self.discretization = inner, state, reverse, discretization
        self.read = nn.Linear(inner, 4 * state)
        # At first inputs and outputs hardly depend on the input, and gates are open: what passes is linear.
        nn.init.ones_(self.read.bias)
        self.steps = nn.Linear(inner, 2 * count)
        nn.init.normal_(self.steps.weight, std=0.1 / math.sqrt(inner))
        biases = torch.cat([lasting(count, steps), lasting(count, VARIATES)])
        self.steps.bias = nn.Parameter(biases)
        sizes = torch.ones(2, count, 1) if groups else torch.arange(1.0, state + 1).expand(2, inner, state)
        self.rate = nn.Parameter(sizes.log())
        self.coupling = nn.Parameter(0.1 * torch.randn(sizes.shape)) if coupled else None
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, u: Tensor, state: Pair | None) -> tuple[Tensor, Pair]:
        times = self.inner // self.rate.shape[1]
        rates = -self.rate.exp()
        couplings: list[Tensor | None] = [None, None]
        if self.coupling is not None:
            # With "zoh", what remains of both states together is then at most one: no sum can grow.
            couplings = [one.repeat_interleave(times, 0) for one in rates * torch.tanh(self.coupling)]
        own = [one.repeat_interleave(times, 0) for one in rates]
        dt = softplus(self.steps(u)).unflatten(-1, (2, -1)).repeat_interleave(times, -1)
        b1, b2, c1, c2 = self.read(u).unflatten(-1, (4, -1)).unbind(-2)
        return state_space_2d(
            u, dt.unbind(-2), (own[0], couplings[0], couplings[1], own[1]), (b1, b2), (c1, c2), self.skip,
            discretization=self.discretization, initial_state=state, reverse=self.reverse,
        )  # fmt: skip


class Chimera(nn.Module):
    r"""Variates and times mixed by two selective state spaces on their grid: of trends and of seasons.

    .. math:: u = \mathrm{silu}(W_u x + b_u), \qquad
        y = W_o \bigl(\mathrm{RMSNorm}\bigl(\textstyle\sum_j \mathrm{SSM}_j(u)\bigr) \odot
        \mathrm{silu}(W_g x + b_g)\bigr)

    Each head j is a `learnsolve.sequence.state_space_2d.state_space_2d` whose steps, inputs and outputs
    depend on u: one of trends, whose steps in time are short at first and whose memory is long, and one of
    seasons; with ``bidirectional`` both from the first variate to the last, and back. Nothing comes from
    later times; at the same time, something comes from all variates.

    Parameters
    ----------
    width : int
        Channels in and out.
    state : int
        Size of each channel's state along time, and across variates.
    expand : float
        Inner channels, by width.
    bidirectional : bool
        Across variates; else only from the first to the last.
    coupled : bool
        Whether the states drive each other. Without, this is a two-dimensional Mamba: a selective state space
        along time beside one across variates.
    groups : int
        Zero for rates and steps of each channel, and rates of each state. Else so many groups of channels
        have one rate and one step each, for all their states: with ``coupled=False`` a two-dimensional
        Mamba-2.
    trend, seasonal : (float, float)
        Between which the steps in time are drawn at first, logarithmically.
    discretization
        As by `learnsolve.sequence.state_space_2d.discretized_diagonal`.
    eps : float
        Of the normalisation.

    References
    ----------
    Behrouz, Santacatterina and Zabih, *Chimera: effectively modeling multivariate time series with
    2-dimensional state space models*, NeurIPS 2024; Gu and Dao, *Mamba: linear-time sequence modeling with
    selective state spaces*, 2023; Dao and Gu, *Transformers are SSMs*, ICML 2024.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers.chimera import Chimera
    >>> layer = Chimera(8, state=4)
    >>> y, state = layer(torch.zeros(2, 3, 5, 8))
    >>> y.shape, state.along.shape
    (torch.Size([2, 3, 5, 8]), torch.Size([4, 2, 3, 8, 4]))
    """

    def __init__(
        self,
        width: int,
        state: int = 8,
        *,
        expand: float = 1.0,
        bidirectional: bool = True,
        coupled: bool = True,
        groups: int = 0,
        trend: tuple[float, float] = TREND,
        seasonal: tuple[float, float] = SEASONAL,
        discretization: Discretization = "zoh",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        inner = round(width * expand)
        if min(width, state, inner) < 1 or groups < 0 or (groups and inner % groups):
            raise ValueError(
                f"width is {width}, state {state}, expand {expand:g} and groups {groups}; positive numbers, "
                "and groups that share the inner channels, or 0, are accepted"
            )
        for name, (low, high) in (("trend", trend), ("seasonal", seasonal)):
            if not 0 < low <= high:
                raise ValueError(f"{name} is {(low, high)}; a least step and a largest are accepted")
        self.width = width
        self.enter = nn.Linear(width, 2 * inner)
        nn.init.ones_(self.enter.bias)
        self.heads = nn.ModuleList(
            _Head(
                inner, state, steps, groups=groups, coupled=coupled, reverse=reverse,
                discretization=discretization,
            )
            for steps in (trend, seasonal)
            for reverse in ((False, True) if bidirectional else (False,))
        )  # fmt: skip
        self.norm = nn.RMSNorm(inner, eps=eps)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: ChimeraState | None = None) -> tuple[Tensor, ChimeraState]:
        """Mix (B, V, T, width); goes on in time from a state, and gives the last one.

        Raises
        ------
        ValueError
            ``x`` has another shape.
        """
        if x.ndim != 4 or x.shape[3] != self.width:
            raise ValueError(f"x has shape {tuple(x.shape)}; (B, V, T, {self.width}) is accepted")
        u, gate = self.enter(x).chunk(2, -1)
        u, read, after = silu(u), [], []
        for number, head in enumerate(self.heads):
            y, last = head(u, None if state is None else (state.along[number], state.across[number]))
            read.append(y)
            after.append(last)
        along, across = (torch.stack(ones) for ones in zip(*after, strict=True))
        mixed = self.norm(torch.stack(read).sum(0)) * silu(gate)
        return self.out(mixed), ChimeraState(along, across)
