"""Set-up and solve of learnsolve against the number of unknowns, with the fitted exponent."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.peers import MULTIGRID
from benchmarks.poisson import CASES, consoles, reached


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    command.add_argument("--case", nargs="+", choices=CASES, default=["box", "obstacles"])
    command.add_argument(
        "--shapes", nargs="+", type=int, default=[64, 128, 256], help="cells along each axis"
    )
    command.add_argument("--dimensions", type=int, choices=[2, 3], default=3)
    command.add_argument("--rhs", choices=["noise", "ones", "bump"], default="noise")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--rtol", type=float, default=1e-6)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--timeout", type=float, default=600.0, help="seconds for each run")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def exponent(unknowns: list[int], seconds: list[float]) -> float | None:
    """The slope of log time on log unknowns by least squares; None for fewer than two sizes.

    Examples
    --------
    >>> exponent([10, 100], [1.0, 10.0])
    1.0
    """
    import numpy as np

    if len(set(unknowns)) < 2:
        return None
    return round(float(np.polyfit(np.log(unknowns), np.log(seconds), 1)[0]), 6)


def sizes(case: str, options: argparse.Namespace, report: Any) -> dict[str, Any]:
    """The rows of one case, from small to large, and the exponents."""
    common = {name: getattr(options, name) for name in ("rhs", "seed", "rtol", "threads")}
    specs = {
        str(n): {**common, "solver": MULTIGRID, "case": case, "shape": [n] * options.dimensions}
        for n in sorted(set(options.shapes))
    }
    runs = measure.interleaved(
        specs,
        repeats=options.repeats,
        timeout=options.timeout,
        report=lambda line: report(f"[dim]{case}: {line} cells along each axis[/]"),
    )
    rows: list[dict[str, Any]] = []
    for name, spec in specs.items():
        good = [run for run in runs[name] if "word" not in run]
        word = next((run["word"] for run in runs[name] if "word" in run), "")
        row: dict[str, Any] = {"shape": spec["shape"], "word": word, "runs": runs[name]}
        if good:
            row |= {field: measure.median(good, field) for field in ("setup", "solve", "total", "memory")}
            row |= {field: good[0][field] for field in ("unknowns", "iterations", "residual")}
        rows.append(row)
    good_rows = [row for row in rows if "total" in row]
    unknowns = [row["unknowns"] for row in good_rows]
    exponents = {
        field: exponent(unknowns, [row[field] for row in good_rows]) for field in ("total", "setup", "solve")
    }
    return {"case": case, "rows": rows, "exponents": exponents}


def table(found: dict[str, Any], options: argparse.Namespace) -> Table:
    """The rows of a case for people."""
    fitted = found["exponents"]["total"]
    shown = Table(
        title=f"{found['case']}: rtol {options.rtol:g}, {options.threads} threads; time ~ unknowns^"
        + ("?" if fitted is None else f"{fitted:.3f}"),
        title_justify="left",
    )
    for heading in ("shape", "unknowns", "set-up s", "solve s", "total s", "ns/unknown"):
        shown.add_column(heading, justify="right")
    for heading in ("iterations", "true |r|/|b|", "peak MiB", "bytes/unknown"):
        shown.add_column(heading, justify="right")
    for row in found["rows"]:
        shape = "x".join(map(str, row["shape"]))
        if "total" not in row:
            shown.add_row(shape, f"[dim]{row['word']}[/]")
            continue
        residual = "not finite" if row["residual"] is None else f"{row['residual']:.1e}"
        shown.add_row(
            shape,
            f"{row['unknowns']:,}",
            *(f"{row[field]:.3f}" for field in ("setup", "solve", "total")),
            f"{row['total'] / row['unknowns'] * 1e9:.0f}",
            str(row["iterations"]),
            residual if reached(row, options.rtol) else f"[red]{residual}[/]",
            f"{row['memory'] / 2**20:.0f}",
            f"{row['memory'] / row['unknowns']:.0f}",
        )
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if a tolerance was missed."""
    command = parser()
    options = command.parse_args(arguments)
    if min(*options.shapes, options.repeats, options.threads) < 1:
        command.error("shapes, repeats and threads are positive")
    console, progress = consoles()
    record: dict[str, Any] = {"conditions": measure.conditions(options.threads)}
    record["options"] = {**vars(options), "json": str(options.json)}
    record["cases"] = []
    for case in options.case:
        found = sizes(case, options, lambda line: progress.print(line, highlight=False))
        record["cases"].append(found)
        console.print(table(found, options))
        path = measure.write("scaling", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    missed = any(not reached(row, options.rtol) for found in record["cases"] for row in found["rows"])
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
