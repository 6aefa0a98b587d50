"""``learnsolve sequence``: models of sequences, trained on tasks that make their own data."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.train import BAD_CONFIG, FAILED, INTERRUPTED, Device, Out, Seed, Steps, Timeout, ended

if TYPE_CHECKING:
    from learnsolve.cli.sequence_config import SequenceConfig
    from learnsolve.training import FitProgress, FitResult

app = typer.Typer(help="Models of sequences: state tracking, recall.", no_args_is_help=True)


@app.callback()
def _sequence() -> None:
    """Models of sequences: state tracking, recall."""


@app.command()
def train(
    task: Annotated[str, typer.Option(metavar="NAME|FILE", help="A shipped config, or a .toml file.")],
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(help="Mixing layers by turns, as deltanet or deltanet,window.", show_default=False),
    ] = None,
    beta_max: Annotated[
        float | None,
        typer.Option(help="Of DeltaNet: up to 2 for negative eigenvalues.", show_default=False),
    ] = None,
    steps: Steps = None,
    timeout: Timeout = None,
    seed: Seed = None,
    device: Device = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a model on a task, and say how right it is, at lengths that it has not seen too.

    The same command continues a run that was stopped. RUN gets network.safetensors, config.toml,
    metrics.jsonl, report.md and accuracy.png. Exit code 0: finished, or paused by --timeout; 2: wrong config;
    1: training failed; 130: interrupted, with a checkpoint.
    """
    try:
        from learnsolve.cli.sequence_config import SequenceConfig
        from learnsolve.cli.train import processes

        mixers = None if model is None else tuple(model.split(","))
        chosen = SequenceConfig.read(task).changed(steps, timeout, seed, mixers, beta_max)
        with processes(device) as (where, rank):
            asked = _run(chosen, out, where, rank, quiet, _command(locals()))
    except (OSError, ValueError) as error:
        raise ended(error, BAD_CONFIG) from None
    except (RuntimeError, MemoryError) as error:
        raise ended(error, FAILED) from None
    if asked:
        raise typer.Exit(INTERRUPTED)


def _command(given: dict[str, Any]) -> str:
    """The same call, to be typed again."""
    words = ["learnsolve", "sequence", "train"]
    for name in ("task", "out", "model", "beta_max", "steps", "timeout", "seed", "device"):
        if given[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    return shlex.join(words)


def _run(config: "SequenceConfig", out: Path, where: Any, rank: int, quiet: bool, command: str) -> bool:
    """Train and report; whether a signal has stopped it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from learnsolve.cli.train import signals
    from learnsolve.files import replacing
    from learnsolve.sequence import backbone, training

    console = Console(quiet=quiet or rank != 0)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    out.mkdir(parents=True, exist_ok=True)
    texts = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*texts, console=console) as progress, signals() as asked:
        bar = progress.add_task("training", total=config.training.fit.steps, now="")

        def note(now: "FitProgress") -> bool:
            progress.update(bar, completed=now.step, now=_figures(now))
            return asked()

        network, result = training.train(
            config.training, config.task, device=where, folder=out, callback=note, record=config.record()
        )
        progress.update(bar, completed=result.step)
        stopped = asked()
    if not result.finished:
        say(f"stopped at step {result.step} of {config.training.fit.steps}, with a checkpoint")
        say(f"to continue: {command}")
        return stopped
    if rank == 0:
        backbone.save(out / "network.safetensors", network.cpu(), task=config.record()["task"])
        with replacing(out / "report.md") as part:
            part.write_text(
                markdown(config, result, network.parameters_count), encoding="utf-8", newline="\n"
            )
        _plot(result, out / "accuracy.png")
    for length in config.training.judged:
        where_seen = "" if length <= config.training.lengths[1] else ", longer than any it has seen"
        everywhere, last = result.metrics[f"accuracy_{length}"], result.metrics[f"last_{length}"]
        say(f"length {length}: {everywhere:.4f} right, at the end {last:.4f}{where_seen}")
    for name in ("network.safetensors", "report.md", "accuracy.png"):
        say(f"wrote {out / name}")
    return False


def _figures(now: "FitProgress") -> str:
    parts = [f"loss {now.loss:.4f}"]
    parts += [
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in now.metrics.items() if "last" in name
    ]
    return ", ".join([*parts, f"{timedelta(seconds=round(now.eta))} left"])


def markdown(config: "SequenceConfig", result: "FitResult", count: int) -> str:
    """The report: what was trained, and how right it is."""
    training = config.training
    options = {name: value for name, value in config.record()["task"].items() if name != "name"}
    lines = [
        f"# {config.task.name}",
        "",
        f"* Task: {', '.join(f'{name} {value}' for name, value in options.items()) or config.task.name}; "
        f"lengths {training.lengths[0]} to {training.lengths[1]}, {training.batch} sequences a step.",
        f"* Network: {', '.join(training.network.mixers)}, {count:,} parameters; beta up to "
        f"{training.network.beta_max:g}.",
        f"* Trained: {result.step} steps in {result.seconds:.0f} s, last loss {result.loss:.3g}.",
        "",
        f"{training.count} sequences of each length, none of which it was trained on:",
        "",
        "| length | right of all that is asked | right at the end |",
        "|---:|---:|---:|",
    ]
    for length in training.judged:
        everywhere, last = result.metrics[f"accuracy_{length}"], result.metrics[f"last_{length}"]
        lines.append(f"| {length} | {everywhere:.4f} | {last:.4f} |")
    return "\n".join(lines) + "\n"


def _plot(result: "FitResult", path: Path) -> None:
    """Loss, and accuracy at each length, over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from learnsolve.files import replacing

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps = [line["step"] for line in result.history]
    for name in result.metrics:
        if name.startswith("last_"):
            shares = [line["metrics"].get(name) for line in result.history]
            axes.plot(steps, shares, marker="o", label=f"length {name.removeprefix('last_')}")
    axes.set(xlabel="step", ylabel="right at the end", ylim=(0, 1.02))
    axes.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)
