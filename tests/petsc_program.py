"""Run under mpiexec by test_distributed: solves what it has to and writes what came out.

``mpiexec -n 2 python -m tests.petsc_program OUT.npz -user_pc_type python -user_pc_python_type ...``
"""

import json
import sys
import warnings

import numpy as np
import petsc4py
import scipy.sparse
import torch

petsc4py.init(sys.argv[2:])
from petsc4py import PETSc  # noqa: E402

from learnsolve import ConvergenceWarning, SolveError  # noqa: E402
from learnsolve.distributed import solve_petsc  # noqa: E402
from learnsolve.operators import GridPoisson  # noqa: E402
from learnsolve.preconditioners import LearnedMultigrid, Multigrid  # noqa: E402
from learnsolve.problems import poisson  # noqa: E402

FOUND: dict = {}
ARRAYS: dict = {}


def record(name, result):
    FOUND[name] = {
        "status": result.status.name,
        "iterations": result.iterations,
        "relative_residual": result.relative_residual,
        "residuals": len(result.residuals),
        "method": result.method,
        **result.extras,
    }
    ARRAYS[name] = result.x if isinstance(result.x, np.ndarray) else result.x.numpy()


def refused(name, **changed):
    options = {"A": GridPoisson(np.zeros((8, 8), int), boundary="dirichlet"), "b": np.ones((8, 8)), **changed}
    A, b = options.pop("A"), options.pop("b")
    try:
        solve_petsc(A, b, **options)
    except (TypeError, ValueError, SolveError) as error:
        FOUND[name] = f"{type(error).__name__}: {error}"
    else:
        FOUND[name] = "accepted"


def grids():
    for M in ("learned-multigrid", "multigrid", "dcdm", "gamg"):
        problem = poisson.obstacles((24, 28, 32), seed=1)
        record(M, solve_petsc(problem.A, problem.b, M=M, rtol=1e-8))
    problem = poisson.jump((40, 33), seed=2)
    x0 = np.random.default_rng(0).standard_normal((40, 33))
    M = Multigrid(cycle="F", precision="double")
    record("plane", solve_petsc(problem.A, torch.from_numpy(problem.b), M=M, x0=x0, rtol=1e-10))
    problem = poisson.obstacles((9, 8, 8), seed=0)
    record("small", solve_petsc(problem.A, problem.b[problem.A.active.numpy()], rtol=1e-8))
    problem = poisson.box((16, 16, 16), "solid")
    record("singular", solve_petsc(problem.A, problem.b, rtol=1e-8, M=LearnedMultigrid(cycle="V")))
    record("singular gamg", solve_petsc(problem.A, problem.b, rtol=1e-8, M="gamg"))
    record("zero", solve_petsc(problem.A, np.zeros((16, 16, 16))))


def sparse():
    upwind = scipy.sparse.diags_array([-1.5, 2.2, -0.4], offsets=[-1, 0, 1], shape=(60, 60)).tocsr()
    b = np.random.default_rng(0).standard_normal(60)
    record("sparse", solve_petsc(upwind, b, M="jacobi", rtol=1e-9, method="gmres"))
    record("sparse auto", solve_petsc(upwind, b, rtol=1e-9))


def failures():
    problem = poisson.box((24, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        record("maxiter", solve_petsc(problem.A, problem.b, M="none", maxiter=5))
        record("timeout", solve_petsc(problem.A, problem.b, M="none", rtol=1e-12, timeout=1e-6))
        record("stagnated", solve_petsc(problem.A, problem.b, rtol=1e-30))
    refused("check", M="none", maxiter=2, rtol=1e-12, check=True)
    refused("no such M", M="magic")
    refused("no such method", method="magic")
    refused("wrong shape", b=np.ones(3))
    refused("NaN", b=np.full((8, 8), np.nan))
    refused("learned on sparse", A=scipy.sparse.eye_array(3).tocsr(), b=np.ones(3), M="multigrid")
    refused("not square", A=scipy.sparse.eye_array(3, 4).tocsr(), b=np.ones(3))
    refused("rtol", rtol=-1)


def program():
    """A PETSc program as any: its own matrix on a DMDA, values at the walls fixed, options from outside."""
    da = PETSc.DMDA().create(sizes=(21, 18, 25), stencil_width=1)
    matrix = da.createMat()
    (xs, ys, zs), (xm, ym, zm) = da.getCorners()
    row, column = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    mx, my, mz = da.getSizes()
    for k in range(zs, zs + zm):
        for j in range(ys, ys + ym):
            for i in range(xs, xs + xm):
                row.index = (i, j, k)
                if i in (0, mx - 1) or j in (0, my - 1) or k in (0, mz - 1):
                    matrix.setValueStencil(row, row, 3.0)
                    continue
                matrix.setValueStencil(row, row, 6.0)
                for step in ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)):
                    column.index = (i + step[0], j + step[1], k + step[2])
                    matrix.setValueStencil(row, column, -1.0)
    matrix.assemble()
    x, b = da.createGlobalVec(), da.createGlobalVec()
    natural = da.createNaturalVec()
    begin, end = natural.getOwnershipRange()
    natural.setArray(np.random.default_rng(0).standard_normal((25, 18, 21)).reshape(-1)[begin:end])
    da.naturalToGlobal(natural, b)
    for options in ("", "multigrid V", "dcdm"):
        database = PETSc.Options()
        for name, value in zip(("type", "cycle"), options.split(), strict=False):
            database.setValue(f"user_pc_learnsolve_{name}", value)
        ksp = PETSc.KSP().create()
        ksp.setOptionsPrefix("user_")
        ksp.setDM(da)
        ksp.setDMActive(False)
        ksp.setOperators(matrix)
        ksp.setType("fgmres")
        ksp.setTolerances(rtol=1e-9, atol=0.0)
        ksp.setFromOptions()
        x.set(0.0)
        ksp.solve(b, x)
        r = b.duplicate()
        matrix.mult(x, r)
        r.aypx(-1.0, b)
        da.globalToNatural(x, natural)
        scatter, whole = PETSc.Scatter.toAll(natural)
        scatter.scatter(natural, whole)
        name = f"program {options}".strip()
        FOUND[name] = {
            "iterations": ksp.getIterationNumber(),
            "reason": int(ksp.getConvergedReason()),
            "relative_residual": r.norm() / b.norm(),
            "label": repr(ksp.getPC().getPythonContext()),
        }
        ARRAYS[name] = whole.getArray().copy()
    ksp = PETSc.KSP().create()
    ksp.setOperators(matrix)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonType("learnsolve.distributed.LearnedPC")
    try:
        ksp.setUp()
    except Exception as error:
        FOUND["no grid"] = str(error)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in (grids, sparse, failures, program):
        part()
    if PETSc.COMM_WORLD.rank == 0:
        np.savez(sys.argv[1], found=json.dumps(FOUND), **ARRAYS)
