"""Sparse and dense factorisation, with iterative refinement."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from learnsolve.arrays import in_dtype
from learnsolve.kernels.vector import norm
from learnsolve.loop import Breakdown, Method, System
from learnsolve.operators import CSR, Dense, Operator
from learnsolve.operators.sweeps import as_vector, from_vector, matrix_of

DENSE_BELOW = 200


@dataclass
class State:
    """The iterate and its residual."""

    x: Tensor
    r: Tensor


class _DenseFactors:
    def __init__(self, A: Tensor) -> None:
        wide = torch.complex128 if A.dtype.is_complex else torch.float64
        self.LU, self.pivots, _ = torch.linalg.lu_factor_ex(A.to(wide))
        if not bool((self.LU.diagonal() != 0).all()):
            raise Breakdown("the matrix is singular")

    def solve(self, A: Operator, r: Tensor) -> Tensor:
        return in_dtype(
            lambda v: torch.linalg.lu_solve(self.LU, self.pivots, v[:, None])[:, 0], r, self.LU.dtype
        )


class _SparseFactors:
    def __init__(self, A: Operator, package: str) -> None:
        matrix = matrix_of(A)
        wide = np.complex128 if matrix.dtype.kind == "c" else np.float64
        matrix = matrix.astype(wide)
        self._solve = _factorised(matrix, package, bool(A.hermitian))
        self._dtype = torch.complex128 if wide is np.complex128 else torch.float64

    def solve(self, A: Operator, r: Tensor) -> Tensor:
        return in_dtype(lambda v: from_vector(A, self._solve(as_vector(A, v)), v.dtype), r, self._dtype)


def _factorised(matrix: Any, package: str, hermitian: bool) -> Any:
    real = matrix.dtype.kind == "f"
    if package == "pardiso" or (package == "auto" and real and matrix.shape[0] > 20000):
        try:
            import pypardiso
        except ImportError:
            if package == "pardiso":
                raise ModuleNotFoundError("package='pardiso' needs the module pypardiso") from None
        else:
            if real:
                solver = pypardiso.PyPardisoSolver()
                rows = matrix.tocsr()
                solver.factorize(rows)
                return lambda r: solver.solve(rows, r.astype(np.float64))
    if package == "cholmod":
        try:
            from sksparse.cholmod import cholesky
        except ImportError:
            raise ModuleNotFoundError("package='cholmod' needs the module scikit-sparse") from None
        return cholesky(matrix.tocsc())
    from scipy.sparse.linalg import MatrixRankWarning, splu

    with warnings.catch_warnings():
        warnings.simplefilter("error", MatrixRankWarning)
        try:
            ordering = (
                {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}} if hermitian else {}
            )
            factors = splu(matrix.tocsc(), **ordering)
        except (RuntimeError, MatrixRankWarning) as error:
            raise Breakdown(f"the factorisation failed: {error}") from None
    return lambda r: factors.solve(r.astype(matrix.dtype))


@dataclass(frozen=True)
class Direct(Method):
    """Factorise once, then refine: each iteration solves for the residual with the factors.

    Factors are kept in double precision. Dense matrices take LU of LAPACK, others SuperLU, or PARDISO
    (module ``pypardiso``) and CHOLMOD (module ``scikit-sparse``) where they are installed.

    Parameters
    ----------
    package : {"auto", "superlu", "pardiso", "cholmod"}
        What factorises a sparse matrix.

    Raises
    ------
    ModuleNotFoundError
        The package asked for is not installed.
    TypeError
        The matrix's entries are not known.

    References
    ----------
    Li, *An overview of SuperLU*, ACM Trans. Math. Softw. 31 (2005).

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([2.0, 1.0]), method="direct").x
    array([1., 1.])
    """

    package: Literal["auto", "superlu", "pardiso", "cholmod"] = "auto"

    name: ClassVar[str] = "direct"
    summary: ClassVar[str] = "LU or Cholesky factors with iterative refinement"

    def __post_init__(self) -> None:
        if self.package not in ("auto", "superlu", "pardiso", "cholmod"):
            raise ValueError(f"package is {self.package!r}; auto, superlu, pardiso and cholmod are accepted")

    def setup(self, A: Operator) -> Any:
        if A.shape[0] != A.shape[1]:
            raise ValueError(
                f"direct needs a square matrix, not {A.shape[0]}x{A.shape[1]}; use method='lsmr'"
            )
        try:
            if isinstance(A, Dense):
                return _DenseFactors(A.values.detach())
            if self.package == "auto" and isinstance(A, CSR) and A.shape[0] <= DENSE_BELOW:
                return _DenseFactors(torch.from_numpy(A.to_scipy().toarray()).to(A.device))
            return _SparseFactors(A, self.package)
        except Breakdown as failure:
            return failure

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        if isinstance(system.setup, Breakdown):
            raise system.setup
        return State(x, r)

    def step(self, system: System, s: State) -> float:
        s.x = s.x + system.setup.solve(system.A, s.r)
        s.r = system.residual(s.x)
        return norm(s.r)
