"""One symmetric sweep of over-relaxation from zero."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from learnsolve.operators import Operator
from learnsolve.operators.sweeps import Relaxation, checked_omega, relaxation
from learnsolve.preconditioners.base import Inverse, Preconditioner


@dataclass(frozen=True)
class SSORPreconditioner(Preconditioner):
    """``M = omega (2 - omega) (D + omega U)^-1 D (D + omega L)^-1``, up to a factor of no consequence.

    Parameters
    ----------
    omega : float
        Between 0 and 2.
    order : {"multicolor", "lexicographic"}
        Multicolour sweeps run in parallel; lexicographic ones take fewer iterations.

    References
    ----------
    Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., section 10.2.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[2.0, -1.0], [-1.0, 2.0]])
    >>> learnsolve.solve(A, np.ones(2), method="cg", M=SSORPreconditioner(omega=1.2)).success
    True
    """

    omega: float = 1.0
    order: Literal["multicolor", "lexicographic"] = "multicolor"

    name: ClassVar[str] = "ssor"
    summary: ClassVar[str] = "a sweep of over-relaxation forward and one back"

    def __post_init__(self) -> None:
        checked_omega(self.omega, 2.0)

    def build(self, A: Operator) -> Operator:
        return self.from_sweeps(A, relaxation(A), None if A.hermitian else relaxation(A.H))

    def from_sweeps(self, A: Operator, relax: Relaxation, back: Relaxation | None = None) -> Operator:
        """The preconditioner from the sweeps of ``A`` and, if it is not Hermitian, of its adjoint."""

        def sweeps(of: Relaxation, r: Tensor) -> Tensor:
            z = torch.zeros_like(r)
            of.sweep(r, z, self.omega, self.order, False)
            of.sweep(r, z, self.omega, self.order, True)
            return z

        adjoint = None if back is None else lambda r: sweeps(back, r)
        return Inverse(A, lambda r: sweeps(relax, r), adjoint, "ssor", positive_definite=A.positive_definite)
