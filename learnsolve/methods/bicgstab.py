"""BiCGSTAB."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from learnsolve.kernels.vector import dot, norm
from learnsolve.loop import Breakdown, Method, System


@dataclass
class State:
    """Iterate, residual, shadow residual, direction, ``A M p``, and the last ``rho``."""

    x: Tensor
    r: Tensor
    shadow: Tensor
    p: Tensor
    v: Tensor
    rho: complex
    alpha: complex = 1.0
    omega: complex = 1.0
    first: bool = True


@dataclass(frozen=True)
class BiCGSTAB(Method):
    """Stabilised bi-conjugate gradients with right preconditioning: short recurrences for any square matrix.

    When the shadow residual has become orthogonal to the residual, the recurrence begins anew from the
    present iterate.

    References
    ----------
    van der Vorst, *Bi-CGSTAB*, SIAM J. Sci. Stat. Comput. 13 (1992).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[2.0, 1.0], [0.0, 1.0]])
    >>> learnsolve.solve(A, np.array([3.0, 1.0]), method="bicgstab").x.round(6)
    array([1., 1.])
    """

    name: ClassVar[str] = "bicgstab"
    summary: ClassVar[str] = "stabilised bi-conjugate gradients: any square A, little memory"

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return State(x, r, r.clone(), r.clone(), r, 1.0)

    def step(self, system: System, s: State) -> float:
        rho = dot(s.shadow, s.r)
        if abs(rho) <= 1e-14 * norm(s.shadow) * norm(s.r):
            s.shadow, s.first = s.r.clone(), True
            rho = dot(s.shadow, s.r)
        if s.first:
            s.p, s.first = s.r.clone(), False
        else:
            beta = (rho / s.rho) * (s.alpha / s.omega)
            s.p = s.r + beta * (s.p - s.omega * s.v)
        s.rho = rho
        y = system.precondition(s.p)
        s.v = system.A._apply(y)
        below = dot(s.shadow, s.v)
        if below == 0:
            raise Breakdown("the shadow residual is orthogonal to A M p")
        s.alpha = rho / below
        half = s.r - s.alpha * s.v
        z = system.precondition(half)
        t = system.A._apply(z)
        tt = dot(t, t).real
        s.x = s.x + s.alpha * y
        if tt == 0:
            s.r = half
            if norm(half) > 0:
                raise Breakdown("A M r = 0: A or M is singular")
            return 0.0
        s.omega = dot(t, half) / tt
        s.x = s.x + s.omega * z
        s.r = half - s.omega * t
        if s.omega == 0:
            s.first, s.shadow = True, s.r.clone()
        return norm(s.r)
