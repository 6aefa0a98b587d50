"""TCNCA beside MEGA: its convolutions and the moving average in time, and both models in recall and on text.

Speed: dilated convolutions and the average in one pass, against the average by transforms, as it is usually
trained. Recall: pairs of key and value, an eighth of the length, whose values are asked. Text: the next
character of pieces that were not learned from, at equal steps.
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

WIDTH, AVERAGES = 64, 16
WHAT = ("speed", "recall", "text")
# Of the paper's abstract, up to 131k tokens on a GPU.
PAPER = {"forward": 7.07, "backward": 2.86}
MODELS = ("mega", "tcnca", "plain-tcnca")
Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.tcnca", description=__doc__)
    command.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    command.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536, 131072])
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--recall-lengths", type=int, nargs="+", default=[64, 128])
    command.add_argument("--vocabularies", type=int, nargs="+", default=[64, 256])
    command.add_argument("--models", nargs="+", default=list(MODELS))
    command.add_argument("--steps", type=int, default=400, help="of recall")
    command.add_argument("--text", default="", help="a file; by default sources of Python's library")
    command.add_argument("--text-steps", type=int, default=1000)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def smoothers() -> dict[str, Callable[[Any], Any]]:
    """What stands before the attention, by its name: functions of (1, T, width)."""
    import torch

    from learnsolve.sequence.layers.mega import MovingAverage
    from learnsolve.sequence.layers.tcnca import DilatedConvolutions

    torch.manual_seed(0)
    average, convolutions = MovingAverage(WIDTH, AVERAGES), DilatedConvolutions(WIDTH)
    powers: dict[int, Any] = {}

    def kernel(length: int) -> Any:
        p = torch.sigmoid(average.delta)
        q, c = 1 - p * torch.sigmoid(average.alpha), average.gamma * p * average.beta / AVERAGES**0.5
        ages = torch.arange(length, dtype=torch.float32)
        return torch.einsum("nd,ndl->dl", c, torch.exp(torch.log(q)[..., None] * ages))

    def product(x: Any, taps: Any) -> Any:
        """Along contiguous times, as suits the transforms."""
        length = x.shape[2]
        spectra = torch.fft.rfft(taps, 2 * length) * torch.fft.rfft(x, 2 * length)
        return torch.fft.irfft(spectra, 2 * length)[..., :length] + average.omega[:, None] * x

    def ready(x: Any) -> Any:
        if x.shape[2] not in powers:
            powers[x.shape[2]] = kernel(x.shape[2]).detach()
        return product(x, powers[x.shape[2]])

    return {
        "convolutions": lambda x: convolutions(x)[0],
        "average, one pass": lambda x: average(x)[0],
        "average, transforms": lambda x: product(x, kernel(x.shape[2])),
        "average, transforms, kernel at hand": ready,
    }


def speed(options: argparse.Namespace, said: Callable[[str], None]) -> list[Row]:
    """Processor seconds forward and backward at each length."""
    import torch

    rows: list[Row] = []
    for length in options.lengths:
        generator = torch.Generator().manual_seed(length)
        x = torch.randn(1, length, WIDTH, generator=generator)
        for name, task in smoothers().items():
            given = (x.mT.contiguous() if "transforms" in name else x).requires_grad_()
            forward, backward = [], []
            for turn in range(options.repeats + 1):
                with torch.no_grad():
                    began = time.process_time()
                    y = task(given)
                    spent = time.process_time() - began
                y = task(given)
                ones = torch.ones_like(y)
                began = time.process_time()
                y.backward(ones)
                if turn:
                    forward.append(spent)
                    backward.append(time.process_time() - began)
            rows.append(
                {"what": "speed", "length": length, "who": name, "forward": statistics.median(forward),
                 "backward": statistics.median(backward)}
            )  # fmt: skip
        said(f"speed at {length}")
    return rows


def shown_speed(rows: list[Row]) -> Table:
    """Times, and those of the transforms over ours."""
    shown = Table(
        title=f"(1, length, {WIDTH}), {AVERAGES} averages a channel, 4 levels of 17 taps; processor seconds, "
        f"and the transforms' over it (paper, on a GPU: up to {PAPER['forward']} and {PAPER['backward']})",
        title_justify="left",
    )
    for heading in ("length", "what", "forward", "times", "backward", "times"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    peers = {row["length"]: row for row in rows if row["who"] == "average, transforms"}
    for row in rows:
        peer = peers[row["length"]]
        cells = [f"{row[name]:.5f}|{peer[name] / row[name]:.1f}" for name in ("forward", "backward")]
        shown.add_row(str(row["length"]), row["who"], *(part for cell in cells for part in cell.split("|")))
    return shown


def trained(model: str, task: Any, length: int, chunk: int, seed: int, **fit: Any) -> Row:
    """A model of two layers after its training, and how it does on what it has not seen."""
    from learnsolve.sequence.backbone import BackboneOptions
    from learnsolve.sequence.training import SequenceTraining, train
    from learnsolve.training import FitOptions

    batch = fit.pop("batch")
    network = BackboneOptions(
        vocabulary=task.vocabulary, classes=task.classes, width=WIDTH, mixers=(model,), window=chunk,
        averages=AVERAGES, taps=fit.pop("taps"), levels=3, dilation=fit.pop("dilation"),
    )  # fmt: skip
    options = FitOptions(learning_rate=2e-3, seed=seed, **fit)
    training = SequenceTraining(network, options, batch, (length, length), (length,), 256)
    began = time.process_time()
    built, result = train(training, task)
    return {
        "model": model, "length": length, "seed": seed, "numbers": built.parameters_count,
        "seconds": time.process_time() - began, "right": result.metrics[f"accuracy_{length}"],
        "loss": result.metrics[f"loss_{length}"],
    }  # fmt: skip


def recall(options: argparse.Namespace, said: Callable[[str], None]) -> list[Row]:
    """Accuracy of each model over lengths and vocabularies; a chunk is the whole sequence."""
    from learnsolve.problems.sequence_tasks import Recall

    rows = []
    for length in options.recall_lengths:
        for size in options.vocabularies:
            for model in options.models:
                for seed in options.seeds:
                    task = Recall(length // 8, size)
                    row = trained(
                        model, task, length, length, seed, batch=32, steps=options.steps, taps=4, dilation=4
                    )
                    rows.append({"what": "recall", "vocabulary": size, **row})
                    said(f"recall {length}, {size}, {model}, {seed}: {row['right']:.3f}")
    return rows


def text(options: argparse.Namespace, said: Callable[[str], None]) -> list[Row]:
    """Loss of each model on pieces of text that it did not learn from, with chunks of a quarter."""
    from learnsolve.problems.sequence_tasks import Text

    rows = []
    for model in options.models:
        for seed in options.seeds:
            row = trained(
                model, Text(options.text), 256, 64, seed, batch=16, steps=options.text_steps, taps=17,
                dilation=8,
            )  # fmt: skip
            rows.append({"what": "text", **row})
            said(f"text, {model}, {seed}: {row['loss']:.4f} nats")
    return rows


def shown_models(rows: list[Row], title: str) -> Table:
    """Models side by side."""
    shown = Table(title=title, title_justify="left")
    names = [name for name in rows[0] if name != "what"]
    for name in names:
        shown.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        shown.add_row(
            *(f"{row[name]:.4f}" if isinstance(row[name], float) else str(row[name]) for name in names)
        )
    return shown


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

    rows: list[Row] = []
    for what in options.what:
        found = {"speed": speed, "recall": recall, "text": text}[what](options, said)
        rows += found
        title = f"{what}: held out; processor seconds of the training"
        console.print(shown_speed(found) if what == "speed" else shown_models(found, title))
    path = measure.write_rows("tcnca", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
