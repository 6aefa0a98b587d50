"""Matrix-free geometric multigrid for grid operators, on any domain."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from learnsolve.kernels import graph as graph_kernels
from learnsolve.kernels.stencil import FaceStencil, Stencil, UnitStencil
from learnsolve.kernels.threads import threads
from learnsolve.kernels.vector import norm, rescale
from learnsolve.operators import GridPoisson, Operator
from learnsolve.preconditioners.base import Inverse, Preconditioner
from learnsolve.preconditioners.multigrid_levels import (
    DenseLevel,
    GraphLevel,
    GridLevel,
    Level,
    dense_inverse,
    grid_as_graph,
)


@dataclass(frozen=True)
class Multigrid(Preconditioner):
    """A multigrid cycle for a `GridPoisson`; V- and W-cycles are symmetric and positive definite.

    Coarse levels are rescaled aggregations of 2 x 2 (x 2) cells: couplings add up and count half, for the
    distance has doubled; a coupling to a boundary value counts by its distance in the same way,
    ``(2^l + 1) / (2^(l + 1) + 1)`` on level ``l``; absorption adds up. Axes along which the coupling is
    weak are not coarsened. Where a block of cells is not held together by strong couplings (a wall, a jump
    of the coefficients), it becomes several unknowns and the levels below are graphs; elsewhere they stay
    grids. Transfers are piecewise constant, smoothing and transfers one fused pass over memory.

    Parameters
    ----------
    cycle : {"W", "V", "F"}
        The cycle; F is not symmetric, so that conjugate gradients take their flexible form with it.
    sweeps : int
        Sweeps before and after each coarse correction.
    smoother : {"red_black", "chebyshev"}
        On grid levels; graph levels take multicolour Gauss-Seidel.
    omega : float
        Over-relaxation of the sweeps, between 0 and 2.
    precision : {"single", "double"}
        Of the cycle, whatever that of the iteration around it.
    strength : float
        A coupling is strong if it is at least ``strength`` times the geometric mean of the largest
        couplings of its two cells.
    coarsest : int
        Levels of at most so many unknowns are solved directly.

    Raises
    ------
    TypeError
        The matrix is not a `GridPoisson`.

    References
    ----------
    Braess, *Towards algebraic multigrid for elliptic problems of second order*, Computing 55 (1995), for
    rescaled aggregation; McAdams, Sifakis and Teran, *A parallel multigrid Poisson solver for fluids
    simulation on large grids*, SCA 2010, for the cycle inside conjugate gradients.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = learnsolve.operators.GridPoisson(np.zeros((32, 32), int), boundary="dirichlet")
    >>> learnsolve.solve(A, np.ones((32, 32)), method="cg", M=Multigrid(cycle="V")).success
    True
    """

    cycle: Literal["W", "V", "F"] = "W"
    sweeps: int = 2
    smoother: Literal["red_black", "chebyshev"] = "red_black"
    omega: float = 1.0
    precision: Literal["single", "double"] = "single"
    strength: float = 0.1
    coarsest: int = 256

    name: ClassVar[str] = "multigrid"
    summary: ClassVar[str] = "matrix-free geometric multigrid for grid operators on any domain"

    def __post_init__(self) -> None:
        if self.cycle not in ("V", "W", "F"):
            raise ValueError(f"cycle is {self.cycle!r}; 'V', 'W' and 'F' are accepted")
        if self.smoother not in ("red_black", "chebyshev"):
            raise ValueError(f"smoother is {self.smoother!r}; 'red_black' and 'chebyshev' are accepted")
        if self.precision not in ("single", "double"):
            raise ValueError(f"precision is {self.precision!r}; 'single' and 'double' are accepted")
        if self.sweeps < 1 or self.coarsest < 1:
            raise ValueError(f"sweeps is {self.sweeps} and coarsest {self.coarsest}; both must be positive")
        if not 0 < self.omega < 2 or not 0 <= self.strength < 1:
            raise ValueError(
                f"omega is {self.omega} and strength {self.strength}; accepted are 0 < omega < 2 "
                "and 0 <= strength < 1"
            )

    def build(self, A: Operator) -> Operator:
        if not isinstance(A, GridPoisson):
            raise TypeError(f"multigrid takes a GridPoisson, not {A!r}; use M='smoothed_aggregation'")
        return MultigridCycle(A, self)


class MultigridCycle(Inverse):
    """One cycle of `Multigrid` as an operator; `levels` from fine to coarse."""

    def __init__(self, A: GridPoisson, options: Multigrid) -> None:
        self.options = options
        self.dtype_inside = torch.float32 if options.precision == "single" else torch.float64
        self.levels, self.scale = _hierarchy(A, options, self.dtype_inside)
        symmetric = options.cycle != "F"
        super().__init__(
            A, self._cycle_on, None, "multigrid", positive_definite=symmetric, hermitian=symmetric
        )

    def _cycle_on(self, r: Tensor) -> Tensor:
        if r.is_complex():
            return torch.complex(self._cycle_on(r.real), self._cycle_on(r.imag))
        size = norm(r)
        if size == 0 or not np.isfinite(size):
            return torch.zeros_like(r) * size
        size /= r.numel() ** 0.5
        fine = self.levels[0]
        rescale(1 / size, r.view(fine.b.shape), fine.b)
        self._cycle(0, True, self.options.cycle)
        return rescale(size / self.scale, fine.x, torch.empty_like(fine.x, dtype=r.dtype)).view(r.shape)

    def _cycle(self, l: int, fresh: bool, cycle: str) -> None:  # noqa: E741
        level, options = self.levels[l], self.options
        if l == len(self.levels) - 1 or isinstance(level, DenseLevel):
            assert not isinstance(level, GridLevel)
            level.solve()
            return
        coarse = self.levels[l + 1]
        level.down(coarse.b, options.sweeps, options.omega, fresh)
        self._cycle(l + 1, True, cycle)
        if cycle != "V" and l + 2 < len(self.levels):
            self._cycle(l + 1, False, "W" if cycle == "W" else "V")
        level.up(coarse.x, options.sweeps, options.omega)

    def __repr__(self) -> str:
        sizes = " > ".join(
            f"{type(level).__name__.removesuffix('Level').lower()} {level.x.numel()}" for level in self.levels
        )
        return f"<Multigrid {self.options.cycle}({self.options.sweeps}, {self.options.sweeps}): {sizes}>"


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


def _hierarchy(A: GridPoisson, options: Multigrid, inside: torch.dtype) -> tuple[list[Level], float]:
    """All levels, of the matrix times the second value, which brings its entries near one."""
    from learnsolve.kernels import coarsen_numba

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
        aggregate = np.empty(shape, np.int32)
        count, filled = coarsen_numba.aggregate_blocks(
            stencil, halved, options.strength, aggregate, count_threads
        )
        split = count != filled
        levels.append(
            _grid_level(_scaled(stencil, here, dtype), aggregate if split else None, options, device)
        )
        if split:
            graph = coarsen_numba.grid_to_graph(
                stencil, absorption, excess, aggregate, count, halved, factors, boundary, here, count_threads
            )
            return levels + _graph_levels(graph, coupling, depth + 1, options, inside, device), scale
        shape = tuple((n + h) >> h for n, h in zip(shape, halved.tolist(), strict=True))
        fields = [np.zeros(shape, dtype) for _ in range(6)]
        if shape[0] == 1:
            fields[1] = np.zeros((1, 1, 1), dtype)
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
    return levels, scale


def _grid_level(
    stencil: Stencil, aggregate: np.ndarray | None, options: Multigrid, device: torch.device
) -> GridLevel:
    """A level on the operator's device, from numpy arrays."""
    fields = [torch.from_numpy(f).to(device) for f in stencil]
    like = fields[0] if isinstance(stencil, FaceStencil) else fields[0].new_zeros(0, dtype=fields[1].dtype)
    b, x = (torch.zeros(fields[0].shape, dtype=like.dtype, device=device) for _ in range(2))
    parents = None if aggregate is None else torch.from_numpy(aggregate).to(device)
    return GridLevel(type(stencil)(*fields), b, x, parents, options.smoother)


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
    graph: tuple[np.ndarray, ...],
    coupling: np.ndarray,
    depth: int,
    options: Multigrid,
    inside: torch.dtype,
    device: torch.device,
) -> list[Level]:
    """The levels from the first graph down."""
    from learnsolve.kernels import coarsen_numba

    dtype = np.dtype(np.float32 if inside == torch.float32 else np.float64)
    indptr, indices, weights, excess, absorption, position = graph
    levels: list[Level] = []
    while True:
        size = excess.size
        W = scipy.sparse.csr_array((weights, indices, indptr), shape=(size, size))
        diagonal = (np.asarray(W.sum(axis=1), np.float64) + excess + absorption).astype(dtype)
        b, x = (torch.zeros(size, dtype=inside, device=device) for _ in range(2))
        if size <= options.coarsest:
            inverse = dense_inverse(W.astype(np.float64), diagonal.astype(np.float64))
            return [*levels, DenseLevel(torch.from_numpy(inverse).to(device, inside), b, x)]
        coloured = graph_kernels.on_device(
            graph_kernels.graph(indptr, indices, weights.astype(dtype), diagonal), device
        )
        extent = tuple((position.max(axis=0) + 1).tolist())
        halved = _halved(extent, coupling)
        coupling = _coarse_coupling(coupling, halved)
        parent = position >> halved
        keys = (parent[:, 0] * extent[1] + parent[:, 1]).astype(np.int64) * extent[2] + parent[:, 2]
        order = np.argsort(keys, kind="stable")
        boundary = (2**depth + 1) / (2 ** (depth + 1) + 1)
        aggregate, indptr, indices, weights, excess, absorption, position = coarsen_numba.coarsen_graph(
            indptr,
            indices,
            weights,
            excess,
            absorption,
            position,
            keys,
            order,
            halved,
            boundary,
            options.strength,
        )
        stuck = not halved.any() or excess.size > 0.9 * size
        if stuck or excess.size == 0:
            return [*levels, GraphLevel(coloured, b, x, None)]
        levels.append(GraphLevel(coloured, b, x, torch.from_numpy(aggregate).to(device)))
        depth += 1
