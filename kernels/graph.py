"""The dispatcher of the graph levels' relaxation, and the graph itself."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels import sparse
from learnsolve.kernels.threads import threads


class Graph(NamedTuple):
    """A symmetric matrix ``D - W`` with positive ``W``.

    Attributes
    ----------
    indptr, indices : int32 Tensor
        The pattern of ``W`` on the CPU, of ``D - W`` elsewhere.
    weights : Tensor
        Entries of ``W`` on the CPU, of ``D - W`` elsewhere.
    diagonal, inverse : Tensor
        ``D``, and its inverse where it is not zero.
    order : int32 Tensor
        The unknowns colour by colour.
    colours : (colours + 1,) int64 array
        Where each colour begins in ``order``.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor
    diagonal: Tensor
    inverse: Tensor
    order: Tensor
    colours: np.ndarray


def graph(indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray, diagonal: np.ndarray) -> Graph:
    """Colour a graph and put it on the CPU."""
    pattern = (torch.from_numpy(indptr), torch.from_numpy(indices))
    colour = sparse.colouring(*pattern).long()
    order = torch.argsort(colour, stable=True).to(torch.int32)
    colours = np.concatenate([[0], np.cumsum(np.bincount(colour.numpy()))]).astype(np.int64)
    inverse = np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0)
    entries, middle, reciprocal = (torch.from_numpy(a) for a in (weights, diagonal, inverse))
    return Graph(*pattern, entries, middle, reciprocal, order, colours)


def on_device(g: Graph, device: torch.device) -> Graph:
    """The graph on another device, with its diagonal among the entries."""
    if device.type == "cpu":
        return g
    import scipy.sparse

    size = g.diagonal.numel()
    W = scipy.sparse.csr_array((g.weights.numpy(), g.indices.numpy(), g.indptr.numpy()), shape=(size, size))
    diagonal = g.diagonal.numpy().copy()
    diagonal[diagonal == 0] = 1
    A = (scipy.sparse.dia_array((diagonal[None], [0]), shape=(size, size)) - W).tocsr()
    indptr, indices, entries = (torch.from_numpy(a).to(device) for a in (A.indptr, A.indices, A.data))
    middle, inverse, order = (a.to(device) for a in (torch.from_numpy(diagonal), g.inverse, g.order))
    return Graph(indptr, indices, entries, middle, inverse, order, g.colours)


def smooth(
    g: Graph,
    b: Tensor,
    x: Tensor,
    *,
    omega: float = 1.0,
    sweeps: int,
    reverse: bool,
    fresh: bool = False,
    coarse_x: Tensor | None = None,
    coarse_b: Tensor | None = None,
    aggregate: Tensor | None = None,
    relaxation: Tensor | None = None,
) -> None:
    """Prolong, sweep through the colours, restrict the residual; see `learnsolve.kernels.grid.smooth`.

    ``relaxation``, of shape ``(sweeps, n)``, replaces ``omega / d``; with ``reverse`` its sweeps are counted
    from the last.
    """
    if x.device.type == "cpu":
        from learnsolve.kernels import graph_numba

        values = x.numpy()
        empty = values[:0]
        graph_numba.smooth(
            g.indptr.numpy(),
            g.indices.numpy(),
            g.weights.numpy(),
            g.diagonal.numpy(),
            g.inverse.numpy(),
            b.numpy(),
            values,
            g.order.numpy(),
            g.colours,
            empty if coarse_x is None else coarse_x.numpy(),
            empty if coarse_b is None else coarse_b.numpy(),
            np.empty(0, np.int32) if aggregate is None else aggregate.numpy(),
            empty.reshape(0, 0) if relaxation is None else relaxation.numpy(),
            values.dtype.type(omega),
            int(coarse_x is not None),
            sweeps,
            reverse,
            fresh,
            int(coarse_b is not None),
            threads(8 * x.numel()),
        )
        return
    if fresh:
        x.zero_()
    if coarse_x is not None and aggregate is not None:
        known = aggregate >= 0
        x[known] += coarse_x[aggregate[known].long()]
    parts = [g.order[lo:hi] for lo, hi in zip(g.colours[:-1].tolist(), g.colours[1:].tolist(), strict=True)]
    for sweep in reversed(range(sweeps)) if reverse else range(sweeps):
        for rows in reversed(parts) if reverse else parts:
            if relaxation is None:
                sparse.relax_rows(g.indptr, g.indices, g.weights, g.diagonal, b, x, rows, omega)
                continue
            before = x[rows]
            sparse.relax_rows(g.indptr, g.indices, g.weights, g.diagonal, b, x, rows, 1.0)
            x[rows] = torch.lerp(before, x[rows], relaxation[sweep, rows] * g.diagonal[rows])
    if coarse_b is not None and aggregate is not None:
        r = sparse.residual(g.indptr, g.indices, g.weights, b, x)
        known = aggregate >= 0
        coarse_b.zero_().index_add_(0, aggregate[known].long(), r[known])
