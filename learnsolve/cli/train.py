"""``learnsolve train``: from a config file to weights and a report on them."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.runs import (
    Device,
    Out,
    Run,
    Seed,
    Steps,
    Timeout,
    command_line,
    processes,
    time_left,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from learnsolve.cli.train_config import Kind, TrainingConfig
    from learnsolve.cli.train_data import HeldOut
    from learnsolve.methods.dcdm_network import DirectionNetwork
    from learnsolve.training import FitProgress, FitResult

app = typer.Typer(help="Train learned parts on problems like yours.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Train learned parts on problems like yours."""


Schedule = Annotated[
    str | None,
    typer.Option(
        help="Of the learning rate, instead of the config's; refined: by the norms of --from RUN.",
        show_default=False,
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="RUN", help="A finished run to refine by, or to narrow.", show_default=False
    ),
]
Narrow = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Begin with the network of --from RUN without this share of its channels, in (0, 1).",
        show_default=False,
    ),
]
Config = Annotated[str, typer.Option(metavar="FILE|NAME", help="A .toml file, or poisson2d or poisson3d.")]


# What asks for an earlier run.
_FROM = {"dcdm": "--schedule refined or --narrow SHARE", "multigrid": "--schedule refined"}


@app.command()
def dcdm(
    config: Config,
    out: Out,
    steps: Steps = None,
    timeout: Timeout = None,
    seed: Seed = None,
    device: Device = "cpu",
    schedule: Schedule = None,
    earlier: From = None,
    narrow: Narrow = None,
) -> None:
    """Train a direction network for the method dcdm, and report what it can do.

    The same command continues a run that was stopped. RUN gets network.safetensors, config.toml,
    metrics.jsonl, report.md and convergence.png. Exit code 0: finished, or paused by --timeout; 1: wrong
    config or files, or training failed; 130: interrupted, with a checkpoint.
    """
    _go("dcdm", config, out, steps, timeout, seed, device, schedule, earlier, narrow)


@app.command()
def multigrid(
    config: Config,
    out: Out,
    steps: Steps = None,
    timeout: Timeout = None,
    seed: Seed = None,
    schedule: Schedule = None,
    earlier: From = None,
) -> None:
    """Train the network of a learned multigrid, and report what it can do.

    Runs, files and exit codes are those of `learnsolve train dcdm`.
    """
    _go("multigrid", config, out, steps, timeout, seed, "cpu", schedule, earlier)


def _go(
    kind: Kind,
    config: str,
    out: Path,
    steps: int | None,
    timeout: float | None,
    seed: int | None,
    device: str,
    schedule: str | None,
    earlier: Path | None,
    narrow: float | None = None,
) -> None:
    """What the commands do."""
    began = time.perf_counter()
    command = command_line(
        "learnsolve", "train", kind, config=config, out=out, steps=steps, timeout=timeout, seed=seed,
        device=device if kind == "dcdm" else None, schedule=schedule, narrow=narrow, **{"from": earlier},
    )  # fmt: skip
    from learnsolve.cli.train_config import TrainingConfig
    from learnsolve.training.refinement import refined_from

    if (schedule == "refined" or narrow is not None) != (earlier is not None):
        raise ValueError(f"{_FROM[kind]} and --from RUN go together")
    factors: str | tuple[float, ...] | None = schedule
    if earlier is not None and schedule == "refined":
        factors = refined_from(earlier)
    chosen = TrainingConfig.read(config, kind).with_options(steps, timeout, seed, factors)
    initial = None
    if earlier is not None and narrow is not None:
        initial = _narrowed(earlier, narrow)
        chosen = chosen.with_network(initial.options)
    with processes(device) as (where, rank):
        _Training(chosen, out, where, Run(command, rank), began, initial).go()


def _narrowed(folder: Path, share: float) -> DirectionNetwork:
    """The network of a finished run without a share of its channels."""
    from learnsolve.methods.dcdm_weights import load

    path = folder / "network.safetensors"
    if not path.exists():
        raise ValueError(f"{folder} holds no finished run: there is no {path.name}")
    return load(path).narrowed(share)


