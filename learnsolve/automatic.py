"""``method="auto"``: what to do with a system, by structure, promises and size."""

from typing import Any

import numpy as np

from learnsolve.loop import Method
from learnsolve.methods import CG, GMRES, LSMR, MINRES, BiCGSTAB, Direct, FastPoisson, Substitution
from learnsolve.methods.fast_poisson import unsuited
from learnsolve.operators import CSR, Dense, GridPoisson, Operator
from learnsolve.preconditioners import (
    ILU,
    AlgebraicMultigrid,
    JacobiPreconditioner,
    Multigrid,
    Preconditioner,
)

DIRECT_UNKNOWNS = 20_000
DIRECT_ENTRIES = 400_000
DENSE_UNKNOWNS = 4096

Plan = list[tuple[Method, Any]]


def plan(A: Operator, M: Any) -> Plan:
    """Methods with preconditioners, the best first, each to be tried where the one before failed.

    Parameters
    ----------
    A : Operator
        The matrix.
    M : anything that stands for a preconditioner, or None
        The user's; it is then used by every method.
    """
    rows, columns = A.shape
    if rows != columns:
        return [(LSMR(), None)]
    if M is not None:
        return [(method, M) for method in _krylov(A)]
    if A.solvable:
        return [(Substitution(), None), *((method, None) for method in _krylov(A))]
    if isinstance(A, GridPoisson):
        return _grid(A)
    if isinstance(A, Dense):
        if rows <= DENSE_UNKNOWNS:
            return [(Direct(), None), (LSMR(), None)]
        return [(method, JacobiPreconditioner() if _divisible(A) else None) for method in _krylov(A)]
    if isinstance(A, CSR):
        return _sparse(A)
    return [(method, None) for method in _krylov(A)]


def _krylov(A: Operator) -> list[Method]:
    if A.hermitian:
        if A.positive_definite:
            return [CG(), MINRES(), GMRES()]
        return [CG(), MINRES(), GMRES()] if _positive_diagonal(A) else [MINRES(), GMRES()]
    return [GMRES(), BiCGSTAB()]


def _grid(A: GridPoisson) -> Plan:
    if not unsuited(A):
        return [(FastPoisson(), None), (CG(), Multigrid())]
    if A.hermitian:
        return [(CG(), Multigrid())]
    return [(GMRES(), Multigrid()), (Direct(), None)]


def _sparse(A: CSR) -> Plan:
    small = A.shape[0] <= DIRECT_UNKNOWNS and A.values.numel() <= DIRECT_ENTRIES
    iterative: Plan = []
    light = AlgebraicMultigrid() if A.hermitian and _positive_diagonal(A) else None
    if light is not None:
        iterative = [(CG(), light), (MINRES(), JacobiPreconditioner())]
    elif A.hermitian:
        iterative = [(MINRES(), None)]
    else:
        iterative = [(GMRES(restart=50), ILU()), (BiCGSTAB(), _cheap(A))]
    if small:
        return [(Direct(), None), *iterative[-1:], (LSMR(), None)]
    return [*iterative, (Direct(), None)]


def _cheap(A: Operator) -> Preconditioner | None:
    return JacobiPreconditioner() if _divisible(A) else None


def _divisible(A: Operator) -> bool:
    return bool((A.diagonal() != 0).all())


def _positive_diagonal(A: Operator) -> bool:
    try:
        diagonal = A.diagonal().detach().cpu().resolve_conj().numpy()
    except NotImplementedError:
        return True
    return bool((np.real(diagonal) > 0).all())
