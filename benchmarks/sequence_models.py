"""Models of sequences, trained side by side on the tasks of the shipped configs, and judged by held-out data.

Each row is a training of its own: the same data, steps and learning rate for all models of a task.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles


@dataclass(frozen=True)
class Case:
    """A model on a task.

    Attributes
    ----------
    config : str
        A shipped one.
    model : str
        What it is called in the table.
    network, task : dict
        What differs from the config.
    """

    config: str
    model: str
    network: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)


def others(config: str, **network: Any) -> list[Case]:
    """The config's own model, and those beside it."""
    plain = ("attention", "gated-linear-attention", "linear-attention", "lightnet", "lstm")
    return [
        Case(config, "deltanet"),
        *(Case(config, name, {"mixers": (name,), **network}) for name in plain),
    ]


def tracking(config: str) -> list[Case]:
    """Eigenvalues from -1 on, from 0 on, and models whose steps have none."""
    return [
        Case(config, "deltanet, beta to 2"),
        Case(config, "deltanet, beta to 1", {"beta_max": 1.0}),
        Case(config, "attention", {"mixers": ("attention",)}),
    ]


def memories(pairs: int, width: int, heads: int) -> list[Case]:
    """After a layer of the delta rule, four states beside one of them, and one of four times the numbers."""
    shared = {"width": width, "heads": heads, "layers": 2}
    kinds = {
        "3 memories and a shared one": {"mixers": ("deltanet", "memories"), "memories": 3, "active": 1},
        "a single one of them": {},
        "a single one, of 4 times the state": {"expand_v": 4.0},
    }
    name = f"{pairs} pairs, width {width}"
    return [
        Case("recall", f"{name}: {kind}", {**shared, **changes}, {"pairs": pairs})
        for kind, changes in kinds.items()
    ]


CASES: dict[str, list[Case]] = {
    "parity": [
        *tracking("parity"),
        Case("parity", "gated linear attention, decays from -1", {"mixers": ("gated-linear-attention",)}),
        Case("parity", "gated linear attention, decays from 0",
             {"mixers": ("gated-linear-attention",), "beta_max": 1.0}),
    ],
    "s3": [*tracking("s3"), Case("s3", "deltanet, one reflection a token", {"householders": 1})],
    "a5": [*tracking("a5"), Case("a5", "deltanet, one reflection a token", {"householders": 1})],
    "modular-arithmetic": tracking("modular-arithmetic"),
    "recall": [
        *others("recall"),
        Case("recall", "deltanet and a window of 16", {"mixers": ("deltanet", "window"), "window": 16}),
        Case("recall", "deltanet and attention", {"mixers": ("deltanet", "attention")}),
    ],
    "memories": [*memories(12, 32, 4), *memories(12, 64, 8), *memories(16, 64, 8)],
    "digits": [
        Case("digits", "lssl"),
        *(Case("digits", name, {"mixers": (name,)}) for name in ("lstm", "deltanet", "attention")),
    ],
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.sequence_models", description=__doc__)
    command.add_argument("--task", nargs="+", choices=list(CASES), default=list(CASES))
    command.add_argument("--only", nargs="+", default=[], help="models whose names contain one of these")
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--steps", type=int, help="instead of the config's")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def run(case: Case, seed: int, steps: int | None) -> dict[str, Any]:
    """Train, and say how right it is."""
    from learnsolve.cli.sequence_config import SequenceConfig
    from learnsolve.sequence.training import train

    config = SequenceConfig.read(case.config).changed(seed=seed, steps=steps)
    training = config.training
    fit = replace(training.fit, validate_every=0)
    training = replace(training, fit=fit, network=replace(training.network, **case.network))
    began = time.process_time()
    network, result = train(training, replace(config.task, **case.task))
    seconds = time.process_time() - began
    return {"task": case.config, "model": case.model, "seed": seed, "numbers": network.parameters_count,
            "seconds": seconds, **result.metrics}  # fmt: skip


def figures(row: dict[str, Any]) -> Iterator[str]:
    """Of each length, what is right of all and at the end."""
    for name, value in row.items():
        if name.startswith("accuracy_"):
            length = name.removeprefix("accuracy_")
            yield f"{length}: {value:.3f}, end {row[f'last_{length}']:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rows = []
    for name in options.task:
        for case in CASES[name]:
            if options.only and not any(word in case.model for word in options.only):
                continue
            for seed in options.seeds:
                rows.append(run(case, seed, options.steps))
                told = f"{name}, {case.model}, seed {seed}: {'; '.join(figures(rows[-1]))}"
                progress.print(f"[dim]{told}[/]", highlight=False)
    shown = Table(title="held out, by length; one thread, processor seconds", title_justify="left")
    for heading in ("task", "model", "seed", "numbers", "seconds", "right"):
        shown.add_column(heading, justify="right" if heading in ("seed", "numbers", "seconds") else "left")
    for row in rows:
        shown.add_row(
            row["task"], row["model"], str(row["seed"]), str(row["numbers"]), f"{row['seconds']:.1f}",
            "; ".join(figures(row)),
        )  # fmt: skip
    console.print(shown)
    path = measure.write_rows("sequence_models", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
