"""DeltaNet: a state that is corrected by the delta rule."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from learnsolve.sequence.attention import delta_product, delta_rule
from learnsolve.sequence.convolution import causal_conv

# Of a gate's softplus at first, by logarithms: what is written lasts for tens to hundreds of tokens.
STEPS = 1e-3, 0.1


class DeltaNetState(NamedTuple):
    """What a DeltaNet remembers: of its short convolutions, if it has them, and of the delta rule.

    Attributes
    ----------
    short : (N, channels, taps - 1) Tensor or None
    memory : (N, heads, K, V) Tensor
    """

    short: Tensor | None
    memory: Tensor


class DeltaNet(nn.Module):
    r"""Tokens mixed by the delta rule, with short convolutions and keys of norm one.

    .. math:: q, k, v = \mathrm{silu}(\mathrm{conv}(W x)), \qquad
        \beta = \beta_\mathrm{max} \sigma(s \, w^T x), \qquad
        y = W_o \, \mathrm{RMSNorm}(\mathrm{delta}(q, k, v, \beta))

    Parameters
    ----------
    width : int
        Of what goes in and out.
    heads : int
    expand_k, expand_v : float
        Of the keys and values of all heads together, by width.
    conv : int
        Taps of the short convolutions; zero for none.
    beta_max : float
        Up to one, eigenvalues of a step are in [0, 1]; up to two, in [-1, 1].
    beta_slope : float
        :math:`s`.
    gated : bool
        The state decays, by :math:`e^{-\mathrm{softplus}(w^T x + b) e^a}`.
    householders : int
        Corrections of the state for each token.
    eps : float
        Of the normalisation.

    References
    ----------
    Yang, Wang, Zhang, Shen and Kim, *Parallelizing linear transformers with the delta rule over sequence
    length*, NeurIPS 2024, section 3.4; Grazzi and others, *Unlocking state-tracking in linear RNNs through
    negative eigenvalues*, ICLR 2025, section 4; Siems and others, *DeltaProduct*, NeurIPS 2025, section 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import DeltaNet
    >>> layer = DeltaNet(8, heads=2)
    >>> y, state = layer(torch.zeros(3, 5, 8))
    >>> y.shape, state.memory.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 4, 4]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        conv: int = 4,
        beta_max: float = 1.0,
        beta_slope: float = 1.0,
        gated: bool = False,
        householders: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        keys, values = round(width * expand_k), round(width * expand_v)
        if min(heads, keys, values) < 1 or keys % heads or values % heads:
            raise ValueError(
                f"{heads} heads do not share keys of {keys} and values of {values} channels; multiples are "
                "accepted"
            )
        if not 0 < beta_max <= 2 or conv < 0 or householders < 1:
            raise ValueError(
                f"beta_max is {beta_max}, conv {conv} and householders {householders}; a number up to 2, "
                "taps or 0, and a positive number are accepted"
            )
        self.heads, self.householders = heads, householders
        self.beta_max, self.beta_slope = beta_max, beta_slope
        self.sizes = keys, householders * keys, householders * values
        self.project = nn.Linear(width, sum(self.sizes), bias=False)
        self.conv = nn.Parameter(torch.empty(sum(self.sizes), conv).uniform_(-1, 1) / max(conv, 1) ** 0.5)
        self.beta = nn.Linear(width, householders * heads)
        self.decay = nn.Linear(width, heads) if gated else None
        self.rate = nn.Parameter(torch.empty(heads).uniform_(1, 16).log()) if gated else None
        if self.decay is not None:
            self.decay.bias = nn.Parameter(lasting(heads))
        self.norm = nn.RMSNorm(values // heads, eps=eps)
        self.out = nn.Linear(values, width, bias=False)

    def forward(
        self, x: Tensor, state: DeltaNetState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, DeltaNetState]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        mixed, short = self.project(x), None
        if self.conv.shape[1]:
            before = None if state is None else state.short
            mixed, short = causal_conv(
                mixed, self.conv, activation="silu", initial_state=before, cu_seqlens=cu_seqlens
            )
        else:
            mixed = silu(mixed)
        n, heads = self.householders, self.heads
        q, k, v = mixed.split(self.sizes, -1)
        q = normalize(q.unflatten(-1, (heads, -1)), dim=-1, eps=1e-6)
        k = normalize(k.unflatten(-1, (n, heads, -1)), dim=-1, eps=1e-6)
        v = v.unflatten(-1, (n, heads, -1))
        beta = self.beta_max * torch.sigmoid(self.beta_slope * self.beta(x)).unflatten(-1, (n, heads))
        g = None
        if self.decay is not None and self.rate is not None:
            g = -self.rate.exp() * nn.functional.softplus(self.decay(x))
        memory = None if state is None else state.memory
        options: dict[str, Any] = {"initial_state": memory, "cu_seqlens": cu_seqlens}
        if n == 1:
            o, memory = delta_rule(q, k[:, :, 0], v[:, :, 0], beta[:, :, 0], g, **options)
        else:
            o, memory = delta_product(q, k, v, beta, g, **options)
        return self.out(self.norm(o).flatten(-2)), DeltaNetState(short, memory)


def lasting(count: int, steps: tuple[float, float] = STEPS) -> Tensor:
    """Biases whose softplus is drawn between two steps, by its logarithm.

    Examples
    --------
    >>> nn.functional.softplus(lasting(50)).max().item() <= 0.1001
    True
    """
    low, high = (math.log(step) for step in steps)
    drawn = torch.empty(count).uniform_(low, high).exp()
    return drawn + torch.log(-torch.expm1(-drawn))
