"""Reconstruction of dynamical systems beside a loop in torch, a reservoir and sparse regression."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.dynamics_peers import DETERMINISTIC, PEERS
from benchmarks.poisson import consoles

WHAT = ("speed", "reconstruction")
# States, hidden units, sequences and times of a gradient step.
SIZES = ((3, 50, 16, 200), (20, 50, 16, 200), (5, 250, 16, 200), (16, 512, 16, 50))
# What a row of the table trains with, by its name.
FORCINGS: dict[str, dict[str, Any]] = {
    "gtf": {"alpha": "geometric-mean"},
    "gtf, constant": {},
    "free": {"alpha": 0.0},
    "forced": {"alpha": 1.0},
    "sparse": {"method": "stf", "every": 16},
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.dynamics", description=__doc__)
    command.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    command.add_argument("--system", choices=["lorenz63", "lorenz96", "rossler", "henon"], default="lorenz63")
    command.add_argument("--data", type=Path, help="a measured series instead of a system: CSV, npy or npz")
    command.add_argument("--judge", type=Path, help="a later part of it to judge by; default: its last fifth")
    command.add_argument("--embed", type=int, default=0, help="delays of a single variable; 0 for none")
    command.add_argument("--lag", type=int, help="between delays; default: where correlation falls below 1/e")
    command.add_argument("--forcing", nargs="*", choices=list(FORCINGS), default=["gtf", "free", "forced"])
    command.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    command.add_argument("--noise", type=float, default=0.05)
    command.add_argument("--length", type=int, default=100_000, help="of the series to learn from")
    command.add_argument("--hidden", type=int, default=50)
    command.add_argument("--alpha", type=float, default=0.1, help='of "gtf, constant"')
    command.add_argument("--regularization", type=float, default=1e-5)
    command.add_argument("--steps", type=int, default=25_000)
    command.add_argument("--schedule", default="rex")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def speed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Processor seconds of a gradient step, by the kernel and by a loop over times in torch."""
    import torch

    from learnsolve.dynamics import ShallowPLRNN
    from learnsolve.kernels import shplrnn_reference

    for M, H, batch, length in SIZES:
        network = ShallowPLRNN(M, H, generator=torch.Generator().manual_seed(0))
        targets = torch.randn(batch, length + 1, M, generator=torch.Generator().manual_seed(1))
        first, rest, none = targets[:, 0], targets[:, 1:], targets[:, :0]

        def fused(network: Any = network, first: Any = first, rest: Any = rest) -> None:
            (network(first, rest, alpha=0.1) - rest).square().mean().backward()

        def loop(network: Any = network, first: Any = first, rest: Any = rest, none: Any = none) -> None:
            T = rest.shape[1]
            states = shplrnn_reference.orbit(network.weights, first, rest, none, 0.1, 1, True, T)
            (states - rest).square().mean().backward()

        spent = {"fused": _seconds(fused, options.repeats, 10), "loop": _seconds(loop, options.repeats, 1)}
        yield {"size": [M, H, batch, length], **spent, "times": spent["loop"] / spent["fused"]}


def _seconds(call: Callable[[], None], repeats: int, count: int) -> float:
    """The median of processor seconds of a call."""
    call()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(count):
            call()
        found.append((time.process_time() - began) / count)
    return statistics.median(found)


def series_of(options: argparse.Namespace) -> tuple[Any, Any, float, float | None]:
    """What is learned from, what is judged by, the time between rows, and the largest exponent."""
    if options.data is not None:
        return *measured(options), 1.0, None
    from learnsolve.problems.chaotic import SYSTEMS, observed

    system = SYSTEMS[options.system]()
    learned = observed(system.orbit(options.length, seed=1), noise=options.noise, seed=1)
    largest = float(system.lyapunov_spectrum(100_000, count=1).exponents[0])
    return learned, system.orbit(options.length, seed=2), system.dt or 1.0, largest


def measured(options: argparse.Namespace) -> tuple[Any, Any]:
    """What is learned from and, later in time, judged by; each part embedded by itself, by one lag."""
    from learnsolve.datasets.measured import decorrelation_lag, delay_embedding, read_measured

    learned = read_measured(options.data).values
    if options.judge is None:
        cut = len(learned) * 4 // 5
        learned, judged = learned[:cut], learned[cut:]
    else:
        judged = read_measured(options.judge).values
    if not options.embed:
        return learned, judged
    lag = decorrelation_lag(learned[:, 0]) if options.lag is None else options.lag
    first, second = (delay_embedding(part[:, 0], options.embed, lag) for part in (learned, judged))
    return first, second


