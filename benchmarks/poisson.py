"""learnsolve against its peers on Poisson problems and on matrices from files."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.peers import AUTO, GROUPS, MULTIGRID, SOLVERS

CASES = ("box", "obstacles", "free_surface", "maze", "jump")
ALL = [
    ("box", (1024, 1024)),
    *((case, (n, n, n)) for n in (64, 128) for case in ("box", "obstacles", "maze", "jump")),
    ("free_surface", (128, 128, 128)),
]
COUNTED = """\
Each run is a process of its own: it warms up on a small problem (loading compiled kernels; not timed), builds
the problem, takes the memory baseline, then sets up and solves once. Figures are medians of the interleaved
runs. Peers are given the assembled matrix; its assembly is neither timed nor counted as memory.
Memory is the peak of resident memory during set-up and solve above the baseline."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.poisson", description=__doc__)
    command.add_argument("--case", nargs="+", choices=[*CASES, "all"], default=["box"])
    command.add_argument("--shape", nargs="+", type=int, help="cells along 2 or 3 axes (default: 64 64 64)")
    command.add_argument("--matrix", type=Path, help="a Matrix Market file instead of a case")
    command.add_argument("--against", nargs="*", choices=GROUPS, default=[], help="peers")
    command.add_argument("--rhs", choices=["noise", "ones", "bump"], default="noise")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--rtol", type=float, default=1e-6)
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--timeout", type=float, default=600.0, help="seconds for each run of a solver")
    command.add_argument("--slow-after", type=float, default=20.0, help="seconds that make a solver slow")
    command.add_argument("--slow-repeats", type=int, default=1, help="repeats of a slow solver")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def problems(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The specs of the problems that the command line asks for."""
    common = {name: getattr(options, name) for name in ("rhs", "seed", "rtol", "threads")}
    if options.matrix is not None:
        return [{**common, "case": "matrix", "shape": [], "matrix": str(options.matrix.resolve())}]
    if "all" in options.case:
        return [{**common, "case": case, "shape": list(shape)} for case, shape in ALL]
    shape = options.shape or [64, 64, 64]
    return [{**common, "case": case, "shape": shape} for case in options.case]


def compare(problem: dict[str, Any], options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All rows of one problem: the runs of each solver, or a word on why there are none."""
    wanted = {"learnsolve", *options.against}
    chosen = {name: solver for name, solver in SOLVERS.items() if solver.group in wanted}
    words = {name: solver.unsuited(problem["case"]) for name, solver in chosen.items()}
    runs = measure.interleaved(
        {name: {**problem, "solver": name} for name in chosen if not words[name]},
        repeats=options.repeats,
        timeout=options.timeout,
        slow_after=options.slow_after,
        slow_repeats=options.slow_repeats,
        keep=lambda name, done: name != AUTO or not _same_as_ours(done),
        report=lambda line: console.print(f"[dim]{title(problem)}: {line}[/]", highlight=False),
    )
    if _same_as_ours(runs):
        del runs[AUTO], chosen[AUTO]
    ours = MULTIGRID if runs.get(MULTIGRID) else AUTO
    rows = [_row(name, words[name], runs.get(name, []), runs[ours]) for name in chosen]
    return {"problem": problem, "ratios_to": ours, "rows": rows}


def _same_as_ours(runs: dict[str, list[measure.Run]]) -> bool:
    """Whether ``"auto"`` did what the row above it does."""
    first, auto = runs.get(MULTIGRID), runs.get(AUTO)
    return bool(first and auto) and first[0].get("method") == auto[0].get("method") is not None


def _row(name: str, word: str, runs: list[measure.Run], ours: list[measure.Run]) -> dict[str, Any]:
    good = [run for run in runs if "word" not in run]
    bad = [run["word"] for run in runs if "word" in run]
    row: dict[str, Any] = {"solver": name, "word": word or (bad[0] if bad else ""), "runs": runs}
    if not good:
        return row
    row |= {field: measure.median(good, field) for field in ("setup", "solve", "total", "memory")}
    row |= {field: good[0][field] for field in ("method", "iterations", "unknowns")}
    residuals = [run["residual"] for run in good]
    row["residual"] = None if None in residuals else max(residuals)
    for field in ("total", "solve"):
        base = measure.median(ours, field)
        row[f"{field}_ratio"] = row[field] / base if base else None
    return row


def reached(row: dict[str, Any], rtol: float) -> bool:
    """Whether all runs of a row have the tolerance; what rounding adds to a residual is let pass."""
    residual = row.get("residual")
    return residual is not None and residual <= 1.001 * rtol


def title(problem: dict[str, Any]) -> str:
    """A problem in a few words."""
    if problem["case"] == "matrix":
        return Path(problem["matrix"]).name
    return f"{problem['case']} {'x'.join(map(str, problem['shape']))}"


def table(found: dict[str, Any]) -> Table:
    """The rows of `compare` for people."""
    problem = found["problem"]
    unknowns = next((row["unknowns"] for row in found["rows"] if "unknowns" in row), None)
    size = f", {unknowns:,} unknowns" if unknowns else ""
    terms = f"rtol {problem['rtol']:g}, {problem['rhs']}, {problem['threads']} threads"
    shown = Table(
        title=f"{title(problem)}{size}: {terms}",
        title_justify="left",
    )
    shown.add_column("solver", no_wrap=True)
    shown.add_column("method")
    for heading in ("set-up s", "solve s", "total s", "iterations", "true |r|/|b|", "peak MiB"):
        shown.add_column(heading, justify="right")
    for heading in ("total ÷ ours", "solve ÷ ours", "runs: total s"):
        shown.add_column(heading, justify="right")
    for row in found["rows"]:
        if "total" not in row:
            shown.add_row(row["solver"], f"[dim]{row['word']}[/]")
            continue
        residual = "not finite" if row["residual"] is None else f"{row['residual']:.1e}"
        shown.add_row(
            row["solver"],
            row["method"] + (f" ({row['word']})" if row["word"] else ""),
            *(f"{row[field]:.3f}" for field in ("setup", "solve", "total")),
            "direct" if row["iterations"] is None else str(row["iterations"]),
            residual if reached(row, problem["rtol"]) else f"[red]{residual}[/]",
            f"{row['memory'] / 2**20:.0f}",
            *(f"{row[f]:.2f}" if row[f] else "" for f in ("total_ratio", "solve_ratio")),
            _range([run["total"] for run in row["runs"] if "word" not in run]),
        )
    return shown


def _range(totals: list[float]) -> str:
    return f"{len(totals)}: {min(totals):.2g} to {max(totals):.2g}"


def consoles() -> tuple[Console, Console]:
    """Where tables go, and where progress goes; files get wide lines."""
    out, progress = Console(), Console(stderr=True)
    return (out if out.is_terminal else Console(width=180)), progress


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if learnsolve missed its tolerance anywhere."""
    command = parser()
    options = command.parse_args(arguments)
    if options.shape and (len(options.shape) not in (2, 3) or min(options.shape) < 1):
        command.error("--shape takes 2 or 3 positive numbers")
    if options.shape and "all" in options.case:
        command.error("--case all has shapes of its own")
    if min(options.repeats, options.threads, options.slow_repeats) < 1:
        command.error("--repeats, --slow-repeats and --threads take positive numbers")
    if options.matrix is not None and not options.matrix.is_file():
        command.error(f"there is no file {options.matrix}")
    console, progress = consoles()
    record: dict[str, Any] = {"conditions": measure.conditions(options.threads), "counted": COUNTED}
    record["options"] = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    record["problems"] = []
    missed = False
    for problem in problems(options):
        found = compare(problem, options, progress)
        record["problems"].append(found)
        console.print(table(found))
        own = next(row for row in found["rows"] if row["solver"] == found["ratios_to"])
        missed |= not reached(own, options.rtol)
        path = measure.write("poisson", options.json, record)
    console.print(COUNTED, style="dim", highlight=False)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
