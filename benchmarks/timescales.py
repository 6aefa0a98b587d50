"""Recurrent networks that learn to remember ever more bits, under curricula, and what keeps their memory.

Each row is a training of its own. Old heads, ablation and perturbation are judged in the network as it was
when it passed its largest N, the latter two at that N; where it passed none, as it is at the end, at N = 2.
"""

import argparse
import copy
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

# Of the published training, which has 500 neurons, batches of 256 and 600 steps in an epoch.
LEARNING_RATE, MOMENTUM, CLIP = 0.05, 0.1, 2.0
FIRST = 2
# Sequences that are judged: so many lengths, and so many of each.
LENGTHS, EACH = 4, 512
# Draws of neurons and of noise over which robustness is averaged, and the share of neurons that is silenced.
DRAWS, SHARE = 5, 0.1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.timescales", description=__doc__)
    kinds = ["single", "cumulative", "sliding", "none"]
    command.add_argument("--kind", nargs="+", choices=kinds, default=["single", "cumulative"])
    command.add_argument("--task", choices=["parity", "dms"], default="parity")
    command.add_argument("--model", nargs="+", choices=["leaky", "gru", "lstm"], default=["leaky"])
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--neurons", type=int, default=128)
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--steps", type=int, default=300, help="in an epoch")
    command.add_argument("--until", type=int, default=11, help="the largest N")
    command.add_argument("--epochs", type=int, default=60, help="at most")
    command.add_argument("--width", type=int, default=3, help="of the sliding window")
    command.add_argument(
        "--single-head", choices=["own", "shared"], default="own",
        help="under the single curriculum: a head for each N, or one for all, as in the published code",
    )  # fmt: skip
    command.add_argument("--noise", type=float, default=0.1, help="of perturbations, relative")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


