"""``learnsolve mri``: what a file of k-space holds, and images from it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from learnsolve.cli import mri_report, mri_tools, mri_train
from learnsolve.cli.batch import Mpi, Scheduler, bar, executor_of, listed
from learnsolve.cli.common import FAILED, NOT_CONVERGED, Json, Quiet, say_error

if TYPE_CHECKING:
    from learnsolve.mri import Sampling

app = typer.Typer(help="Magnetic resonance images from k-space.", no_args_is_help=True)
app.command()(mri_tools.mask)
app.command()(mri_tools.maps)
app.command()(mri_tools.simulate)
app.command()(mri_tools.evaluate)
app.command()(mri_train.train)
app.command()(mri_report.report)


class Method(StrEnum):
    """How to reconstruct."""

    auto = "auto"
    l1_wavelet = "l1-wavelet"
    total_variation = "total-variation"
    cg_sense = "cg-sense"
    recurrentvarnet = "recurrentvarnet"
    zero_filled = "zero-filled"


class Maps(StrEnum):
    """How to find what the coils see."""

    espirit = "espirit"
    walsh = "walsh"
    low_resolution = "low-resolution"


Key = Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="kspace")]
Axes = Annotated[
    str | None,
    typer.Option(help="What the axes are: letters of scyxr, e.g. yxcs.", show_default="found"),
]


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="HDF5, .npy, .npz or .cfl.")],
    key: Key = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Say what files hold. Exit code 0: k-space; 1: one of them is something else."""
    from learnsolve.datasets.kspace import open_kspace

    failed = False
    for path in files:
        try:
            with open_kspace(path, key=key, axes=axes) as kspace:
                about = {name: str(value)[:100] for name, value in kspace.attributes.items()}
                if as_json:
                    record = {"file": str(path), "verdict": kspace.verdict(), "shape": list(kspace.shape)}
                    typer.echo(json.dumps({**record, "centred": kspace.centred, "attributes": about}))
                    continue
                typer.echo(f"{path}: {kspace.verdict()}")
                for name, value in about.items():
                    typer.echo(f"  {name}: {value}")
        except (OSError, ValueError) as error:
            failed = True
            say_error(error)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def recon(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of k-space, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for files of the same names.")],
    method: Annotated[Method, typer.Option(help="How to reconstruct.")] = Method.auto,
    maps: Annotated[Maps, typer.Option(help="How to find what the coils see.")] = Maps.espirit,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="RULE|FILE",
            help="Undersample first, to judge: by a rule of `learnsolve mri mask`, or a file of a mask.",
            show_default=False,
        ),
    ] = None,
    acceleration: mri_tools.Acceleration = 4.0,
    centre: mri_tools.Centre = None,
    axis: mri_tools.Axis = -1,
    seed: Annotated[int | None, typer.Option(help="Of the rule.", show_default="the file's name")] = None,
    weights: Annotated[
        str, typer.Option(help="Of recurrentvarnet: a name, or a .safetensors file.")
    ] = "small",
    consistent: Annotated[
        bool, typer.Option("--consistent", help="Of recurrentvarnet: what was measured stays.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Of recurrentvarnet: fall back where it fails.")
    ] = True,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Measure the error at samples that are kept aside, too.")
    ] = False,
    key: Key = None,
    axes: Axes = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes of this machine, one file each; 0: this one.")
    ] = 0,
    scheduler: Scheduler = None,
    mpi: Mpi = False,
    report: Annotated[bool, typer.Option("--report", help="Write a page with pictures, too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how long it would take, by one slice of each file.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct volumes, a slice at a time; a second call does what is missing.

    A file of the same name in the folder gets the dataset reconstruction (slices, height, width), and the
    attributes of how it was made. Exit code 0: all is well; 2: slices were skipped or did not converge; 1: a
    file was not read, or an option is wrong.
    """
    from learnsolve.batch import Recipe, ReconstructFile, map_files
    from learnsolve.batch.scans import SUFFIXES, forecast

    worst, silent = 0, quiet or as_json
    rule, file = _masked(mask, acceleration, centre, axis, seed)
    recipe = Recipe(
        method.value,
        maps.value,
        rule,
        seed is None,
        file,
        weights,
        consistent,
        check,
        hold_out,
        key,
        axes,
    )
    found = listed(files, SUFFIXES)
    for beside in recipe.files():
        if not beside.is_file():
            raise FileNotFoundError(f"there is no file {beside}")
    if method in (Method.recurrentvarnet, Method.auto):
        from learnsolve.mri.learned import load

        load(weights)
    if dry_run:
        for path in found:
            try:
                _foretell(forecast(path, recipe), as_json)
            except (OSError, ValueError) as error:
                say_error(error)
                worst = FAILED
        raise typer.Exit(worst)
    alone = workers == 0 and scheduler is None and not mpi
    shows_bar = not (alone or silent)
    with (
        executor_of(scheduler, mpi) as executor,
        bar(len(found), shows_bar) as progress,
        _bars_of_slices(alone and not silent) as slices,
    ):
        task = ReconstructFile(recipe, slices)
        options: dict[str, Any] = {"executor": executor, "workers": None if executor else workers}
        records = map_files(task, found, out, progress=progress, **options)
    for held in records:
        if held.status == "failed":
            say_error(f"{held.file}: {held.error}")
            worst = FAILED
            continue
        record = held.result
        if report:
            try:
                record["report"] = str(mri_report.written(Path(record["out"]), out))
            except (OSError, ValueError) as error:
                say_error(error)
                worst = FAILED
        if as_json:
            typer.echo(json.dumps(record))
        elif not quiet:
            _show(record)
        if (record["skipped"] or record["not_converged"]) and worst == 0:
            worst = NOT_CONVERGED
    if worst:
        raise typer.Exit(worst)


@contextmanager
def _bars_of_slices(shown: bool) -> Iterator[Callable[[Path, int, int], None] | None]:
    """A bar on standard error for each file."""
    from rich.console import Console
    from rich.progress import Progress, TaskID, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[Path, TaskID] = {}

        def callback(path: Path, done: int, slices: int) -> None:
            if path not in tasks:
                tasks[path] = progress.add_task(path.name, total=slices)
            progress.update(tasks[path], completed=done)

        yield callback


def _masked(
    mask: str | None, acceleration: float, centre: float | None, axis: int, seed: int | None
) -> tuple["Sampling | None", str | None]:
    """A rule, or the file of a mask."""
    from learnsolve.mri import Sampling
    from learnsolve.mri.masks import Kind

    if mask is None:
        return None, None
    if mask in get_args(Kind):
        return Sampling(
            cast("Kind", mask), acceleration, centre=centre, axis=axis, seed=0 if seed is None else seed
        ), None
    if not Path(mask).suffix:
        raise ValueError(f"mask is {mask!r}; {', '.join(get_args(Kind))} or a file are accepted")
    return None, str(Path(mask).resolve())


def _foretell(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record))
        return
    typer.echo(f"{record['file']}: {record['verdict']}")
    typer.echo(
        f"  about {record['seconds']:.1f} s for {record['slices']} slices, {record['bytes'] / 2**20:.0f} MiB "
        f"of memory, {record['written_bytes'] / 2**20:.1f} MiB to be written"
    )


def _show(record: dict[str, Any]) -> None:
    typer.echo(f"{record['file']}: {record['verdict']}")
    factor = f", factor {record['factor']:.2f}" if "factor" in record else ""
    typer.echo(f"  {', '.join(record['methods'])}, maps by {record['maps']}{factor}")
    if record["metrics"]:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in record["metrics"].items())
        typer.echo(f"  means over slices: {shown}")
    if record["fallback"]:
        typer.echo(f"  by l1-wavelet, since the network failed its check: slices {record['fallback']}")
    for one in record["skipped"]:
        typer.echo(f"  slice {one['slice']} skipped: {one['why']}")
    for one in record["not_converged"]:
        typer.echo(f"  slice {one['slice']}: {one['status']}")
    typer.echo(f"  wrote {record['out']}")
    if "report" in record:
        typer.echo(f"  wrote {record['report']}")
