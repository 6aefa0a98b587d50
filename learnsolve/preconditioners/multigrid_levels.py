"""The levels of the geometric multigrid: each smooths, and hands its residual down and a correction up."""

from dataclasses import dataclass
from math import cos, pi

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from learnsolve.kernels import graph as graph_kernels
from learnsolve.kernels import grid as grid_kernels
from learnsolve.kernels.stencil import FaceStencil, Stencil


@dataclass
class GridLevel:
    """A level on a grid: red-black or Chebyshev sweeps, fused with the transfers.

    ``aggregate`` is None where the coarse level is a grid too. ``relaxation``, as
    `learnsolve.kernels.grid.smooth` takes it, replaces ``omega`` in red-black sweeps.
    """

    stencil: Stencil
    b: Tensor
    x: Tensor
    aggregate: Tensor | None
    smoother: str
    relaxation: Tensor | None = None

    def down(self, coarse_b: Tensor, sweeps: int, omega: float, fresh: bool) -> None:
        """Smooth, then restrict the residual."""
        if self.smoother == "chebyshev":
            self._chebyshev(sweeps, fresh)
            self._smooth(0, 0, omega, False, coarse_b=coarse_b)
        else:
            self._smooth(2 * sweeps, 0, omega, fresh, coarse_b=coarse_b)

    def up(self, coarse_x: Tensor, sweeps: int, omega: float) -> None:
        """Add the coarse correction, then smooth in the reverse order."""
        if self.smoother == "chebyshev":
            self._smooth(0, 0, omega, False, coarse_x=coarse_x)
            self._chebyshev(sweeps, False)
        else:
            self._smooth(2 * sweeps, 1, omega, False, coarse_x=coarse_x)

    def _smooth(self, halves: int, first: int, omega: float, fresh: bool, **transfer: Tensor) -> None:
        if self.aggregate is not None:
            transfer = {name: vector.view(1, 1, -1) for name, vector in transfer.items()}
        grid_kernels.smooth(
            self.stencil,
            self.b,
            self.x,
            omega=omega,
            halves=halves,
            first=first,
            fresh=fresh,
            aggregate=self.aggregate,
            relaxation=self.relaxation if halves else None,
            **transfer,
        )

    def _chebyshev(self, sweeps: int, fresh: bool) -> None:
        """Jacobi steps at the roots of Chebyshev's polynomial on [0.4, 2]; D^-1 A ends at 2."""
        if fresh:
            self.x.zero_()
        for k in range(sweeps):
            omega = 1 / (1.2 + 0.8 * cos(pi * (2 * k + 1) / (2 * sweeps)))
            self.x.copy_(grid_kernels.jacobi(self.stencil, self.b, self.x, omega))


@dataclass
class GraphLevel:
    """A level on a graph: multicolour Gauss-Seidel sweeps."""

    graph: graph_kernels.Graph
    b: Tensor
    x: Tensor
    aggregate: Tensor | None

    def down(self, coarse_b: Tensor, sweeps: int, omega: float, fresh: bool) -> None:
        """Smooth, then restrict the residual."""
        graph_kernels.smooth(
            self.graph,
            self.b,
            self.x,
            omega=omega,
            sweeps=sweeps,
            reverse=False,
            fresh=fresh,
            coarse_b=coarse_b,
            aggregate=self.aggregate,
        )

    def up(self, coarse_x: Tensor, sweeps: int, omega: float) -> None:
        """Add the coarse correction, then smooth in the reverse order."""
        graph_kernels.smooth(
            self.graph,
            self.b,
            self.x,
            omega=omega,
            sweeps=sweeps,
            reverse=True,
            coarse_x=coarse_x,
            aggregate=self.aggregate,
        )

    def solve(self) -> None:
        """A coarsest level too large for factors: many symmetric sweeps."""
        for k in range(10):
            for reverse in (False, True):
                graph_kernels.smooth(
                    self.graph, self.b, self.x, sweeps=1, reverse=reverse, fresh=k == 0 and not reverse
                )


@dataclass
class DenseLevel:
    """The coarsest level: its inverse, on the complement of its null space."""

    inverse: Tensor
    b: Tensor
    x: Tensor

    def solve(self) -> None:
        """``x = A^+ b``."""
        torch.mv(self.inverse, self.b.reshape(-1), out=self.x.view(-1))


Level = GridLevel | GraphLevel | DenseLevel


def dense_inverse(W: scipy.sparse.csr_array, diagonal: np.ndarray) -> np.ndarray:
    """The pseudo-inverse of ``diag(diagonal) - W``; unknowns with a zero diagonal stay zero.

    Connected parts whose rows sum to zero have the constant vector as null space.
    """
    size = diagonal.size
    excess = diagonal - W.sum(axis=1)
    count, label = scipy.sparse.csgraph.connected_components(W, directed=False)
    opened = np.bincount(label, np.where(excess > 1e-6 * diagonal, 1, 0), minlength=count) > 0
    A = np.diag(np.where(diagonal > 0, diagonal, 1.0)) - W.toarray()
    null, largest = np.zeros((size, 0)), diagonal.max() or 1.0
    closed = np.flatnonzero(~opened)
    if closed.size:
        null = (label[:, None] == closed[None]).astype(float)
        null /= np.linalg.norm(null, axis=0)
        A += largest * null @ null.T
    inverse = np.linalg.inv(A)
    if closed.size:
        inverse -= null @ null.T / largest
    inverse[diagonal == 0] = 0
    return (inverse + inverse.T) / 2


def grid_as_graph(stencil: FaceStencil) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """The couplings and the diagonal of a small numpy `FaceStencil` as matrices over all its cells."""
    shape = stencil.diagonal.shape
    number = np.arange(stencil.diagonal.size).reshape(shape)
    i, j, w = [], [], []
    for axis, field in enumerate((stencil.wz, stencil.wy, stencil.wx)):
        if shape[axis] == 1:
            continue
        weights = np.moveaxis(field, axis, 0)[1:].reshape(-1)
        numbers = np.moveaxis(number, axis, 0)
        i.append(numbers[1:].reshape(-1))
        j.append(numbers[:-1].reshape(-1))
        w.append(weights.astype(np.float64))
    if not i:
        return scipy.sparse.csr_array((number.size, number.size)), stencil.diagonal.reshape(-1).astype(
            np.float64
        )
    rows, columns, values = np.concatenate([*i, *j]), np.concatenate([*j, *i]), np.concatenate([*w, *w])
    W = scipy.sparse.coo_array((values, (rows, columns)), shape=(number.size,) * 2).tocsr()
    W.eliminate_zeros()
    return W, stencil.diagonal.reshape(-1).astype(np.float64)
