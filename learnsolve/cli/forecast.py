"""``learnsolve forecast``: what follows a series, and how far such forecasts were from what came."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from learnsolve.cli.common import Quiet
from learnsolve.cli.runs import (
    Device,
    Out,
    Parts,
    Run,
    Timeout,
    command_line,
    processes,
    time_left,
)

if TYPE_CHECKING:
    from torch import Tensor

    from learnsolve.datasets.series import Series, Splits
    from learnsolve.forecasting import ChimeraForecaster, Errors, Ridge
    from learnsolve.training import FitOptions, FitProgress, FitResult

# Of each variate that is drawn.
DRAWN = 6


def forecast(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV with a header, dates and columns of numbers.", show_default=False
        ),
    ],
    horizon: Annotated[int, typer.Option(min=1, help="Times ahead.", show_default=False)],
    out: Out,
    model: Annotated[
        Literal["chimera", "ridge"], typer.Option(help="A network that begins at the line, or the line.")
    ] = "chimera",
    look_back: Annotated[int, typer.Option(min=2, help="Times that a forecast is made from.")] = 336,
    patch: Annotated[int, typer.Option(min=1, help="Times that make one place of the network's grid.")] = 24,
    split: Annotated[
        Literal["shares", "months"],
        typer.Option(help="Learn, choose and judge by 70/10/20 % of the times, or 12/4/4 months of 30 days."),
    ] = "shares",
    date: Annotated[
        str | None, typer.Option(help="Column of dates, instead of the first.", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 300,
    timeout: Timeout = None,
    parts: Parts = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Forecast all variates of a file, and judge by its last part, beside a line and the last value repeated.

    The same command continues a run that was stopped. RUN gets forecast.csv, report.md, forecast.png, and of
    chimera network.safetensors, config.toml and metrics.jsonl. Exit code 0: finished, or paused by --timeout;
    1: the file or an option is refused, or training failed; 130: interrupted, with a checkpoint.
    """
    began = time.perf_counter()
    command = command_line(
        "learnsolve", "forecast", str(data), horizon=horizon, out=out, model=model, look_back=look_back,
        patch=patch, split=split, date=date, steps=steps, timeout=timeout, parts=parts, seed=seed,
        device=device,
    )  # fmt: skip
    from learnsolve.datasets.series import read_series
    from learnsolve.forecasting import ChimeraOptions
    from learnsolve.training import FitOptions

    series = read_series(data, date=date)
    splits = series.months() if split == "months" else series.fractions()
    network = ChimeraOptions(len(series.names), look_back, horizon, patch=patch)
    fit = FitOptions(
        steps=steps, learning_rate=1e-3, schedule="cosine", warmup=min(20, steps - 1), optimizer="adamw",
        weight_decay=0.01, ema=0.98, seed=seed, validate_every=max(steps // 12, 1), timeout=timeout,
        parts=parts,
    )  # fmt: skip
    with processes(device) as (where, rank):
        task = _Task(data, series, splits, model, look_back, horizon)
        _go(task, network, time_left(fit, began), out, where, Run(command, rank, quiet))


class _Task(NamedTuple):
    """What is forecast, and from what."""

    data: Path
    series: "Series"
    parts: "Splits"
    model: str
    look_back: int
    horizon: int


def _go(task: _Task, options: Any, fit: "FitOptions", out: Path, where: Any, run: Run) -> None:
    """Fit, judge and write."""
    import torch

    from learnsolve.forecasting import errors, fit_ridge, repeated
    from learnsolve.forecasting.chimera import save

    series, parts = task.series, task.parts
    mean, scale = series.moments(parts.train)
    values = torch.tensor(series.standardised(parts.train).values, dtype=torch.float32, device=where)
    line = fit_ridge(values, task.look_back, task.horizon, parts.train, parts.valid)
    out.mkdir(parents=True, exist_ok=True)
    judge = partial(errors, values=values, look_back=task.look_back, horizon=task.horizon, targets=parts.test)
    table = {"last value repeated": judge(lambda x: repeated(x, task.horizon)), "ridge": judge(line)}
    result, network, model = None, None, line
    if task.model == "chimera":
        network, result, _ = run.train(
            partial(_trained, task, options, values, line, fit, out), fit.steps, _figures
        )
        network.standardise(torch.tensor(mean), torch.tensor(scale))
        model = network.eval()
        table["chimera"] = judge(network)
    if run.rank == 0:
        with torch.no_grad():
            ahead = model(values[-task.look_back :].mT.unsqueeze(0))[0].mT.cpu().double().numpy()
        written = ["forecast.csv", "report.md", "forecast.png"]
        _write(out / "forecast.csv", task, ahead * scale + mean)
        _report(out / "report.md", task, table, line, network, result)
        _draw(out / "forecast.png", task, ahead * scale + mean)
        if network is not None:
            save(out / "network.safetensors", network.cpu(), names=list(series.names))
            written.append("network.safetensors")
        for name, found in table.items():
            run.say(f"{name}: MSE {found.mse:.4f}, MAE {found.mae:.4f}")
        for name in written:
            run.say(f"wrote {out / name}")


def _trained(
    task: _Task, options: Any, values: "Tensor", line: "Ridge", fit: "FitOptions", out: Path, callback: Any
) -> tuple["ChimeraForecaster", "FitResult"]:
    import torch

    from learnsolve.forecasting import train

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        network = options.build().to(values.device)
    network.begin(line)
    record = {"network": network.metadata, "parts": {name: list(one) for name, one in _named(task.parts)}}
    learned, valid, _ = task.parts
    result = train(
        network, values, task.look_back, task.horizon, learned, valid, fit, folder=out, callback=callback,
        record=record,
    )  # fmt: skip
    return network, result


def _named(parts: "Splits") -> list[tuple[str, tuple[int, int]]]:
    return list(parts._asdict().items())


def _figures(now: "FitProgress") -> list[str]:
    """What stands beside the bar."""
    return [f"{name} {value:.4f}" for name, value in now.metrics.items()]


def _report(
    path: Path,
    task: _Task,
    table: dict[str, "Errors"],
    line: "Ridge",
    network: "ChimeraForecaster | None",
    result: "FitResult | None",
) -> None:
    """What was forecast, how, and how far off."""
    from learnsolve.files import replacing

    series, (train, valid, test) = task.series, task.parts
    lines = [
        f"# {task.data.name}, {task.horizon} times ahead",
        "",
        f"* Series: {len(series)} times by {series.step}, {len(series.names)} variates "
        f"({', '.join(series.names[:20])}).",
        f"* Learned from {series.time(train[0])} on, {train[1] - train[0]} times; chosen by the next "
        f"{valid[1] - valid[0]}; judged by the next {test[1] - test[0]}, by which nothing was chosen.",
        f"* Each forecast is made from {task.look_back} times. The ridge's penalty is {line.penalty:g}.",
    ]
    if network is not None and result is not None:
        lines.append(
            f"* Network: {network.parameters_count:,} numbers beside the ridge solution, {result.step} steps "
            f"in {result.seconds:.0f} s. On the part to choose by its mean squared error is surely less by "
            f"{result.metrics['best']:.4f}; at zero it is the ridge itself."
        )
    best = min(table, key=lambda name: table[name].mse)
    lines += [
        "",
        "All windows of the judged part, in deviations of each variate over the part that was learned from:",
        "",
        "| forecast | MSE | MAE |",
        "|---|---:|---:|",
        *(f"| {name} | {one.mse:.4f} | {one.mae:.4f} |" for name, one in table.items()),
        "",
        f"The least mean squared error is that of: {best}.",
    ]
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _write(path: Path, task: _Task, ahead: Any) -> None:
    """What follows the end of the file, in its own units."""
    import csv

    from learnsolve.files import replacing

    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["date", *task.series.names])
        for number, row in enumerate(ahead.tolist(), len(task.series)):
            rows.writerow([task.series.time(number), *(f"{value:.7g}" for value in row)])


def _draw(path: Path, task: _Task, ahead: Any) -> None:
    """The end of the series and what follows, of the first variates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from learnsolve.files import replacing

    series, shown = task.series, min(len(task.series.names), DRAWN)
    figure = Figure(figsize=(8, 1 + 1.5 * shown), layout="constrained")
    FigureCanvasAgg(figure)
    first = max(len(series) - task.look_back, 0)
    for number, ax in enumerate(figure.subplots(shown, sharex=True, squeeze=False)[:, 0]):
        ax.plot(range(first, len(series)), series.values[first:, number], color="0.4")
        ax.plot(range(len(series), len(series) + task.horizon), ahead[:, number])
        ax.set_ylabel(series.names[number])
    ax.set_xlabel(f"times of {series.step} from {series.start} on")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)
