"""Networks of few weights: what pruning does to accuracy and dead units, and what masks of tasks learn.

`pruning` prunes a perceptron that tells digits, in cycles with rewinding, with and without
activate-while-pruning, from the same weights and with the same batches. `growth` learns two digits after the
other two, with a mask for each task. All is judged by images of which nothing is learned.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles
from benchmarks.sparse_digits import HIDDEN, SPARSE, learn_digits, perceptron, prune_digits

if TYPE_CHECKING:
    from learnsolve.training import FitOptions

# Rate and weight decay of each optimizer of a pruned network: SGD's are the published ones, and both rates
# the best of three with --validate and other seeds.
PRUNING = {"sgd": (0.1, 5e-4), "adam": (0.01, 0.0)}
STEPS = {"pruning": 180, "growth": 150}
GROWTH_RATE = 3e-3
STATIC = "static"
MEASURES = "accuracy", "dynamic", "static"

Rows = Sequence[Mapping[str, Any]]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.sparsity", description=__doc__)
    command.add_argument("--what", nargs="+", choices=list(STEPS), default=list(STEPS))
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    command.add_argument("--steps", type=int, help="of each training; default: 180 and 150")
    one = command.add_argument_group("pruning")
    one.add_argument("--optimizer", nargs="+", choices=list(PRUNING), default=list(PRUNING))
    one.add_argument("--learning-rate", type=float, help="default: 0.1 for SGD, 0.01 for Adam")
    one.add_argument("--cycles", type=int, default=15)
    one.add_argument("--share", type=float, default=0.2, help="of what is left, pruned in each cycle")
    one.add_argument("--activate", type=float, nargs="+", default=[0.02, 0.05], help="parts of the share")
    one.add_argument("--batch", type=int, default=64)
    one.add_argument("--validate", action="store_true", help="judge by a part of what is else learned from")
    other = command.add_argument_group("growth")
    other.add_argument("--density", type=float, nargs="+", default=[0.5, 0.2, 0.05, 0.03])
    distributions, growths = ("uniform", "erk"), (STATIC, "random", "unfired", "gradient", "momentum")
    other.add_argument("--distribution", nargs="+", choices=distributions, default=list(distributions))
    other.add_argument("--growth", nargs="+", choices=growths, default=list(growths))
    other.add_argument("--every", type=int, default=10, help="steps between two changes of a mask")
    other.add_argument(
        "--own-heads", action="store_true", help="no mask on the last layer: one for each task"
    )
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def check(command: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what could not be run, before anything is."""
    from learnsolve.training.sparse_training import weights_per_layer

    if min(options.cycles, options.batch, options.every) < 1:
        command.error("--cycles, --batch and --every take positive numbers")
    if options.validate and "growth" in options.what:
        command.error("--validate is for --what pruning alone")
    if not 0 < options.share < 1 or not all(0 < part < options.share for part in options.activate):
        command.error("--share takes a number between 0 and 1, and --activate parts of it")
    shapes = {
        name: weight.shape
        for name, weight in perceptron(SPARSE, 0).named_parameters()
        if (name in HIDDEN if options.own_heads else weight.ndim > 1)
    }
    try:
        for what, optimizer in product(options.what, options.optimizer):
            training_of(what, optimizer, options)
        for density, distribution in product(options.density, options.distribution):
            weights_per_layer(shapes, density, distribution)
    except ValueError as error:
        command.error(str(error))


def training_of(what: str, optimizer: str, options: argparse.Namespace) -> "FitOptions":
    """How a network is trained, but for the seed."""
    from learnsolve.training import FitOptions

    steps = STEPS[what] if options.steps is None else options.steps
    if what == "growth":
        return FitOptions(steps, GROWTH_RATE)
    rate, decay = PRUNING[optimizer]
    return FitOptions(
        steps, rate if options.learning_rate is None else options.learning_rate, "step", warmup=steps // 10,
        optimizer=optimizer, weight_decay=decay, clip=0,
    )  # fmt: skip


