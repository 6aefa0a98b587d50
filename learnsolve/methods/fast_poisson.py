"""Fast Poisson: the grid operator on a box is diagonal in products of sines and cosines."""

from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar

import scipy.fft
import torch
from torch import Tensor

from learnsolve.kernels.stencil import UnitStencil
from learnsolve.kernels.vector import norm
from learnsolve.loop import Method, System
from learnsolve.operators import GridPoisson, Operator
from learnsolve.operators.grid_stencil import AIR


@dataclass
class State:
    """The iterate and its residual."""

    x: Tensor
    r: Tensor


def unsuited(A: Operator) -> str:
    """Why an operator can't be solved by transforms; empty if it can."""
    if not isinstance(A, GridPoisson):
        return f"{A!r} is not a grid operator"
    if not isinstance(A.stencil, UnitStencil):
        return f"{A!r} has variable coefficients"
    if A.unknowns != A.cells.numel():
        return f"{A!r} has cells that are not fluid"
    return ""


def _eigenvectors(n: int, before: bool, after: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Angles and eigenvectors (columns) of the second difference; flags: value zero beyond the end."""
    k = torch.arange(n, dtype=torch.float64)
    i = torch.arange(n, dtype=torch.float64)[:, None]
    if before and after:
        angle = pi * (k + 1) / (n + 1)
        vectors = torch.sin(angle * (i + 1))
    elif not before and not after:
        angle = pi * k / n
        vectors = torch.cos(angle * (i + 0.5))
    else:
        angle = pi * (2 * k + 1) / (2 * n + 1)
        vectors = torch.cos(angle * (i + 0.5)) if after else torch.cos(angle * (n - 0.5 - i))
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=0)
    return angle, vectors.to(like.device, like.dtype)


class _Transforms:
    """Along each axis a fast sine or cosine transform on the CPU, a matrix of eigenvectors elsewhere."""

    def __init__(self, A: GridPoisson) -> None:
        assert isinstance(A.stencil, UnitStencil)
        weights = A.stencil.weights.cpu()[3 - A.cells.ndim :]
        self.kinds: list[tuple[str, Tensor]] = []
        total = torch.zeros(A.cells.shape, dtype=torch.float64)
        for axis, (before, after) in enumerate(A.boundary):
            n = A.cells.shape[axis]
            angle, vectors = _eigenvectors(n, before == AIR, after == AIR, A.stencil.weights)
            fast = A.device.type == "cpu" and before == after and n > 32
            kind = ("sine" if before == AIR else "cosine") if fast else "matrix"
            self.kinds.append((kind, vectors if kind == "matrix" else vectors[:0]))
            shape = [1] * A.cells.ndim
            shape[axis] = n
            wide = weights.to(torch.complex128) if weights.is_complex() else weights.double()
            total = total + (wide[axis] * (2 - 2 * torch.cos(angle))).reshape(shape)
        total = total + A.stencil.shift.cpu()[0]
        inverse = torch.where(total.abs() > 1e-13 * total.abs().max(), 1 / total, torch.zeros_like(total))
        self.inverse = inverse.to(A.device, A.dtype)

    def _transform(self, x: Tensor, back: bool) -> Tensor:
        for name, types in (("sine", scipy.fft.dstn), ("cosine", scipy.fft.dctn)):
            axes = [axis for axis, (kind, _) in enumerate(self.kinds) if kind == name]
            if axes:
                number = 1 if name == "sine" else (3 if back else 2)
                workers = torch.get_num_threads()
                x = torch.from_numpy(types(x.numpy(), type=number, axes=axes, norm="ortho", workers=workers))
        for axis, (kind, vectors) in enumerate(self.kinds):
            if kind == "matrix":
                matrix = vectors if back else vectors.T
                x = torch.tensordot(matrix, x, dims=([1], [axis])).movedim(0, axis)
        return x.contiguous()

    def solve(self, r: Tensor) -> Tensor:
        return self._transform(self._transform(r, False) * self.inverse, True)


@dataclass(frozen=True)
class FastPoisson(Method):
    """The direct solver for boxes of fluid with constant coefficients: ``O(n log n)`` by fast transforms.

    Each axis is a sine (value zero at both ends), cosine (solid at both) or mixed basis. A singular
    operator's constant mode is left out, which gives the answer of minimum norm.

    References
    ----------
    Swarztrauber, *The methods of cyclic reduction, Fourier analysis and the FACR algorithm for the
    discrete solution of Poisson's equation on a rectangle*, SIAM Review 19 (1977).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = learnsolve.operators.GridPoisson(np.zeros((8, 8), int), boundary="dirichlet")
    >>> learnsolve.solve(A, np.ones((8, 8)), method="fast_poisson").success
    True
    """

    name: ClassVar[str] = "fast_poisson"
    summary: ClassVar[str] = "fast sine and cosine transforms: a box of fluid, constant coefficients"

    def setup(self, A: Operator) -> Any:
        reason = unsuited(A)
        if reason:
            raise TypeError(
                f"fast_poisson takes a GridPoisson whose cells are all fluid, of unit coefficients: {reason}"
            )
        assert isinstance(A, GridPoisson)
        return _Transforms(A)

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return State(x, r)

    def step(self, system: System, s: State) -> float:
        s.x = s.x + system.setup.solve(s.r)
        s.r = system.residual(s.x)
        return norm(s.r)
