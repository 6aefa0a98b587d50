"""Completion where barely enough is known: how often each method finds the matrix, and how fast."""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.completion_peers import METHODS
from benchmarks.poisson import consoles

OWN = ("ours", "altmin", "irls", "gnmr", "scaledgd")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.completion_few", description=__doc__)
    command.add_argument("--size", type=int, default=1000, help="rows, and as many columns")
    command.add_argument("--rank", type=int, default=5)
    command.add_argument("--oversampling", nargs="+", type=float, default=[1.5, 2.0, 3.0])
    command.add_argument("--condition", nargs="+", type=float, default=[10.0, 1e3, 1e6])
    command.add_argument("--methods", nargs="+", choices=OWN, default=["ours", "irls"])
    command.add_argument("--instances", type=int, default=20)
    command.add_argument("--found", type=float, default=1e-4, help="relative error of a matrix that is found")
    command.add_argument("--goal", type=float, default=5e-10, help="five times the tolerance of a run")
    command.add_argument("--limit", type=float, default=60.0, help="seconds of a run")
    command.add_argument("--seed", type=int, default=2000, help="of the first instance")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def altmin(problem: Any, rank: int, options: argparse.Namespace) -> Any:
    """Alternating minimization alone."""
    import learnsolve

    res = learnsolve.complete(
        (problem.rows, problem.cols, problem.values),
        rank,
        "altmin",
        shape=problem.shape,
        rtol=options.goal / 5,
        timeout=options.limit,
        maxiter=2000,
    )
    return res.U, res.V


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    from learnsolve.problems.low_rank import low_rank

    options = parser().parse_args(arguments)
    solvers = {**METHODS, "altmin": altmin}
    console, progress = consoles()
    shape, rows = (options.size, options.size), []
    small = low_rank((60, 50), 2, oversampling=3, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.methods:
            solvers[name](small, 2, argparse.Namespace(**{**vars(options), "limit": 1.0}))
        for oversampling in options.oversampling:
            for condition in options.condition:
                progress.print(
                    f"[dim]oversampling {oversampling:g}, condition {condition:g}[/]", highlight=False
                )
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in options.methods}
                for seed in range(options.seed, options.seed + options.instances):
                    problem = low_rank(
                        shape, options.rank, oversampling=oversampling, condition=condition, seed=seed
                    )
                    for name in options.methods:
                        began = time.perf_counter()
                        answer = solvers[name](problem, options.rank, options)
                        found[name].append((problem.error(*answer), time.perf_counter() - began))
                rows += [
                    {
                        "oversampling": oversampling,
                        "condition": condition,
                        "method": name,
                        "found": sum(error < options.found for error, _ in runs),
                        "of": len(runs),
                        "seconds": statistics.median(seconds for _, seconds in runs),
                    }
                    for name, runs in found.items()
                ]
    shown = Table(title=f"{options.size} x {options.size}, rank {options.rank}", title_justify="left")
    for heading in ("oversampling", "condition", "method", "found", "seconds: median"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            f"{row['oversampling']:g}",
            f"{row['condition']:g}",
            row["method"],
            f"{row['found']} of {row['of']}",
            f"{row['seconds']:.2f}",
        )
    console.print(shown)
    path = measure.write_rows("completion_few", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
