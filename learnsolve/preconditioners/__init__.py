"""Preconditioners: each one file, and one line in this table."""

from learnsolve.preconditioners.algebraic_multigrid import AlgebraicMultigrid
from learnsolve.preconditioners.base import Inverse, Preconditioner
from learnsolve.preconditioners.dcdm import DCDMPreconditioner
from learnsolve.preconditioners.incomplete import ILU, IncompleteCholesky
from learnsolve.preconditioners.jacobi import JacobiPreconditioner
from learnsolve.preconditioners.learned_multigrid import LearnedMultigrid
from learnsolve.preconditioners.multigrid import Multigrid, MultigridCycle
from learnsolve.preconditioners.ssor import SSORPreconditioner

PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    kind.name: kind
    for kind in (
        JacobiPreconditioner,
        SSORPreconditioner,
        ILU,
        IncompleteCholesky,
        AlgebraicMultigrid,
        Multigrid,
        LearnedMultigrid,
        DCDMPreconditioner,
    )
}
AMG_KINDS = ("smoothed_aggregation", "ruge_stuben", "rootnode", "pairwise", "air")


def named(name: str) -> Preconditioner:
    """The preconditioner of a name: one of the table, or a kind of algebraic multigrid.

    Raises
    ------
    ValueError
        There is none of this name; the message lists those that there are.

    Examples
    --------
    >>> named("ruge_stuben")
    AlgebraicMultigrid(kind='ruge_stuben', cycle='V')
    """
    if name in AMG_KINDS:
        return AlgebraicMultigrid(kind=name)  # type: ignore[arg-type]
    if name in PRECONDITIONERS:
        return PRECONDITIONERS[name]()
    raise ValueError(
        f"there is no preconditioner {name!r}; there are {', '.join([*PRECONDITIONERS, *AMG_KINDS])}"
    )


__all__ = [
    "AMG_KINDS",
    "ILU",
    "PRECONDITIONERS",
    "AlgebraicMultigrid",
    "DCDMPreconditioner",
    "IncompleteCholesky",
    "Inverse",
    "JacobiPreconditioner",
    "LearnedMultigrid",
    "Multigrid",
    "MultigridCycle",
    "Preconditioner",
    "SSORPreconditioner",
    "named",
]
