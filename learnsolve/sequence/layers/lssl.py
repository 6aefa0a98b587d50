"""The linear state-space layer."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from learnsolve.sequence.functional import apart
from learnsolve.sequence.state_space import Discretization, hippo, state_space


class LSSL(nn.Module):
    """A state space for each channel, and a product that mixes the channels.

    Parameters
    ----------
    width : int
        Channels.
    state : int
        Size of each channel's state.
    learned : bool
        Whether A and B, which begin as HiPPO's and are shared by the channels, are learned; the steps are.
    steps : (float, float)
        Between which those in time are drawn at first, logarithmically.
    discretization
        As by `learnsolve.sequence.state_space.discretized`.

    References
    ----------
    Gu and others, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS 2021, section 3 and appendix B.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import LSSL
    >>> y, state = LSSL(8, state=16)(torch.zeros(3, 5, 8))
    >>> y.shape, state.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 8, 16]))
    """

    def __init__(
        self,
        width: int,
        state: int = 32,
        *,
        learned: bool = False,
        steps: tuple[float, float] = (1e-3, 0.1),
        discretization: Discretization = "bilinear",
    ) -> None:
        super().__init__()
        if width < 1 or state < 1 or not 0 < steps[0] <= steps[1]:
            raise ValueError(
                f"width is {width}, state {state} and steps {steps}; positive numbers, and a least step and "
                "a largest, are accepted"
            )
        A, B = hippo(state)
        self.A, self.B = nn.Parameter(A, requires_grad=learned), nn.Parameter(B, requires_grad=learned)
        self.C = nn.Parameter(torch.randn(width, state) / math.sqrt(state))
        self.D = nn.Parameter(torch.randn(width))
        low, high = (math.log(step) for step in steps)
        self.log_dt = nn.Parameter(torch.empty(width).uniform_(low, high))
        self.out = nn.Linear(width, width)
        self.discretization = discretization

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix (B, T, width); goes on from a state, and gives the last one."""
        if cu_seqlens is not None:
            y, states = apart(self, cu_seqlens, x, states=None if state is None else state.split(1))
            return y, torch.cat(states)
        y, last = state_space(
            x, self.A, self.B, self.C, self.D, self.log_dt.exp(), discretization=self.discretization,
            initial_state=state, method="scan" if x.shape[1] == 1 else "convolution",
        )  # fmt: skip
        return self.out(gelu(y)), last
