"""Our preconditioners inside PETSc beside its own: iterations, answers and times by the number of processes.

Every system is solved by conjugate gradients (their flexible form for dcdm) to the true residual, on each
number of processes. The answers are compared with that on one process, and with that of `learnsolve.solve`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

FAMILIES = ("box", "obstacles", "free_surface", "maze", "jump")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.petsc", description=__doc__)
    command.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    command.add_argument("--shape", type=int, nargs="+", default=[64, 64, 64])
    command.add_argument(
        "--preconditioners",
        nargs="+",
        default=["learned-multigrid", "multigrid", "gamg"],
        help="ours, or PETSc's",
    )
    command.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="MPI processes")
    command.add_argument("--rtol", type=float, default=1e-8)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--mpiexec", default="mpiexec")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def worker(folder: Path, spec: dict[str, Any]) -> None:
    """On each process: solve all systems; the first one writes what came out."""
    import torch

    from learnsolve import ConvergenceWarning
    from learnsolve.distributed import solve_petsc
    from learnsolve.distributed.exchange import petsc
    from learnsolve.problems import poisson

    torch.set_num_threads(1)
    comm = petsc().COMM_WORLD
    rows = []
    for family in spec["family"]:
        problem = getattr(poisson, family)(tuple(spec["shape"]), seed=spec["seed"])
        for M in spec["preconditioners"]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                # What is compiled, loaded and touched for the first time is not timed.
                solve_petsc(problem.A, problem.b, M=M, maxiter=1)
                comm.barrier()
                began = time.perf_counter()
                result = solve_petsc(problem.A, problem.b, M=M, rtol=spec["rtol"])
                seconds = time.perf_counter() - began
            if comm.rank == 0:
                np.save(folder / f"{family}-{M}-{comm.size}.npy", result.x)
                rows.append(
                    {
                        "family": family,
                        "M": M,
                        "ranks": comm.size,
                        "converged": result.success,
                        "iterations": result.iterations,
                        "seconds": seconds,
                    }
                )
    if comm.rank == 0:
        (folder / f"{comm.size}.json").write_text(json.dumps(rows), encoding="utf-8")


def launched(options: argparse.Namespace, ranks: int, folder: Path) -> list[dict[str, Any]]:
    """What came out on so many processes."""
    spec = {name: getattr(options, name) for name in ("family", "shape", "preconditioners", "rtol", "seed")}
    allowed = {f"OMPI_{name}": "1" for name in ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")}
    allowed["OMPI_MCA_rmaps_base_oversubscribe"] = "1"
    words = [sys.executable, "-m", "benchmarks.petsc", "--worker", str(folder), json.dumps(spec)]
    subprocess.run(
        [options.mpiexec, "-n", str(ranks), *words],
        cwd=measure.ROOT,
        env=measure.pinned(1) | allowed,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads((folder / f"{ranks}.json").read_text(encoding="utf-8"))
    return found


def compared(options: argparse.Namespace, rows: list[dict[str, Any]], folder: Path) -> None:
    """How far each answer is from that on one process, and from that of `solve`."""
    import learnsolve
    from learnsolve.problems import poisson

    for family in options.family:
        problem = getattr(poisson, family)(tuple(options.shape), seed=options.seed)
        expected = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-12).x
        for row in (row for row in rows if row["family"] == family):
            answers = [
                np.load(folder / f"{family}-{row['M']}-{ranks}.npy")
                for ranks in (options.ranks[0], row["ranks"])
            ]
            row["from_first"] = float(np.linalg.norm(answers[1] - answers[0]) / np.linalg.norm(answers[0]))
            row["from_solve"] = float(np.linalg.norm(answers[1] - expected) / np.linalg.norm(expected))


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """A row for each system, preconditioner and number of processes."""
    shown = Table(title=title, title_justify="left")
    for name in ("family", "M", "ranks", "iterations", "seconds", "from the first", "from solve, to 1e-12"):
        shown.add_column(name, justify="left" if name in ("family", "M") else "right")
    for row in rows:
        iterations = str(row["iterations"]) + ("" if row["converged"] else " and more")
        figures = (f"{row['seconds']:.2f}", f"{row['from_first']:.0e}", f"{row['from_solve']:.0e}")
        shown.add_row(row["family"], row["M"], str(row["ranks"]), iterations, *figures)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["--worker"]:
        worker(Path(words[1]), json.loads(words[2]))
        return 0
    options = parser().parse_args(words)
    console, progress = consoles()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for ranks in options.ranks:
            progress.print(f"[dim]{ranks} processes[/]", highlight=False)
            rows += launched(options, ranks, Path(folder))
        compared(options, rows, Path(folder))
    rows.sort(key=lambda row: (options.family.index(row["family"]), options.preconditioners.index(row["M"])))
    size = "x".join(map(str, options.shape))
    console.print(table(rows, f"{size} cells, relative residual {options.rtol:g}, {os.cpu_count()} cores"))
    path = measure.write_rows("petsc", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
