"""`LearnedPC`: the package's preconditioners inside PETSc."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import nn

from learnsolve.distributed.engines import Engine, NetworkEngine, WholeEngine, engine_for
from learnsolve.distributed.exchange import Gather, Halo, grid, partition, petsc
from learnsolve.distributed.matrix import GridShell, grid_operator
from learnsolve.distributed.tiles import Partition
from learnsolve.methods.dcdm import direction, network_for
from learnsolve.methods.dcdm_network import DirectionNetwork
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import DCDMPreconditioner, LearnedMultigrid, Multigrid, Preconditioner
from learnsolve.preconditioners.multigrid import MultigridCycle

KINDS: dict[str, Callable[[], Preconditioner]] = {
    "learned-multigrid": LearnedMultigrid,
    "multigrid": Multigrid,
    "dcdm": DCDMPreconditioner,
}


class LearnedPC:
    """A PCPYTHON for 5- and 7-point problems on a DMDA: learned or classical multigrid, or DCDM's network.

    Any PETSc program whose KSP has a DMDA loads it by ``-pc_type python -pc_python_type
    learnsolve.distributed.LearnedPC``. Each process smooths, or convolves, its own cells and those around
    that the computation reaches, so that the preconditioner is the same on any number of processes. The
    set-up and the levels below the finest are those of the whole grid, on every process.

    Options, each with the KSP's prefix: ``-pc_learnsolve_type`` (``learned-multigrid``, the default,
    ``multigrid`` or ``dcdm``), ``-pc_learnsolve_weights`` (a shipped name or a path),
    ``-pc_learnsolve_cycle`` (``W`` or ``V``) and ``-pc_learnsolve_precision`` (``single`` or ``double``).

    ``dcdm`` is nonlinear: take a flexible KSP, ``fcg`` or ``fgmres``. The matrix is assembled, or one of
    `solve_petsc`. Rows that hold nothing but the diagonal stand for cells that are no unknowns.

    Parameters
    ----------
    M : Preconditioner, optional
        `LearnedMultigrid`, `Multigrid` or `DCDMPreconditioner` with its options; by default the database
        decides.

    Raises
    ------
    TypeError, ValueError
        In the set-up: the KSP has no DMDA, or the matrix is not that of a grid; see `grid_from_matrix`.

    Examples
    --------
    >>> LearnedPC()  # what PETSc does with -pc_python_type
    <LearnedPC, not set up>
    """

    def __init__(self, M: Preconditioner | None = None) -> None:
        if M is not None and not isinstance(M, LearnedMultigrid | Multigrid | DCDMPreconditioner):
            raise TypeError(f"M is {M!r}; LearnedMultigrid, Multigrid and DCDMPreconditioner are accepted")
        self.M: Preconditioner | None = M
        self.label = "not set up"

    def setFromOptions(self, pc: Any) -> None:
        """Read the database, where the preconditioner was not given."""
        if self.M is None:
            self.M = _from_options(petsc().Options(pc.getOptionsPrefix()))

    def setUp(self, pc: Any) -> None:
        """Find the grid, make the levels, cut them."""
        if self.M is None:
            self.M = LearnedMultigrid()
        self.A, P = pc.getOperators()
        operator, da = _grid_of(P, pc)
        cut = partition(da)
        self.network: nn.Module | None = None
        self.engine: Engine
        if isinstance(self.M, DCDMPreconditioner):
            self.engine = self._network_engine(operator, cut)
            self.label = "dcdm"
        else:
            cycle = self.M.build(operator)
            assert isinstance(cycle, MultigridCycle)
            self.engine = engine_for(cycle, cut)
            self.label = f"{self.M.name}, {cycle!r}"
        wide = grid(cut.sizes, da.comm, self.engine.width, da) if self.engine.width else da
        self.halo = Halo(wide, self.engine.tile)
        self.gather = Gather(self.engine.parts[cut.rank], da.comm)
        self.active = operator.active[self.engine.tile.slices]
        self.off = np.flatnonzero(~operator.active[cut.owned.slices].numpy().reshape(-1))
        diagonal = P.getDiagonal().getArray(readonly=True)[self.off]
        self.off_diagonal = np.where(diagonal == 0, 1.0, diagonal)
        self.product = da.createGlobalVec()

    def _network_engine(self, A: GridPoisson, cut: Partition) -> Engine:
        assert isinstance(self.M, DCDMPreconditioner)
        network = network_for(A, self.M.network, self.M.weights)
        self.network = network
        small = min(min(box.shape) for box in cut.boxes)
        if isinstance(network, DirectionNetwork) and (len(cut.boxes) == 1 or small > network.reach):
            return NetworkEngine(network, A.active, cut)
        return WholeEngine(lambda r: direction(network, A, r, float(r.norm())), cut)

    def apply(self, pc: Any, x: Any, y: Any) -> None:
        """``y = M x``."""
        size = x.norm()
        if self.network is not None and (size == 0 or not isfinite(size)):
            x.copy(y)
            return
        r = torch.where(self.active, self.halo.around(x), torch.zeros((), dtype=torch.float64))
        part, own = self.engine.down(r, size)
        around = None if own is None else self.halo.around_own(own)
        y.setArray(self.engine.up(self.gather(part), around).reshape(-1).numpy())
        if self.network is not None and not self._scaled(x, y, size):
            x.copy(y)
        elif len(self.off):
            found = y.getArray()
            found[self.off] = x.getArray(readonly=True)[self.off] / self.off_diagonal

    def _scaled(self, x: Any, d: Any, size: float) -> bool:
        """Scale a direction by the exact line search; whether it is of any use."""
        self.A.mult(d, self.product)
        along, energy, length = d.dot(x), d.dot(self.product), d.norm()
        if not (isfinite(along) and energy > 0) or abs(along) <= 1e-10 * length * size:
            return False
        d.scale(along / energy)
        return True

    def applyTranspose(self, pc: Any, x: Any, y: Any) -> None:
        """The same for the symmetric cycles."""
        if self.network is not None or (isinstance(self.M, Multigrid) and self.M.cycle == "F"):
            raise NotImplementedError(f"{self.label} has no transpose; take a method that asks for none")
        self.apply(pc, x, y)

    def view(self, pc: Any, viewer: Any) -> None:
        """For ``-ksp_view``."""
        viewer.printfASCII(f"  learnsolve: {self.label}\n")

    def __repr__(self) -> str:
        return f"<LearnedPC, {self.label}>"


def _from_options(options: Any) -> Preconditioner:
    name = options.getString("pc_learnsolve_type", "learned-multigrid")
    if name not in KINDS:
        raise ValueError(f"-pc_learnsolve_type is {name!r}; there are {', '.join(KINDS)}")
    weights = options.getString("pc_learnsolve_weights", "")
    if name == "dcdm":
        return DCDMPreconditioner(weights=weights or None)
    made = LearnedMultigrid.load(weights) if weights and name == "learned-multigrid" else KINDS[name]()
    assert isinstance(made, LearnedMultigrid | Multigrid)
    cycle = options.getString("pc_learnsolve_cycle", made.cycle)
    precision = options.getString("pc_learnsolve_precision", made.precision)
    return replace(made, cycle=cycle, precision=precision)


def _grid_of(P: Any, pc: Any) -> tuple[GridPoisson, Any]:
    """The grid operator of a matrix, and its DMDA."""
    if P.getType() == "python" and isinstance(P.getPythonContext(), GridShell):
        return P.getPythonContext().A, P.getPythonContext().da
    da = pc.getDM()
    if not da or da.getType() != petsc().DM.Type.DA:
        raise TypeError(
            "LearnedPC needs the grid: give the KSP a DMDA (KSPSetDM, and KSPSetDMActive(ksp, PETSC_FALSE) "
            "if you set the matrix yourself); for a matrix without one, -pc_type gamg"
        )
    return grid_operator(P, da), da
