"""Restarted GMRES in its flexible form."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from learnsolve.arrays import NUMPY_DTYPES
from learnsolve.kernels.vector import norm
from learnsolve.loop import Breakdown, Method, System


@dataclass
class State:
    """The cycle's start, its Arnoldi basis ``V``, ``Z = M V``, and the triangularised Hessenberg matrix."""

    start: Tensor
    V: Tensor
    Z: list[Tensor]
    R: np.ndarray
    g: np.ndarray
    rotations: list[tuple[complex, complex]] = field(default_factory=list)
    size: int = 0

    @property
    def x(self) -> Tensor:
        """The iterate, assembled from the basis."""
        if self.size == 0:
            return self.start
        triangle = self.R[: self.size, : self.size]
        y = np.linalg.lstsq(triangle, self.g[: self.size], rcond=None)[0] if _flat(triangle) else None
        if y is None:
            y = np.linalg.solve(triangle, self.g[: self.size])
        x = self.start.clone()
        for weight, z in zip(y, self.Z, strict=False):
            x.add_(z, alpha=weight.item())
        return x


def _flat(triangle: np.ndarray) -> bool:
    diagonal = np.abs(np.diag(triangle))
    return bool(diagonal.min() <= 1e-14 * diagonal.max())


@dataclass(frozen=True)
class GMRES(Method):
    """Restarted generalized minimal residuals with right preconditioning, for any square matrix.

    The preconditioned basis is kept, so ``M`` may change from step to step or be nonlinear (FGMRES), and
    the residual that is minimised is the true one.

    Parameters
    ----------
    restart : int
        Length of a cycle; memory is ``2 restart + 1`` vectors.

    References
    ----------
    Saad, *A flexible inner-outer preconditioned GMRES algorithm*, SIAM J. Sci. Comput. 14 (1993).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[2.0, 1.0], [0.0, 1.0]])
    >>> learnsolve.solve(A, np.array([3.0, 1.0]), method=GMRES(restart=5)).x.round(6)
    array([1., 1.])
    """

    restart: int = 30

    name: ClassVar[str] = "gmres"
    summary: ClassVar[str] = "restarted flexible GMRES: any square A, any M"

    def __post_init__(self) -> None:
        if self.restart < 1:
            raise ValueError(f"restart is {self.restart}; a positive length of the cycle is accepted")

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return self._cycle(x, r)

    def _cycle(self, x: Tensor, r: Tensor) -> State:
        length = min(self.restart, max(r.numel(), 1))
        kind = NUMPY_DTYPES[r.dtype]
        wide = np.complex128 if kind.kind == "c" else np.float64
        beta = norm(r)
        V = torch.empty((length + 1, r.numel()), dtype=r.dtype, device=r.device)
        V[0] = r.reshape(-1) / beta
        g = np.zeros(length + 1, wide)
        g[0] = beta
        return State(x, V, [], np.zeros((length + 1, length), wide), g)

    def step(self, system: System, s: State) -> float:
        j = s.size
        if j == s.R.shape[1] or (j > 0 and abs(s.g[j]) == 0):
            x = s.x
            fresh = self._cycle(x, system.residual(x))
            s.__dict__.update(fresh.__dict__)
            j = 0
        z = system.precondition(s.V[j].reshape(s.start.shape))
        w = system.A._apply(z).reshape(-1)
        before = norm(w)
        basis = s.V[: j + 1]
        h = torch.zeros(j + 1, dtype=w.dtype, device=w.device)
        for _ in range(2):
            part = basis.conj() @ w
            w = w - part @ basis
            h += part
        column = s.R[:, j]
        column[: j + 1] = h.cpu().numpy()
        size = norm(w)
        if not np.isfinite(size):
            return size
        exhausted = size <= 1e-14 * before
        column[j + 1] = 0 if exhausted else size
        for i, (c, sn) in enumerate(s.rotations):
            column[i], column[i + 1] = (
                c * column[i] + sn * column[i + 1],
                -np.conj(sn) * column[i] + c * column[i + 1],
            )
        length = np.hypot(abs(column[j]), abs(column[j + 1]))
        if length <= 1e-14 * before or length == 0:
            raise Breakdown("the Krylov space is exhausted without a solution: A M is singular")
        pivot = column[j] / abs(column[j]) if column[j] else 1.0
        c, sn = abs(column[j]) / length, pivot * np.conj(column[j + 1]) / length
        s.rotations.append((c, sn))
        column[j], column[j + 1] = pivot * length, 0
        s.g[j], s.g[j + 1] = c * s.g[j], -np.conj(sn) * s.g[j]
        s.Z.append(z)
        s.size = j + 1
        if not exhausted:
            s.V[j + 1] = w / size
        else:
            s.g[j + 1] = 0
        return float(abs(s.g[j + 1]))
