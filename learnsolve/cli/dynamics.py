"""``learnsolve dynamics``: the system behind a measured series, and how much of it a model shows."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from learnsolve.cli.common import Json, Quiet
from learnsolve.cli.runs import Device, Out, Parts, Run, Timeout, command_line, processes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learnsolve.dynamics import DynamicalModel, Reconstruction
    from learnsolve.dynamics.measures import Agreement
    from learnsolve.training import FitProgress, FitResult

app = typer.Typer(help="Dynamical systems out of measured series.", no_args_is_help=True)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="CSV, npy or npz: a row for each time; empty fields are gaps.",
        show_default=False,
    ),
]
Time = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column or array of times.", show_default=False)
]
Key = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which array of an npz file.", show_default=False)
]
Embed = Annotated[int, typer.Option(min=0, help="Delays of a single variable to embed it with; 0 for none.")]
Lag = Annotated[
    int | None,
    typer.Option(
        min=1, help="Times between delays, instead of where its correlation falls to 1/e.", show_default=False
    ),
]
# Exponents are a mean over so many steps of a free run.
STEPS = 50_000


@app.callback()
def _dynamics() -> None:
    """Dynamical systems out of measured series."""


@app.command()
def fit(
    data: File,
    out: Out,
    time: Time = None,
    key: Key = None,
    dt: Annotated[float, typer.Option(help="Time between rows, where no column says it.")] = 1.0,
    embed: Embed = 0,
    lag: Lag = None,
    method: Annotated[
        Literal["gtf", "stf", "bptt"], typer.Option(help="Generalized or sparse teacher forcing, or none.")
    ] = "gtf",
    alpha: Annotated[
        str, typer.Option(help="Strength of the forcing: a number, or how it is estimated.")
    ] = "geometric-mean",
    dim: Annotated[
        int | None, typer.Option(min=1, help="States; as many as variables.", show_default=False)
    ] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 50,
    observation: Annotated[
        Literal["identity", "affine"], typer.Option(help="How states are observed.")
    ] = "identity",
    length: Annotated[int, typer.Option(min=1, help="Times of a window to learn from.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 25_000,
    held_out: Annotated[float, typer.Option(help="Share at the end that the model is judged by.")] = 0.2,
    timeout: Timeout = None,
    parts: Parts = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Learn a model whose free run has the attractor, the spectrum and the exponents of a measured system.

    The same command continues a run that was stopped. RUN gets model.safetensors, report.md, portrait.png,
    spectrum.png, exponents.png, config.toml and metrics.jsonl. Exit code 0: finished, or paused by --timeout;
    1: the file or an option is refused, or training failed; 130: interrupted, with a checkpoint.
    """
    command = command_line(
        "learnsolve", "dynamics", "fit", str(data), out=out, time=time, key=key, dt=dt, embed=embed, lag=lag,
        method=method, alpha=alpha, dim=dim, hidden=hidden, observation=observation, length=length,
        steps=steps, held_out=held_out, timeout=timeout, parts=parts, seed=seed, device=device,
    )  # fmt: skip
    values, names, dt, lag = _read(data, time, key, dt, embed, lag)
    with processes(device) as (where, rank):
        work = partial(
            _reconstructed, values, method, dim, hidden=hidden, alpha=_strength(alpha),
            observation=observation, dt=dt, length=length, steps=steps, held_out=held_out, names=names,
            seed=seed, timeout=timeout, parts=parts, folder=out, device=where,
        )  # fmt: skip
        run = Run(command, rank, quiet)
        out.mkdir(parents=True, exist_ok=True)
        found, _, _ = run.train(work, steps, _figures)
        if rank == 0:
            _write(out, data.name, found, values, embed, lag)
        _say(run, found.model, found.free_run, found.floor)
        run.say(f"{'success' if found.success else 'no success'}: {found.message}")
        for name in ("model.safetensors", "report.md", "portrait.png", "spectrum.png", "exponents.png"):
            run.say(f"wrote {out / name}")


