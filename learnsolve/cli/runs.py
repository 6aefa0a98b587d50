"""What commands that train have in common: options, the bar, signals, and how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from learnsolve.cli.common import INTERRUPTED

if TYPE_CHECKING:
    import torch

    from learnsolve.training import FitOptions, FitProgress, FitResult

Out = Annotated[Path, typer.Option(metavar="RUN", help="The run's folder.", file_okay=False)]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps, instead of the config's.", show_default=False)]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds until the run pauses with a checkpoint.", show_default=False)
]
Parts = Annotated[
    int,
    typer.Option(
        min=0, help="Batches that make a step, which processes share.", show_default="one for each process"
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed, instead of the config's.", show_default=False)]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")]


def command_line(*words: str, **options: Any) -> str:
    """A call to be typed again: without options that are None, and with those that are lists repeated.

    Examples
    --------
    >>> command_line("learnsolve", "mri", "train", steps=3, seed=None, beta_max=2.0, data=["a b", "c"])
    "learnsolve mri train --steps 3 --beta-max 2.0 --data 'a b' --data c"
    """
    call = list(words)
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                call += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(call)


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


def time_left(fit: FitOptions, began: float) -> FitOptions:
    """Options whose timeout counts from when the command began, by `time.perf_counter`."""
    if fit.timeout is None:
        return fit
    return replace(fit, timeout=max(fit.timeout - (time.perf_counter() - began), 1e-3))


class Trained(NamedTuple):
    """A run that came to its end.

    Attributes
    ----------
    network : nn.Module
    result : FitResult
    worked : bool
        Whether a step was made in this call.
    """

    network: Any
    result: FitResult
    worked: bool


class Run:
    """What a call of a command shows.

    Parameters
    ----------
    command : str
        The same call, to be typed again.
    rank : int
        Of the processes only the first one speaks.
    quiet : bool
        Whether it does not either.
    """

    def __init__(self, command: str, rank: int, quiet: bool = False) -> None:
        self.command, self.rank = command, rank
        self.console = Console(quiet=quiet or rank != 0)
        self.bars = Console(stderr=True, quiet=quiet or rank != 0)

    def say(self, text: str) -> None:
        """A line in which nothing is folded, or taken for markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def bar(self, *fields: str) -> Progress:
        """A bar, with fields of its tasks beside it."""
        texts = (TextColumn(f"{{task.fields[{field}]}}") for field in fields)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *texts)
        return Progress(*columns, console=self.bars, disable=not self.bars.is_terminal)

    def train(
        self,
        train: Callable[..., tuple[Any, FitResult]],
        steps: int,
        figures: Callable[[FitProgress], list[str]],
    ) -> Trained:
        """Train to the end, behind a bar.

        Parameters
        ----------
        train : callable
            Takes the ``callback``.
        steps : int
            Of the whole run.
        figures : callable
            What stands beside the bar, between the loss and the time that is left.

        Raises
        ------
        typer.Exit
            A signal or the timeout has stopped the run; the same command continues it.
        """
        worked, told = False, ""
        with self.bar("figures") as progress, signals() as asked:
            task = progress.add_task("training", total=steps, figures="")

            def callback(now: FitProgress) -> bool:
                nonlocal worked, told
                worked = True
                told = ", ".join([f"loss {now.loss:.4f}", *figures(now)])
                left = f"{timedelta(seconds=round(now.eta))} left"
                progress.update(task, completed=now.step, figures=f"{told}, {left}")
                return asked()

            network, result = train(callback=callback)
            progress.update(task, completed=result.step)
            interrupted = asked()
        if worked:
            self.say(f"step {result.step}: {told}")
        if not result.finished:
            self.say(f"stopped at step {result.step} of {steps}, with a checkpoint")
            self.say(f"to continue: {self.command}")
            raise typer.Exit(INTERRUPTED if interrupted else 0)
        return Trained(network, result, worked)
