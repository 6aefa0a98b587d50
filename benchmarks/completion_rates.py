"""Approximate row solves beside exact ones: by how much a sweep lowers the error, and how many it takes."""

import argparse
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

ROWS = (
    "exact",
    "sketch: countsketch",
    "sketch: srht",
    "sketch: leverage",
    "cg: 1",
    "cg: 2",
    "cg: 3",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.completion_rates", description=__doc__)
    command.add_argument("--size", type=int, default=2000, help="rows, and as many columns")
    command.add_argument("--rank", type=int, default=10)
    command.add_argument("--oversampling", type=float, default=5.0, help="entries per degree of freedom")
    command.add_argument("--condition", type=float, default=1.0)
    command.add_argument("--goal", type=float, default=1e-8, help="relative observed error")
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--acceleration", type=int, default=0)
    command.add_argument("--plot", type=Path, help="draw the errors by sweep here (.png)")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def method_of(name: str, options: argparse.Namespace) -> Any:
    """The method of a line of the table."""
    from learnsolve.completion import AltMin

    kind, _, detail = name.partition(": ")
    if kind == "cg":
        return AltMin("cg", int(detail), acceleration=options.acceleration)
    if kind == "sketch":
        return AltMin("sketch", sketch=detail, acceleration=options.acceleration)
    return AltMin("exact", acceleration=options.acceleration)


def rate(errors: Any) -> float:
    """What a sweep leaves of the error: the median of the last half, where convergence is linear."""
    if len(errors) < 2:
        return 0.0
    ratios = np.asarray(errors[1:]) / np.asarray(errors[:-1])
    return float(np.median(ratios[len(ratios) // 2 :]))


def rows_of(options: argparse.Namespace, report: Any) -> list[dict[str, Any]]:
    """Errors by sweep of all seeds, line by line."""
    import learnsolve
    from learnsolve.problems.low_rank import low_rank

    rows: dict[str, list[Any]] = {name: [] for name in ROWS}
    for seed in range(options.seeds):
        report(f"seed {seed}")
        problem = low_rank(
            (options.size, options.size),
            options.rank,
            oversampling=options.oversampling,
            condition=options.condition,
            seed=seed,
        )
        known = (problem.rows, problem.cols, problem.values)
        for name in ROWS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                res = learnsolve.complete(
                    known, options.rank, method_of(name, options), shape=problem.shape, rtol=options.goal
                )
            rows[name].append((res.residuals / res.residuals[0]).tolist())
    exact = statistics.median(len(errors) - 1 for errors in rows["exact"])
    return [
        {
            "rows": name,
            "errors": errors,
            "sweeps": statistics.median(len(each) - 1 for each in errors),
            "ratio": statistics.median(len(each) - 1 for each in errors) / exact,
            "rate": statistics.median(rate(each) for each in errors),
        }
        for name, errors in rows.items()
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Errors by sweep of the first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        axis.semilogy(row["errors"][0], label=row["rows"], marker=".")
    axis.set_xlabel("sweeps")
    axis.set_ylabel("observed error over the first")
    axis.legend()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if options.plot is not None and not options.plot.parent.is_dir():
        command.error(f"there is no folder {options.plot.parent}")
    console, progress = consoles()
    rows = rows_of(options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
    size = f"{options.size} x {options.size}, rank {options.rank}"
    shown = Table(
        title=f"{size}, oversampling {options.oversampling:g}, {options.seeds} seeds", title_justify="left"
    )
    for heading in ("rows", "sweeps", "of exact", "left by a sweep"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(row["rows"], f"{row['sweeps']:g}", f"{row['ratio']:.2f}", f"{row['rate']:.3f}")
    console.print(shown)
    if options.plot is not None:
        draw(rows, options.plot)
    path = measure.write_rows("completion_rates", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
