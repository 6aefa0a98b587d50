"""``learnsolve merge``: direction networks that were trained apart as one, if their average is as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

import typer

from learnsolve.cli.common import NOT_CONVERGED, Quiet, say_error
from learnsolve.cli.runs import Out, Run

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from learnsolve.cli.train_config import DataOptions, HeldOutOptions
    from learnsolve.cli.train_data import HeldOut
    from learnsolve.methods.dcdm_network import DirectionNetwork
    from learnsolve.training.merging import MergeReport

FILE = "network.safetensors"
# Steps of each held-out solve by which a network is judged, as many as of one in training.
STEPS = 16
# Grids to judge on where none are given, by their number of axes.
SHAPES = {2: (64, 64), 3: (24, 24, 24)}
# Seeds of held-out domains begin here, and these many are taken.
FIRST_SEED, SEEDS = 2001, 2


def merge(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders of `learnsolve train dcdm`, files of weights, or shipped names.",
            show_default=False,
        ),
    ],
    out: Out,
    accept: Annotated[
        float, typer.Option(min=0.0, help="The largest barrier: in the logarithm of the error, a step.")
    ] = 0.01,
    layers: Annotated[
        Literal["all", "auto"], typer.Option(help="Average all layers, or only those that may be.")
    ] = "all",
    align: Annotated[
        bool, typer.Option("--align/--no-align", help="Bring channels into the order of the first network.")
    ] = True,
    family: Annotated[
        list[str] | None,
        typer.Option(help="Of held-out systems; can be repeated.", show_default="those of the runs"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Of their grids, as 64x64; can be repeated.", show_default="64x64 or 24x24x24"),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Of their domains; can be repeated.", show_default="two that no run knows"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Average direction networks of dcdm, unless the average is worse than is accepted.

    Judged by the mean logarithm of the error's reduction in the first steps of solves that no training has
    seen; the barrier is that of the average above the mean of the networks'. RUN gets network.safetensors.
    Exit code 0: merged; 2: the barrier is not accepted, and nothing is written; 1: wrong options or files.
    """
    from learnsolve.training.merging import MergeError
    from learnsolve.training.merging import merge as average

    run = Run("", 0, quiet)
    parents = _read_all(runs, out)
    held_out = _held_out(parents, family, shape, seed)
    networks = [parent.network for parent in parents]
    with run.bars.status("preparing the systems"):
        systems, loss = _judge(held_out)
    try:
        with run.bars.status("merging"):
            network, report = average(networks, loss=loss, accept=accept, align=align, layers=layers)
    except MergeError as error:
        _tell(run, runs, error.report, held_out, [])
        say_error(error)
        raise typer.Exit(NOT_CONVERGED) from None
    with run.bars.status("counting iterations"):
        counts = [_iterations(one, systems, held_out) for one in (*networks, network)]
    _write(out / FILE, cast("DirectionNetwork", network), report, parents, runs, align, held_out)
    _tell(run, runs, report, held_out, counts)
    _say_use(run, out / FILE)


class _Parent(NamedTuple):
    """A network to merge, and the records of all trainings that it comes from."""

    network: DirectionNetwork
    trainings: list[dict[str, Any]]
    data: list[DataOptions]
    held_out: list[HeldOutOptions]


def _read_all(runs: Sequence[str], out: Path) -> list[_Parent]:
    """The networks, which must fit each other."""
    if len(runs) < 2:
        raise ValueError(f"one RUN is given, {runs[0]}; at least two are merged")
    if (out / FILE).exists():
        raise ValueError(f"{out} holds a network already; give another folder to --out")
    parents = [_read(run) for run in runs]
    first = parents[0].network.metadata
    for run, parent in zip(runs[1:], parents[1:], strict=True):
        for name, value in parent.network.metadata.items():
            if value != first[name]:
                raise ValueError(
                    f"{name} is {first[name]} in {runs[0]} and {value} in {run}; what is merged has the same "
                    "options"
                )
    return parents


def _read(run: str) -> _Parent:
    """The network of a run's folder, of a file or of a shipped name."""
    from learnsolve.cli.train_config import DataOptions, HeldOutOptions
    from learnsolve.methods.dcdm_weights import KIND, load
    from learnsolve.training.shipped import LARGEST, located
    from learnsolve.training.tables import from_table
    from learnsolve.training.weights import WEIGHTS_FORMAT, WeightsError, read_tensors

    path = Path(run)
    if path.is_dir():
        path = path / FILE
        if not path.exists():
            raise FileNotFoundError(f"{run} holds no {FILE}; a finished run of `learnsolve train dcdm` does")
    path = located(
        KIND, path if path.suffix == ".safetensors" else run, ".safetensors", "are no dcdm weights"
    )
    network = load(path)
    metadata = read_tensors(path, WEIGHTS_FORMAT, LARGEST)[1]
    trainings = metadata.get("trainings", [metadata.get("training", {})])
    data, held_out = [], []
    try:
        # Those that were trained from Python need no record.
        for training in trainings:
            if "data" in training:
                data.append(from_table(DataOptions, training["data"], "data"))
            if "held_out" in training:
                held_out.append(from_table(HeldOutOptions, training["held_out"], "held_out"))
    except (TypeError, ValueError) as error:
        raise WeightsError(path, f"its record of the training is none: {error}") from None
    return _Parent(network, trainings, data, held_out)


