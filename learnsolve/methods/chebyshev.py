"""Chebyshev iteration: conjugate gradients' speed without inner products, where the spectrum is known."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels.vector import dot, norm
from learnsolve.loop import Breakdown, Method, System
from learnsolve.operators import Operator


@dataclass
class State:
    """Iterate, residual, direction, and the recurrence's scalars."""

    x: Tensor
    r: Tensor
    p: Tensor
    bounds: tuple[float, float]
    alpha: float = 0.0
    count: int = 0


def spectral_bounds(A: Operator, M: Operator | None, steps: int) -> tuple[float, float]:
    """Estimates of the extreme eigenvalues of ``M A`` from the Lanczos coefficients of preconditioned CG."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    r = torch.randn(A.domain_shape, generator=generator, dtype=torch.float64).to(A.device, A.dtype)
    r = A.project(A.enter(r))
    diagonal, off, old = [], [], 1.0
    z = r if M is None else M._apply(r)
    p, rz, beta = z.clone(), dot(r, z).real, 0.0
    first = norm(r)
    for _ in range(steps):
        Ap = A._apply(p)
        pAp = dot(p, Ap).real
        if not (pAp > 0 and rz > 0):
            raise Breakdown("A or M is not positive definite")
        alpha = rz / pAp
        diagonal.append(1 / alpha + beta / old)
        off.append(np.sqrt(beta) / old)
        old = alpha
        r = r - alpha * Ap
        if norm(r) <= 1e-6 * first:
            break
        z = r if M is None else M._apply(r)
        new = dot(r, z).real
        beta, rz = new / rz, new
        p = z + beta * p
    T = np.diag(diagonal) + np.diag(off[1:], 1) + np.diag(off[1:], -1)
    values = np.linalg.eigvalsh(T)
    return float(values[0]), float(values[-1])


@dataclass(frozen=True)
class Chebyshev(Method):
    r"""The Chebyshev semi-iteration for Hermitian positive definite ``M A`` with eigenvalues in ``bounds``.

    Parameters
    ----------
    bounds : (float, float), optional
        Smallest and largest eigenvalue of ``M A``; estimated by ``steps`` Lanczos steps where left out
        (and then widened a little).
    steps : int
        Lanczos steps of the estimate.

    References
    ----------
    Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., algorithm 12.1.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> method = Chebyshev(bounds=(1, 2))
    >>> learnsolve.solve(np.diag([1.0, 2.0]), np.array([1.0, 4.0]), method=method).x.round(4)
    array([1., 2.])
    """

    bounds: tuple[float, float] | None = None
    steps: int = 40

    name: ClassVar[str] = "chebyshev"
    summary: ClassVar[str] = "Chebyshev iteration: Hermitian positive definite A, no inner products"

    def __post_init__(self) -> None:
        if self.bounds is not None and not 0 < self.bounds[0] <= self.bounds[1]:
            raise ValueError(f"bounds are {self.bounds}; 0 < smallest <= largest is accepted")

    def setup(self, A: Operator) -> Any:
        return {}

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        if self.bounds is None and "bounds" not in system.setup:
            low, high = spectral_bounds(system.A, system.M, self.steps)
            system.setup["bounds"] = (0.9 * low, 1.05 * high)
        return State(x, r, torch.zeros_like(r), self.bounds or system.setup["bounds"])

    def step(self, system: System, s: State) -> float:
        low, high = s.bounds
        centre, radius = (high + low) / 2, (high - low) / 2
        z = system.precondition(s.r)
        if s.count == 0:
            s.alpha = 1 / centre
            s.p = z.clone()
        else:
            beta = (radius * s.alpha) ** 2 * (0.5 if s.count == 1 else 0.25)
            s.alpha = 1 / (centre - beta / s.alpha)
            s.p = z + beta * s.p
        s.x = s.x + s.alpha * s.p
        s.r = s.r - s.alpha * system.A._apply(s.p)
        s.count += 1
        return norm(s.r)
