"""One task after the other, by every method: a preconditioner on families of equations, and permuted digits.

Fine-tuning and joint training are always among the rows, and for families the inverse of the diagonal, which
learns nothing. The hypernetworks and masks are told which task a problem is of, when they learn and when they
are judged; the other methods are not.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

if TYPE_CHECKING:
    from torch import nn

    from learnsolve.training.continual import Method, TaskStream
    from learnsolve.training.stream_scores import StreamScores

METHODS = ("ewc", "replay", "hypernetwork", "hypernetwork-mlp", "masks")
# What the scores of each stream are.
STREAMS = {"families": "iterations to 1e-6", "digits": "accuracy"}
# Defaults of each stream. A strength has to make up for the size of the squared gradients.
RATES = {"families": 1e-2, "digits": 3e-3}
STRENGTHS = {"families": 1e7, "digits": 100.0}
# The network of the families halves a square so often, and the perceptron of the digits is so wide.
HALVINGS, WIDTH = 3, 40


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.continual", description=__doc__)
    command.add_argument("--stream", nargs="+", choices=list(STREAMS), default=list(STREAMS))
    command.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    command.add_argument("--tasks", type=int, default=5, help="of each stream")
    command.add_argument("--steps", type=int, default=300, help="of each task")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--learning-rate", type=float, help=f"default: {_each(RATES)}")
    command.add_argument("--batch", type=int, default=16, help="problems or images of a step")
    command.add_argument("--strength", type=float, help=f"of EWC; default: {_each(STRENGTHS)}")
    command.add_argument("--memory", type=int, default=32, help="batches that replay keeps")
    command.add_argument("--beta", type=float, default=1.0, help="of hypernetworks")
    command.add_argument("--density", type=float, default=0.3, help="of each task's mask")
    command.add_argument("--cells", type=int, default=32, help="along each side of a square")
    command.add_argument("--channels", type=int, default=8, help="of the network of the families")
    command.add_argument("--held-out", type=int, default=16, help="problems that a family is judged by")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def _each(defaults: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} for {name}" for name, value in defaults.items())


def settings_of(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Learning rate and strength of EWC: from the command line, or the stream's own."""
    rate, strength = options.learning_rate, options.strength
    return {
        "learning_rate": RATES[name] if rate is None else rate,
        "strength": STRENGTHS[name] if strength is None else strength,
    }


def stream_of(name: str, options: argparse.Namespace) -> "TaskStream":
    """The tasks of a stream, the same for every seed."""
    from learnsolve.training.continual import TaskStream

    if name == "digits":
        from learnsolve.problems.digit_streams import digit_loss, permuted_digits

        return TaskStream(permuted_digits(options.tasks, batch=options.batch), digit_loss)
    from benchmarks.elliptic_preconditioner import FamilyTask, residual_left
    from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES

    tasks = [
        FamilyTask(family, options.cells, options.batch, options.held_out)
        for family in list(ELLIPTIC_FAMILIES.values())[: options.tasks]
    ]
    return TaskStream(tasks, residual_left, better="less")


def network_of(name: str, seed: int, options: argparse.Namespace) -> "nn.Module":
    """A network of random weights for a stream."""
    import torch
    from torch import nn

    from benchmarks.elliptic_preconditioner import MultiscaleNetwork
    from learnsolve.training.seeding import seed_of, seeded

    with seeded(seed_of(seed, f"network of {name}", 0), torch.device("cpu")):
        if name == "digits":
            return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
        return MultiscaleNetwork(options.channels, HALVINGS + 1)


