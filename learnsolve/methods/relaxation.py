"""Stationary iterations: Jacobi, Gauss-Seidel, SOR and SSOR."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from learnsolve.kernels.vector import norm
from learnsolve.loop import Method, System
from learnsolve.operators import Operator
from learnsolve.operators.sweeps import Relaxation, checked_omega, relaxation


@dataclass
class State:
    """The iterate."""

    x: Tensor


@dataclass(frozen=True)
class _Stationary(Method):
    """``x <- x + M (b - A x)`` with a sweep for ``M``."""

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return State(x)

    def _sweep(self, relax: Relaxation, b: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError

    def step(self, system: System, s: State) -> float:
        s.x = self._sweep(system.setup, system.b, s.x)
        return norm(system.residual(s.x))


@dataclass(frozen=True)
class Jacobi(_Stationary):
    """Damped Jacobi iteration, ``x <- x + omega D^-1 (b - A x)``.

    Parameters
    ----------
    omega : float
        Damping, positive.

    References
    ----------
    Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., section 4.1.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.diag([2.0, 4.0]), np.array([2.0, 4.0]), method="jacobi").x
    array([1., 1.])
    """

    omega: float = 1.0

    name: ClassVar[str] = "jacobi"
    summary: ClassVar[str] = "damped Jacobi iteration: diagonally dominant A"

    def __post_init__(self) -> None:
        checked_omega(self.omega, float("inf"))

    def setup(self, A: Operator) -> Any:
        return relaxation(A)

    def _sweep(self, relax: Relaxation, b: Tensor, x: Tensor) -> Tensor:
        return relax.jacobi(b, x, self.omega)


@dataclass(frozen=True)
class SOR(_Stationary):
    """Successive over-relaxation, by lexicographic or multicolour Gauss-Seidel sweeps.

    Parameters
    ----------
    omega : float
        Between 0 and 2; 1 is Gauss-Seidel.
    order : {"multicolor", "lexicographic"}
        Multicolour sweeps run in parallel (two colours on a grid); lexicographic ones are serial.

    References
    ----------
    Young, *Iterative Solution of Large Linear Systems* (1971), chapter 4.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[2.0, -1.0], [-1.0, 2.0]])
    >>> learnsolve.solve(A, np.array([1.0, 1.0]), method=SOR(omega=1.1), rtol=1e-9).x.round(6)
    array([1., 1.])
    """

    omega: float = 1.5
    order: Literal["multicolor", "lexicographic"] = "multicolor"

    name: ClassVar[str] = "sor"
    summary: ClassVar[str] = "successive over-relaxation, lexicographic or multicolour"

    def __post_init__(self) -> None:
        checked_omega(self.omega, 2.0)
        if self.order not in ("multicolor", "lexicographic"):
            raise ValueError(f"order is {self.order!r}; 'multicolor' and 'lexicographic' are accepted")

    def setup(self, A: Operator) -> Any:
        return relaxation(A)

    def _sweep(self, relax: Relaxation, b: Tensor, x: Tensor) -> Tensor:
        relax.sweep(b, x, self.omega, self.order, reverse=False)
        return x


@dataclass(frozen=True)
class GaussSeidel(SOR):
    """Gauss-Seidel iteration: `SOR` with ``omega = 1``.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.diag([2.0, 4.0]), np.array([2.0, 4.0]), method="gauss_seidel").x
    array([1., 1.])
    """

    omega: float = 1.0

    name: ClassVar[str] = "gauss_seidel"
    summary: ClassVar[str] = "Gauss-Seidel iteration, lexicographic or multicolour"


@dataclass(frozen=True)
class SSOR(SOR):
    """Symmetric successive over-relaxation: a sweep forward and one back.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.diag([2.0, 4.0]), np.array([2.0, 4.0]), method="ssor", omega=1.0).x
    array([1., 1.])
    """

    name: ClassVar[str] = "ssor"
    summary: ClassVar[str] = "symmetric successive over-relaxation"

    def _sweep(self, relax: Relaxation, b: Tensor, x: Tensor) -> Tensor:
        relax.sweep(b, x, self.omega, self.order, reverse=False)
        relax.sweep(b, x, self.omega, self.order, reverse=True)
        return x
