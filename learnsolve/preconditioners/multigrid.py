"""Matrix-free geometric multigrid for grid operators, on any domain."""

from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels.vector import norm, rescale
from learnsolve.operators import GridPoisson, Operator
from learnsolve.preconditioners.base import Inverse, Preconditioner
from learnsolve.preconditioners.multigrid_levels import DenseLevel, GridLevel
from learnsolve.preconditioners.multigrid_setup import Tuning, hierarchy


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
    """One cycle of `Multigrid` as an operator; `levels` from fine to coarse.

    Threads that share it take turns, for the levels hold what a cycle works on.
    """

    def __init__(
        self, A: GridPoisson, options: Multigrid, tuning: Tuning | None = None, graphs: bool = False
    ) -> None:
        self.options = options
        self._turn = Lock()
        inside = torch.float32 if options.precision == "single" else torch.float64
        self.levels, self.coarsenings, self.scale = hierarchy(A, options, inside, tuning, graphs)
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
        with self._turn:
            rescale(1 / size, r.view(fine.b.shape), fine.b)
            self._cycle(0, True, self.options.cycle)
            return rescale(size * self.scale, fine.x, torch.empty_like(fine.x, dtype=r.dtype)).view(r.shape)

    def _cycle(self, l: int, fresh: bool, cycle: str) -> None:  # noqa: E741
        level, options = self.levels[l], self.options
        if l == len(self.levels) - 1 or isinstance(level, DenseLevel):
            assert not isinstance(level, GridLevel)
            level.solve()
            return
        coarse = self.levels[l + 1]
        level.down(coarse.b, options.sweeps, options.omega, fresh)
        self.correct(l, cycle)
        level.up(coarse.x, options.sweeps, options.omega)

    def correct(self, above: int, cycle: str) -> None:
        """From the right-hand side of the level below ``above`` to the correction that it makes."""
        self._cycle(above + 1, True, cycle)
        if cycle != "V" and above + 2 < len(self.levels):
            self._cycle(above + 1, False, "W" if cycle == "W" else "V")

    def __repr__(self) -> str:
        sizes = " > ".join(
            f"{type(level).__name__.removesuffix('Level').lower()} {level.x.numel()}" for level in self.levels
        )
        return f"<Multigrid {self.options.cycle}({self.options.sweeps}, {self.options.sweeps}): {sizes}>"
