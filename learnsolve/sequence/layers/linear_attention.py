"""Linear attention with a feature map, and its normaliser."""

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from learnsolve.sequence.attention import linear_attention
from learnsolve.sequence.functional import check_width


class LinearAttention(nn.Module):
    r"""Attention whose softmax is replaced by a product of features :math:`\phi(x) = \mathrm{elu}(x) + 1`.

    .. math:: o_t = \frac{\sum_{s \le t} \phi(q_t)^T \phi(k_s) \, v_s}{\sum_{s \le t} \phi(q_t)^T \phi(k_s)}

    Parameters
    ----------
    width, heads : int

    References
    ----------
    Katharopoulos, Vyas, Pappas and Fleuret, *Transformers are RNNs*, ICML 2020, equations 7 and 9.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import LinearAttention
    >>> y, state = LinearAttention(8, heads=2)(torch.zeros(3, 5, 8))
    >>> y.shape, state.shape  # the last column is the normaliser's
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 4, 5]))
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        check_width(width, heads)
        self.heads = heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.project(x).chunk(3, -1))
        q, k = elu(q) + 1, elu(k) + 1
        # The normaliser is what a value of one would give.
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        o, state = linear_attention(q, k, v, scale=1.0, initial_state=state, cu_seqlens=cu_seqlens)
        return self.out((o[..., :-1] / o[..., -1:]).flatten(-2)), state
