"""The solvers that are compared, each as a set-up and a solve."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

GROUPS = ("scipy", "pyamg", "amgcl", "fft")
MULTIGRID, AUTO = "learnsolve", "learnsolve auto"


@dataclass
class Problem:
    """What a solver is given before anything is measured.

    Attributes
    ----------
    A : GridPoisson or scipy sparse matrix
        For learnsolve.
    b : array
        In the shape that ``A`` takes.
    matrix : scipy.sparse.csr_matrix, optional
        ``A`` with 32-bit indices, for the peers only.
    rhs : (n,) array
        ``b`` over the unknowns.
    symmetric : bool
        Whether cg may be used; otherwise bicgstab is.
    """

    A: Any
    b: Any
    matrix: Any
    rhs: np.ndarray
    symmetric: bool = True

    @property
    def krylov(self) -> str:
        """The Krylov method of the peers."""
        return "cg" if self.symmetric else "bicgstab"


@dataclass
class Answer:
    """What came out.

    Attributes
    ----------
    x : array
        In the shape of ``b``, or over the unknowns.
    iterations : int or None
        None for a direct solver.
    method : str
        What was done.
    setup_seconds : float
        Part of the solve that was set-up.
    """

    x: np.ndarray
    iterations: int | None
    method: str
    setup_seconds: float = 0.0


@dataclass(frozen=True)
class Solver:
    """A row of the table.

    Attributes
    ----------
    group : str
        ``"learnsolve"``, or what ``--against`` calls it.
    module : str
        What must be installed.
    setup : callable
        From a `Problem` to a state.
    solve : callable
        From state, problem and rtol to an `Answer`.
    needs : str
        ``"grid"``, ``"box"`` (a box with values zero around it) or nothing.
    """

    group: str
    module: str
    setup: Callable[[Problem], Any]
    solve: Callable[[Any, Problem, float], Answer]
    needs: str = ""

    def unsuited(self, case: str) -> str:
        """Why there is no row for a case (``"matrix"`` for a file's), empty if there is one."""
        if not installed(self.module):
            return "not installed"
        if self.needs == "grid" and case == "matrix":
            return "needs a grid"
        if self.needs == "box" and case != "box":
            return "needs a box"
        return ""


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    return find_spec(module) is not None


def _learnsolve(**options: Any) -> Solver:
    def setup(problem: Problem) -> Any:
        import learnsolve

        solver = learnsolve.prepare(problem.A, **options)
        # Whether there are closed regions is found out once for a matrix, so it belongs to the set-up.
        _ = getattr(problem.A, "singular", None)
        return solver

    def solve(solver: Any, problem: Problem, rtol: float) -> Answer:
        result = solver.solve(problem.b, rtol=rtol)
        # What `prepare` put off until the first right-hand side.
        late = result.extras.get("setup_seconds", 0.0)
        return Answer(result.x, result.iterations, result.method, late)

    return Solver("learnsolve", "learnsolve", setup, solve, "grid" if "M" in options else "")


def _scipy_solve(_: None, problem: Problem, rtol: float) -> Answer:
    import scipy.sparse.linalg

    count = 0

    def callback(_: np.ndarray) -> None:
        nonlocal count
        count += 1

    method = getattr(scipy.sparse.linalg, problem.krylov)
    x, _info = method(problem.matrix, problem.rhs, rtol=rtol, atol=0.0, callback=callback)
    return Answer(x, count, problem.krylov)


def _pyamg(kind: str) -> Solver:
    def setup(problem: Problem) -> Any:
        import pyamg

        return getattr(pyamg, f"{kind}_solver")(problem.matrix)

    def solve(levels: Any, problem: Problem, rtol: float) -> Answer:
        residuals: list[float] = []
        x = levels.solve(problem.rhs, tol=rtol, accel=problem.krylov, residuals=residuals)
        return Answer(x, len(residuals) - 1, f"{problem.krylov} + {kind}")

    return Solver("pyamg", "pyamg", setup, solve)


def _amgcl(kind: str) -> Solver:
    def setup(problem: Problem) -> Any:
        import pyamgcl

        return pyamgcl.amgcl(problem.matrix, {"coarsening.type": kind})

    def solve(levels: Any, problem: Problem, rtol: float) -> Answer:
        import pyamgcl

        solver = pyamgcl.solver(levels, {"type": problem.krylov, "tol": str(rtol), "maxiter": "1000"})
        x = solver(problem.rhs)
        return Answer(np.asarray(x), int(solver.iters), f"{problem.krylov} + {kind}")

    return Solver("amgcl", "pyamgcl", setup, solve)


def _sine_setup(problem: Problem) -> np.ndarray:
    """The eigenvalues of the second differences, summed over the axes."""
    total = np.zeros(())
    for axis, n in enumerate(problem.b.shape):
        shape = [1] * problem.b.ndim
        shape[axis] = n
        total = total + (2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))).reshape(shape)
    return total


def _sine_solve(eigenvalues: np.ndarray, problem: Problem, _: float) -> Answer:
    import scipy.fft
    import torch

    workers = torch.get_num_threads()
    x = scipy.fft.dstn(problem.b, type=1, workers=workers)
    x /= eigenvalues
    x = scipy.fft.idstn(x, type=1, workers=workers, overwrite_x=True)
    return Answer(x, None, "DST-I")


SOLVERS: dict[str, Solver] = {
    MULTIGRID: _learnsolve(method="cg", M="multigrid"),
    AUTO: _learnsolve(method="auto"),
    "scipy": Solver("scipy", "scipy", lambda problem: None, _scipy_solve),
    "pyamg ruge_stuben": _pyamg("ruge_stuben"),
    "pyamg smoothed_aggregation": _pyamg("smoothed_aggregation"),
    "amgcl ruge_stuben": _amgcl("ruge_stuben"),
    "amgcl smoothed_aggregation": _amgcl("smoothed_aggregation"),
    "scipy.fft": Solver("fft", "scipy", _sine_setup, _sine_solve, "box"),
}
