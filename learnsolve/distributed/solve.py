"""`solve_petsc`: one linear system on the processes of an MPI communicator."""

import time
import warnings
from math import inf
from typing import Any

import numpy as np
import scipy.sparse
import torch

from learnsolve import arrays
from learnsolve.distributed.exchange import Gather, gathered, grid, partition, petsc
from learnsolve.distributed.matrix import grid_matrix, in_double
from learnsolve.distributed.preconditioner import KINDS, LearnedPC
from learnsolve.loop import check_limits
from learnsolve.operators import CSR, GridPoisson
from learnsolve.preconditioners import DCDMPreconditioner, Multigrid, Preconditioner
from learnsolve.result import ConvergenceWarning, Result, SolveError, Status

# PETSc's KSPConvergedReason; the positive ones say that the tolerance was met.
REASONS = {
    -2: Status.BREAKDOWN,
    -3: Status.MAXITER,
    -4: Status.DIVERGED,
    -5: Status.BREAKDOWN,
    -6: Status.BREAKDOWN,
    -7: Status.BREAKDOWN,
    -8: Status.BREAKDOWN,
    -9: Status.NONFINITE,
    -10: Status.BREAKDOWN,
    -11: Status.BREAKDOWN,
    -12: Status.TIMEOUT,
}
USER_STOP = -12


def solve_petsc(
    A: Any,
    b: Any,
    *,
    method: str = "auto",
    M: Any = "auto",
    x0: Any = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    timeout: float | None = None,
    check: bool = False,
    prefix: str = "",
    comm: Any = None,
) -> Result:
    """Solve ``A x = b`` by PETSc, on as many processes as ``mpiexec`` has started.

    Every process calls it with the same arguments and gets the same result. A grid is cut into boxes, of
    which each process works on one; the arrays that go in and come out are whole.

    Parameters
    ----------
    A : GridPoisson, scipy.sparse or CSR
        The matrix, real, in float64 or to be converted.
    b : array
        The right-hand side, as `learnsolve.solve` takes one; one column.
    method : str
        A type of PETSc's KSP. ``"auto"``: ``cg`` for a positive definite grid operator, its flexible form
        ``fcg`` with a preconditioner that is nonlinear or not symmetric, otherwise ``fgmres``.
    M : str or Preconditioner
        ``"learned-multigrid"``, ``"multigrid"`` or ``"dcdm"``, for grids, or one of their classes with its
        options; otherwise a type of PETSc's PC. ``"auto"``: ``learned-multigrid`` for grids, ``gamg``
        for other matrices.
    x0 : array, optional
        Where to begin.
    rtol, atol, maxiter, timeout, check
        As in `learnsolve.solve`; the criterion is the unpreconditioned residual's norm, which is
        recomputed at the end.
    prefix : str
        Of the options of method and preconditioner in PETSc's database; they have the last word.
    comm : mpi4py or PETSc communicator, optional
        By default all processes.

    Returns
    -------
    Result
        ``extras`` has PETSc's ``reason``, and of how many ``processes``.

    Raises
    ------
    ImportError
        There is no usable petsc4py.
    TypeError, ValueError
        The matrix, the right-hand side or an option is not one of those above.
    SolveError
        With ``check``: not converged.

    Examples
    --------
    Under ``mpiexec -n 4 python program.py``:

    >>> from learnsolve.problems import poisson
    >>> problem = poisson.obstacles((16, 16, 16))
    >>> from learnsolve.distributed import solve_petsc  # doctest: +SKIP
    >>> solve_petsc(problem.A, problem.b, rtol=1e-8).success  # doctest: +SKIP
    True
    """
    module = petsc()
    began = time.perf_counter()
    check_limits(rtol, atol, maxiter, timeout)
    comm = module.COMM_WORLD if comm is None else module.Comm(comm)
    learned = isinstance(M, Preconditioner) or M in KINDS
    if isinstance(A, GridPoisson):
        if A.dtype.is_complex:
            raise TypeError(f"A is {A!r}; a real operator is accepted")
        system: _Grid | _Sparse = _Grid(A, comm, assembled=not (learned or M == "auto"))
    else:
        if learned:
            raise TypeError(
                f"M={M!r} is for grids; A is {type(A).__name__}: see grid_from_matrix, or M='gamg'"
            )
        system = _Sparse(A, comm)
    M = system.default if M == "auto" else M
    column = system.enter(b, "b")
    right = system.vector(column)
    start = system.vector(np.zeros_like(column) if x0 is None else system.enter(x0, "x0"))
    ksp = _ksp(system, method, M, prefix, comm)
    target = max(rtol * float(np.linalg.norm(column)), atol)
    iterations = min(10 * system.rows, 100_000) if maxiter is None else int(maxiter)
    deadline = inf if timeout is None else began + timeout
    setup = time.perf_counter()
    ksp.setUp()
    setup_seconds = time.perf_counter() - setup
    found = _iterate(ksp, system.matrix, right, start, target, iterations, deadline)
    status, residuals, reason = found
    norm_b = float(np.linalg.norm(column)) or 1.0
    result = Result(
        system.leave(start, b),
        status,
        len(residuals) - 1,
        np.array(residuals),
        residuals[-1] / norm_b,
        time.perf_counter() - began,
        f"PETSc {ksp.getType()} + {M if isinstance(M, str) else M.name}",
        {"reason": reason, "processes": comm.size, "setup_seconds": setup_seconds},
    )
    ksp.destroy()
    if check and not result.success:
        raise SolveError(result)
    if not result.success and comm.rank == 0:
        warnings.warn(f"{result!r}: {status.value}", ConvergenceWarning, stacklevel=2)
    return result


