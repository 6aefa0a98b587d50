"""MEGA: gated attention within chunks, of tokens smoothed by exponential moving averages."""

import torch
from torch import Tensor, nn

from learnsolve.sequence.layers.gated_attention import GatedChunks
from learnsolve.sequence.moving_average import moving_average


class MovingAverage(nn.Module):
    r"""Exponential moving averages of each channel, damped, and their sum.

    .. math:: p = \sigma(\delta), \quad q = 1 - p \, \sigma(\alpha), \quad
        h_{t, n} = q_n h_{t-1, n} + p_n \beta_n x_t, \quad
        y_t = N^{-1/2} \sum_n \gamma_n h_{t, n} + \omega x_t

    Parameters
    ----------
    width : int
    averages : int
        :math:`N`, of each channel.

    References
    ----------
    Ma and others, *Mega: moving average equipped gated attention*, ICLR 2023, section 3.1.

    Examples
    --------
    >>> import torch
    >>> y, state = MovingAverage(8)(torch.zeros(3, 5, 8))
    >>> y.shape, state.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 16, 8]))
    """

    def __init__(self, width: int, averages: int = 16) -> None:
        super().__init__()
        if width < 1 or averages < 1:
            raise ValueError(f"width is {width} and averages {averages}; positive numbers are accepted")
        signs = 1.0 - 2.0 * (torch.arange(averages)[:, None] % 2)
        self.delta = nn.Parameter(0.2 * torch.randn(averages, width))
        self.alpha = nn.Parameter(0.2 * torch.randn(averages, width))
        self.beta = nn.Parameter(signs + 0.02 * torch.randn(averages, width))
        self.gamma = nn.Parameter(torch.randn(averages, width))
        self.omega = nn.Parameter(torch.randn(width))

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Smooth (B, T, width); goes on from a state, and gives the last one."""
        p = torch.sigmoid(self.delta)
        q = 1 - p * torch.sigmoid(self.alpha)
        c = self.gamma * p * self.beta / len(p) ** 0.5
        y, last = moving_average(x, q, c, initial_state=state, cu_seqlens=cu_seqlens)
        return y + self.omega * x, last


class Mega(GatedChunks):
    r"""Tokens smoothed by exponential moving averages, and gated attention within chunks.

    .. math:: m = \mathrm{silu}(\mathrm{EMA}(x)), \quad v = \mathrm{silu}(W_v x), \quad
        z, r = \mathrm{silu}(W_{zr} m), \quad u = \sigma(W_u m)

        h = \mathrm{silu}(W_x m + W_h (r \odot \mathrm{attention}(q(z), k(z), v))), \qquad y = u \odot (h - x)

    What goes in is added outside, as of any layer here.

    Parameters
    ----------
    width : int
    chunk : int
        Tokens that are attended to at most.
    averages : int
        Of each channel.
    hidden, keys : int, optional
        Channels of values, twice the width by default, and of keys, a quarter but at least 16.

    References
    ----------
    Ma and others, *Mega: moving average equipped gated attention*, ICLR 2023, sections 3.2 and 3.5.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import Mega
    >>> y, state = Mega(8, chunk=4)(torch.zeros(3, 5, 8))
    >>> y.shape, state.keys.shape  # one token of the second chunk
    (torch.Size([3, 5, 8]), torch.Size([3, 1, 1, 16]))
    """

    def __init__(
        self,
        width: int,
        chunk: int = 64,
        *,
        averages: int = 16,
        hidden: int | None = None,
        keys: int | None = None,
    ) -> None:
        super().__init__(MovingAverage(width, averages), width, chunk, hidden, keys, plain=False)
