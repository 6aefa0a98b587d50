"""Incomplete factorisations: ILU through SuperLU, and IC(0) of our own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse
from torch import Tensor

from learnsolve.operators import GridPoisson, Operator
from learnsolve.operators.sweeps import as_vector, from_vector, matrix_of
from learnsolve.preconditioners.base import Inverse, Preconditioner


@dataclass(frozen=True)
class ILU(Preconditioner):
    """Incomplete LU with thresholds, through SuperLU.

    Parameters
    ----------
    drop_tol : float
        Entries smaller than this, relative to their column, are dropped.
    fill_factor : float
        At most so many times the entries of the matrix are kept.

    Raises
    ------
    ValueError
        The factorisation met a zero pivot.

    References
    ----------
    Li and Shao, *A supernodal approach to incomplete LU factorization with partial pivoting*,
    ACM Trans. Math. Softw. 37 (2011).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[4.0, 1.0], [2.0, 3.0]])
    >>> learnsolve.solve(A, np.ones(2), method="gmres", M=ILU(drop_tol=1e-3)).success
    True
    """

    drop_tol: float = 1e-4
    fill_factor: float = 10.0

    name: ClassVar[str] = "ilu"
    summary: ClassVar[str] = "incomplete LU with thresholds (SuperLU)"

    def build(self, A: Operator) -> Operator:
        matrix = matrix_of(A).tocsc()
        matrix = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
        try:
            factors = scipy.sparse.linalg.spilu(matrix, drop_tol=self.drop_tol, fill_factor=self.fill_factor)
        except RuntimeError as error:
            raise ValueError(f"the incomplete LU factorisation of {A!r} failed: {error}") from None

        def solve(r: Tensor, trans: str) -> Tensor:
            return from_vector(A, factors.solve(as_vector(A, r).astype(matrix.dtype), trans), r.dtype)

        return Inverse(A, lambda r: solve(r, "N"), lambda r: solve(r, "H"), "ilu")


@dataclass(frozen=True)
class IncompleteCholesky(Preconditioner):
    """IC(0): ``L L^H`` agrees with ``A`` on the pattern of ``A``'s lower triangle.

    Where a pivot is not positive, the factorisation begins anew with a larger multiple of the diagonal
    added (Manteuffel's shift).

    Raises
    ------
    ValueError
        The matrix is not Hermitian, or its diagonal is not positive.

    References
    ----------
    Meijerink and van der Vorst, *An iterative solution method for linear systems of which the coefficient
    matrix is a symmetric M-matrix*, Math. Comp. 31 (1977); Manteuffel, Math. Comp. 34 (1980).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> learnsolve.solve(A, np.ones(2), method="cg", M="ic").iterations
    1
    """

    name: ClassVar[str] = "ic"
    summary: ClassVar[str] = "incomplete Cholesky without fill: Hermitian positive definite A"

    def build(self, A: Operator) -> Operator:
        from learnsolve.kernels import incomplete_numba as kernels

        if not A.hermitian:
            raise ValueError(f"incomplete Cholesky needs a Hermitian matrix; {A!r} is not known to be")
        matrix = matrix_of(A)
        if isinstance(A, GridPoisson):
            # A fluid cell between walls has an empty row, and no residual.
            matrix = matrix + scipy.sparse.diags_array((matrix.diagonal() == 0).astype(matrix.dtype))
            matrix = matrix.tocsr()
        matrix.sort_indices()
        lower = scipy.sparse.tril(matrix, format="csr")
        diagonal = matrix.diagonal()
        if not (diagonal.real > 0).all():
            raise ValueError(
                f"incomplete Cholesky needs a positive diagonal; {A!r} has {diagonal.real.min():.3g}"
            )
        shift = 0.0
        while True:
            values = lower.data.copy()
            values[lower.indptr[1:] - 1] += shift * diagonal
            if kernels.factorise(lower.indptr, lower.indices, values):
                break
            shift = max(2 * shift, 1e-3)

        def apply(r: Tensor) -> Tensor:
            x = as_vector(A, r).astype(values.dtype)
            kernels.solve(lower.indptr, lower.indices, values, x)
            return from_vector(A, x, r.dtype)

        return Inverse(A, apply, None, f"ic(shift {shift:g})", positive_definite=True)
