"""Every mixing layer of the package on the same tasks, and its time and memory against the length.

Quality is what is right at the end of a training of equal steps, width and rate, on sequences that were not
learned from. Time is that of a forward pass of one layer, and of one with its gradient; memory is the peak of
what the second allocates, as torch's profiler counts it; the state is what remains to go on from, and a
token's time that of one more from there.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

WIDTH, HEADS, WINDOW = 64, 2, 32
# After the length, over which a token's time is a mean.
MORE = 16
TASKS = ("recall", "parity", "selective-copying", "listops", "text")
# Quadratic ones stop here.
LONGEST = {"attention": 8192, "linformer": 16384}
Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.efficient_attention", description=__doc__)
    command.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    command.add_argument("--mixers", nargs="+", help="default: all")
    command.add_argument("--steps", type=int, default=300)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--lengths", type=int, nargs="*", default=[256, 1024, 4096, 16384])
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--plot", type=Path, help="a PNG file")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def tasks() -> dict[str, tuple[Any, int]]:
    """Tasks with their lengths."""
    from learnsolve.problems.sequence_tasks import ListOps, Parity, Recall, SelectiveCopying, Text

    return {
        "recall": (Recall(8, 64), 64),
        "parity": (Parity(), 64),
        "selective-copying": (SelectiveCopying(4, 8), 64),
        "listops": (ListOps(), 100),
        "text": (Text(), 128),
    }


def quality(mixer: str, name: str, seed: int, steps: int) -> Row:
    """What is right after a training."""
    from learnsolve.sequence.backbone import BackboneOptions
    from learnsolve.sequence.training import SequenceTraining, train
    from learnsolve.training import FitOptions

    task, length = tasks()[name]
    network = BackboneOptions(
        vocabulary=task.vocabulary, classes=task.classes, width=WIDTH, heads=HEADS, mixers=(mixer,),
        window=WINDOW, beta_max=2.0, taps=4, levels=3, dilation=4,
    )  # fmt: skip
    fit = FitOptions(steps=steps, learning_rate=2e-3, seed=seed)
    began = time.process_time()
    built, result = train(SequenceTraining(network, fit, 32, (length, length), (length,), 256), task)
    return {
        "what": "quality", "mixer": mixer, "task": name, "seed": seed, "numbers": built.parameters_count,
        "seconds": time.process_time() - began, "right": result.metrics[f"accuracy_{length}"],
    }  # fmt: skip


def tensors(state: Any) -> Iterator[Any]:
    """All tensors of a state."""
    import torch

    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, tuple | list):
        for one in state:
            yield from tensors(one)


def peak(task: Callable[[], Any]) -> float:
    """Most bytes that are held at once by what a task allocates."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = task()
    held = most = 0
    # The profiler's own list of allocations and releases, in their order.
    for event in sorted(found.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    del kept
    return float(most)


def cost(mixer: str, length: int, repeats: int) -> Row:
    """Time, memory and state of one layer at one length."""
    import torch

    from learnsolve.sequence.backbone import MIXERS, BackboneOptions

    torch.manual_seed(0)
    layer = MIXERS[mixer](BackboneOptions(2, 2, WIDTH, heads=HEADS, window=WINDOW, mixers=(mixer,)))
    x = torch.randn(1, length, WIDTH)

    def forward() -> Any:
        with torch.no_grad():
            return layer(x)[1]

    def both() -> Any:
        layer.zero_grad()
        layer(x.requires_grad_())[0].sum().backward()

    row: Row = {"what": "cost", "mixer": mixer, "length": length}
    for name, task in (("forward", forward), ("both", both)):
        spent = []
        task()
        for _ in range(repeats):
            began = time.process_time()
            task()
            spent.append(time.process_time() - began)
        row[name] = statistics.median(spent)
    row["megabytes"] = peak(both) / 2**20
    state = forward()
    row["state"] = sum(one.numel() * one.element_size() for one in tensors(state))
    row["token"] = decoding(layer, state, repeats)
    return row


def decoding(layer: Any, state: Any, repeats: int) -> float:
    """Processor seconds of one token more."""
    import torch

    spent = []
    for _ in range(repeats):
        token, after = torch.randn(1, 1, WIDTH), state
        began = time.process_time()
        with torch.no_grad():
            for _ in range(MORE):
                after = layer(token, after)[1]
        spent.append((time.process_time() - began) / MORE)
    return statistics.median(spent)


def exponent(rows: list[Row], name: str) -> str:
    """Of growth from the second length on, since overheads rule the first."""
    rows = sorted(rows, key=lambda row: row["length"])[1:]
    if len(rows) < 2 or min(row[name] for row in rows) <= 0:
        return ""
    first, last = rows[0], rows[-1]
    return f"{math.log(last[name] / first[name]) / math.log(last['length'] / first['length']):.2f}"


def shown_quality(rows: list[Row]) -> Table:
    """Mixers by tasks: means over seeds."""
    names = list(dict.fromkeys(row["task"] for row in rows))
    shown = Table(title="right, held out; processor seconds of all trainings", title_justify="left")
    for heading in ("mixer", *names, "seconds"):
        shown.add_column(heading, justify="left" if heading == "mixer" else "right")
    for mixer in dict.fromkeys(row["mixer"] for row in rows):
        its = [row for row in rows if row["mixer"] == mixer]
        means = [statistics.mean(row["right"] for row in its if row["task"] == name) for name in names]
        shown.add_row(mixer, *(f"{one:.3f}" for one in means), f"{sum(row['seconds'] for row in its):.0f}")
    return shown


def shown_cost(rows: list[Row]) -> Table:
    """At the longest length of each, and how it grows."""
    shown = Table(title=f"one layer of width {WIDTH}, processor seconds", title_justify="left")
    for heading in ("mixer", "length", "forward", "grows", "and gradient", "grows", "peak MiB", "grows"):
        shown.add_column(heading, justify="left" if heading == "mixer" else "right")
    for mixer in dict.fromkeys(row["mixer"] for row in rows):
        its = [row for row in rows if row["mixer"] == mixer]
        last = max(its, key=lambda row: row["length"])
        shown.add_row(
            mixer, str(last["length"]), f"{last['forward']:.4f}", exponent(its, "forward"),
            f"{last['both']:.4f}", exponent(its, "both"), f"{last['megabytes']:.0f}",
            exponent(its, "megabytes"),
        )  # fmt: skip
    return shown


def shown_decoding(rows: list[Row]) -> Table:
    """One token more after the longest length of each, and what is kept for it."""
    shown = Table(title="one token more, processor seconds", title_justify="left")
    for heading in ("mixer", "after", "seconds", "grows", "state, bytes", "grows"):
        shown.add_column(heading, justify="left" if heading == "mixer" else "right")
    for mixer in dict.fromkeys(row["mixer"] for row in rows):
        its = [row for row in rows if row["mixer"] == mixer]
        last = max(its, key=lambda row: row["length"])
        shown.add_row(
            mixer, str(last["length"]), f"{last['token']:.5f}", exponent(its, "token"), str(last["state"]),
            exponent(its, "state"),
        )  # fmt: skip
    return shown


def plot(rows: list[Row], path: Path) -> None:
    """Quality against time, and time and memory against length."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    from learnsolve.files import replacing

    learned, costs = ([row for row in rows if row["what"] == what] for what in ("quality", "cost"))
    panels = ["right"] * bool(learned) + ["both", "megabytes"] * bool(costs)
    figure, drawn = pyplot.subplots(
        1, len(panels), figsize=(3 + 4 * len(panels), 5), layout="constrained", squeeze=False
    )
    axes = dict(zip(panels, drawn[0], strict=True))
    for number, mixer in enumerate(dict.fromkeys(row["mixer"] for row in rows)):
        style = {
            "color": pyplot.get_cmap("tab20")(number % 20),
            "label": mixer,
            "marker": "osv^D"[number % 5],
        }
        its = [row for row in learned if row["mixer"] == mixer]
        if its:
            seconds, right = (statistics.mean(row[name] for row in its) for name in ("seconds", "right"))
            axes["right"].scatter(seconds, right, **style)
        its = sorted((row for row in costs if row["mixer"] == mixer), key=lambda row: row["length"])
        for name in ("both", "megabytes"):
            if its:
                axes[name].loglog([row["length"] for row in its], [row[name] for row in its], **style)
    labels = {
        "right": ("processor seconds of a training", "right, mean of all tasks"),
        "both": ("length", "processor seconds, with gradient"),
        "megabytes": ("length", "peak MiB, with gradient"),
    }
    for name, axis in axes.items():
        axis.set(xlabel=labels[name][0], ylabel=labels[name][1])
    figure.legend(*axes[panels[-1]].get_legend_handles_labels(), loc="outside right")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.sequence.backbone import MIXERS

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    mixers = options.mixers or list(MIXERS)
    unknown = [name for name in mixers if name not in MIXERS]
    if unknown:
        raise SystemExit(f"there is no mixer {unknown[0]}; {', '.join(MIXERS)} are accepted")
    if not options.tasks and not options.lengths:
        raise SystemExit("there are no tasks and no lengths; some of either are accepted")
    rows: list[Row] = []
    for mixer in mixers:
        for name in options.tasks:
            for seed in options.seeds:
                rows.append(quality(mixer, name, seed, options.steps))
                progress.print(f"[dim]{mixer}, {name}: {rows[-1]['right']:.3f}[/]", highlight=False)
    costs: list[Row] = []
    for mixer in mixers:
        for length in sorted(options.lengths):
            if length <= LONGEST.get(mixer, length):
                costs.append(cost(mixer, length, options.repeats))
        progress.print(f"[dim]{mixer}: timed[/]", highlight=False)
    if rows:
        console.print(shown_quality(rows))
    if costs:
        console.print(shown_cost(costs))
        console.print(shown_decoding(costs))
    rows += costs
    if options.plot is not None:
        plot(rows, options.plot)
        console.print(f"drawn in {options.plot}", style="dim", highlight=False, soft_wrap=True)
    path = measure.write_rows("efficient_attention", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