def methods_of(strength: float, options: argparse.Namespace) -> dict[str, "Method"]:
    """The methods that are asked for, with their settings."""
    from learnsolve.training.continual_methods import EWC, Replay, TaskHypernetwork
    from learnsolve.training.isolated_masks import IsolatedMasks

    known: dict[str, Method] = {
        "ewc": EWC(strength),
        "replay": Replay(options.memory),
        "hypernetwork": TaskHypernetwork(options.beta),
        "hypernetwork-mlp": TaskHypernetwork(options.beta, generator="mlp"),
        "masks": IsolatedMasks(options.density, every=max(options.steps // 10, 1)),
    }
    return {name: known[name] for name in options.methods}


def run(
    name: str, stream: "TaskStream", seed: int, options: argparse.Namespace
) -> dict[str, tuple["StreamScores", float]]:
    """Scores of each method on a stream, all from one network, and its elapsed seconds of training."""
    from benchmarks.elliptic_preconditioner import FamilyTask
    from learnsolve.training import FitOptions
    from learnsolve.training.continual_methods import compare_methods
    from learnsolve.training.stream_scores import StreamScores

    settings = settings_of(name, options)
    fit = FitOptions(options.steps, settings["learning_rate"], seed=seed)
    methods = methods_of(settings["strength"], options)
    results = compare_methods(network_of(name, seed, options), stream, methods, fit)
    found = {
        method: (result.scores, sum(one.seconds for one in result.fits)) for method, result in results.items()
    }
    plain = np.array([task.plain for task in stream.tasks if isinstance(task, FamilyTask)])
    if not len(plain):
        return found
    scores = StreamScores(stream.names, np.tile(plain, (len(plain), 1)), plain, stream.better)
    return {"diagonal": (scores, 0.0), **found}


def told(scores: "StreamScores") -> dict[str, Any]:
    """Scores as JSON can hold them."""
    from learnsolve.training.run_folder import finite

    names = "average", "average_incremental", "backward_transfer", "forward_transfer"
    return {
        "tasks": list(scores.names), "better": scores.better, "matrix": scores.matrix.tolist(),
        "untrained": scores.untrained.tolist(), **{name: finite(getattr(scores, name)) for name in names},
    }  # fmt: skip


def _spread(values: Sequence[float], form: str = ".4g") -> str:
    """The mean, and of several values half the width of its 95 % interval."""
    from learnsolve.training.protocol import interval

    mean = format(float(np.mean(values)), form)
    return f"{mean} ± {interval(values):.2g}" if len(values) > 1 else mean


def _table(title: str, headings: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("method")
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def means(found: Mapping[str, Sequence["StreamScores"]], title: str) -> Table:
    """Over seeds: scores after the last task, and what is read off the matrices."""
    one = next(iter(found.values()))[0]
    headings = *one.names, "ACC", "BWT", "FWT", "incremental"
    shown = _table(f"{title}: means after the last task; {one.better} is better", headings)
    for method, its in found.items():
        last = [_spread([scores.matrix[-1, task] for scores in its]) for task in range(len(one.names))]
        read = [
            _spread([getattr(scores, name) for scores in its], form)
            for name, form in (
                ("average", ".4g"),
                ("backward_transfer", "+.4g"),
                ("forward_transfer", "+.4g"),
                ("average_incremental", ".4g"),
            )
        ]
        shown.add_row(method, *last, *read)
    return shown


def first_task(found: Mapping[str, Sequence["StreamScores"]], title: str) -> Table:
    """What became of the task that was learned first; the change is the mean of those of the seeds."""
    one = next(iter(found.values()))[0]
    headings = "right after", "after the last", "change"
    shown = _table(f"{title}: {one.names[0]}, the first task; {one.better} is better", headings)
    for method, its in found.items():
        after, last = ([float(scores.matrix[place, 0]) for scores in its] for place in (0, -1))
        changes = [
            100 * (end / begin - 1) if begin else math.nan for begin, end in zip(after, last, strict=True)
        ]
        shown.add_row(method, _spread(after), _spread(last), f"{_spread(changes, '+.1f')} %")
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
    from learnsolve.training.stream_scores import score_table

    command = parser()
    options = command.parse_args(arguments)
    if "families" in options.stream and options.tasks > len(ELLIPTIC_FAMILIES):
        command.error(f"--tasks takes at most {len(ELLIPTIC_FAMILIES)} families")
    if options.cells < 1 or options.cells % 2**HALVINGS:
        command.error(f"--cells takes multiples of {2**HALVINGS}")
    if min(options.tasks, options.steps, options.batch, options.channels, options.held_out) < 1:
        command.error("--tasks, --steps, --batch, --channels and --held-out take positive numbers")
    torch.set_num_threads(1)
    measure.keep_memory()
    console, _ = consoles()
    rows: list[dict[str, Any]] = []
    for name in options.stream:
        stream = stream_of(name, options)
        found: dict[str, list[StreamScores]] = {}
        title = f"{name}, {STREAMS[name]}"
        for seed in options.seeds:
            results = run(name, stream, seed, options)
            for method, (scores, seconds) in results.items():
                found.setdefault(method, []).append(scores)
                about = {"stream": name, "seed": seed, "method": method, "seconds": seconds}
                rows.append({**about, **settings_of(name, options), **told(scores)})
            console.print(score_table({one: its[-1] for one, its in found.items()}, f"{title}, seed {seed}"))
        if len(options.seeds) > 1:
            console.print(means(found, f"{title}, {len(options.seeds)} seeds"))
        console.print(first_task(found, title))
    path = measure.write_rows("continual", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
