"""TCNCA: gated attention within chunks, of tokens smoothed by dilated convolutions."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from learnsolve.sequence.convolution import causal_conv
from learnsolve.sequence.layers.gated_attention import GatedChunks


class DilatedConvolutions(nn.Module):
    r"""Causal convolutions of each channel, whose taps stand farther apart from level to level.

    .. math:: z_0 = x, \qquad z_{b+1} = z_b + w_b *_{f^b} z_b, \qquad
        y = \gamma \odot (z_B - x) + \omega \odot x

    :math:`B` levels of :math:`K` taps look back :math:`(K - 1)(f^B - 1) / (f - 1)` tokens. They are linear,
    as the moving average is that they stand for; what is far begins small, so that it does not drown what is
    near.

    Parameters
    ----------
    width : int
    taps, levels, dilation : int
        :math:`K`, :math:`B` and :math:`f`.

    References
    ----------
    Bai, Kolter and Koltun, *An empirical evaluation of generic convolutional and recurrent networks for
    sequence modeling*, 2018, section 3; the growth of dilations after Terzić, Hersche, Karunaratne, Benini,
    Sebastian and Rahimi, *TCNCA: temporal convolution network with chunked attention for scalable sequence
    processing*, 2023.

    Examples
    --------
    >>> import torch
    >>> layer = DilatedConvolutions(8, taps=3, levels=2, dilation=4)
    >>> y, state = layer(torch.zeros(3, 5, 8))
    >>> y.shape, layer.span, [one.shape[1] for one in state]
    (torch.Size([3, 5, 8]), 10, [2, 5])
    """

    def __init__(self, width: int, taps: int = 17, levels: int = 4, dilation: int = 8) -> None:
        super().__init__()
        if min(width, taps, levels, dilation) < 1:
            raise ValueError(
                f"width is {width}, taps {taps}, levels {levels} and dilation {dilation}; positive numbers "
                "are accepted"
            )
        self.dilations = [dilation**level for level in range(levels)]
        sizes = 1 / (math.sqrt(taps) * torch.tensor(self.dilations))
        self.weight = nn.Parameter(sizes[:, None, None] * torch.empty(levels, width, taps).uniform_(-1, 1))
        self.gamma, self.omega = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))

    @property
    def span(self) -> int:
        """How far back it looks."""
        return (self.weight.shape[2] - 1) * sum(self.dilations)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Smooth (B, T, width); goes on from a state, what each level saw last, and gives the last one."""
        taps = self.weight.shape[2]
        after, z = [], x
        before = (x[:, :0],) * len(self.dilations) if state is None else state
        # The last tap meets the present, which stays.
        kernels = self.weight + pad(self.weight.new_ones(1), (taps - 1, 0))
        for weight, dilation, old in zip(kernels, self.dilations, before, strict=True):
            # Of the taps those that meet anything.
            met = min(taps, max(0, old.shape[1] + z.shape[1] - 1) // dilation + 1)
            span = (met - 1) * dilation
            first, seen = None, z
            if old.shape[1]:
                first = pad(old, (0, 0, max(0, span - old.shape[1]), 0))[:, max(0, old.shape[1] - span) :].mT
                seen = torch.cat([old, z], 1)
            y, _ = causal_conv(
                z, weight[:, taps - met :], dilation=dilation, method="direct", initial_state=first
            )
            after.append(seen[:, max(0, seen.shape[1] - (taps - 1) * dilation) :])
            z = y
        return torch.addcmul(self.gamma * z, self.omega - self.gamma, x), tuple(after)


class TCNCA(GatedChunks):
    r"""Tokens smoothed by a temporal convolutional network, and gated attention within chunks.

    That is `Mega` with :math:`m = \mathrm{silu}(\mathrm{TCN}(x))`, whose work is in proportion to the length.
    Where it is ``plain``, nothing is gated: :math:`y = W_h \, \mathrm{attention}(q(z), k(z), v)`, with
    :math:`z, v = W m`.

    Parameters
    ----------
    width : int
    chunk : int
        Tokens that are attended to at most.
    taps, levels, dilation : int
        Of the convolutions.
    plain : bool
        Without gates.
    hidden, keys : int, optional
        Channels of values, twice the width by default, and of keys, a quarter but at least 16.

    References
    ----------
    Terzić, Hersche, Karunaratne, Benini, Sebastian and Rahimi, *TCNCA: temporal convolution network with
    chunked attention for scalable sequence processing*, 2023.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import TCNCA
    >>> y, state = TCNCA(8, chunk=4)(torch.zeros(3, 5, 8))
    >>> y.shape, state.keys.shape  # one token of the second chunk
    (torch.Size([3, 5, 8]), torch.Size([3, 1, 1, 16]))
    """

    def __init__(
        self,
        width: int,
        chunk: int = 64,
        *,
        taps: int = 17,
        levels: int = 4,
        dilation: int = 8,
        plain: bool = False,
        hidden: int | None = None,
        keys: int | None = None,
    ) -> None:
        super().__init__(
            DilatedConvolutions(width, taps, levels, dilation), width, chunk, hidden, keys, plain
        )
