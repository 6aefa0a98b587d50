"""MINRES, for Hermitian matrices that need not be definite."""

from dataclasses import dataclass
from math import hypot, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from learnsolve.kernels.vector import dot, norm
from learnsolve.loop import Breakdown, Method, System


@dataclass
class State:
    """Two Lanczos vectors and their preconditioned forms, two directions, the rotation, the residual."""

    x: Tensor
    r: Tensor
    old_v: Tensor
    v: Tensor
    z: Tensor
    old_w: Tensor
    w: Tensor
    beta: float
    phi: float
    cosine: float = -1.0
    sine: float = 0.0
    delta: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class MINRES(Method):
    """The minimal residual method of Paige and Saunders, with a positive definite preconditioner.

    The three-term Lanczos recurrence of ``A`` in the inner product of ``M`` is triangularised by plane
    rotations; the residual is carried along, so that its Euclidean norm is known with a preconditioner too.

    References
    ----------
    Paige and Saunders, *Solution of sparse indefinite systems of linear equations*,
    SIAM J. Numer. Anal. 12 (1975), section 6.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.diag([1.0, -2.0]), np.array([1.0, 2.0]), method="minres").x.round(6)
    array([ 1., -1.])
    """

    name: ClassVar[str] = "minres"
    summary: ClassVar[str] = "minimal residuals: Hermitian A, may be indefinite; M positive definite"

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        z = system.precondition(r)
        rz = dot(r, z).real
        if not rz > 0:
            raise Breakdown(f"r^H M r = {rz:.3g} is not positive: M is not positive definite")
        beta = sqrt(rz)
        none = torch.zeros_like(r)
        return State(x, r.clone(), none, r / beta, z / beta, none, none, beta, beta)

    def step(self, system: System, s: State) -> float:
        y = system.A._apply(s.z)
        alpha = dot(s.z, y).real
        y = y - alpha * s.v - s.beta * s.old_v
        z = system.precondition(y)
        yz = dot(y, z).real
        if yz < 0:
            raise Breakdown(f"r^H M r = {yz:.3g} is negative: M is not positive definite")
        beta = sqrt(yz)
        above, gamma_bar = s.cosine * s.delta + s.sine * alpha, s.sine * s.delta - s.cosine * alpha
        epsilon, delta = s.epsilon, -s.cosine * beta
        s.epsilon, s.delta = s.sine * beta, delta
        gamma = hypot(gamma_bar, beta)
        if gamma == 0:
            raise Breakdown("the tridiagonal matrix is singular: A is singular and b is not in its range")
        s.cosine, s.sine = gamma_bar / gamma, beta / gamma
        step, s.phi = s.cosine * s.phi, s.sine * s.phi
        w = (s.z - epsilon * s.old_w - above * s.w) / gamma
        s.old_w, s.w = s.w, w
        s.x.add_(w, alpha=step)
        s.old_v, s.v, s.z, s.beta = s.v, y / beta if beta else y, z / beta if beta else z, beta
        s.r = s.sine**2 * s.r - s.phi * s.cosine * s.v
        if beta == 0:
            s.r = system.residual(s.x)
        return norm(s.r)