def _held_out(
    parents: Sequence[_Parent],
    families: Sequence[str] | None,
    shapes: Sequence[str] | None,
    seeds: Sequence[int] | None,
) -> HeldOutOptions:
    """Systems that no training has seen, or validated on."""
    from learnsolve.cli.train_config import HeldOutOptions
    from learnsolve.training.tables import from_table

    network = parents[0].network.options
    dims = network.dims
    data = [one for parent in parents for one in parent.data]
    earlier = [one for parent in parents for one in parent.held_out]
    known = {seed for one in data for seed in one.seeds} | {seed for one in earlier for seed in one.seeds}
    table: dict[str, Any] = {
        "shapes": [_sizes(text) for text in shapes or []] or [SHAPES[dims]],
        "seeds": seeds or list(islice((n for n in count(FIRST_SEED) if n not in known), SEEDS)),
    }
    if families or earlier:
        judged = families or [family for one in earlier for family in one.families]
        table["families"] = list(dict.fromkeys(judged))
    found = from_table(HeldOutOptions, table, "held_out")
    for sizes in found.shapes:
        if len(sizes) != dims:
            raise ValueError(f"--shape has {len(sizes)} axes, but the networks are for {dims}")
        # On others only a part of the layers is used, and the order of the channels would be sought for it.
        if network.architecture == "recursive" and max(sizes) <= network.coarsest:
            raise ValueError(
                f"--shape is {'x'.join(map(str, sizes))}, and the networks pool axes of more than "
                f"{network.coarsest} cells; larger grids are accepted"
            )
    for one in data:
        for name in set(one.domains) & set(found.families):
            both = sorted(set(one.seeds) & set(found.seeds))
            if both:
                raise ValueError(f"--seed {both[0]}: a run was trained on {name} of that seed; give others")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"--shape is {text!r}; numbers of cells such as 64x64 are accepted") from None


def _judge(options: HeldOutOptions) -> tuple[list[HeldOut], Callable[[nn.Module], Tensor]]:
    """Held-out systems, and the mean logarithm of the error's reduction in the first steps of solves."""
    import torch

    import learnsolve
    from learnsolve.cli.train_data import held_out_systems
    from learnsolve.methods.dcdm_losses import RunningSolves, energy_loss

    systems = list(held_out_systems(options, torch.device("cpu")))
    begun = []
    for system in systems:
        # Roughly solved is enough: its image is the right-hand side.
        answer = learnsolve.solve(system.A, system.b, method="cg", M="multigrid", rtol=1e-4).x
        begun.append((RunningSolves(system.A, 1, STEPS), answer))

    def begin(solves: RunningSolves, answer: Tensor) -> None:
        """From zero, without previous directions."""
        for name, value in (("e", answer), ("p", 0.0), ("Ap", 0.0), ("pAp", 1.0), ("step", 0)):
            solves.tensors[name][:] = value

    def loss(network: nn.Module) -> Tensor:
        values = []
        for solves, answer in begun:
            begin(solves, answer)
            values += [energy_loss(network, solves) for _ in range(STEPS)]
        return torch.stack(values).mean()

    return systems, loss


def _iterations(network: nn.Module, systems: Sequence[HeldOut], options: HeldOutOptions) -> float:
    """The mean over held-out systems."""
    from learnsolve.methods.dcdm_training import iterations

    counts = [iterations(network, one.A, one.b, options.rtol, options.maxiter) for one in systems]
    return sum(counts) / len(counts)


def _write(
    path: Path,
    network: DirectionNetwork,
    report: MergeReport,
    parents: Sequence[_Parent],
    runs: Sequence[str],
    align: bool,
    held_out: HeldOutOptions,
) -> None:
    """The average, with what it comes from."""
    from dataclasses import asdict

    from learnsolve.methods.dcdm_weights import save

    trainings = [training for parent in parents for training in parent.trainings]
    merged = {"runs": list(runs), "align": align, "held_out": asdict(held_out), **asdict(report)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, network, trainings=trainings, merged=merged)


def _tell(
    run: Run, runs: Sequence[str], report: MergeReport, options: HeldOutOptions, counts: Sequence[float]
) -> None:
    """What was found; ``counts`` are iterations, of the average the last, if it was accepted."""
    from rich.text import Text

    seeds = f"{'seed' if len(options.seeds) == 1 else 'seeds'} {', '.join(map(str, options.seeds))}"
    grids = ", ".join("×".join(map(str, sizes)) for sizes in options.shapes)
    run.say(f"held out: {', '.join(options.families)}, {grids}, {seeds}; less is better")
    table = _table("network")
    table.add_column("log of error, a step", justify="right")
    if counts:
        table.add_column(f"iterations to {options.rtol:g}", justify="right")
    names, losses = list(runs), list(report.losses)
    if report.layers:
        names, losses = [*names, "their average"], [*losses, report.loss]
    for place, (name, loss) in enumerate(zip(names, losses, strict=True)):
        table.add_row(Text(name), f"{loss:.4f}", *([f"{counts[place]:.1f}"] if counts else []))
    run.console.print(table)
    if report.layer_barriers:
        each = _table("layer")
        each.add_column("barrier by itself", justify="right")
        each.add_column("averaged")
        for layer, cost in report.layer_barriers.items():
            each.add_row(layer, f"{cost:+.4f}", "yes" if layer in report.layers else "no")
        run.console.print(each)
    if counts:
        run.say(f"barrier {report.barrier:+.4f}; {len(report.layers)} layers averaged")
        best = min(range(len(runs)), key=report.losses.__getitem__)
        if round(report.losses[best], 4) < round(report.loss, 4):
            run.say(f"on these systems {runs[best]} by itself is better than the average")


def _table(heading: str) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column(heading, overflow="fold")
    return table


def _say_use(run: Run, path: Path) -> None:
    from learnsolve.cli.train_report import usage

    run.say(f"wrote {path}")
    run.say("\nto use it:\n")
    for line in usage("dcdm", path):
        run.say(f"    {line}" if line else "")