class Trainee:
    """A network, the heads of its sizes, and the bits that it is trained on and judged by."""

    def __init__(self, kind: str, model: str, seed: int, options: argparse.Namespace) -> None:
        import torch

        from learnsolve.dynamics.timescales import GatedRNN, LeakyRNN
        from learnsolve.problems.timescale_tasks import TIMESCALE_TASKS

        self.options, self.task = options, TIMESCALE_TASKS[options.task]
        self.generator = torch.Generator().manual_seed(seed)
        self.shared = kind == "single" and options.single_head == "shared"
        heads = 1 if self.shared else options.until - FIRST + 1
        if model == "leaky":
            self.network = LeakyRNN(options.neurons, heads, generator=self.generator)
        else:
            self.network = GatedRNN(options.neurons, heads, kind=model, generator=self.generator)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True
        )

    def logits(self, bits: Any, sizes: Sequence[int], generator: Any) -> Any:
        """What the heads of sizes say."""
        heads = [0 if self.shared else size - FIRST for size in sizes]
        return self.network(bits, heads, generator=generator)

    def epoch(self, sizes: Sequence[int]) -> None:
        """Steps whose loss is the sum of the heads' cross entropies."""
        import torch

        from learnsolve.problems.timescale_tasks import draw_length

        for _ in range(self.options.steps):
            length = draw_length(max(sizes), self.generator)
            bits, labels = self.task(self.options.batch, length, sizes, self.generator)
            said = self.logits(bits, sizes, self.generator)
            loss = len(sizes) * torch.nn.functional.cross_entropy(said.flatten(0, 1), labels.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
            self.optimizer.step()

    def accuracies(self, sizes: Sequence[int], seed: int) -> dict[int, float]:
        """Of each size, on sequences as long as those of the largest."""
        import torch

        from learnsolve.problems.timescale_tasks import draw_length

        generator = torch.Generator().manual_seed(seed)
        right = torch.zeros(len(sizes))
        with torch.no_grad():
            for _ in range(LENGTHS):
                bits, labels = self.task(EACH, draw_length(max(sizes), generator), sizes, generator)
                right += (self.logits(bits, sizes, generator).argmax(-1) == labels).float().mean(0)
        return dict(zip(sizes, (right / LENGTHS).tolist(), strict=True))


def mediated(trainee: Trainee, seed: int) -> Any:
    """Network timescales under the task's own bits."""
    import torch

    from learnsolve.dynamics.timescale_analysis import network_timescales

    generator = torch.Generator().manual_seed(seed)
    bits, _ = trainee.task(16, 600, [FIRST], generator)
    return network_timescales(trainee.network, bits, generator=generator)


def figures(trainee: Trainee, seed: int) -> dict[str, float | None]:
    """Timescales, a neuron's own as a mean and the network's as a median, and the spectral radius."""
    from learnsolve.dynamics import timescale_analysis, timescales

    network = trainee.network
    leaky = isinstance(network, timescales.LeakyRNN)
    median = float(mediated(trainee, seed).nanmedian())
    return {
        "tau": float(timescale_analysis.single_neuron_timescales(network).mean()) if leaky else None,
        "mediated": None if math.isnan(median) else median,
        "radius": timescale_analysis.spectral_radius(network),
    }


def robustness(trainee: Trainee, size: int, seed: int, noise: float) -> dict[str, float | None]:
    """Accuracy with the slowest, the quickest and random neurons silent, and under noise.

    The slowest are those of the largest tau, or, in gated networks, of the longest network timescale.
    """
    import torch

    from learnsolve.dynamics import timescale_analysis, timescales

    network = trainee.network
    generator = torch.Generator().manual_seed(seed)
    leaky = isinstance(network, timescales.LeakyRNN)
    if leaky:
        own = timescale_analysis.single_neuron_timescales(network)
    else:
        own = mediated(trainee, seed).nan_to_num()
    order, count = own.argsort().tolist(), max(1, round(SHARE * network.neurons))
    drawn = [torch.randperm(network.neurons, generator=generator)[:count].tolist() for _ in range(DRAWS)]

    def under(*changes: Callable[[], Any]) -> float:
        found = []
        for change in changes:
            with change():
                found.append(trainee.accuracies([size], seed)[size])
        return sum(found) / len(found)

    def noisy(kind: str) -> float:
        return under(*[lambda: timescale_analysis.perturbed(network, kind, noise, generator)] * DRAWS)

    return {
        "untouched": under(nullcontext),
        "slowest": under(lambda: timescale_analysis.ablated(network, order[-count:])),
        "quickest": under(lambda: timescale_analysis.ablated(network, order[:count])),
        "random": under(*[lambda which=which: timescale_analysis.ablated(network, which) for which in drawn]),
        **{
            kind: noisy(kind) if leaky or kind != "tau" else None for kind in timescale_analysis.PERTURBATIONS
        },
    }


def run(kind: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the largest N is passed or the epochs are over, and look at what was learned."""
    from learnsolve.training.curriculum import Curriculum

    trainee = Trainee(kind, model, seed, options)
    width = {"sliding": options.width, "none": options.until - FIRST + 1}.get(kind)
    curriculum = Curriculum(kind, FIRST, width=width)
    began = time.process_time()
    epochs: dict[int, int] = {}
    over_sizes: dict[int, dict[str, float | None]] = {}
    passed = copy.deepcopy(trainee.network.state_dict())
    for epoch in range(1, options.epochs + 1):
        sizes = curriculum.sizes
        trainee.epoch(sizes)
        found = trainee.accuracies(sizes, 1000 * (seed + 1) + epoch)
        # Without a curriculum nothing advances, and each size is passed by itself.
        above = [size for size in sizes if found[size] > curriculum.threshold and size not in epochs]
        new = [sizes[-1]] if curriculum.update(found) else above if kind == "none" else []
        for size in new:
            epochs[size] = epoch
            over_sizes[size] = figures(trainee, seed)
            passed = copy.deepcopy(trainee.network.state_dict())
        if len(epochs) == options.until - FIRST + 1:
            break
    seconds = time.process_time() - began
    reached = max(epochs, default=FIRST)
    if epochs:
        trainee.network.load_state_dict(passed)
    names = "tau", "mediated", "radius"
    return {
        "kind": kind, "model": model, "seed": seed, "seconds": seconds, "trained": epoch, "reached": reached,
        "epochs": epochs, "accuracy": trainee.accuracies(range(FIRST, reached + 1), seed),
        **{name: {size: one[name] for size, one in over_sizes.items()} for name in names},
        "robustness": robustness(trainee, reached, seed, options.noise),
    }  # fmt: skip


def _table(title: str, headings: Sequence[str], rows: Sequence[tuple[dict[str, Any], list[str]]]) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in ("curriculum", "model"):
        shown.add_column(heading)
    for heading in ("seed", *headings):
        shown.add_column(heading, justify="right")
    for row, cells in rows:
        shown.add_row(row["kind"], row["model"], str(row["seed"]), *cells)
    return shown


def tables(rows: Sequence[dict[str, Any]], until: int) -> list[Table]:
    """Of each N when it was passed and how it was afterwards, and how robust the last is."""
    sizes = range(FIRST, until + 1)

    def written(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def over(name: str, form: str) -> list[tuple[dict[str, Any], list[str]]]:
        return [(row, [written(row[name].get(size), form) for size in sizes]) for row in rows]

    titles = {
        "epochs": ("epochs until N was passed", "d"),
        "accuracy": ("accuracy of each N's head at the end", ".3f"),
        "tau": ("mean tau when N was passed", ".3f"),
        "mediated": ("median network timescale when N was passed", ".2f"),
        "radius": ("spectral radius when N was passed", ".3f"),
    }
    headings = [f"N = {size}" for size in sizes]
    shown = [_table(title, headings, over(name, form)) for name, (title, form) in titles.items()]
    robust = [
        (row, [str(row["reached"]), *(written(one, ".3f") for one in row["robustness"].values())])
        for row in rows
    ]
    title = f"accuracy at the largest N that was passed; {SHARE:.0%} of neurons silent, or noise"
    return [*shown, _table(title, ["N", *rows[0]["robustness"]], robust)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    command = parser()
    options = command.parse_args(arguments)
    if options.until < FIRST or options.epochs < 1:
        command.error(f"--until takes {FIRST} or more, and --epochs 1 or more")
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows = []
    for model in options.model:
        for kind in options.kind:
            for seed in options.seeds:
                rows.append(run(kind, model, seed, options))
                row = rows[-1]
                passed = ", ".join(f"{size} at {epoch}" for size, epoch in row["epochs"].items()) or "none"
                told = (
                    f"{kind}, {model}, seed {seed}, {row['seconds']:.0f} s, {row['trained']} epochs: {passed}"
                )
                progress.print(f"[dim]{told}[/]", highlight=False, soft_wrap=True)
    for table in tables(rows, options.until):
        console.print(table)
    path = measure.write_rows("timescales", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
