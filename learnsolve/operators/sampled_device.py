"""Known entries on a GPU."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.kernels import rows, sparse
from learnsolve.kernels.rows_reference import Rows
from learnsolve.operators.sampled import LOSSES, InMemory, Lines, RowProblems, Sampled, whitening

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
        self._lines = [
            [self._there(part) for part in (lines.indptr, lines.indices, lines.values, lines.weights)]
            for lines in (known.by_row, known.by_column)
        ]

    def _there(self, array: Any) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), device=self.device)

    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All of them at once, as they are in memory."""
        yield from self.known.blocks(transposed)

    def residual(
        self, U: Array, V: Array, row_bias: Array | None = None, col_bias: Array | None = None
    ) -> Iterator[tuple[Lines, Array]]:
        """See `Sampled.residual`."""
        left = self._left(self._there(U), self._there(V), transposed=False)
        lines = self.known.by_row
        found = left.cpu().numpy()
        if row_bias is not None:
            found -= np.repeat(row_bias, np.diff(lines.indptr))
        if col_bias is not None:
            found -= col_bias[lines.indices]
        yield lines, found

    def _left(self, own: Tensor, other: Tensor, transposed: bool) -> Tensor:
        indptr, indices, values, _ = self._lines[transposed]
        return values - sparse.sampled_product(indptr, indices, own, other)

    def times(
        self, X: Array, transposed: bool = False, change: Callable[[Array], Array] | None = None
    ) -> Array:
        """See `Sampled.times`."""
        indptr, indices, values, _ = self._lines[transposed]
        if change is not None:
            values = self._there(change(values.cpu().numpy()))
        return sparse.spmv(indptr, indices, values, self._there(X)).cpu().numpy()

    def solve_rows(
        self,
        features: Array,
        start: Array,
        how: RowProblems | None = None,
        *,
        transposed: bool = False,
        offset: Array | None = None,
        measure: bool = False,
    ) -> tuple[Array, float]:
        """See `Sampled.solve_rows`.

        Raises
        ------
        ValueError
            Rows are to be solved by a sketch, or without negative numbers.
        """
        how = how or RowProblems()
        if how.solver == "sketch" or how.nonnegative:
            raise ValueError("on a device rows are solved 'exact' or by 'cg', and may be negative")
        back, ridge, base = whitening(features, how)
        given = np.zeros(len(features)) if offset is None else offset
        W, x = self._there(features @ back), self._there(np.linalg.solve(back, start.T).T)
        indptr, indices, values, weights = self._lines[transposed]
        problems = Rows(
            indptr, indices, values, weights, self._there(given), W, self._there(ridge), self._there(base),
            float(how.unobserved), LOSSES[how.loss], float(how.reach),
        )  # fmt: skip
        found = (
            rows.exact(problems, x) if how.solver == "exact" else rows.cg(problems, x, how.steps, how.rtol)
        )
        squares = float("nan")
        if measure:
            left = self._left(found, W, transposed) - problems.offset[problems.indices.long()]
            squares = float(left @ left)
        return found.cpu().numpy() @ back.T, squares