class _Training:
    """One call of the command."""

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        device: torch.device,
        run: Run,
        began: float,
        initial: DirectionNetwork | None,
    ) -> None:
        self.initial = initial
        self.config, self.out, self.device, self.run, self.began = config, out, device, run, began
        self.weights = out / "network.safetensors"

    def go(self) -> None:
        """Train and report."""
        from learnsolve.cli.train_data import domains, held_out_systems, sources
        from learnsolve.methods.dcdm_training import DCDMTraining

        self.out.mkdir(parents=True, exist_ok=True)
        with self.run.bars.status("preparing the systems"):
            systems = list(held_out_systems(self.config.held_out, self.device))
        training, data = self.config.training, self.config.data
        given: list[Any] = [A for _, A in domains(data)]
        if isinstance(training, DCDMTraining):
            given = sources(data, self.device, self.samples if training.loss == "residual" else None)
        network, result, worked = self.train(given, systems)
        if not worked:
            self.run.say(
                f"{self.out} is a finished run of {result.step} steps; there is nothing left to train"
            )
        if self.run.rank == 0:
            self.report(network, result, systems, anew=worked)

    def samples(self, name: str, A: Any) -> Path:
        """The file of right-hand sides of a matrix, which one process writes."""
        import torch.distributed as dist

        from learnsolve.cli.train_data import samples_file

        joined = dist.is_available() and dist.is_initialized()
        if joined and self.run.rank != 0:
            dist.barrier()
        with self.run.bar() as progress:
            task = progress.add_task(f"vectors of {name} {'x'.join(map(str, A.domain_shape))}", total=None)
            path = samples_file(
                self.out / "data",
                self.config.data,
                name,
                A,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
            progress.update(task, visible=False)
        if joined and self.run.rank == 0:
            dist.barrier()
        return path

    def train(self, given: list[Any], systems: list[HeldOut]) -> tuple[nn.Module, FitResult, bool]:
        """The network, how the run ended, and whether a step was made."""
        from dataclasses import replace

        from learnsolve.methods import dcdm_training
        from learnsolve.preconditioners import learned_multigrid_training

        held_out, training = self.config.held_out, self.config.training
        train: Any = learned_multigrid_training.train
        if self.config.kind == "dcdm":
            train = partial(dcdm_training.train, device=self.device, initial=self.initial)
        training = replace(training, fit=time_left(training.fit, self.began))
        judged = [(system.A, system.b) for system in systems]
        work = partial(
            train, training, given, judged, folder=self.out, rtol=held_out.rtol, maxiter=held_out.maxiter,
            record=self.config.record(),
        )  # fmt: skip
        network, result, worked = self.run.train(work, training.fit.steps, _figures)
        return network, result, worked or self.run.rank != 0

    def report(self, network: nn.Module, result: FitResult, systems: list[HeldOut], anew: bool) -> None:
        """Write the report and the picture unless they are there, and say how to use the weights."""
        from learnsolve.cli import train_report
        from learnsolve.files import replacing

        report, picture = self.out / "report.md", self.out / "convergence.png"
        rtol, kind = self.config.held_out.rtol, self.config.kind
        if anew or not report.exists() or not picture.exists():
            with self.run.bar() as progress:
                task = progress.add_task("held-out systems", total=len(systems))
                groups = train_report.compare(kind, network, systems, rtol, lambda: progress.advance(task))
            train_report.draw(picture, kind, network, systems[0], rtol)
            with replacing(report) as part:
                text = train_report.markdown(self.config, result, groups, self.weights)
                part.write_text(text, encoding="utf-8", newline="\n")
        for path in (self.weights, report, picture):
            self.run.say(f"wrote {path}" if anew else f"there is {path}")
        self.run.say("\nto use it:\n")
        for line in train_report.usage(kind, self.weights):
            self.run.say(f"    {line}" if line else "")


def _figures(now: FitProgress) -> list[str]:
    """What stands beside the bar."""
    parts = [f"held-out iterations {now.metrics['iterations']:.1f}"] if now.metrics else []
    return [*parts, f"{now.skipped} skipped"] if now.skipped else parts