@app.command()
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a fit, or its model.safetensors.", show_default=False),
    ],
    data: File,
    time: Time = None,
    key: Key = None,
    embed: Embed = 0,
    lag: Lag = None,
    ahead: Annotated[int, typer.Option(min=1, help="Steps of the forecasts whose error is told.")] = 20,
    as_json: Json = False,
) -> None:
    """Say how alike a model's free run and a series are that it has not seen.

    Exit code 0: told; 1: the files do not fit each other.
    """
    from learnsolve.dynamics import DynamicalModel
    from learnsolve.dynamics.measures import agreement, prediction_error

    path = run / "model.safetensors" if run.is_dir() else run
    model = DynamicalModel.load(path)
    values, _, _, _ = _read(data, time, key, model.dt, embed, lag)
    if values.shape[1] != len(model.mean):
        raise ValueError(
            f"the series has {values.shape[1]} variables, the model {len(model.mean)}: give the same "
            "columns, or --embed and --lag of the fit"
        )
    known = values[_whole(values)]
    half = len(known) // 2
    if half < 2 or len(known) <= ahead:
        raise ValueError(f"the series has {len(known)} whole rows; more than {max(ahead, 3)} are accepted")
    free = agreement(known, model.simulate(len(known), x0=known[0], transient=len(known) // 4))
    floor = agreement(known[:half], known[half:])
    error = prediction_error(model.forecast, known, steps=ahead)
    if as_json:
        record: dict[str, Any] = {
            "run": str(run),
            "data": str(data),
            "free_run": free._asdict(),
            "floor": floor._asdict(),
        }
        record |= {"ahead": ahead, "error": float(error), "variance": float(known.var(0).mean())}
        typer.echo(json.dumps(record))
        return
    say = Run("", 0)
    _say(say, model, free, floor)
    say.say(f"error {ahead} steps ahead: {error:.4g}, of a variance of {known.var(0).mean():.4g}")


def _whole(values: "NDArray") -> "NDArray":
    import numpy as np

    return np.isfinite(values).all(1)


def _read(
    data: Path, time: str | None, key: str | None, dt: float, embed: int, lag: int | None
) -> tuple["NDArray", tuple[str, ...], float, int | None]:
    """Values, their names, the time between them, and the lag."""
    from learnsolve.datasets.measured import decorrelation_lag, delay_embedding, read_measured
    from learnsolve.dynamics.trajectories import trajectories

    found = read_measured(data, time=time, key=key)
    values, names = found.values, found.names
    _, dt = trajectories(values, times=found.times, dt=dt)
    if embed:
        if values.shape[1] != 1:
            raise ValueError(f"{data} has {values.shape[1]} variables: --embed takes one")
        lag = decorrelation_lag(values[:, 0]) if lag is None else lag
        values = delay_embedding(values[:, 0], embed, lag)
        names = tuple(f"{names[0]}-{k * lag}" for k in range(embed))
    return values, names, dt, lag


def _strength(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _reconstructed(values: "NDArray", *given: Any, **options: Any) -> tuple["Reconstruction", "FitResult"]:
    from learnsolve.dynamics import reconstruct_dynamics

    found = reconstruct_dynamics(values, *given, **options)
    return found, found.fit


def _figures(now: "FitProgress") -> list[str]:
    """What stands beside the bar, beside the loss: nothing."""
    return []


def _say(run: Run, model: "DynamicalModel", free: "Agreement", floor: "Agreement") -> None:
    run.say(
        f"D_stsp {free.state_space:.3f} (floor {floor.state_space:.3f}), D_H {free.spectrum:.3f} (floor "
        f"{floor.spectrum:.3f}, {free.smoothing} bins of {free.length} times)"
    )
    if not model.network.inputs:
        exponents = model.lyapunov_spectrum(STEPS).exponents
        run.say(f"Lyapunov exponents: {', '.join(f'{one:.3f}' for one in exponents[:8])}")


def _write(
    out: Path, name: str, found: "Reconstruction", values: "NDArray", embed: int, lag: int | None
) -> None:
    """Model, report and pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from learnsolve.dynamics.pictures import plot_exponents, plot_portrait, plot_spectra
    from learnsolve.files import replacing

    model = found.model
    model.save(out / "model.safetensors")
    known = values[_whole(values)]
    runs = {"measured": known, "model": model.simulate(len(known), transient=len(known) // 4)}
    spectrum = model.lyapunov_spectrum(STEPS)
    with replacing(out / "report.md") as part:
        part.write_text(_report(name, found, embed, lag, spectrum), encoding="utf-8", newline="\n")
    for file, draw in (
        ("portrait.png", partial(plot_portrait, runs)),
        ("spectrum.png", partial(plot_spectra, runs, dt=model.dt)),
        ("exponents.png", partial(plot_exponents, {"model": spectrum.exponents})),
    ):
        figure = Figure(figsize=(6, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        draw(ax=figure.subplots())
        with replacing(out / file) as part:
            figure.savefig(part, format="png", dpi=120)


def _report(name: str, found: "Reconstruction", embed: int, lag: int | None, spectrum: Any) -> str:
    model, free, floor = found.model, found.free_run, found.floor
    network = model.network
    count = sum(one.numel() for one in network.parameters())
    lines = [
        f"# {name}",
        "",
        f"* Model: {model.dim} states, {network.hidden} hidden units, {count:,} numbers; "
        f"{model.observation.kind} observation of {len(model.mean)} variables, {model.dt:g} apart.",
        f"* Trained: {found.fit.step} steps in {found.fit.seconds:.0f} s, last loss {found.fit.loss:.3g}; "
        f"the strength of the forcing is {found.alpha:.3f} in the end.",
        f"* {'Success' if found.success else 'No success'}: {found.message}.",
        "",
        f"A free run beside what was held out; {free.bins} bins a variable, spectra smoothed over "
        f"{free.smoothing} bins of {free.length} times:",
        "",
        "| measure | free run | floor: what was learned from |",
        "|---|---:|---:|",
        f"| D_stsp | {free.state_space:.3f} | {floor.state_space:.3f} |",
        f"| D_H | {free.spectrum:.3f} | {floor.spectrum:.3f} |",
        "",
        f"Lyapunov exponents, over {spectrum.steps} steps: "
        f"{', '.join(f'{one:.4f}' for one in spectrum.exponents)}; dimension by Kaplan and Yorke "
        f"{spectrum.kaplan_yorke:.2f}.",
    ]
    if embed:
        lines.insert(2, f"* One variable, embedded in {embed} delays of {lag} times.")
    return "\n".join(lines) + "\n"
