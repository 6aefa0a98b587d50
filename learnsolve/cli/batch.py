"""``learnsolve batch``: many files, one task each."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.solve import BAD_INPUT, NOT_CONVERGED

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
Json = Annotated[bool, typer.Option("--json", help="Print a record for each file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.command()
def solve(
    files: Files,
    out: Out,
    method: Annotated[str, typer.Option(help="See 'learnsolve methods'.")] = "auto",
    preconditioner: Annotated[
        str | None,
        typer.Option("--preconditioner", "-M", help="See 'learnsolve methods'.", show_default=False),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Stop at |b - A x| <= rtol |b| ...")] = 1e-5,
    atol: Annotated[float, typer.Option(help="... or at |b - A x| <= atol.")] = 0.0,
    maxiter: Annotated[int | None, typer.Option(help="Most iterations.", show_default=False)] = None,
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
    _run(task, listed(files, (".mtx", ".mtx.gz")), out, workers, timeout, scheduler, mpi, as_json, quiet)


@app.command()
def complete(
    files: Files,
    out: Out,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Columns of the factors.", show_default="found")
    ] = None,
    regularization: Annotated[float, typer.Option(help="For each entry of a row or column.")] = 0.0,
    bias: Annotated[bool, typer.Option(help="A number for each row and column beside the factors.")] = False,
    held_out: Annotated[float, typer.Option(help="Share of the entries to judge by.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the start and of what is held out.")] = 0,
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
    """Files, and those inside of folders; a right-hand side beside its matrix is not one of them."""
    found = []
    for path in files:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(entry for entry in path.iterdir() if entry.name.endswith(endings))
        names = {entry.name.split(".")[0] for entry in inside}
        found += [
            entry
            for entry in inside
            if not (entry.name.split(".")[0].endswith("_b") and entry.name.split(".")[0][:-2] in names)
        ]
        if not inside:
            raise typer.BadParameter(f"there is no {', '.join(endings)} in the folder {path}")
    return found


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

    try:
        with executor_of(scheduler, mpi) as executor, bar(len(files), not (quiet or as_json)) as progress:
            options: dict[str, Any] = {"executor": executor, "workers": workers, "timeout": timeout}
            records = map_files(task, files, out, progress=progress, **options)
    except (OSError, ValueError, ImportError) as error:
        typer.echo(f"learnsolve: {' '.join(str(error).split()) or type(error).__name__}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    shown(records, as_json, quiet)
    slow = [record for record in records if not record.result.get("success", True)]
    if any(record.status == "failed" for record in records):
        raise typer.Exit(BAD_INPUT)
    if slow:
        raise typer.Exit(NOT_CONVERGED)


def shown(records: list["Record"], as_json: bool, quiet: bool) -> None:
    """Print records, or how many there are of each kind and what has failed."""
    for record in records:
        if as_json:
            typer.echo(json.dumps(asdict(record)))
        elif record.status == "failed":
            typer.echo(f"learnsolve: {record.file}: {record.error}", err=True)
    if not (as_json or quiet):
        found = Counter(record.status for record in records)
        slow = sum(not record.result.get("success", True) for record in records)
        words = f"{found['done']} done, {found['present']} were there, {found['failed']} failed"
        typer.echo(f"{len(records)} files: {words}" + (f"; {slow} did not converge" if slow else ""))