def reconstruction(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures of free runs: ours by each forcing and seed, the peers', and the floor."""
    from learnsolve.dynamics import reconstruct_dynamics
    from learnsolve.dynamics.measures import prediction_error

    learned, judged, dt, largest = series_of(options)
    mean, scale = learned.mean(0), learned.std(0)
    learned, judged = (learned - mean) / scale, (judged - mean) / scale
    yield {
        "model": "floor: the series itself",
        "seed": None,
        **_measures(judged, learned),
        "exponent": largest,
    }
    for name in options.forcing:
        for seed in options.seeds:
            began = time.process_time()
            found = reconstruct_dynamics(
                learned, **{"method": "gtf", "alpha": options.alpha, **FORCINGS[name]}, hidden=options.hidden,
                steps=options.steps, regularization=options.regularization, dt=dt, schedule=options.schedule,
                held_out=0.0, seed=seed,
            )  # fmt: skip
            seconds, model = time.process_time() - began, found.model
            run = model.simulate(len(judged), x0=judged[0], transient=len(judged) // 4)
            error = prediction_error(model.forecast, judged[:5000])
            exponent = float(model.lyapunov_spectrum(100_000, count=1).exponents[0])
            yield {
                "model": name, "seed": seed, **_measures(judged, run), "error": error, "exponent": exponent,
                "seconds": seconds, "strength": found.alpha,
            }  # fmt: skip
    for name in options.peers:
        for seed in options.seeds[: 1 if name in DETERMINISTIC else None]:
            began = time.process_time()
            run = PEERS[name](learned, judged, dt, seed)
            seconds = time.process_time() - began
            row = {"model": name, "seed": seed, "seconds": seconds}
            yield row if run is None else row | _measures(judged, run)


def _measures(judged: Any, run: Any) -> dict[str, Any]:
    from learnsolve.dynamics.measures import agreement

    if len(run) == 0:
        return {"D_stsp": float("inf"), "D_H": 1.0}
    found = agreement(judged, np.asarray(run, float))
    return {"D_stsp": found.state_space, "D_H": found.spectrum}


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Each run, and of several seeds the median."""
    source = options.data.name if options.data else f"{options.system}, {options.noise:.0%} noise"
    title = f"{source}, {options.hidden} hidden units, {options.steps} steps; processor seconds of one thread"
    shown = Table(title=title, title_justify="left")
    columns = ("D_stsp", "D_H", "error", "exponent", "strength", "seconds")
    for heading in ("model", "seed", *columns):
        shown.add_column(heading, justify="left" if heading == "model" else "right")
    names = dict.fromkeys(row["model"] for row in rows)
    for name in names:
        its = [row for row in rows if row["model"] == name]
        for row in its:
            values = (_text(row.get(column)) for column in columns)
            shown.add_row(name, "" if row["seed"] is None else str(row["seed"]), *values)
        if len(its) > 1:
            medians = ([row[column] for row in its if row.get(column) is not None] for column in columns)
            values = (_text(statistics.median(found)) if found else "" for found in medians)
            shown.add_row(name, "median", *values)
    return shown


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.training.run_folder import finite

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    found: list[dict[str, Any]] = []
    if "speed" in options.what:
        shown = Table(title="a gradient step; one thread, processor seconds", title_justify="left")
        for heading in ("states, units, sequences, times", "fused", "loop in torch", "times"):
            shown.add_column(heading, justify="right")
        for row in speed(options):
            found.append(row)
            size = ", ".join(map(str, row["size"]))
            shown.add_row(size, f"{row['fused']:.5f}", f"{row['loop']:.4f}", f"{row['times']:.1f}")
        console.print(shown)
    if "reconstruction" in options.what:
        rows = []
        for row in reconstruction(options):
            rows.append(row)
            progress.print(
                f"{row['model']}, seed {row['seed']}: D_stsp {_text(row.get('D_stsp'))}", highlight=False
            )
        console.print(table(rows, options))
        found += rows
    # A free run that has flown away has no finite measure, and JSON no other number.
    told = [
        {key: finite(one) if isinstance(one, float) else one for key, one in row.items()} for row in found
    ]
    path = measure.write_rows("dynamics", options, told)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
