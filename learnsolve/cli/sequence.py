"""``learnsolve sequence``: models of sequences, trained on tasks that make their own data."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import Quiet
from learnsolve.cli.runs import (
    Device,
    Out,
    Run,
    Seed,
    Steps,
    Timeout,
    command_line,
    processes,
)

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
    quiet: Quiet = False,
) -> None:
    """Train a model on a task, and say how right it is, at lengths that it has not seen too.

    The same command continues a run that was stopped. RUN gets network.safetensors, config.toml,
    metrics.jsonl, report.md and accuracy.png. Exit code 0: finished, or paused by --timeout; 1: wrong config,
    or training failed; 130: interrupted, with a checkpoint.
    """
    command = command_line(
        "learnsolve", "sequence", "train", task=task, out=out, model=model, beta_max=beta_max, steps=steps,
        timeout=timeout, seed=seed, device=device,
    )  # fmt: skip
    from learnsolve.cli.sequence_config import SequenceConfig

    mixers = None if model is None else tuple(model.split(","))
    chosen = SequenceConfig.read(task).changed(steps, timeout, seed, mixers, beta_max)
    with processes(device) as (where, rank):
        _go(chosen, out, where, Run(command, rank, quiet))


def _go(config: "SequenceConfig", out: Path, where: Any, run: Run) -> None:
    """Train and report."""
    from learnsolve.files import replacing
    from learnsolve.sequence import backbone, training

    out.mkdir(parents=True, exist_ok=True)
    record = config.record()
    work = partial(training.train, config.training, config.task, device=where, folder=out, record=record)
    network, result, _ = run.train(work, config.training.fit.steps, _figures)
    if run.rank == 0:
        backbone.save(out / "network.safetensors", network.cpu(), task=record["task"])
        with replacing(out / "report.md") as part:
            part.write_text(
                markdown(config, result, network.parameters_count), encoding="utf-8", newline="\n"
            )
        _plot(result, out / "accuracy.png")
    for length in config.training.judged:
        where_seen = "" if length <= config.training.lengths[1] else ", longer than any it has seen"
        everywhere, last = result.metrics[f"accuracy_{length}"], result.metrics[f"last_{length}"]
        run.say(f"length {length}: {everywhere:.4f} right, at the end {last:.4f}{where_seen}")
    for number, rate in enumerate(network.activation(), 1):
        run.say(f"active in layer {number} of those that let tokens choose: {rate:.1%} of the tokens")
    for name in ("network.safetensors", "report.md", "accuracy.png"):
        run.say(f"wrote {out / name}")


def _figures(now: "FitProgress") -> list[str]:
    """What stands beside the bar."""
    return [f"{name.replace('_', ' ')} {value:.3f}" for name, value in now.metrics.items() if "last" in name]


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
