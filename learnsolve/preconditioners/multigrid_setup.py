"""How the levels of the geometric multigrid are made."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse
import torch

from learnsolve.kernels import graph as graph_kernels
from learnsolve.kernels.stencil import FaceStencil, Stencil, UnitStencil
from learnsolve.kernels.threads import threads
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners.multigrid_levels import (
    DenseLevel,
    GraphLevel,
    GridLevel,
    Level,
    dense_inverse,
    grid_as_graph,
)

if TYPE_CHECKING:
    from learnsolve.kernels.coarsen_graph_numba import CoarseGraph
    from learnsolve.preconditioners.multigrid import Multigrid


@dataclass
class Coarsening:
    """A step to a level on a graph.

    Attributes
    ----------
    aggregate : int32 array
        Each fine unknown's coarse one; -1 for none.
    halved : (3,) int64 array
        Which axes were coarsened.
    boundary : float
        How much the coupling to a boundary value counts.
    graph : CoarseGraph
        The coarse level, its unknowns numbered colour by colour.
    colours : (colours + 1,) int64 array
        Where each colour begins.
    tuned : bool
        Whether the graph's couplings are no longer the classical ones.
    """

    aggregate: np.ndarray
    halved: np.ndarray
    boundary: float
    graph: "CoarseGraph"
    colours: np.ndarray
    tuned: bool = False

    @classmethod
    def coloured(
        cls, aggregate: np.ndarray, halved: np.ndarray, boundary: float, graph: "CoarseGraph", coarsest: int
    ) -> "Coarsening":
        """With the graph's unknowns numbered anew, unless they are so few that they are solved directly."""
        from learnsolve.kernels import coarsen_graph_numba

        size = graph.excess.size
        colours = np.array([0, size])
        if size > coarsest:
            order, colours = graph_kernels.colour_order(graph.indptr, graph.indices)
            graph = coarsen_graph_numba.renumber(graph, order, aggregate.reshape(-1))
        return cls(aggregate, halved, boundary, graph, colours)


class Tuning(Protocol):
    """What may change the levels while they are made.

    It changes the finest level, the first coarse one, and those below if they are graphs because the first
    one is.
    """

    def couplings(self, graph: "CoarseGraph", halved: np.ndarray, block: np.ndarray) -> "CoarseGraph":
        """A coarse level with other couplings.

        ``halved`` says which axes were coarsened, ``block`` is the size of a full block in cells.
        """

    def cells(self, stencil: Stencil, aggregate: np.ndarray) -> np.ndarray:
        """After that, the relaxation of the finest level, as `learnsolve.kernels.grid.smooth` takes it.

        ``aggregate`` has each cell's coarse unknown.
        """


def _real_stencil(A: GridPoisson) -> Stencil:
    """The operator's stencil on the CPU as numpy arrays; of complex coefficients the real part."""
    fields = [f.detach().cpu() for f in A.stencil]
    fields = [(f.real.contiguous() if f.is_complex() else f).numpy() for f in fields]
    return type(A.stencil)(*fields)


def _mean_coupling(stencil: Stencil) -> np.ndarray:
    """The mean coefficient of a face along z, y and x."""
    if isinstance(stencil, UnitStencil):
        return stencil.weights.astype(np.float64)
    means = []
    for weights in (stencil.wz, stencil.wy, stencil.wx):
        found = weights[weights > 0]
        means.append(float(found.mean()) if found.size else 0.0)
    return np.array(means)


def _scaled(stencil: Stencil, factor: float, dtype: np.dtype) -> Stencil:
    fields = [f if f.dtype == np.uint8 else (f * factor).astype(dtype) for f in stencil]
    return type(stencil)(*fields)