def _ksp(system: Any, method: str, M: Any, prefix: str, comm: Any) -> Any:
    """The Krylov method with its preconditioner, set from arguments and then from the database."""
    module = petsc()
    ksp = module.KSP().create(comm=comm)
    ksp.setOptionsPrefix(prefix)
    ksp.setOperators(system.matrix)
    if isinstance(system, _Grid):
        ksp.setDM(system.da)
        ksp.setDMActive(False)
    symmetric = not (isinstance(M, DCDMPreconditioner) or M == "dcdm")
    symmetric = symmetric and not (isinstance(M, Multigrid) and M.cycle == "F")
    if method == "auto":
        method = ("cg" if symmetric else "fcg") if system.positive_definite else "fgmres"
    known = {value for name, value in vars(module.KSP.Type).items() if not name.startswith("_")}
    if method not in known:
        raise ValueError(f"there is no KSP type {method!r}; there are {', '.join(sorted(known))}")
    ksp.setType(method)
    pc = ksp.getPC()
    if isinstance(M, Preconditioner) or M in KINDS:
        pc.setType(module.PC.Type.PYTHON)
        pc.setPythonContext(LearnedPC(KINDS[M]() if isinstance(M, str) else M))
    else:
        known = {value for name, value in vars(module.PC.Type).items() if not name.startswith("_")}
        if M not in known:
            raise ValueError(
                f"there is no preconditioner {M!r}; there are {', '.join([*KINDS, *sorted(known)])}"
            )
        pc.setType(M)
    ksp.setFromOptions()
    # Otherwise cg judges by the preconditioned residual, which may be small where the true one is not.
    if ksp.getType() not in ("preonly", "richardson"):
        if ksp.getType() in ("gmres", "bcgs", "bcgsl", "lgmres", "tfqmr"):
            ksp.setPCSide(module.PC.Side.RIGHT)
        ksp.setNormType(module.KSP.NormType.UNPRECONDITIONED)
    return ksp


def _iterate(
    ksp: Any, A: Any, b: Any, x: Any, target: float, maxiter: int, deadline: float
) -> tuple[Status, list[float], int]:
    """Iterate to the true residual; what PETSc calls converged and is not is begun again, once."""
    module = petsc()
    r, clock = b.duplicate(), module.Vec().createMPI((1, None), comm=b.comm)

    def true_norm() -> float:
        A.mult(x, r)
        r.aypx(-1.0, b)
        return float(r.norm())

    def late() -> bool:
        if deadline == inf:
            return False
        clock.set(time.perf_counter())
        return clock.max()[1] > deadline

    residuals = [true_norm()]
    reason = int(module.KSP.ConvergedReason.CONVERGED_ATOL)

    def test(ksp: Any, iteration: int, norm: float) -> int:
        if iteration > 0:
            residuals.append(float(norm))
        if not np.isfinite(norm):
            return module.KSP.ConvergedReason.DIVERGED_NANORINF
        if norm <= target:
            return module.KSP.ConvergedReason.CONVERGED_RTOL
        if norm > 1e5 * residuals[0]:
            return module.KSP.ConvergedReason.DIVERGED_DTOL
        if len(residuals) > maxiter:
            return module.KSP.ConvergedReason.DIVERGED_MAX_IT
        return USER_STOP if late() else 0

    ksp.setTolerances(rtol=0.0, atol=0.0, max_it=maxiter)
    ksp.setConvergenceTest(test)
    ksp.setInitialGuessNonzero(True)
    for _ in range(2):
        if reason < 0 or residuals[-1] <= target:
            break
        ksp.solve(b, x)
        reason = int(ksp.getConvergedReason())
        residuals[-1] = true_norm()
    if residuals[-1] <= target:
        return Status.CONVERGED, residuals, reason
    return REASONS.get(reason, Status.STAGNATED), residuals, reason


