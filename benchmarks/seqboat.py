"""SeqBoat's time against the share of its active tokens, and its tasks beside attention within chunks.

Chunk-only attention gets more layers, until its training takes no less time than SeqBoat's of two.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles
from benchmarks.tcnca import shown_models

RATES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
TASKS = ("recall", "text")
WINDOW, WIDTH = 32, 64
Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.seqboat", description=__doc__)
    command.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    command.add_argument("--length", type=int, default=4096, help="of the curve")
    command.add_argument("--width", type=int, default=128, help="of the curve")
    command.add_argument("--window", type=int, default=128, help="of the curve")
    command.add_argument("--repeats", type=int, default=7)
    command.add_argument("--steps", type=int, default=600)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def curve(options: argparse.Namespace, said: Callable[[str], None]) -> list[Row]:
    """Time of one layer whose choice is moved until so many tokens are active."""
    import torch

    from learnsolve.sequence.layers import Attention, SeqBoat
    from learnsolve.sequence.layers.mega import MovingAverage

    torch.manual_seed(0)
    x = torch.randn(1, options.length, options.width)
    layer = SeqBoat(options.width, options.window)
    with torch.no_grad():
        layer.choose.weight[0] = 0
        layer.choose.bias.zero_()
        m = torch.nn.functional.silu(layer.smooth(x)[0][0])
        scores = m @ layer.choose.weight[1]
    chunks = Attention(options.width, 1, chunk=options.window)
    tasks: dict[str, tuple[float | None, Any]] = {
        "moving average alone": (None, MovingAverage(options.width)),
        "attention within chunks": (None, chunks),
    }
    tasks |= {f"{rate:.0%} active": (rate, layer) for rate in RATES}
    rows = []
    for name, (rate, module) in tasks.items():
        if rate is not None:
            bar = torch.quantile(scores, 1 - rate) if 0 < rate < 1 else (1e6 if rate == 0 else -1e6)
            with torch.no_grad():
                layer.choose.bias[1] = -bar
        forward, both = [], []
        for turn in range(options.repeats + 1):
            with torch.no_grad():
                began = time.process_time()
                module(x)
                spent = time.process_time() - began
            began = time.process_time()
            module(x)[0].sum().backward()
            if turn:
                forward.append(spent)
                both.append(time.process_time() - began)
        rows.append(
            {"what": "curve", "who": name, "rate": layer.rate if rate is not None else None,
             "forward": statistics.median(forward), "both": statistics.median(both)}
        )  # fmt: skip
        said(name)
    return rows


def shown_curve(rows: list[Row], options: argparse.Namespace) -> Table:
    """Times by the rate."""
    title = f"one layer: {options.length} tokens, width {options.width}, window {options.window}; seconds"
    shown = Table(title=title, title_justify="left")
    for heading in ("what", "rate", "forward", "and gradient"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        rate = "" if row["rate"] is None else f"{row['rate']:.3f}"
        shown.add_row(row["who"], rate, f"{row['forward']:.5f}", f"{row['both']:.5f}")
    return shown


def trained(name: str, mixer: str, layers: int, seed: int, options: argparse.Namespace) -> Row:
    """A model after its training."""
    from learnsolve.problems.sequence_tasks import Recall, Text
    from learnsolve.sequence.backbone import BackboneOptions
    from learnsolve.sequence.training import SequenceTraining, train
    from learnsolve.training import FitOptions

    task, length, batch = {"recall": (Recall(8, 64), 64, 32), "text": (Text(), 256, 16)}[name]
    network = BackboneOptions(
        vocabulary=task.vocabulary, classes=task.classes, width=WIDTH, layers=layers, mixers=(mixer,),
        window=WINDOW,
    )  # fmt: skip
    fit = FitOptions(steps=options.steps, learning_rate=2e-3, seed=seed)
    began = time.process_time()
    built, result = train(SequenceTraining(network, fit, batch, (length, length), (length,), 256), task)
    return {
        "what": "task", "task": name, "model": mixer, "layers": layers, "seed": seed,
        "numbers": built.parameters_count, "seconds": time.process_time() - began,
        "right": result.metrics[f"accuracy_{length}"], "loss": result.metrics[f"loss_{length}"],
        "active": ", ".join(f"{rate:.2f}" for rate in built.activation()),
    }  # fmt: skip


def beside(name: str, seed: int, options: argparse.Namespace, said: Callable[[str], None]) -> list[Row]:
    """SeqBoat, and attention within chunks of as many layers as cost no less."""
    rows = [trained(name, "seqboat", 2, seed, options)]
    layers = 2
    while layers == 2 or (rows[-1]["seconds"] < rows[0]["seconds"] and layers < 8):
        rows.append(trained(name, "chunks", layers, seed, options))
        layers += 1
    for row in rows:
        said(f"{name}, {row['model']}, {row['layers']} layers: {row['right']:.3f}, {row['loss']:.4f} nats")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()

    def said(line: str) -> None:
        progress.print(f"[dim]{line}[/]", highlight=False)

    rows = curve(options, said)
    console.print(shown_curve(rows, options))
    for name in options.tasks:
        found = [row for seed in options.seeds for row in beside(name, seed, options, said)]
        rows += found
        console.print(shown_models(found, f"{name}, held out; processor seconds of the training"))
    path = measure.write_rows("seqboat", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