def hierarchy(
    A: GridPoisson,
    options: "Multigrid",
    inside: torch.dtype,
    tuning: Tuning | None = None,
    graphs: bool = False,
) -> tuple[list[Level], list[Coarsening], float]:
    """All levels, with ``graphs`` the steps between them, and a scale.

    The levels are of the matrix times the scale, which brings its entries near one. With ``graphs`` all
    levels but the first are graphs, where otherwise they stay grids as long as no block is split.
    """
    from learnsolve.kernels import aggregate_numba, coarsen_numba

    dtype = np.dtype(np.float32 if inside == torch.float32 else np.float64)
    device = A.device
    stencil = _real_stencil(A)
    shape = (1,) * (3 - A.cells.ndim) + tuple(A.cells.shape)
    coupling = _mean_coupling(stencil)
    scale = 1 / (coupling.max() or 1.0)
    if isinstance(stencil, FaceStencil):
        scale = 1 / (float(stencil.diagonal.max()) or 1.0) if coupling.max() == 0 else scale
    none = np.empty((0, 0, 0), dtype)
    absorption = none
    if A.absorption is not None:
        field = A.absorption.detach().cpu()
        field = field.real if field.is_complex() else field
        absorption = np.ascontiguousarray(np.broadcast_to(field.numpy(), A.cells.shape).reshape(shape))
    excess = none
    levels: list[Level] = []
    depth, unknowns = 0, A.unknowns
    while unknowns > options.coarsest:
        count_threads = threads(int(np.prod(shape)))
        halved = _halved(shape, coupling)
        coupling = _coarse_coupling(coupling, halved)
        # The finest level is read in the operator's own precision, and scaled on the way down.
        here = scale if depth == 0 else 1.0
        factors = np.where(halved, 0.5, 1.0) * here
        boundary = here * (2**depth + 1) / (2 ** (depth + 1) + 1)
        below = tuple((n + h) >> h for n, h in zip(shape, halved.tolist(), strict=True))
        aggregate, blocks, corners = (
            np.empty(shape, np.int32),
            np.empty(below, np.int32),
            np.empty(below, np.uint8),
        )
        count, filled = aggregate_numba.aggregate_blocks(
            stencil, halved, options.strength, aggregate, blocks, corners, count_threads
        )
        split, tuned = graphs or count != filled, tuning if depth == 0 else None
        graph = None
        if split or tuned is not None:
            graph = coarsen_numba.grid_to_graph(
                stencil, absorption, excess, aggregate, blocks, corners, count,
                halved, factors, boundary, here, count_threads,
            )  # fmt: skip
        if graph is not None and split:
            step = Coarsening.coloured(aggregate, halved, boundary / here, graph, options.coarsest)
            graph = step.graph
        relaxation = None
        if graph is not None and tuned is not None:
            graph = tuned.couplings(graph, halved, np.where(halved, 2, 1))
            relaxation = tuned.cells(stencil, aggregate)
        scaled = _scaled(stencil, here, dtype)
        levels.append(_grid_level(scaled, aggregate if split else None, relaxation, options, device))
        if graph is not None and split:
            step.graph, step.tuned = graph, tuned is not None
            if count == filled:
                tuned = None
            rest, steps = _graph_levels(step, coupling, depth + 1, options, inside, device, tuned)
            # Hardly anybody asks for the steps, which hold much memory.
            return levels + rest, [step, *steps] if graphs else [], scale
        shape = below
        fields = [np.zeros(shape, dtype) for _ in range(6)]
        if shape[0] == 1:
            fields[1] = np.zeros((1, 1, 1), dtype)
        if graph is not None:
            coarsen_numba.graph_to_grid(graph, *fields)
        else:
            coarsen_numba.coarsen_grid(
                stencil, absorption, excess, halved, factors, boundary, here, *fields, count_threads
            )
        stencil, absorption, excess = FaceStencil(*fields[:4]), fields[4], fields[5]
        unknowns, depth = count, depth + 1
    if isinstance(stencil, UnitStencil):
        stencil = _as_faces(A)
    coarsest = _scaled(stencil, scale if depth == 0 else 1.0, np.dtype(np.float64))
    assert isinstance(coarsest, FaceStencil)
    inverse = dense_inverse(*grid_as_graph(coarsest))
    b, x = (torch.zeros(shape, dtype=inside, device=device) for _ in range(2))
    levels.append(DenseLevel(torch.from_numpy(inverse).to(device, inside), b, x))
    return levels, [], scale


