"""A direction network without a share of the channels: how many iterations it takes, and how much time.

From a trained network, or one that is trained here first, a share of the channels is cut out and the rest is
trained again, once or in several rounds. Beside it stands a network of the same width that was trained from
random weights, for as many steps as all rounds together. All are judged on systems that no training has seen.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

if TYPE_CHECKING:
    from learnsolve.cli.train_config import TrainingConfig
    from learnsolve.methods.dcdm_network import DirectionNetwork

UNSEEN_SEEDS = 2000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.narrow", description=__doc__)
    command.add_argument("--weights", default="poisson2d", help="a shipped name, or a file of a dcdm network")
    command.add_argument("--config", help="of learnsolve train dcdm; default: that of the name")
    command.add_argument(
        "--channels", type=int, help="train a network of so many first, instead of --weights"
    )
    command.add_argument("--dense-steps", type=int, default=1000, help="of that training")
    command.add_argument("--share", type=float, nargs="+", default=[0.5], help="of the channels, by round")
    command.add_argument("--steps", type=int, default=2000, help="of each training")
    command.add_argument("--learning-rate", type=float, help="default: the config's")
    command.add_argument("--family", nargs="+", default=["obstacles", "maze"])
    command.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="cells along each axis")
    command.add_argument("--systems", type=int, default=5, help="of each family and size")
    command.add_argument("--rtol", type=float, default=1e-6)
    command.add_argument("--repeats", type=int, default=7, help="of each time")
    command.add_argument("--out", type=Path, help="a file for the network of the last round")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def trained(
    config: "TrainingConfig", steps: int, rate: float | None, initial: "DirectionNetwork"
) -> "DirectionNetwork":
    """A network that begins as another one, and learns as a config says."""
    import torch

    from learnsolve.cli.train_data import sources
    from learnsolve.methods.dcdm_training import train

    chosen = config.with_options(steps).with_network(initial.options)
    fit = replace(chosen.training.fit, learning_rate=rate or chosen.training.fit.learning_rate)
    training: Any = replace(chosen.training, fit=replace(fit, gradient_norms=False))
    found: Any = train(training, sources(config.data, torch.device("cpu"), None), initial=initial)
    return found[0]


def judged(networks: dict[str, "DirectionNetwork"], options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each network, family and size: iterations and seconds of solves, and seconds of an application.

    The networks take turns, so that a busy minute falls on all alike.
    """
    import torch

    import learnsolve
    from learnsolve.methods import DCDM
    from learnsolve.problems import poisson

    rows = []
    dims = next(iter(networks.values())).options.dims
    for size in options.sizes:
        shape = (size,) * dims
        r = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(size))
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for repeat in range(options.repeats + 1):
            for name, network in networks.items():
                began = time.process_time()
                with torch.inference_mode():
                    network(r)
                # The first time warms up.
                seconds[name] += [time.process_time() - began] if repeat else []
        for family in options.family:
            found: dict[str, list[tuple[bool, int, float]]] = {name: [] for name in networks}
            for number in range(options.systems):
                rhs = ("noise", "ones", "bump")[number % 3]
                problem = getattr(poisson, family)(shape, seed=UNSEEN_SEEDS + number, rhs=rhs)
                for name, network in networks.items():
                    began = time.process_time()
                    result = learnsolve.solve(
                        problem.A, problem.b, method=DCDM(network), rtol=options.rtol, maxiter=2000
                    )
                    spent = time.process_time() - began
                    found[name].append((result.success, result.iterations, spent))
            for name in networks:
                rows.append({
                    "network": name, "channels": networks[name].options.channels, "family": family,
                    "size": size, "converged": sum(one[0] for one in found[name]),
                    "iterations": [one[1] for one in found[name]],
                    "solve_seconds": [one[2] for one in found[name]],
                    "application_seconds": statistics.median(seconds[name]),
                })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Iterations and times, and the times as shares of those of the first network."""
    shown = Table(title=title, title_justify="left")
    for heading in ("family", "size", "network"):
        shown.add_column(heading)
    for heading in ("channels", "iterations", "solved", "application", "of dense", "solve", "of dense"):
        shown.add_column(heading, justify="right")
    first = {(row["family"], row["size"]): row for row in reversed(rows) if row["network"] == "dense"}
    for row in rows:
        dense = first[row["family"], row["size"]]
        solves = sum(row["solve_seconds"]) / len(row["solve_seconds"])
        shown.add_row(
            row["family"], str(row["size"]), row["network"], str(row["channels"]),
            f"{np.mean(row['iterations']):.1f}", f"{row['converged']} of {len(row['iterations'])}",
            f"{1e3 * row['application_seconds']:.2f} ms",
            f"{row['application_seconds'] / dense['application_seconds']:.2f}",
            f"{solves:.3f} s", f"{sum(row['solve_seconds']) / sum(dense['solve_seconds']):.2f}",
        )  # fmt: skip
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.cli.train_config import TrainingConfig
    from learnsolve.methods.dcdm_weights import load

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    config = TrainingConfig.read(options.config or options.weights)
    network: Any
    torch.manual_seed(0)
    if options.channels is None:
        network = load(options.weights)
    else:
        progress.print(f"[dim]{options.channels} channels, from random weights[/]", highlight=False)
        fresh: Any = replace(config.training.network, channels=options.channels).build()
        network = trained(config, options.dense_steps, options.learning_rate, fresh)
    networks = {"dense": network}
    for round_, share in enumerate(options.share, 1):
        progress.print(f"[dim]round {round_}: without {share:g} of the channels[/]", highlight=False)
        network = trained(config, options.steps, options.learning_rate, network.narrowed(share))
        networks[f"narrowed, round {round_}"] = network
    progress.print("[dim]as narrow, from random weights[/]", highlight=False)
    steps = options.steps * len(options.share)
    networks["as narrow, from random"] = trained(config, steps, None, network.options.build())
    rows = judged(networks, options)
    console.print(table(rows, f"systems that no training has seen, to {options.rtol:g}"))
    if options.out is not None:
        from learnsolve.methods.dcdm_weights import save

        save(options.out, network)
    path = measure.write_rows("narrow", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