class _Grid:
    """A grid operator on a DMDA; vectors are whole arrays of its shape outside."""

    default = "learned-multigrid"

    def __init__(self, A: GridPoisson, comm: Any, assembled: bool) -> None:
        self.A = in_double(A)
        self.da = grid(tuple(A.cells.shape), comm, 2)
        self.cut = partition(self.da)
        self.matrix = grid_matrix(self.A, self.da, assembled)
        self.rows = A.unknowns
        self.positive_definite = bool(A.positive_definite)

    def enter(self, b: Any, name: str) -> np.ndarray:
        """Into the grid's shape, in the range of a singular operator."""
        values = self.A.enter(arrays.as_tensor(b, name).detach().cpu().to(torch.float64), name)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} holds NaN or infinity")
        return (self.A.project(values) if self.A.singular else values).numpy()

    def vector(self, values: np.ndarray) -> Any:
        """The process's part of it."""
        vector = self.da.createGlobalVec()
        vector.setArray(values[self.cut.owned.slices].reshape(-1))
        return vector

    def leave(self, x: Any, like: Any) -> Any:
        """Whole, in the library and shape of the right-hand side."""
        given = arrays.as_tensor(like, "b")
        found = self.A.leave(torch.from_numpy(gathered(self.da, x)), tuple(given.shape))
        return arrays.restorer(like)(found.to(given.dtype))


class _Sparse:
    """A sparse matrix by rows."""

    default = "gamg"
    positive_definite = False

    def __init__(self, A: Any, comm: Any) -> None:
        if isinstance(A, CSR):
            A = A.to_scipy()
        if not scipy.sparse.issparse(A):
            raise TypeError(f"A is {type(A).__name__}; GridPoisson, CSR and scipy.sparse are accepted")
        if np.iscomplexobj(A) or A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise TypeError(f"A is {A.dtype} of shape {A.shape}; a real square matrix is accepted")
        module = petsc()
        matrix = A.tocsr().astype(np.float64)
        if not np.isfinite(matrix.data).all():
            raise ValueError("A holds NaN or infinity")
        self.rows = matrix.shape[0]
        layout = module.Vec().createMPI(self.rows, comm=comm)
        self.begin, self.end = layout.getOwnershipRange()
        own = matrix[self.begin : self.end]
        parts = (own.indptr.astype(module.IntType), own.indices.astype(module.IntType), own.data)
        local = (self.end - self.begin, self.rows)
        self.matrix = module.Mat().createAIJ((local, local), csr=parts, comm=comm)
        self.matrix.assemble()
        self.layout, self.comm = layout, comm

    def enter(self, b: Any, name: str) -> np.ndarray:
        """One column, checked."""
        values = arrays.as_tensor(b, name).detach().cpu().to(torch.float64).numpy()
        if values.shape != (self.rows,):
            raise ValueError(f"{name} has shape {values.shape}; ({self.rows},) is accepted")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
        return values

    def vector(self, values: np.ndarray) -> Any:
        """The process's part of it."""
        vector = self.layout.duplicate()
        vector.setArray(values[self.begin : self.end])
        return vector

    def leave(self, x: Any, like: Any) -> Any:
        """Whole, in the library of the right-hand side."""
        part = torch.from_numpy(x.getArray(readonly=True).copy())
        return arrays.restorer(like)(
            Gather(part.numel(), self.comm)(part).to(arrays.as_tensor(like, "b").dtype)
        )