def _grid_level(
    stencil: Stencil,
    aggregate: np.ndarray | None,
    relaxation: np.ndarray | None,
    options: "Multigrid",
    device: torch.device,
) -> GridLevel:
    """A level on the operator's device, from numpy arrays."""
    fields = [torch.from_numpy(f).to(device) for f in stencil]
    like = fields[0] if isinstance(stencil, FaceStencil) else fields[0].new_zeros(0, dtype=fields[1].dtype)
    b, x = (torch.zeros(fields[0].shape, dtype=like.dtype, device=device) for _ in range(2))
    parents = None if aggregate is None else torch.from_numpy(aggregate).to(device)
    own = None if relaxation is None else torch.from_numpy(relaxation).to(device)
    return GridLevel(type(stencil)(*fields), b, x, parents, options.smoother, own)


def _as_faces(A: GridPoisson) -> FaceStencil:
    """The numpy `FaceStencil` of a small operator of unit coefficients."""
    faces = [A.faces(axis).real.cpu().numpy() for axis in range(A.cells.ndim)]
    lifted = [f.reshape((1,) * (3 - f.ndim) + f.shape) for f in (A.diagonal().real.cpu().numpy(), *faces)]
    if A.cells.ndim == 2:
        lifted.insert(1, np.zeros((1, 1, 1)))
    return FaceStencil(*lifted)


def _halved(shape: tuple[int, ...], coupling: np.ndarray) -> np.ndarray:
    """The axes to coarsen: those longer than one cell whose coupling is not weak beside the strongest."""
    long = np.array(shape) > 1
    strongest = coupling[long].max() if long.any() else 0.0
    return (long & (coupling >= 0.3 * strongest)).astype(np.int64)


def _coarse_coupling(coupling: np.ndarray, halved: np.ndarray) -> np.ndarray:
    """The mean coupling after coarsening: merged faces add up, doubled distances halve."""
    merged = 2.0 ** (halved.sum() - halved)
    return coupling * merged * np.where(halved, 0.5, 1.0)


def _graph_levels(
    first: Coarsening,
    coupling: np.ndarray,
    depth: int,
    options: "Multigrid",
    inside: torch.dtype,
    device: torch.device,
    tuning: Tuning | None,
) -> tuple[list[Level], list[Coarsening]]:
    """The levels from the first graph down, and the steps between them."""
    from learnsolve.kernels import coarsen_graph_numba

    dtype = np.dtype(np.float32 if inside == torch.float32 else np.float64)
    step = first
    levels: list[Level] = []
    steps: list[Coarsening] = []
    block = np.where(first.halved, 2, 1)
    while True:
        graph = step.graph
        size = graph.excess.size
        W = scipy.sparse.csr_array((graph.weights, graph.indices, graph.indptr), shape=(size, size))
        diagonal = np.asarray(W.sum(axis=1), np.float64) + graph.excess + graph.absorption
        diagonal = diagonal.astype(dtype)
        b, x = (torch.zeros(size, dtype=inside, device=device) for _ in range(2))
        if size <= options.coarsest:
            inverse = dense_inverse(W.astype(np.float64), diagonal.astype(np.float64))
            return [*levels, DenseLevel(torch.from_numpy(inverse).to(device, inside), b, x)], steps
        coloured = graph_kernels.graph(
            graph.indptr, graph.indices, graph.weights.astype(dtype), diagonal, step.colours
        )
        coloured = graph_kernels.on_device(coloured, device)
        extent = tuple((graph.position.max(axis=0) + 1).tolist())
        halved = _halved(extent, coupling)
        coupling = _coarse_coupling(coupling, halved)
        parent = graph.position >> halved
        keys = (parent[:, 0] * extent[1] + parent[:, 1]).astype(np.int64) * extent[2] + parent[:, 2]
        order = np.argsort(keys, kind="stable")
        boundary = (2**depth + 1) / (2 ** (depth + 1) + 1)
        aggregate, coarse = coarsen_graph_numba.coarsen_graph(
            graph, keys, order, halved, boundary, options.strength
        )
        stuck = not halved.any() or coarse.excess.size > 0.9 * size
        if stuck or coarse.excess.size == 0:
            return [*levels, GraphLevel(coloured, b, x, None)], steps
        step = Coarsening.coloured(aggregate, halved, boundary, coarse, options.coarsest)
        block = block * np.where(halved, 2, 1)
        if tuning is not None:
            step.graph, step.tuned = tuning.couplings(step.graph, halved, block), True
        levels.append(GraphLevel(coloured, b, x, torch.from_numpy(aggregate).to(device)))
        steps.append(step)
        depth += 1
