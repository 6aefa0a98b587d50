"""A multigrid whose couplings and relaxation a network predicts from the geometry, once, in the set-up."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from learnsolve.kernels.stencil import Stencil
from learnsolve.kernels.threads import threads
from learnsolve.operators import GridPoisson, Operator
from learnsolve.preconditioners.base import Preconditioner
from learnsolve.preconditioners.coupling_network import CouplingNetwork, CouplingOptions
from learnsolve.preconditioners.multigrid import Multigrid, MultigridCycle
from learnsolve.training.shipped import load_network

if TYPE_CHECKING:
    from learnsolve.kernels.coarsen_graph_numba import CoarseGraph

KIND = "multigrid"


@dataclass(frozen=True)
class LearnedMultigrid(Preconditioner):
    """A multigrid cycle for a `GridPoisson` that a network has fitted to the domain.

    The network runs once, in the set-up. From the shape of the aggregates and the couplings between them it
    predicts a factor for each coupling of the coarse operators, one for each coupling to a boundary value,
    and over-relaxations for each cell. The cycle is then that of `Multigrid`, in the same kernels: linear,
    symmetric and positive definite whatever the weights, for factors are positive, over-relaxations lie
    between 0 and 2, and below the first coarse level no factor is less than one: no cycle there corrects
    twice too far. Levels that stay grids keep their classical couplings below the first.

    Parameters
    ----------
    network : CouplingNetwork, optional
        The network; by default the shipped one for as many axes as the matrix has.
    cycle : {"W", "V"}
        The cycle.
    precision : {"single", "double"}
        Of the cycle, whatever that of the iteration around it.
    strength, coarsest
        As in `Multigrid`.

    Raises
    ------
    TypeError
        The matrix is not a `GridPoisson`.

    Warns
    -----
    RuntimeWarning
        The network's weights are not finite; the cycle is then that of `Multigrid`.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = learnsolve.operators.GridPoisson(np.zeros((32, 32), int), boundary="dirichlet")
    >>> learnsolve.solve(A, np.ones((32, 32)), method="cg", M="learned-multigrid").success
    True
    """

    network: CouplingNetwork | None = field(default=None, repr=False)
    cycle: Literal["W", "V"] = "W"
    precision: Literal["single", "double"] = "single"
    strength: float = 0.1
    coarsest: int = 256

    name: ClassVar[str] = "learned-multigrid"
    summary: ClassVar[str] = (
        "multigrid whose coarse couplings and relaxation a network predicts in the set-up"
    )

    def __post_init__(self) -> None:
        if self.network is not None and not isinstance(self.network, CouplingNetwork):
            raise TypeError(f"network is {type(self.network).__name__}; a CouplingNetwork is accepted")
        if self.cycle not in ("V", "W"):
            raise ValueError(f"cycle is {self.cycle!r}; 'V' and 'W' are accepted")
        self._classical()

    @classmethod
    def load(cls, weights: str | Path) -> "LearnedMultigrid":
        """With the network of a shipped name or of a file.

        Raises
        ------
        learnsolve.training.WeightsError, FileNotFoundError
            As `learnsolve.training.shipped.load_network`.

        Examples
        --------
        >>> LearnedMultigrid.load("poisson3d").network is not None
        True
        """
        return cls(load(weights))

    def _classical(self) -> Multigrid:
        """The multigrid that the network corrects; raises what is wrong with the options."""
        return Multigrid(
            cycle=self.cycle, precision=self.precision, strength=self.strength, coarsest=self.coarsest
        )

    def build(self, A: Operator) -> Operator:
        if not isinstance(A, GridPoisson):
            raise TypeError(f"learned-multigrid takes a GridPoisson, not {A!r}; use M='smoothed_aggregation'")
        network = self._network(A)
        if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
            warnings.warn(
                "the network's weights hold NaN or infinity; the classical multigrid stands in",
                RuntimeWarning,
                stacklevel=2,
            )
            return MultigridCycle(A, self._classical())
        return self.cycle_on(A)

    def cycle_on(self, A: GridPoisson, graphs: bool = False) -> MultigridCycle:
        """The cycle; with ``graphs`` all its coarse levels are graphs, as `UnrolledMultigrid` wants them."""
        return MultigridCycle(A, self._classical(), _Prediction(self._network(A)), graphs)

    def _network(self, A: GridPoisson) -> CouplingNetwork:
        return self.network if self.network is not None else load(f"poisson{A.cells.ndim}d")


def load(weights: str | Path) -> CouplingNetwork:
    """The network of a name or of a file; see `learnsolve.training.shipped.load_network`."""
    return load_network(KIND, weights, lambda **options: CouplingOptions(**options).build())


class _Prediction:
    """The network's corrections, as the levels are made."""

    def __init__(self, network: CouplingNetwork) -> None:
        self.bound = np.float32(network.options.bound)
        self.weights = network.arrays()
        self.classes: np.ndarray | None = None

    def couplings(self, graph: "CoarseGraph", halved: np.ndarray, block: np.ndarray) -> "CoarseGraph":
        from learnsolve.kernels import coupling_numba

        n, axes = graph.excess.size, int(halved.sum())
        couplings, excess = np.empty_like(graph.weights), np.empty_like(graph.excess)
        classes = np.empty(n, np.int32)
        embeddings = coupling_numba.predict(
            graph,
            block.astype(np.float32),
            np.float32(2**axes),
            np.float32(2 * int((block > 1).sum())),
            self.bound,
            int(self.classes is not None),
            self.weights,
            couplings,
            excess,
            classes,
            threads(8 * n),
        )
        if self.classes is None:
            self.classes, self.embeddings = classes, embeddings
        return graph._replace(weights=couplings, excess=excess)

    def cells(self, stencil: Stencil, aggregate: np.ndarray) -> np.ndarray:
        from learnsolve.kernels import cell_relaxation_numba

        relaxation = np.empty((2, *aggregate.shape), np.int16)
        count = threads(aggregate.size)
        cell_relaxation_numba.relax_cells(
            stencil, aggregate, self.classes, self.embeddings, self.weights, relaxation, count
        )
        return relaxation
