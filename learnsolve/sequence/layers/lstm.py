"""The long short-term memory, as a layer among the others."""

import torch
from torch import Tensor, nn

from learnsolve.sequence.functional import apart


class LSTM(nn.Module):
    """A recurrence that no scan solves, since it is not linear: the yardstick for those that are.

    Parameters
    ----------
    width : int

    References
    ----------
    Hochreiter and Schmidhuber, *Long short-term memory*, Neural Computation 9, 1997.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.layers import LSTM
    >>> LSTM(8)(torch.zeros(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(width, width, batch_first=True)

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, Tensor] | None = None,
        *,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Mix (B, T, width); goes on from a state, (1, N, width) twice, and gives the last one."""
        if cu_seqlens is None:
            y, state = self.cells(x, state)
            return y, state
        states = None if state is None else list(zip(*(one.split(1, 1) for one in state), strict=True))
        y, last = apart(self.cells, cu_seqlens, x, states=states)
        hidden, cell = (torch.cat(rows, 1) for rows in zip(*last, strict=True))
        return y, (hidden, cell)
