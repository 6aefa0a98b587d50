"""``learnsolve train``: from a config file to weights and a report on them."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from learnsolve.cli.train_config import Kind, TrainingConfig
    from learnsolve.cli.train_data import HeldOut
    from learnsolve.training import FitProgress, FitResult

FAILED = 1
BAD_CONFIG = 2
INTERRUPTED = 130

app = typer.Typer(help="Train learned parts on problems like yours.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Train learned parts on problems like yours."""


Config = Annotated[str, typer.Option(metavar="FILE|NAME", help="A .toml file, or poisson2d or poisson3d.")]
Out = Annotated[Path, typer.Option(metavar="RUN", help="The run's folder.", file_okay=False)]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps, instead of the config's.", show_default=False)]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds until the run pauses with a checkpoint.", show_default=False)
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed, instead of the config's.", show_default=False)]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")]


@app.command()
def dcdm(
    config: Config,
    out: Out,
    steps: Steps = None,
    timeout: Timeout = None,
    seed: Seed = None,
    device: Device = "cpu",
) -> None:
    """Train a direction network for the method dcdm, and report what it can do.

    The same command continues a run that was stopped. RUN gets network.safetensors, config.toml,
    metrics.jsonl, report.md and convergence.png. Exit code 0: finished, or paused by --timeout; 2: wrong
    config or files; 1: training failed; 130: interrupted, with a checkpoint.
    """
    _go("dcdm", config, out, steps, timeout, seed, device)


@app.command()
def multigrid(
    config: Config, out: Out, steps: Steps = None, timeout: Timeout = None, seed: Seed = None
) -> None:
    """Train the network of a learned multigrid, and report what it can do.

    Runs, files and exit codes are those of `learnsolve train dcdm`.
    """
    _go("multigrid", config, out, steps, timeout, seed, "cpu")


def _go(
    kind: Kind,
    config: str,
    out: Path,
    steps: int | None,
    timeout: float | None,
    seed: int | None,
    device: str,
) -> None:
    """What the commands do."""
    began = time.perf_counter()
    again = {"--config": config, "--out": out, "--steps": steps, "--timeout": timeout, "--seed": seed}
    words = [word for name, value in again.items() if value is not None for word in (name, str(value))]
    words += ["--device", device] if kind == "dcdm" else []
    command = shlex.join(["learnsolve", "train", kind, *words])
    try:
        from learnsolve.cli.train_config import TrainingConfig

        chosen = TrainingConfig.read(config, kind).with_options(steps, timeout, seed)
        with processes(device) as (where, rank):
            interrupted = _Run(chosen, out, where, rank, command, began).go()
    except (OSError, ValueError) as error:
        raise ended(error, BAD_CONFIG) from None
    except (RuntimeError, MemoryError) as error:
        raise ended(error, FAILED) from None
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def ended(error: Exception, code: int) -> typer.Exit:
    """The error in a line, and the exit of a code."""
    typer.echo(f"learnsolve: {' '.join(str(error).split()) or type(error).__name__}", err=True)
    return typer.Exit(code)


@contextmanager
def processes(device: str) -> Iterator[tuple[torch.device, int]]:
    """Device and rank of this process; under torchrun the processes are joined for a while."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device; use --device cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield torch.device(device, 0) if device == "cuda" else torch.device(device), 0
        return
    import torch.distributed as dist

    where = torch.device("cpu")
    if device == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield where, dist.get_rank()
    finally:
        dist.destroy_process_group()


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Whether a signal asked to stop; a second one of a kind ends the process as ever."""
    asked = False

    def note(number: int, _: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[number])

    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, note)
        yield lambda: asked
    finally:
        for number in numbers:
            signal.signal(number, before[number])


