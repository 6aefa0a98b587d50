"""Learners of several kinds by the two-phase protocol: tuned on one stream, judged on another.

Every method of a kind gets equally many random settings on the first stream; the best of them are used,
unchanged, on the second, whose problems are of another family, size or anatomy and are made only then.
"""

import argparse
import json
import math
import os
import sys
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks import measure
from benchmarks.poisson import consoles

if TYPE_CHECKING:
    from benchmarks.contenders import Kind
    from learnsolve.training.protocol import TwoPhase

KINDS = ("relaxation", "preconditioner", "continual", "mri", "completion")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.protocol", description=__doc__)
    command.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    command.add_argument("--trials", type=int, default=20, help="random settings of each method")
    command.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of problems and methods"
    )
    command.add_argument("--seed", type=int, default=0, help="of the settings")
    command.add_argument(
        "--share", type=float, default=1.0, help="of the usual systems, scans and steps of training"
    )
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def kind_of(name: str) -> "Kind":
    """What is compared."""
    found: Kind = import_module(f"benchmarks.contenders_{name}").KIND
    return found


def level(found: "TwoPhase", phase: Literal["tuned", "evaluated"], paired: bool) -> tuple[str, list[str]]:
    """The method that is first in a phase, and those that are not told from it.

    Parameters
    ----------
    found : TwoPhase
    phase : {"tuned", "evaluated"}
    paired : bool
        By the interval of differences of the same seeds, which have the same problems; otherwise by whether
        both intervals overlap.

    Returns
    -------
    str, list of str
        In the order of their places.
    """
    from learnsolve.training.protocol import interval

    scores = {row.method: getattr(row, phase) for row in found.rows}
    places = found.ranks(phase)
    first, *others = sorted(places, key=lambda method: places[method])

    def together(other: str) -> bool:
        apart = np.subtract(scores[other], scores[first]).tolist()
        width = interval(apart) if paired else interval(scores[other]) + interval(scores[first])
        return bool(abs(np.mean(apart)) <= width)

    return first, [other for other in others if together(other)]


def conclusion(found: "TwoPhase") -> list[str]:
    """What the best tuned scores would have said, and what the second phase says; a line each."""
    lines = []
    phases: tuple[tuple[str, Literal["tuned", "evaluated"]], ...] = (
        ("By the best tuned score", "tuned"),
        ("By the second phase", "evaluated"),
    )
    for words, phase in phases:
        first, overlapping = level(found, phase, paired=False)
        _, same = level(found, phase, paired=True)
        lines.append(
            f"{words} {first} is first of {len(found.rows)}. Intervals that overlap with its own: "
            f"{_list(overlapping)}. By differences of the same seeds not told from it: {_list(same)}."
        )
    before, after = found.ranks("tuned"), found.ranks("evaluated")
    moved = [f"{name} {before[name]} to {place}" for name, place in after.items() if before[name] != place]
    return [*lines, f"Places that changed: {_list(moved)}."]


def _list(names: list[str]) -> str:
    return "; ".join(names) or "none"


def rows_of(name: str, found: "TwoPhase") -> list[dict[str, Any]]:
    """Both phases of each method as JSON can hold them, every trial included."""
    before, after = found.ranks("tuned"), found.ranks("evaluated")
    rows = json.loads(found.to_json())["rows"]
    return [
        {
            "kind": name,
            "better": found.better,
            "places": [before[row["method"]], after[row["method"]]],
            **row,
        }
        for row in rows
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import numba
    import torch

    from learnsolve.result import ConvergenceWarning
    from learnsolve.training.protocol import two_phase_evaluate

    command = parser()
    options = command.parse_args(arguments)
    if options.trials < 1:
        command.error(f"--trials is {options.trials}; at least 1 is accepted")
    if not (math.isfinite(options.share) and options.share > 0):
        command.error(f"--share is {options.share}; a positive number is accepted")
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        command.error(f"--seeds are {options.seeds}; different numbers of at least 0 are accepted")
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows: list[dict[str, Any]] = []
    for name in options.kind:
        kind = kind_of(name)

        def report(method: str, settings: dict[str, Any], score: float, name: str = name) -> None:
            progress.print(f"[dim]{name}, {method}: {score:.4g} with {settings}[/]", highlight=False)

        with warnings.catch_warnings():
            # What does not converge has a bad score, and settings are tried at random.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = two_phase_evaluate(
                kind.contenders(options.share),
                tune=kind.data("tune", options.seeds, options.share),
                evaluate=partial(kind.data, "evaluate", options.seeds, options.share),
                trials=options.trials,
                seeds=options.seeds,
                better=kind.better,
                seed=options.seed,
                callback=report,
            )
        console.print(found.table(f"{name}: {kind.score}"))
        for line in conclusion(found):
            console.print(line, highlight=False, soft_wrap=True)
        rows += rows_of(name, found)
    path = measure.write_rows("protocol", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