def pruning(options: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row of each training, by optimizer, seed and part that activate-while-pruning takes."""
    rows: list[dict[str, Any]] = []
    for optimizer, seed, activate in product(options.optimizer, options.seeds, (0.0, *options.activate)):
        training = replace(training_of("pruning", optimizer, options), seed=seed)
        cycles = prune_digits(
            training, cycles=options.cycles, share=options.share, activate=activate, batch=options.batch,
            validate=options.validate,
        )  # fmt: skip
        about = {"what": "pruning", "optimizer": optimizer, "activate": activate, "seed": seed}
        rows += [{**about, "cycle": number, **cycle} for number, cycle in enumerate(cycles)]
        report(f"pruning, {optimizer}, {activate:g}, seed {seed}: {cycles[-1]['accuracy']:.1%} at the end")
    return rows


def growth(options: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row of each stream, by density, distribution, growth and seed."""
    rows: list[dict[str, Any]] = []
    training = training_of("growth", "adam", options)
    kinds = product(options.density, options.distribution, options.growth, options.seeds)
    for density, distribution, grown, seed in kinds:
        found = learn_digits(
            replace(training, seed=seed), density=density, distribution=distribution,
            growth=None if grown == STATIC else grown, every=options.every, own_heads=options.own_heads,
        )  # fmt: skip
        about = {"density": density, "distribution": distribution, "growth": grown, "seed": seed}
        rows.append({"what": "growth", **about, **found})
        report(f"growth, {density:g}, {distribution}, {grown}, seed {seed}: {found['accuracy']:.1%}")
    return rows


def percent(values: "Sequence[float] | np.ndarray", form: str = ".1f") -> str:
    """The mean in percent, and of several values half the width of its 95 % interval."""
    from learnsolve.training.protocol import interval

    scaled = 100 * np.array(values)
    mean = format(float(scaled.mean()), form)
    return f"{mean} ± {interval(scaled.tolist()):.1f}" if len(values) > 1 else mean


def _of(rows: Rows, **wanted: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _column(rows: Rows, name: str, **wanted: Any) -> "np.ndarray":
    """A number of each seed, in the order of the seeds."""
    return np.array([row[name] for row in sorted(_of(rows, **wanted), key=lambda row: row["seed"])])


def _values(rows: Rows, name: str) -> list[Any]:
    """What there is, in its order."""
    return list(dict.fromkeys(row[name] for row in rows))


def _table(title: str, headings: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def pruning_tables(rows: Rows) -> list[Table]:
    """Of each optimizer and part: every density without, with, and the paired difference."""
    tables = []
    parts = [part for part in _values(rows, "activate") if part]
    for optimizer, part in product(_values(rows, "optimizer"), parts):
        shown = _table(
            f"pruning, {optimizer}, of which activate-while-pruning {part:.0%}: held-out accuracy and dead "
            f"units in percent, without it, with it, and the difference; {len(_values(rows, 'seed'))} seeds",
            ["left, %", *(heading for name in MEASURES for heading in (name, "with", "difference"))],
        )
        cycles = _values(rows, "cycle")
        both: dict[str, list[Any]] = {name: [] for name in MEASURES}
        for cycle in cycles:
            wanted = {"optimizer": optimizer, "cycle": cycle}
            cells = [f"{100 * _column(rows, 'density', activate=0.0, **wanted).mean():.1f}"]
            for name in MEASURES:
                pair = [_column(rows, name, activate=one, **wanted) for one in (0.0, part)]
                both[name].append(pair)
                cells += _pair(*pair)
            shown.add_row(*cells)
        # Before the first pruning both are the same.
        means = [_pair(*np.mean(both[name][1:], axis=0)) for name in MEASURES]
        shown.add_section()
        shown.add_row("mean of all pruned", *(cell for cells in means for cell in cells))
        tables.append(shown)
    return tables


def _pair(without: "np.ndarray", given: "np.ndarray") -> list[str]:
    return [percent(without), percent(given), percent(given - without, "+.1f")]


def growth_table(rows: Rows) -> Table:
    """Every density, distribution and growth over seeds."""
    shown = _table(
        f"growth: accuracies in percent after five tasks; {len(_values(rows, 'seed'))} seeds",
        ["density", "shared out", "growth", "mean of tasks", "std", "last task", "weights used, %", "BWT"],
    )
    kinds = [_values(rows, name) for name in ("density", "distribution", "growth")]
    for density, distribution, grown in product(*kinds):
        kind = {"density": density, "distribution": distribution, "growth": grown}
        accuracy, last, used, forgotten = (
            _column(rows, name, **kind) for name in ("accuracy", "last", "used", "backward_transfer")
        )
        std = f"{100 * accuracy.std(ddof=1):.1f}" if len(accuracy) > 1 else ""
        # The worst of the seeds, for a mean could hide one that is not zero.
        worst = float(forgotten[np.abs(forgotten).argmax()])
        shown.add_row(
            f"{density:g}", distribution, grown, percent(accuracy), std, percent(last), percent(used),
            f"{worst:g}",
        )  # fmt: skip
    return shown


def paired_tables(rows: Rows) -> list[Table]:
    """Differences of accuracies between runs of one seed: ERK less uniform, and growths less static masks."""
    densities, distributions, growths = (
        _values(rows, name) for name in ("density", "distribution", "growth")
    )
    tables = []
    if {"uniform", "erk"} <= set(distributions):
        shown = _table("ERK less uniform, in points of accuracy, paired by seeds", ["density", *growths])
        for density in densities:
            cells = [
                _column(rows, "accuracy", density=density, distribution="erk", growth=grown)
                - _column(rows, "accuracy", density=density, distribution="uniform", growth=grown)
                for grown in growths
            ]
            shown.add_row(f"{density:g}", *(percent(cell, "+.1f") for cell in cells))
        tables.append(shown)
    others = [grown for grown in growths if grown != STATIC]
    if STATIC in growths and others:
        headings = ["density", "shared out", *others]
        shown = _table("growth less static masks, in points of accuracy, paired by seeds", headings)
        for density, distribution in product(densities, distributions):
            kind = {"density": density, "distribution": distribution}
            fixed = _column(rows, "accuracy", growth=STATIC, **kind)
            cells = [_column(rows, "accuracy", growth=grown, **kind) - fixed for grown in others]
            shown.add_row(f"{density:g}", distribution, *(percent(cell, "+.1f") for cell in cells))
        tables.append(shown)
    return tables


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    command = parser()
    options = command.parse_args(arguments)
    check(command, options)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows: list[dict[str, Any]] = []

    def report(line: str) -> None:
        progress.print(f"[dim]{line}[/]", highlight=False)

    if "pruning" in options.what:
        rows += (found := pruning(options, report))
        for table in pruning_tables(found):
            console.print(table)
    if "growth" in options.what:
        rows += (found := growth(options, report))
        for table in (growth_table(found), *paired_tables(found)):
            console.print(table)
    path = measure.write_rows("sparsity", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