class _Run:
    """One call of the command."""

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        device: torch.device,
        rank: int,
        command: str,
        began: float,
    ) -> None:
        self.config, self.out, self.device, self.rank = config, out, device, rank
        self.command, self.began = command, began
        self.console = Console(quiet=rank != 0)
        self.weights = out / "network.safetensors"

    def say(self, text: str) -> None:
        """A line in which nothing is folded, or taken for markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def bar(self, *fields: str) -> Progress:
        texts = (TextColumn(f"{{task.fields[{field}]}}") for field in fields)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *texts)
        return Progress(*columns, console=self.console)

    def go(self) -> bool:
        """Train and report; whether a signal has stopped it."""
        import torch

        from learnsolve.cli.train_data import domains, held_out_systems, sources
        from learnsolve.methods.dcdm_training import DCDMTraining

        self.out.mkdir(parents=True, exist_ok=True)
        threads = torch.get_num_threads()
        with self.console.status("preparing the systems"):
            systems = list(held_out_systems(self.config.held_out, self.device))
        training, data = self.config.training, self.config.data
        given: list[Any] = [A for _, A in domains(data)]
        if isinstance(training, DCDMTraining):
            given = sources(data, self.device, self.samples if training.loss == "residual" else None)
        # numba, when its threads first start, sets their number for torch too, whatever OMP_NUM_THREADS says.
        torch.set_num_threads(threads)
        network, result, worked, asked = self.train(given, systems)
        if not result.finished:
            self.say(f"stopped at step {result.step} of {self.config.training.fit.steps}, with a checkpoint")
            self.say(f"to continue: {self.command}")
            return asked
        if not worked:
            self.say(f"{self.out} is a finished run of {result.step} steps; there is nothing left to train")
        if self.rank == 0:
            self.report(network, result, systems, anew=worked)
        return False

    def samples(self, name: str, A: Any) -> Path:
        """The file of right-hand sides of a matrix, which one process writes."""
        import torch.distributed as dist

        from learnsolve.cli.train_data import samples_file

        joined = dist.is_available() and dist.is_initialized()
        if joined and self.rank != 0:
            dist.barrier()
        with self.bar() as progress:
            task = progress.add_task(f"vectors of {name} {'x'.join(map(str, A.domain_shape))}", total=None)
            path = samples_file(
                self.out / "data",
                self.config.data,
                name,
                A,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
            progress.update(task, visible=False)
        if joined and self.rank == 0:
            dist.barrier()
        return path

    def train(self, given: list[Any], systems: list[HeldOut]) -> tuple[nn.Module, FitResult, bool, bool]:
        """The network, how the run ended, whether a step was made, and whether a signal came."""
        from dataclasses import replace

        from learnsolve.methods import dcdm_training
        from learnsolve.preconditioners import learned_multigrid_training

        held_out, training = self.config.held_out, self.config.training
        train: Any = learned_multigrid_training.train
        if self.config.kind == "dcdm":
            train = partial(dcdm_training.train, device=self.device)
        if training.fit.timeout is not None:
            left = max(training.fit.timeout - (time.perf_counter() - self.began), 1e-3)
            training = replace(training, fit=replace(training.fit, timeout=left))
        worked = False
        with self.bar("figures") as progress, signals() as asked:
            task = progress.add_task("training", total=training.fit.steps, figures="")

            def report(now: FitProgress) -> bool:
                nonlocal worked
                worked = True
                progress.update(task, completed=now.step, figures=_figures(now))
                return asked()

            network, result = train(
                training,
                given,
                [(system.A, system.b) for system in systems],
                folder=self.out,
                rtol=held_out.rtol,
                maxiter=held_out.maxiter,
                callback=report,
                record=self.config.record(),
            )
            progress.update(task, completed=result.step)
            return network, result, worked or self.rank != 0, asked()

    def report(self, network: nn.Module, result: FitResult, systems: list[HeldOut], anew: bool) -> None:
        """Write the report and the picture unless they are there, and say how to use the weights."""
        from learnsolve.cli import train_report
        from learnsolve.files import replacing

        report, picture = self.out / "report.md", self.out / "convergence.png"
        rtol, kind = self.config.held_out.rtol, self.config.kind
        if anew or not report.exists() or not picture.exists():
            with self.bar() as progress:
                task = progress.add_task("held-out systems", total=len(systems))
                groups = train_report.compare(kind, network, systems, rtol, lambda: progress.advance(task))
            train_report.draw(picture, kind, network, systems[0], rtol)
            with replacing(report) as part:
                text = train_report.markdown(self.config, result, groups, self.weights)
                part.write_text(text, encoding="utf-8", newline="\n")
        for path in (self.weights, report, picture):
            self.say(f"wrote {path}" if anew else f"there is {path}")
        self.say("\nto use it:\n")
        for line in train_report.usage(kind, self.weights):
            self.say(f"    {line}" if line else "")


def _figures(now: FitProgress) -> str:
    """What stands beside the bar."""
    parts = [f"loss {now.loss:.4f}"]
    if now.metrics:
        parts.append(f"held-out iterations {now.metrics['iterations']:.1f}")
    if now.skipped:
        parts.append(f"{now.skipped} skipped")
    return ", ".join([*parts, f"{timedelta(seconds=round(now.eta))} left"])
