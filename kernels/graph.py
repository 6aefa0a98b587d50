"""The dispatcher of the graph levels' relaxation, and the graph itself."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels import sparse
from learnsolve.kernels.threads import start_pool, threads


class Graph(NamedTuple):
    """A symmetric matrix ``D - W`` with positive ``W``, its unknowns numbered colour by colour.

    Attributes
    ----------
    indptr, indices : int32 Tensor
        The pattern of ``W`` on the CPU, of ``D - W`` elsewhere.
    weights : Tensor
        Entries of ``W`` on the CPU, of ``D - W`` elsewhere.
    diagonal, inverse : Tensor
        ``D``, and its inverse where it is not zero.
    colours : (colours + 1,) int64 array
        Where each colour begins. The largest comes first, the next largest last.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor
    diagonal: Tensor
    inverse: Tensor
    colours: np.ndarray


def colour_order(indptr: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns of a graph colour by colour, int32, and where each colour begins.

    The largest colour comes first, whose first sweep from zero reads no neighbour, and the next largest
    last, which has no residual after its sweep.
    """
    colour = sparse.colouring(torch.from_numpy(indptr), torch.from_numpy(indices)).numpy()
    sizes = np.bincount(colour)
    ranked = np.argsort(-sizes, kind="stable")
    ranked = np.concatenate([ranked[:1], ranked[2:], ranked[1:2]])
    place = np.empty(ranked.size, np.int32)
    place[ranked] = np.arange(ranked.size)
    order = np.argsort(place[colour], kind="stable").astype(np.int32)
    return order, np.concatenate([[0], np.cumsum(sizes[ranked])]).astype(np.int64)


def graph(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray, diagonal: np.ndarray, colours: np.ndarray
) -> Graph:
    """A coloured graph on the CPU."""
    inverse = np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0)
    pattern = torch.from_numpy(indptr), torch.from_numpy(indices)
    values = torch.from_numpy(weights), torch.from_numpy(diagonal), torch.from_numpy(inverse)
    return Graph(*pattern, *values, colours)


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
    middle, inverse = torch.from_numpy(diagonal).to(device), g.inverse.to(device)
    return Graph(indptr, indices, entries, middle, inverse, g.colours)


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
) -> None:
    """Prolong, sweep through the colours, restrict the residual; see `learnsolve.kernels.grid.smooth`."""
    if x.device.type == "cpu":
        from learnsolve.kernels import graph_numba

        # Its parallel loops are loaded whether they run or not.
        start_pool()
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
            g.colours,
            empty if coarse_x is None else coarse_x.numpy(),
            empty if coarse_b is None else coarse_b.numpy(),
            np.empty(0, np.int32) if aggregate is None else aggregate.numpy(),
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
    ends = zip(g.colours[:-1].tolist(), g.colours[1:].tolist(), strict=True)
    parts = [torch.arange(lo, hi, dtype=torch.int32, device=x.device) for lo, hi in ends]
    for _ in range(sweeps):
        for rows in reversed(parts) if reverse else parts:
            sparse.relax_rows(g.indptr, g.indices, g.weights, g.diagonal, b, x, rows, omega)
    if coarse_b is not None and aggregate is not None:
        r = sparse.residual(g.indptr, g.indices, g.weights, b, x)
        known = aggregate >= 0
        coarse_b.zero_().index_add_(0, aggregate[known].long(), r[known])
