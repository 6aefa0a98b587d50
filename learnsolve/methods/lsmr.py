"""LSMR, for rectangular systems and least squares."""

from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from learnsolve.kernels.vector import norm
from learnsolve.loop import Method, System
from learnsolve.operators import Operator


@dataclass
class State:
    """Golub-Kahan vectors, two directions, and the rotations' scalars."""

    x: Tensor
    u: Tensor
    v: Tensor
    h: Tensor
    h_bar: Tensor
    alpha: float
    alpha_bar: float
    zeta_bar: float
    rho: float = 1.0
    rho_bar: float = 1.0
    c_bar: float = 1.0
    s_bar: float = 0.0


@dataclass(frozen=True)
class LSMR(Method):
    """MINRES on the normal equations, by Golub-Kahan bidiagonalisation; ``min ||b - A x||`` for any shape.

    Its end is either a residual within the tolerance, or one that is orthogonal to the range of ``A``:
    ``||A^H r|| <= rtol ||A|| ||r||``, with a Frobenius-like estimate of ``||A||``. A preconditioner is
    not used. From ``x0 = 0`` the answer is the one of minimum norm.

    References
    ----------
    Fong and Saunders, *LSMR: an iterative algorithm for sparse least-squares problems*,
    SIAM J. Sci. Comput. 33 (2011).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[1.0], [1.0]])
    >>> learnsolve.solve(A, np.array([1.0, 3.0]), method="lsmr").x
    array([2.])
    """

    name: ClassVar[str] = "lsmr"
    summary: ClassVar[str] = "least squares and minimum norm: rectangular or singular A"
    least_squares: ClassVar[bool] = True

    def setup(self, A: Operator) -> Any:
        """A lower bound of the spectral norm, by power iteration on ``A^H A``."""
        generator = torch.Generator(device="cpu").manual_seed(0)
        v = torch.randn(A.domain_shape, generator=generator, dtype=torch.float64).to(A.device, A.dtype)
        size = 0.0
        for _ in range(10):
            length = norm(v)
            if length == 0:
                break
            v = A._adjoint(A._apply(v / length))
            size = sqrt(norm(v))
        return size

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        beta = norm(r)
        u = r / beta
        v = system.A._adjoint(u)
        alpha = norm(v)
        v = v / alpha if alpha else v
        return State(x, u, v, v.clone(), torch.zeros_like(v), alpha, alpha, alpha * beta)

    def step(self, system: System, s: State) -> float:
        u = system.A._apply(s.v) - s.alpha * s.u
        beta = norm(u)
        s.u = u / beta if beta else u
        v = system.A._adjoint(s.u) - beta * s.v
        alpha = norm(v)
        v = v / alpha if alpha else v
        old_rho = s.rho
        s.rho = hypot(s.alpha_bar, beta) or 1.0
        c, sn = s.alpha_bar / s.rho, beta / s.rho
        theta = sn * alpha
        s.alpha_bar = c * alpha
        old_rho_bar = s.rho_bar
        theta_bar = s.s_bar * s.rho
        turned = s.c_bar * s.rho
        s.rho_bar = hypot(turned, theta) or 1.0
        s.c_bar, s.s_bar = turned / s.rho_bar, theta / s.rho_bar
        zeta, s.zeta_bar = s.c_bar * s.zeta_bar, -s.s_bar * s.zeta_bar
        s.h_bar = s.h - (theta_bar * s.rho / (old_rho * old_rho_bar)) * s.h_bar
        s.x = s.x + (zeta / (s.rho * s.rho_bar)) * s.h_bar
        s.h = v - (theta / s.rho) * s.h
        s.v, s.alpha = v, alpha
        return norm(system.residual(s.x))
