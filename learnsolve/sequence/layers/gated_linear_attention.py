"""Gated linear attention: a state each channel of which decays by itself."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from learnsolve.sequence.signed import signed_attention

# Of the decays' logits at first: what is written lasts for some twenty tokens.
LASTING = -3.0


class GatedLinearAttention(nn.Module):
    r"""Attention without a softmax, whose decays depend on the tokens.

    .. math:: a_t = 1 - \beta_\mathrm{max} \sigma(W_2 W_1 x_t + b), \qquad
        S_t = \mathrm{diag}(a_t) S_{t-1} + k_t v_t^T, \qquad
        y_t = W_o \, (\mathrm{RMSNorm}(S_t^T q_t) \odot \mathrm{silu}(W_g x_t))

    Parameters
    ----------
    width, heads : int
    beta_max : float
        Up to one, the eigenvalues of a step are in [0, 1]; up to two, in [-1, 1].
    rank : int
        Of the projection that gives decays.

    References
    ----------
    Yang, Wang, Shen, Panda and Kim, *Gated linear attention transformers with hardware-efficient training*,
    ICML 2024, section 4.4; the range of its gates after Grazzi and others, *Unlocking state-tracking in
    linear RNNs through negative eigenvalues*, ICLR 2025, section 4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import GatedLinearAttention
    >>> y, state = GatedLinearAttention(8, heads=2)(torch.zeros(3, 5, 8))
    >>> y.shape, state.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 4, 4]))
    """

    def __init__(self, width: int, heads: int = 4, *, beta_max: float = 1.0, rank: int = 16) -> None:
        super().__init__()
        if heads < 1 or width % heads or rank < 1 or not 0 < beta_max <= 2:
            raise ValueError(
                f"width is {width}, heads {heads}, rank {rank} and beta_max {beta_max}; whole heads, a "
                "positive rank, and a number up to 2 are accepted"
            )
        self.heads, self.beta_max = heads, beta_max
        self.project = nn.Linear(width, 4 * width, bias=False)
        last = nn.Linear(rank, width)
        nn.init.constant_(last.bias, LASTING)
        self.fade = nn.Sequential(nn.Linear(width, rank, bias=False), last)
        self.norm = nn.RMSNorm(width // heads, eps=1e-5)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        q, k, v, gate = self.project(x).chunk(4, -1)
        a = 1 - self.beta_max * torch.sigmoid(self.fade(x))
        q, k, v, a = (one.unflatten(-1, (self.heads, -1)) for one in (q, k, v, a))
        o, state = signed_attention(q, k, v, a, initial_state=state, cu_seqlens=cu_seqlens)
        return self.out(self.norm(o).flatten(-2) * silu(gate)), state
