"""``learnsolve batch``: many files, one task each."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import (
    FAILED,
    NOT_CONVERGED,
    Atol,
    Bias,
    Json,
    Maxiter,
    Method,
    Preconditioner,
    Quiet,
    Rank,
    Regularization,
    Rtol,
    SplitSeed,
    say_error,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from learnsolve.batch import Record, Task

app = typer.Typer(
    help="Many files, one task each: bad ones are recorded, the rest is done; a second call does what is "
    "missing.",
    no_args_is_help=True,
)

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files, or folders of them.", show_default=False)
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for what is made, and for batch.jsonl.", file_okay=False)
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes of this machine.", show_default="one for each core")
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds for one file, of --workers.", show_default=False)
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Work where this dask scheduler says.", show_default=False),
]
Mpi = Annotated[
    bool,
    typer.Option("--mpi", help="Work on MPI's: mpiexec -n 5 python -m mpi4py.futures -m learnsolve ..."),
]


@app.command()
def solve(
    files: Files,
    out: Out,
    method: Method = "auto",
    preconditioner: Preconditioner = None,
    rtol: Rtol = 1e-5,
    atol: Atol = 0.0,
    maxiter: Maxiter = None,
    workers: Workers = None,
    timeout: Timeout = None,
    scheduler: Scheduler = None,
    mpi: Mpi = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Solve A x = b of each A.mtx, with b of A_b.mtx or all ones. Exit codes: those of 'learnsolve solve'."""
    from learnsolve.batch import SolveFile

    options = {"rtol": rtol, "atol": atol, "maxiter": maxiter}
    task = SolveFile(method, preconditioner, options)
    found = _without_right_hand_sides(listed(files, (".mtx", ".mtx.gz")), files)
    _run(task, found, out, workers, timeout, scheduler, mpi, as_json, quiet)


@app.command()
def complete(
    files: Files,
    out: Out,
    rank: Rank = None,
    regularization: Regularization = 0.0,
    bias: Bias = False,
    held_out: Annotated[float, typer.Option(help="Share of the entries to judge by.")] = 0.05,
    seed: SplitSeed = 0,
    workers: Workers = None,
    timeout: Timeout = None,
    scheduler: Scheduler = None,
    mpi: Mpi = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Complete the matrix of each file into factors. Exit codes as those of 'learnsolve complete'."""
    from learnsolve.batch import CompleteFile

    options = {"regularization": regularization, "bias": bias, "held_out": held_out, "seed": seed}
    task = CompleteFile(rank, options)
    endings = (".mtx", ".mtx.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".dat", ".data")
    _run(task, listed(files, endings), out, workers, timeout, scheduler, mpi, as_json, quiet)


def listed(files: list[Path], endings: tuple[str, ...]) -> list[Path]:
    """Files, and those inside of folders."""
    found = []
    for path in files:
        inside = [path]
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.name.endswith(endings))
        if not inside:
            raise FileNotFoundError(f"there is no {', '.join(endings)} in the folder {path}")
        found += inside
    return found


def _without_right_hand_sides(files: list[Path], given: list[Path]) -> list[Path]:
    """Files, but for those of right-hand sides beside their matrices, unless they were given by name."""
    stems = {path.with_name(path.name.split(".")[0]) for path in files}

    def belongs(path: Path) -> bool:
        stem = path.name.split(".")[0]
        return stem.endswith("_b") and path.with_name(stem[:-2]) in stems

    return [path for path in files if path in given or not belongs(path)]


@contextmanager
def executor_of(scheduler: str | None, mpi: bool) -> Iterator["Executor | None"]:
    """That of a dask scheduler or of MPI; None for processes of this machine."""
    if scheduler is not None and mpi:
        raise ValueError("--scheduler and --mpi exclude each other")
    if scheduler is not None:
        from distributed import Client

        with Client(scheduler) as client:
            yield client.get_executor()
    elif mpi:
        from mpi4py.futures import MPIPoolExecutor

        with MPIPoolExecutor() as pool:
            yield pool
    else:
        yield None


@contextmanager
def bar(total: int, shown: bool) -> Iterator[Any]:
    """A callback for records that moves a bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[failed]} failed"))
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task, failed = progress.add_task("files", total=total, failed=0), 0

        def callback(record: "Record") -> None:
            nonlocal failed
            failed += record.status == "failed"
            progress.update(task, advance=1, failed=failed)

        yield callback


def _run(
    task: "Task",
    files: list[Path],
    out: Path,
    workers: int | None,
    timeout: float | None,
    scheduler: str | None,
    mpi: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from learnsolve.batch import map_files

    shows_bar = not (quiet or as_json)
    with executor_of(scheduler, mpi) as executor, bar(len(files), shows_bar) as progress:
        options: dict[str, Any] = {"executor": executor, "workers": workers, "timeout": timeout}
        records = map_files(task, files, out, progress=progress, **options)
    shown(records, as_json, quiet)
    slow = [record for record in records if not record.result.get("success", True)]
    if any(record.status == "failed" for record in records):
        raise typer.Exit(FAILED)
    if slow:
        raise typer.Exit(NOT_CONVERGED)


def shown(records: list["Record"], as_json: bool, quiet: bool) -> None:
    """Print records, or how many there are of each kind and what has failed."""
    for record in records:
        if as_json:
            typer.echo(json.dumps(asdict(record)))
        elif record.status == "failed":
            say_error(f"{record.file}: {record.error}")
    if not (as_json or quiet):
        found = Counter(record.status for record in records)
        slow = sum(not record.result.get("success", True) for record in records)
        words = f"{found['done']} done, {found['present']} were there, {found['failed']} failed"
        typer.echo(f"{len(records)} files: {words}" + (f"; {slow} did not converge" if slow else ""))
