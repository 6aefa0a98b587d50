"""Structural recursion: models trained alike on successors and traversals, judged by the depth of calls.

Each row is a training of its own, of as many steps for all models. Right is an answer of which each word is.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles


@dataclass(frozen=True)
class Case:
    """A task, and what is asked of it.

    Attributes
    ----------
    task : str
        Of ``TASKS``.
    options : dict
        Of the task.
    length : int
        Of sequences.
    depths : tuple of (int, int)
        Depths that are judged, in groups from a first to a last.
    steps : int
        What it takes until softmax attention is right of what comes.
    """

    task: str
    options: dict[str, Any]
    length: int
    depths: tuple[tuple[int, int], ...]
    steps: int = 1000


# Sixteen digits; carries of eight or more are one in 500 examples.
CARRIES = ((0, 3), (4, 7), (8, 11), (12, 15))
CASES: dict[str, Case] = {
    "successor": Case("Successor", {}, 35, CARRIES),
    "reversed": Case("Successor", {"reverse": True}, 35, CARRIES),
    "oversampled": Case("Successor", {"oversampled": 0.2}, 35, CARRIES),
    "reversed-oversampled": Case("Successor", {"reverse": True, "oversampled": 0.2}, 35, CARRIES),
    # Trained to the depth 3; deeper trees have no more nodes.
    "traversal": Case("Traversal", {}, 40, ((1, 3), (4, 4), (5, 5), (6, 7)), 500),
    "reduction": Case(
        "Traversal", {"mode": "reduction", "parallel": True, "encoding": "polish", "nodes": 5}, 80,
        ((1, 3), (4, 4), (5, 5)), 500,
    ),
}  # fmt: skip
DEFAULT_CASES = ["successor", "oversampled", "traversal"]
MODELS = ["attention", "deltanet", "gated-linear-attention", "lstm"]
# Examples that were not trained on, as they come; and of each depth.
COMING, EACH = 1024, 64


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.structural_recursion", description=__doc__)
    command.add_argument("--case", nargs="+", choices=list(CASES), default=DEFAULT_CASES)
    command.add_argument("--models", nargs="+", default=MODELS, help="mixers; a,b takes them by turns")
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--steps", type=int, help="instead of each case's own")
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--width", type=int, default=64)
    command.add_argument("--layers", type=int, default=2)
    command.add_argument("--learning-rate", type=float, default=3e-3)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def run(name: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train, and say how right it is: of what comes, and at each depth."""
    from learnsolve.problems import structural_recursion
    from learnsolve.sequence.backbone import BackboneOptions
    from learnsolve.sequence.recursion import by_depth, mark
    from learnsolve.sequence.training import SequenceTraining, train
    from learnsolve.training import FitOptions

    case = CASES[name]
    task = getattr(structural_recursion, case.task)(**case.options)
    network = BackboneOptions(
        task.vocabulary, task.classes, options.width, options.layers, heads=4, mixers=tuple(model.split(",")),
        beta_max=2.0,
    )  # fmt: skip
    steps = options.steps or case.steps
    fit = FitOptions(steps, options.learning_rate, warmup=min(50, steps // 2), seed=seed)
    lengths = case.length, case.length
    began = time.process_time()
    trained, result = train(SequenceTraining(network, fit, options.batch, lengths, (case.length,), 1), task)
    seconds = time.process_time() - began
    coming = mark(trained, *task.judged.batch(COMING, case.length, (seed, 1)))
    depths = [depth for first, last in case.depths for depth in range(first, last + 1)]
    marks = by_depth(trained, task, depths, length=case.length, count=EACH, seed=seed)
    return {
        "case": name, "model": model, "seed": seed, "numbers": trained.parameters_count, "seconds": seconds,
        "loss": result.loss, "exact": coming.exact.float().mean().item(), "words": coming.right.mean().item(),
        "exact_at": {depth: one.exact.float().mean().item() for depth, one in marks.items()},
        # Where those that are wrong went wrong first, a word's number from zero on.
        "first_wrong_at": {
            depth: one.first[~one.exact].float().median().item()
            for depth, one in marks.items() if not bool(one.exact.all())
        },
    }  # fmt: skip


def groups(row: dict[str, Any], case: Case) -> list[str]:
    """Of each group of depths, what is right, and where the wrong ones went wrong first."""
    found = []
    for first, last in case.depths:
        depths = range(first, last + 1)
        share = sum(row["exact_at"][depth] for depth in depths) / len(depths)
        places = [row["first_wrong_at"][depth] for depth in depths if depth in row["first_wrong_at"]]
        found.append(f"{share:.3f}" + (f" ({sum(places) / len(places):.1f})" if places else ""))
    return found


def show(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Table:
    """The table of cases that are judged at the same depths."""
    depths = CASES[names[0]].depths
    what = "carry" if CASES[names[0]].task == "Successor" else "depth"
    title = f"right as it comes, and by {what} (where the wrong ones went wrong first)"
    shown = Table(title=title, title_justify="left")
    for heading in ("case", "model"):
        shown.add_column(heading)
    headings = [f"{what} {first}" + (f" to {last}" if last > first else "") for first, last in depths]
    for heading in ("seed", "numbers", "seconds", "right", *headings):
        shown.add_column(heading, justify="right")
    for row in rows:
        if row["case"] in names:
            shown.add_row(
                row["case"], row["model"], str(row["seed"]), str(row["numbers"]), f"{row['seconds']:.1f}",
                f"{row['exact']:.3f}", *groups(row, CASES[row["case"]]),
            )  # fmt: skip
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.sequence.backbone import MIXERS

    command = parser()
    options = command.parse_args(arguments)
    unknown = {mixer for model in options.models for mixer in model.split(",")} - set(MIXERS)
    if unknown:
        command.error(f"--models takes {', '.join(MIXERS)}, not {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows = []
    for name in options.case:
        for model in options.models:
            for seed in options.seeds:
                rows.append(run(name, model, seed, options))
                row = rows[-1]
                figures = "; ".join([f"{row['exact']:.3f} right", *groups(row, CASES[name])])
                told = f"{name}, {model}, seed {seed}, {row['seconds']:.0f} s: {figures}"
                progress.print(f"[dim]{told}[/]", highlight=False, soft_wrap=True)
    shared = {CASES[name].depths: [] for name in options.case}
    for name in options.case:
        shared[CASES[name].depths].append(name)
    for names in shared.values():
        console.print(show(rows, names))
    path = measure.write_rows("structural_recursion", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
