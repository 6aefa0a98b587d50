"""Relaxation of an operator's equations: what smoothers and stationary methods share."""

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from learnsolve import arrays
from learnsolve.kernels import grid, sparse
from learnsolve.operators.base import Adjoint, Operator
from learnsolve.operators.grid import GridPoisson
from learnsolve.operators.sparse import CSR, Dense


class Relaxation(Protocol):
    """Sweeps over the equations of one operator."""

    def jacobi(self, b: Tensor, x: Tensor, omega: float) -> Tensor:
        """``x + omega D^-1 (b - A x)``."""

    def sweep(self, b: Tensor, x: Tensor, omega: float, order: str, reverse: bool) -> None:
        """One sweep of successive over-relaxation in place."""


def checked_omega(omega: float, top: float) -> None:
    """Raise ``ValueError`` unless ``0 < omega < top``."""
    if not (np.isfinite(omega) and 0 < omega < top):
        limit = f"between 0 and {top:g}" if np.isfinite(top) else "positive"
        raise ValueError(f"omega is {omega}; a number {limit} is accepted")


def relaxation(A: Operator) -> Relaxation:
    """The sweeps for an operator; `TypeError` where its entries are not known."""
    if isinstance(A, GridPoisson):
        return GridRelaxation(A)
    if isinstance(A, Dense):
        A = CSR.from_scipy(A.to_scipy()).to(A.device)
    if isinstance(A, CSR):
        return CSRRelaxation(A)
    return DiagonalRelaxation(A)


def nonzero_diagonal(A: Operator) -> Tensor:
    """The diagonal; `ValueError` where an unknown's is zero, `TypeError` where it is not known."""
    try:
        diagonal = A.diagonal().detach()
    except NotImplementedError:
        raise TypeError(f"{A!r} does not know its diagonal, by which this method divides") from None
    zero = diagonal == 0
    if isinstance(A, GridPoisson):
        zero = torch.zeros_like(zero)
    if bool(zero.any()):
        first = int(zero.reshape(-1).nonzero()[0, 0])
        raise ValueError(f"the diagonal of {A!r} is zero in {int(zero.sum())} places, first in row {first}")
    return diagonal


class DiagonalRelaxation:
    """Jacobi sweeps of an operator of which the diagonal is known."""

    def __init__(self, A: Operator) -> None:
        self.A, self.diagonal = A, nonzero_diagonal(A)

    def jacobi(self, b: Tensor, x: Tensor, omega: float) -> Tensor:
        return x + omega * (b - self.A._apply(x)) / self.diagonal

    def sweep(self, b: Tensor, x: Tensor, omega: float, order: str, reverse: bool) -> None:
        raise TypeError(f"Gauss-Seidel sweeps need the entries of the matrix, which {self.A!r} does not know")


class GridRelaxation:
    """Sweeps of a `GridPoisson`; two colours."""

    def __init__(self, A: GridPoisson) -> None:
        self.A = A

    def jacobi(self, b: Tensor, x: Tensor, omega: float) -> Tensor:
        lift = self.A._lift
        return grid.jacobi(self.A.stencil, lift(b), lift(x), omega).reshape(x.shape)

    def sweep(self, b: Tensor, x: Tensor, omega: float, order: str, reverse: bool) -> None:
        lift = self.A._lift
        if order == "lexicographic":
            grid.gauss_seidel(self.A.stencil, lift(b), lift(x), omega, reverse)
        else:
            grid.smooth(self.A.stencil, lift(b), lift(x), omega=omega, halves=2, first=int(reverse))


class CSRRelaxation:
    """Sweeps of a `CSR` matrix; as many colours as its graph needs."""

    def __init__(self, A: CSR) -> None:
        if A.shape[0] != A.shape[1]:
            raise ValueError(f"relaxation needs a square matrix, not {A.shape[0]}x{A.shape[1]}")
        self.A, self.diagonal = A, nonzero_diagonal(A)

    @cached_property
    def colours(self) -> list[Tensor]:
        """The rows of each colour."""
        pattern = self.A
        if not pattern.hermitian:
            both = abs(pattern.to_scipy()) + abs(pattern.to_scipy()).T
            pattern = CSR.from_scipy(both)
        colour = sparse.colouring(pattern.indptr.cpu(), pattern.indices.cpu()).long()
        order = torch.argsort(colour, stable=True).to(self.A.indptr.dtype).to(self.A.device)
        return list(order.split(torch.bincount(colour).tolist()))

    def jacobi(self, b: Tensor, x: Tensor, omega: float) -> Tensor:
        return x + omega * (b - self.A._apply(x)) / self.diagonal

    def sweep(self, b: Tensor, x: Tensor, omega: float, order: str, reverse: bool) -> None:
        indptr, indices, values = self.A.indptr, self.A.indices, self.A.values.detach()
        if order == "lexicographic":
            sparse.gauss_seidel(indptr, indices, values, self.diagonal, b, x, omega, reverse)
            return
        for rows in reversed(self.colours) if reverse else self.colours:
            sparse.relax_rows(indptr, indices, values, self.diagonal, b, x, rows, omega)


def matrix_of(A: Operator) -> Any:
    """The matrix as a scipy CSR array; `TypeError` where the entries are not known."""
    if isinstance(A, Adjoint):
        return matrix_of(A.inner).conj().T.tocsr()
    if isinstance(A, GridPoisson | CSR):
        return A.to_scipy()
    if isinstance(A, Dense):
        import scipy.sparse

        return scipy.sparse.csr_array(A.to_scipy())
    raise TypeError(f"the entries of {A!r} are not known, and this method needs them")


def as_vector(A: Operator, x: Tensor) -> np.ndarray:
    """A vector of the operator's domain as a flat numpy array over its unknowns."""
    return A.leave(x, (A.shape[1],)).detach().cpu().numpy()


def from_vector(A: Operator, x: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The inverse of `as_vector`."""
    return A.enter(arrays.as_tensor(np.ascontiguousarray(x), "x").to(A.device, dtype))
