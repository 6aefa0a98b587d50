"""Algebraic multigrid, through PyAMG."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from learnsolve.operators import Operator
from learnsolve.operators.sweeps import as_vector, from_vector, matrix_of
from learnsolve.preconditioners.base import Inverse, Preconditioner


@dataclass(frozen=True)
class AlgebraicMultigrid(Preconditioner):
    """A cycle of PyAMG's multigrid, for matrices without a grid.

    Parameters
    ----------
    kind : {"smoothed_aggregation", "ruge_stuben", "rootnode", "pairwise", "air"}
        How the coarse levels are made; ``"air"`` is for nonsymmetric matrices.
    cycle : {"V", "W", "F"}
        The cycle.

    Raises
    ------
    TypeError
        The matrix's entries are not known, or it is complex and the kind is not.

    References
    ----------
    Bell, Olson, Schroder and Southworth, *PyAMG: algebraic multigrid solvers in Python*,
    J. Open Source Softw. 8 (2023).

    Examples
    --------
    >>> import numpy as np, scipy.sparse, learnsolve
    >>> A = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(50, 50))
    >>> learnsolve.solve(A, np.ones(50), method="cg", M="smoothed_aggregation").success
    True
    """

    kind: Literal["smoothed_aggregation", "ruge_stuben", "rootnode", "pairwise", "air"] = (
        "smoothed_aggregation"
    )
    cycle: Literal["V", "W", "F"] = "V"

    name: ClassVar[str] = "algebraic_multigrid"
    summary: ClassVar[str] = "PyAMG's smoothed aggregation, Ruge-Stuben, root-node, pairwise or AIR multigrid"

    def __post_init__(self) -> None:
        kinds = ("smoothed_aggregation", "ruge_stuben", "rootnode", "pairwise", "air")
        if self.kind not in kinds or self.cycle not in ("V", "W", "F"):
            raise ValueError(
                f"kind is {self.kind!r} and cycle {self.cycle!r}; {kinds} and 'V', 'W', 'F' are accepted"
            )

    def build(self, A: Operator) -> Operator:
        import pyamg
        import scipy.sparse

        matrix = scipy.sparse.csr_matrix(matrix_of(A))
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        if matrix.dtype.kind == "c" and self.kind not in ("smoothed_aggregation", "rootnode"):
            raise TypeError(
                f"kind={self.kind!r} takes real matrices; 'smoothed_aggregation' takes complex ones"
            )
        matrix = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
        options = {}
        if self.kind in ("smoothed_aggregation", "rootnode", "pairwise"):
            options["symmetry"] = "hermitian" if A.hermitian else "nonsymmetric"
        if self.kind == "pairwise":
            options.pop("symmetry")
        levels = getattr(pyamg, f"{self.kind}_solver")(matrix, **options)
        cycle = levels.aspreconditioner(cycle=self.cycle)
        complexity = levels.operator_complexity()
        label = f"{self.kind}({len(levels.levels)} levels, operator complexity {complexity:.2f})"

        def apply(r: Tensor) -> Tensor:
            return from_vector(A, cycle.matvec(as_vector(A, r).astype(matrix.dtype)), r.dtype)

        if A.hermitian and self.kind != "air":
            return Inverse(A, apply, None, label, positive_definite=A.positive_definite)
        return _OneSided(A, apply, self, label)


class _OneSided(Inverse):
    """The adjoint of a nonsymmetric hierarchy is that of the adjoint, built when it is first used."""

    def __init__(self, A: Operator, apply, spec: AlgebraicMultigrid, label: str) -> None:
        self._built: Operator | None = None

        def adjoint(y: Tensor) -> Tensor:
            if self._built is None:
                self._built = spec.build(A.H)
            return self._built._apply(y)

        super().__init__(A, apply, adjoint, label)
