"""Conjugate gradients, plain and flexible."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from learnsolve.kernels.vector import combine, descend, dot, norm
from learnsolve.loop import Breakdown, Method, System


@dataclass
class State:
    """Iterate, residual, the last direction, ``r^H z`` of its step, and of flexible steps its residual."""

    x: Tensor
    r: Tensor
    p: Tensor | None = None
    rz: float = 0.0
    old: Tensor | None = None
    count: int = 0


@dataclass(frozen=True)
class CG(Method):
    r"""Preconditioned conjugate gradients, for Hermitian positive (semi-)definite matrices.

    .. math:: x \leftarrow x + \alpha p, \quad r \leftarrow r - \alpha A p, \quad
              p \leftarrow M r + \beta p, \quad \alpha = \frac{r^H z}{p^H A p}

    With ``flexible`` it takes Polak and Ribière's :math:`\beta = z_{k+1}^H (r_{k+1} - r_k) / z_k^H r_k`,
    which keeps the directions locally conjugate when ``M`` changes from step to step or is not linear.

    Parameters
    ----------
    recompute : int
        The residual is recomputed from its definition every so many steps.
    flexible : bool, optional
        By default True where ``M`` is not linear or says that it is not Hermitian.

    References
    ----------
    Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., algorithm 9.1.
    Golub and Ye, *Inexact preconditioned conjugate gradient method with inner-outer iteration*,
    SIAM J. Sci. Comput. 21 (1999).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[2.0, -1.0], [-1.0, 2.0]])
    >>> learnsolve.solve(A, np.array([1.0, 1.0]), method=CG(recompute=10)).x
    array([1., 1.])
    """

    recompute: int = 50
    flexible: bool | None = None

    name: ClassVar[str] = "cg"
    summary: ClassVar[str] = "conjugate gradients: Hermitian positive definite A and M"

    def __post_init__(self) -> None:
        if self.recompute < 1:
            raise ValueError(f"recompute is {self.recompute}; a positive number of steps is accepted")

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return State(x, r)

    def step(self, system: System, s: State) -> float:
        # The preconditioner stands at the beginning, so that the last residual does not go through it.
        flexible = self._flexible(system)
        p = s.p = self._direction(system, s, flexible)
        Ap = system.A._apply(p)
        pAp = dot(p, Ap).real
        if not pAp > 0:
            if pAp <= 0:
                raise Breakdown(f"p^H A p = {pAp:.3g} is not positive: A is not positive definite")
            return pAp
        s.old = s.r.clone() if flexible else None
        size = descend(s.rz / pAp, p, Ap, s.x, s.r)
        s.count += 1
        if s.count % self.recompute == 0:
            s.r = system.residual(s.x)
            size = norm(s.r)
        return size

    def _flexible(self, system: System) -> bool:
        if self.flexible is not None:
            return self.flexible
        return system.M is not None and (not system.M.linear or system.M.hermitian is False)

    @staticmethod
    def _direction(system: System, s: State, flexible: bool) -> Tensor:
        """The next direction, in place of the last one."""
        z = system.precondition(s.r)
        rz = dot(s.r, z).real
        if s.p is None:
            if not rz > 0:
                raise Breakdown(f"r^H M r = {rz:.3g} is not positive: M is not positive definite")
            s.rz = rz
            return z.clone()
        if rz < 0 and not flexible:
            raise Breakdown(f"r^H M r = {rz:.3g} is negative: M is not positive definite")
        if rz == 0:
            raise Breakdown("r^H M r = 0: M is singular")
        beta = (rz if s.old is None else rz - dot(s.old, z).real) / s.rz
        combine(1.0, z, beta, s.p)
        s.rz = rz
        return s.p


@dataclass(frozen=True)
class FlexibleCG(CG):
    """`CG` with ``flexible=True``.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.eye(2), np.array([1.0, 2.0]), method="fcg").x
    array([1., 2.])
    """

    flexible: bool | None = True

    name: ClassVar[str] = "fcg"
    summary: ClassVar[str] = "flexible conjugate gradients: M may vary or be nonlinear"
