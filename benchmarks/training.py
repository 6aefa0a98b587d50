"""What learned parts are trained with: schedules under budgets."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.budgets import LEARNERS, SHARES, budgets, tables
from benchmarks.poisson import consoles


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    command.add_argument("--learner", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    command.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="of the whole budget")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows: list[dict[str, Any]] = []
    for name in options.learner:
        found = []
        for row in budgets(LEARNERS[name], options.seeds, options.shares):
            found.append(row)
            told = f"{name}, {row['share']:.0%}, {row['schedule']}: {min(row['judged']):.4g} and more"
            progress.print(f"[dim]{told}[/]", highlight=False)
        for table in tables(found, name, LEARNERS[name].score):
            console.print(table)
        rows += [{"learner": name, **row} for row in found]
    path = measure.write_rows("training", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
