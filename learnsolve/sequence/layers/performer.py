"""Performer: linear attention whose features estimate the softmax's kernel without bias."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from learnsolve.sequence.attention import linear_attention
from learnsolve.sequence.functional import apart, check_width, sequences


def positive_features(x: Tensor, directions: Tensor) -> Tensor:
    r"""Positive random features of the exponential kernel (FAVOR+).

    .. math:: \phi(x) = m^{-1/2} e^{W x - |x|^2 / 2}, \qquad E[\phi(x)^T \phi(y)] = e^{x^T y}

    Parameters
    ----------
    x : (..., d) Tensor
    directions : (m, d) Tensor
        :math:`W`, whose rows are normally distributed each.

    Returns
    -------
    (..., m) Tensor

    References
    ----------
    Choromanski and others, *Rethinking attention with Performers*, ICLR 2021, lemma 1.

    Examples
    --------
    >>> import torch
    >>> positive_features(torch.zeros(2), torch.ones(4, 2)).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    return torch.exp(_logarithms(x, directions)) / math.sqrt(len(directions))


def _logarithms(x: Tensor, directions: Tensor) -> Tensor:
    return x @ directions.T - (x**2).sum(-1, keepdim=True) / 2


def orthogonal_directions(count: int, channels: int, generator: torch.Generator | None = None) -> Tensor:
    """Directions that are orthogonal within blocks of so many as there are channels, with normal lengths.

    Returns
    -------
    (count, channels) float64 Tensor

    References
    ----------
    Choromanski and others, *Rethinking attention with Performers*, ICLR 2021, section 2.4.

    Examples
    --------
    >>> w = orthogonal_directions(5, 3)
    >>> bool((w[0] @ w[1]).abs() < 1e-12)
    True
    """
    found: list[Tensor] = []
    for _ in range(math.ceil(count / channels)):
        normal = torch.randn(channels, channels, dtype=torch.float64, generator=generator)
        basis, triangle = torch.linalg.qr(normal)
        # With the signs of the triangle's diagonal each rotation is as likely as any other.
        found.append((basis * triangle.diagonal().sign()).T)
    lengths = torch.randn(count, channels, dtype=torch.float64, generator=generator).norm(dim=1, keepdim=True)
    return torch.cat(found)[:count] * lengths


class PerformerState(NamedTuple):
    """What a causal Performer remembers.

    Attributes
    ----------
    sums : (N, heads, features, K + 1) Tensor
        Of the keys' features with values, and of the features alone, divided by the exponential of what
        is highest.
    highest : (N, heads) Tensor
        The largest logarithm of any key's feature so far.
    """

    sums: Tensor
    highest: Tensor


class Performer(nn.Module):
    r"""Softmax attention, estimated by random features: time grows as the length.

    .. math:: o_t = \frac{\sum_{s \le t} \phi(q_t)^T \phi(k_s) \, v_s}{\sum_{s \le t} \phi(q_t)^T \phi(k_s)}

    What features are divided by cancels. Those of a query are divided by their largest, those of the keys by
    the largest of all keys so far, which goes with the state: no later token changes it, and neither sum can
    vanish or overflow, however large queries and keys are. Features of a query that are smaller than its
    largest by more than the root of what the dtype can hold, 1e-19 in single precision, count as that much.

    Parameters
    ----------
    width, heads : int
    features : int, optional
        :math:`m` of each head; :math:`d \ln d` by default.
    causal : bool
        Otherwise sums go over all tokens.

    Raises
    ------
    ValueError
        Heads do not share the channels, or there are no features.

    References
    ----------
    Choromanski and others, *Rethinking attention with Performers*, ICLR 2021, section 2.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Performer
    >>> y, state = Performer(8, heads=2, features=6)(torch.zeros(3, 5, 8))
    >>> y.shape, state.sums.shape  # the last column is the normaliser's
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 6, 5]))
    """

    directions: Tensor

    def __init__(
        self, width: int, heads: int = 4, *, features: int | None = None, causal: bool = True
    ) -> None:
        super().__init__()
        check_width(width, heads)
        channels = width // heads
        if features is None:
            features = max(1, round(channels * math.log(channels)))
        if features < 1:
            raise ValueError(f"features is {features}; a positive number is accepted")
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("directions", torch.empty(features, channels))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw other features."""
        count, channels = self.directions.shape
        self.directions.copy_(orthogonal_directions(count, channels, generator))

    def forward(
        self, x: Tensor, state: PerformerState | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, PerformerState | None]:
        """Mix (B, T, width); a causal one goes on from a state, and gives the last one.

        Raises
        ------
        ValueError
            A state is given to one that is not causal.
        """
        if state is not None and not self.causal:
            raise ValueError("there is a state; only a causal layer accepts one")
        if cu_seqlens is not None and not self.causal:
            return apart(self, cu_seqlens, x)[0], None
        # Exponents need the range and the digits of single precision.
        wide = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (one.unflatten(-1, (self.heads, -1)).to(wide) for one in self.project(x).chunk(3, -1))
        scale = q.shape[-1] ** -0.25
        q, k = (_logarithms(scale * one, self.directions.to(wide)) for one in (q, k))
        # So that a query whose largest feature no key shares still finds a sum: the keys' largest is one.
        least = math.log(torch.finfo(wide).tiny) / 2
        q = torch.exp((q - q.detach().amax(-1, keepdim=True)).clamp(min=least))
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        after = None
        if self.causal:
            before = None if state is None else state.highest
            highest, decay, last = _highest(k.detach().amax(-1), before, cu_seqlens)
            k = torch.exp(k - highest[..., None])
            first = None if state is None else state.sums
            o, sums = linear_attention(q, k, v, decay, scale=1.0, initial_state=first, cu_seqlens=cu_seqlens)
            after = PerformerState(sums, last)
        elif x.numel():
            k = torch.exp(k - k.detach().amax((1, 3), keepdim=True))
            o = torch.einsum("bthm,bhmv->bthv", q, torch.einsum("bthm,bthv->bhmv", k, v))
        else:
            o = v
        return self.out((o[..., :-1] / o[..., -1:]).flatten(-2).to(x.dtype)), after


def _highest(new: Tensor, before: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Running maxima (B, T, H) of each sequence, the logarithms of what they shrink sums by, and the last."""
    sizes = [new.shape[1]]
    if cu_seqlens is not None:
        pieces = sequences(new.shape[0], new.shape[1], cu_seqlens)
        sizes = (pieces[:, 2] - pieces[:, 1]).tolist()
    count = len(new) if cu_seqlens is None else len(sizes)
    if before is None:
        before = new.new_full((count, new.shape[2]), -torch.inf)
    starts = before[None, :, None] if cu_seqlens is None else before[:, None, None]
    runs = [
        torch.cat([start, part], 1).cummax(1).values
        for start, part in zip(starts, new.split(sizes, 1), strict=True)
    ]
    highest, earlier = (torch.cat([one[:, cut] for one in runs], 1) for cut in (slice(1, None), slice(-1)))
    # Of sums that are zero any decay is right.
    decay = torch.where(earlier.isneginf(), 0.0, earlier - highest)
    return highest, decay, torch.cat([one[:, -1] for one in runs])
