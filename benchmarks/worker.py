"""One measurement, in the fresh process that `benchmarks.measure.once` starts."""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from benchmarks.memory import Peak
from benchmarks.peers import SOLVERS, Answer, Problem, Solver
from learnsolve.problems import poisson

# Beyond so many unknowns the true residual is summed face by face: assembling the matrix would take more
# memory than all solvers.
ASSEMBLED = 5_000_000

# Large enough that the two finest levels take the kernels' parallel forms, as in the measurement.
WARM_CELLS = {2: 256, 3: 64}
WARM_PEER_CELLS = {2: 64, 3: 16}
WARM_ROWS = 40_000


def build(spec: dict[str, Any], shape: list[int], *, assembled: bool) -> Problem:
    """The problem of a spec in another shape, with the matrix assembled or not."""
    made = getattr(poisson, spec["case"])(tuple(shape), seed=spec["seed"], rhs=spec["rhs"])
    # Making the right-hand side consistent looked for closed regions; a solver pays for that itself.
    made.A.__dict__.pop("closed_regions", None)
    rhs = made.b[made.A.active.numpy()]
    return Problem(made.A, made.b, _narrow(made.A.to_scipy()) if assembled else None, rhs)


def read(spec: dict[str, Any], rows: int | None, *, assembled: bool) -> Problem:
    """The problem of a Matrix Market file, or of its leading block."""
    from learnsolve.datasets import matrix_market

    matrix = scipy.sparse.csr_array(matrix_market.read(spec["matrix"]))
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{spec['matrix']} is {matrix.shape}; a square matrix is accepted")
    matrix = matrix[:rows, :rows]
    matrix = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    size = matrix.shape[0]
    b = np.random.default_rng(spec["seed"] + 1).standard_normal(size)
    if spec["rhs"] == "ones":
        b = np.ones(size)
    elif spec["rhs"] == "bump":
        b = np.exp(-30 * ((np.arange(size) + 0.5) / size - 0.3) ** 2)
    b = b.astype(matrix.dtype)
    gap = abs(matrix - matrix.T.conj())
    symmetric = gap.nnz == 0 or gap.max() <= 1e-12 * abs(matrix).max()
    return Problem(matrix, b, _narrow(matrix) if assembled else None, b, bool(symmetric))


def _narrow(matrix: Any) -> scipy.sparse.csr_matrix:
    """As PyAMG and AMGCL take it: a matrix, not an array, with 32-bit indices."""
    narrow = scipy.sparse.csr_matrix(matrix)
    narrow.indptr, narrow.indices = narrow.indptr.astype(np.int32), narrow.indices.astype(np.int32)
    return narrow


def true_residual(problem: Problem, x: np.ndarray) -> tuple[float, str]:
    """``norm(b - A x) / norm(b)`` from the assembled matrix or from the faces, and which of the two."""
    if scipy.sparse.issparse(problem.A):
        matrix = problem.A
    elif problem.A.unknowns > ASSEMBLED:
        return _residual_by_faces(problem, x), "faces"
    else:
        matrix = problem.matrix if problem.matrix is not None else problem.A.to_scipy()
        x = x[problem.A.active.numpy()] if x.shape == problem.b.shape else x
    return float(np.linalg.norm(problem.rhs - matrix @ x) / np.linalg.norm(problem.rhs)), "matrix"


def _residual_by_faces(problem: Problem, x: np.ndarray) -> float:
    A = problem.A
    if x.shape != problem.b.shape:
        full = np.zeros(problem.b.shape, x.dtype)
        full[A.active.numpy()] = x
        x = full
    r = problem.b - A.diagonal().numpy() * x
    for axis in range(x.ndim):
        weight = np.moveaxis(A.faces(axis).numpy(), axis, 0)[1:]
        along, out = np.moveaxis(x, axis, 0), np.moveaxis(r, axis, 0)
        out[1:] += weight * along[:-1]
        out[:-1] += weight * along[1:]
    return float(np.linalg.norm(r) / np.linalg.norm(problem.b))


def run(solver: Solver, problem: Problem, rtol: float) -> tuple[Answer, dict[str, float]]:
    """The answer, and the seconds of set-up and solve, and of all processors for both."""
    busy, began = time.process_time(), time.perf_counter()
    state = solver.setup(problem)
    middle = time.perf_counter()
    answer = solver.solve(state, problem, rtol)
    end = time.perf_counter()
    return answer, {
        "setup": middle - began + answer.setup_seconds,
        "solve": end - middle - answer.setup_seconds,
        "total": end - began,
        "processor": time.process_time() - busy,
    }


def _problem(spec: dict[str, Any], solver: Solver, *, warm: bool) -> Problem:
    ours = solver.group == "learnsolve"
    if spec["case"] == "matrix":
        return read(spec, WARM_ROWS if warm else None, assembled=not ours)
    shape = spec["shape"]
    if warm:
        most = (WARM_CELLS if ours else WARM_PEER_CELLS)[len(shape)]
        shape = [min(n, most) for n in shape]
    return build(spec, shape, assembled=not ours and solver.needs != "box")


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Warm up on a small problem, build the problem, take the baseline, then set up and solve once.

    Parameters
    ----------
    spec : dict
        ``solver``, ``case`` (``"matrix"`` with the path ``matrix``), ``shape``, ``rhs``, ``seed``, ``rtol``,
        ``threads``.

    Returns
    -------
    dict
        Seconds ``setup``, ``solve``, ``total`` and ``processor``; ``iterations``; ``residual`` (true and
        relative) and ``residual_by``; ``memory`` in bytes above the baseline and ``memory_by``; ``unknowns``;
        ``method``.
    """
    torch.set_num_threads(spec["threads"])
    # A peer's warnings are not its measurement; a tolerance that was missed shows in the true residual.
    warnings.simplefilter("ignore")
    solver = SOLVERS[spec["solver"]]
    run(solver, _problem(spec, solver, warm=True), spec["rtol"])
    problem = _problem(spec, solver, warm=False)
    peak = Peak()
    answer, seconds = run(solver, problem, spec["rtol"])
    memory = peak.bytes()
    residual, source = true_residual(problem, answer.x)
    return {
        **seconds,
        "iterations": answer.iterations,
        "residual": residual if np.isfinite(residual) else None,
        "residual_by": source,
        "memory": memory,
        "memory_by": peak.source,
        "unknowns": int(problem.rhs.size),
        "method": answer.method,
    }


def main() -> None:
    """Measure what the first argument says in JSON, and write it to the file that the second names."""
    spec, path = json.loads(sys.argv[1]), Path(sys.argv[2])
    try:
        found = measure(spec)
    except Exception as error:
        first = str(error).splitlines()
        found = {"word": f"{type(error).__name__}: {first[0] if first else ''}"}
    path.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
