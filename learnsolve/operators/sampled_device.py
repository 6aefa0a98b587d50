"""Known entries on a GPU."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.operators.lines import Lines
from learnsolve.operators.sampled import InMemory, RowProblems, Sampled

Array = NDArray[np.float64]


class OnDevice(Sampled):
    """Entries on a device, by row and by column; the factors, which are small, come and go.

    Parameters
    ----------
    known : InMemory
    device : torch.device or str

    Examples
    --------
    >>> known = InMemory(np.array([0, 1, 1]), np.array([1, 0, 1]), np.array([4.0, 6.0, 8.0]), (2, 2))
    >>> V = np.array([[3.0], [4.0]])
    >>> OnDevice(known, "cpu").solve_rows(V, np.zeros((2, 1)))[0].round(12).tolist()
    [[1.0], [2.0]]
    """

    def __init__(self, known: InMemory, device: torch.device | str) -> None:
        self.shape, self.nnz, self.known = known.shape, known.nnz, known
        self.device = torch.device(device)
        self._tensors = [
            [
                (lines, tuple(part.to(self.device) for part in parts))
                for lines, parts in known.tensors(transposed)
            ]
            for transposed in (False, True)
        ]

    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All of them at once, as they are in memory."""
        return self.known.blocks(transposed)

    def tensors(self, transposed: bool = False) -> Iterator[tuple[Lines, tuple[Tensor, ...]]]:
        """All of them at once, as they are on the device."""
        return iter(self._tensors[transposed])

    def holding(self, values: Array) -> InMemory:
        """See `Sampled.holding`."""
        return self.known.holding(values)

    def solve_rows(
        self, features: Array, start: Array, how: RowProblems | None = None, **options: Any
    ) -> tuple[Array, float]:
        """See `Sampled.solve_rows`; ValueError for sketches, and for vectors that must not be negative."""
        if how is not None and (how.solver == "sketch" or how.nonnegative):
            raise ValueError("on a device rows are solved 'exact' or by 'cg', and may be negative")
        return super().solve_rows(features, start, how, **options)
