"""Alternating minimization by entries and rank: a sweep beside reading the entries, and the whole."""

import argparse
import statistics
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

SOLVERS = ("exact", "cg", "sketch")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.completion", description=__doc__)
    command.add_argument("--size", type=int, default=10_000, help="rows, and as many columns")
    command.add_argument("--entries", nargs="+", type=int, default=[2_000_000])
    command.add_argument("--rank", nargs="+", type=int, default=[10])
    command.add_argument("--condition", type=float, default=1.0)
    command.add_argument("--solver", nargs="+", choices=SOLVERS, default=["exact", "cg"])
    command.add_argument("--rtol", type=float, default=1e-8)
    command.add_argument("--maxiter", type=int, default=50)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def streaming(threads: int) -> float:
    """Seconds to read an entry once, 8 bytes of value and 4 of place, from memory and not from a cache."""
    import numpy as np

    from learnsolve.kernels import vector_numba

    stored, taken = np.ones(1 << 25), []
    for _ in range(5):
        began = time.perf_counter()
        vector_numba.dot(stored, stored, threads)
        taken.append(time.perf_counter() - began)
    return 1.5 * statistics.median(taken) / stored.size


def gathering(problem: Any, rank: int) -> float:
    """Seconds to read all entries by rows and by columns, and the row of a factor that each names."""
    import numpy as np

    from learnsolve.operators.sampled import InMemory

    known = InMemory(
        *(np.ascontiguousarray(part) for part in (problem.rows, problem.cols, problem.values)), problem.shape
    )
    U, V = (np.ones((size, rank)) for size in problem.shape)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        known.times(V)
        known.times(U, transposed=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Of the power of the size with which seconds grow."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def ours(problem: Any, rank: int, solver: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a run of ours took, and how far it is from the truth."""
    import learnsolve
    from learnsolve.completion import AltMin

    entries, times = (problem.rows, problem.cols, problem.values), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        res = learnsolve.complete(
            entries,
            rank,
            AltMin(solver),
            shape=problem.shape,
            rtol=options.rtol,
            maxiter=options.maxiter,
            callback=lambda sweep: times.append(time.perf_counter()),
        )
        seconds = time.perf_counter() - began
    sweeps = [b - a for a, b in pairwise(times)]
    return {
        "solver": solver,
        "sweep": statistics.median(sweeps or [seconds]),
        "sweeps": res.iterations,
        "seconds": seconds,
        "error": problem.error(res.U, res.V),
    }


def rows_of(options: argparse.Namespace, report: Any) -> list[dict[str, Any]]:
    """All rows of the table."""
    from learnsolve.problems.low_rank import low_rank

    rows = []
    small = low_rank((200, 200), 2, entries=20_000, seed=1)
    for solver in options.solver:
        ours(small, 2, solver, options)
    read = streaming(options.threads)
    for count in options.entries:
        for rank in options.rank:
            report(f"{count:,} entries, rank {rank}")
            shape = (options.size, options.size)
            problem = low_rank(shape, rank, entries=count, condition=options.condition, seed=options.seed)
            gathered = gathering(problem, rank)
            found = [ours(problem, rank, solver, options) for solver in options.solver]
            bounds = {"read": read * count, "gathered": gathered}
            rows += [{"entries": count, "rank": rank, **bounds, **row} for row in found]
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if min(options.size, *options.entries, *options.rank, options.threads, options.maxiter) < 1:
        command.error("positive numbers are accepted")
    if options.threads > numba.config.NUMBA_NUM_THREADS:
        command.error(f"there are {numba.config.NUMBA_NUM_THREADS} threads")
    numba.set_num_threads(options.threads)
    console, progress = consoles()
    rows = rows_of(options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
    shown = Table(title=f"{options.size} x {options.size}, {options.threads} threads", title_justify="left")
    for heading in (
        "entries",
        "rank",
        "rows",
        "sweep, s",
        "ns an entry",
        "of reading",
        "of gathering",
        "sweeps",
        "total, s",
        "error",
    ):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            f"{row['entries']:,}",
            str(row["rank"]),
            row["solver"],
            f"{row['sweep']:.3f}",
            f"{1e9 * row['sweep'] / row['entries']:.1f}",
            f"{row['sweep'] / row['read']:.1f}",
            f"{row['sweep'] / row['gathered']:.1f}",
            str(row["sweeps"]),
            f"{row['seconds']:.2f}",
            f"{row['error']:.1e}",
        )
    console.print(shown)
    for solver in options.solver:
        for name, other in (("entries", "rank"), ("rank", "entries")):
            for fixed in getattr(options, other):
                mine = [row for row in rows if row["solver"] == solver and row[other] == fixed]
                if len(mine) > 1:
                    grown = exponent([row[name] for row in mine], [row["sweep"] for row in mine])
                    console.print(f"{solver}, {other} {fixed:,}: a sweep grows as {name} to the {grown:.2f}")
    path = measure.write_rows("completion", options, rows, options.threads)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
