"""Performer: linear attention whose features estimate the softmax's kernel without bias."""

import math

import torch
from torch import Tensor, nn

from learnsolve.sequence.attention import linear_attention
from learnsolve.sequence.functional import apart


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


class Performer(nn.Module):
    r"""Softmax attention, estimated by random features: time grows as the length.

    .. math:: o_t = \frac{\sum_{s \le t} \phi(q_t)^T \phi(k_s) \, v_s}{\sum_{s \le t} \phi(q_t)^T \phi(k_s)}

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
    >>> y.shape, state.shape  # the last column is the normaliser's
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 6, 5]))
    """

    directions: Tensor

    def __init__(
        self, width: int, heads: int = 4, *, features: int | None = None, causal: bool = True
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not share {width} channels; a multiple is accepted")
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
        self.directions.copy_(orthogonal_directions(*self.directions.shape, generator))

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
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
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(3, -1))
        scale = q.shape[-1] ** -0.25
        q, k = (_logarithms(scale * one, self.directions) for one in (q, k))
        # What a query's features are divided by cancels, and so does what all keys' are: the exponent of
        # these is at most half the square of a direction, and half of that keeps both ends in range.
        q = torch.exp(q - q.detach().amax(-1, keepdim=True))
        k = torch.exp(k - (self.directions**2).sum(1).max() / 4)
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        if self.causal:
            o, state = linear_attention(q, k, v, scale=1.0, initial_state=state, cu_seqlens=cu_seqlens)
        else:
            o = torch.einsum("bthm,bhmv->bthv", q, torch.einsum("bthm,bthv->bhmv", k, v))
        return self.out((o[..., :-1] / o[..., -1:]).flatten(-2)), state
