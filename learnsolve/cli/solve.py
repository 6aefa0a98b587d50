"""``learnsolve solve``: a linear system from Matrix Market files."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import (
    NOT_CONVERGED,
    Atol,
    Json,
    Maxiter,
    Method,
    Preconditioner,
    Quiet,
    Rtol,
    say_error,
)
from learnsolve.files import check_folder

if TYPE_CHECKING:
    import numpy as np

    from learnsolve import Result

TABLE_ROWS = 8


def solve(
    matrix: Annotated[
        Path, typer.Argument(metavar="A.mtx", help="The matrix: .mtx or .mtx.gz.", show_default=False)
    ],
    rhs: Annotated[
        Path | None,
        typer.Argument(
            metavar="[b.mtx]", help="The right-hand side; left out: all ones.", show_default=False
        ),
    ] = None,
    method: Method = "auto",
    preconditioner: Preconditioner = None,
    rtol: Rtol = 1e-5,
    atol: Atol = 0.0,
    maxiter: Maxiter = None,
    timeout: Annotated[float | None, typer.Option(help="Most seconds.", show_default=False)] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NY,NX|NZ,NY,NX",
            help="The matrix is a 5- or 7-point one of this grid, a row a cell in C order: for multigrid, "
            "learned-multigrid and dcdm.",
            show_default=False,
        ),
    ] = None,
    mpi: Annotated[
        bool,
        typer.Option("--mpi", help="Solve by PETSc, on the processes of mpiexec; see the documentation."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write x here: .mtx or .mtx.gz.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Solve A x = b. Exit code 0: converged; 2: not converged; 1: bad input."""
    if output is not None:
        check_folder(output)
    from learnsolve.datasets.matrix_market_system import read_system

    A, b = read_system(matrix, rhs)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "maxiter": maxiter, "timeout": timeout}
    options |= {"method": method}
    posed = _Posed(A, b, grid)
    first = True
    if mpi:
        result, first = _solve_by_petsc(posed, M=preconditioner or "auto", **options)
        quiet |= not first
    else:
        with _progress(rtol, atol, shown=not (quiet or as_json) and sys.stderr.isatty()) as callback:
            result = _solve(posed.A, posed.b, M=preconditioner, callback=callback, **options)
    result = replace(result, x=posed.leave(result.x))
    if output is not None and first:
        from learnsolve.datasets import matrix_market

        matrix_market.write(output, result.x, comment=f"{result!r} by {result.method}")
    if as_json and first:
        typer.echo(json.dumps(_record(result, matrix, rhs, output, A.shape), allow_nan=False))
    elif not quiet:
        _report(result, posed.b.reshape(len(b), -1), rhs, output)
    if not result.success:
        raise typer.Exit(NOT_CONVERGED)


class _Posed:
    """A system as it is solved: on a grid, where that is given.

    Rows that hold nothing but the diagonal are solved at once, and taken to the right-hand side of others.
    """

    def __init__(self, A: Any, b: "np.ndarray", grid: str | None) -> None:
        self.A, self.b, self.given = A, b, None
        if grid is None:
            return
        import numpy as np
        import scipy.sparse

        from learnsolve.operators import grid_from_matrix

        try:
            shape = tuple(int(n) for n in grid.split(","))
        except ValueError:
            raise ValueError(f"--grid is {grid!r}; cells along each axis are accepted, e.g. 64,64") from None
        if b.ndim != 1:
            raise ValueError(f"--grid takes one right-hand side, not {b.shape[1]}")
        A = scipy.sparse.csr_array(A)
        operator = grid_from_matrix(A, shape)
        off = np.flatnonzero(~operator.active.numpy().reshape(-1))
        diagonal = A.diagonal()[off]
        if (diagonal == 0).any():
            raise ValueError(f"row {off[np.argmin(np.abs(diagonal))]} of A is empty")
        self.given = np.zeros(b.shape)
        self.given[off] = b[off] / diagonal
        self.A, self.b = operator, (b - A @ self.given).reshape(shape)

    def leave(self, x: "np.ndarray") -> "np.ndarray":
        """One value for each row."""
        return x if self.given is None else x.reshape(-1) + self.given


def _solve_by_petsc(posed: _Posed, **options: Any) -> tuple["Result", bool]:
    """The result, and whether this process is the one that speaks."""
    from learnsolve.distributed import solve_petsc
    from learnsolve.distributed.exchange import petsc
    from learnsolve.result import without_convergence_warnings

    with without_convergence_warnings():
        result = solve_petsc(posed.A, posed.b, **options)
    return result, petsc().COMM_WORLD.rank == 0


def _solve(A: Any, b: "np.ndarray", **options: Any) -> "Result":
    import learnsolve
    from learnsolve.result import without_convergence_warnings

    with without_convergence_warnings():
        return learnsolve.solve(A, b, **options)


@contextmanager
def _progress(rtol: float, atol: float, shown: bool) -> Iterator[Callable[[Any], None] | None]:
    """A callback that moves a bar on standard error: its length is in digits of the residual."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("setting up", total=None)
        first: float | None = None

        def callback(info: Any) -> None:
            nonlocal first
            residual = max(info.residual, 1e-300)
            first = residual if first is None else max(first, residual)
            norm_b = residual / info.relative_residual if info.relative_residual > 0 else 0.0
            digits = math.log10(first / max(rtol * norm_b, atol, 1e-300))
            progress.update(
                task,
                description=f"iteration {info.iteration}, |r|/|b| = {info.relative_residual:.1e}",
                total=max(digits, 1e-9),
                completed=math.log10(first / residual),
            )

        yield callback


def _report(result: "Result", b: "np.ndarray", rhs: Path | None, output: Path | None) -> None:
    import numpy as np

    if rhs is None:
        typer.echo("no right-hand side given: b is all ones")
    norms = np.linalg.norm(b, axis=0)
    residuals = np.asarray(result.residuals).reshape(len(result.residuals), -1)
    relative = residuals / np.where(norms > 0, norms, 1.0)
    last = len(residuals) - 1
    typer.echo(f"{'iteration':>9}  {'|b - A x|':>10}  {'|r|/|b|':>8}")
    for iteration in np.unique(np.linspace(0, last, min(TABLE_ROWS, last + 1)).round().astype(int)):
        typer.echo(f"{iteration:9d}  {residuals[iteration].max():10.3e}  {relative[iteration].max():8.1e}")
    typer.echo(f"{result!r} by {result.method}")
    if output is not None:
        typer.echo(f"x is in {output}")
    if not result.success:
        advice = "; ".join([result.status.value, *filter(None, [result.extras.get("detail")])])
        say_error(f"not converged: {advice}")


def _record(
    result: "Result", matrix: Path, rhs: Path | None, output: Path | None, shape: tuple[int, ...]
) -> dict[str, Any]:
    import numpy as np

    from learnsolve.batch.tasks import about

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value if math.isfinite(value) else None

    return {
        "matrix": str(matrix),
        "shape": [int(size) for size in shape],
        "right_hand_side": "ones" if rhs is None else str(rhs),
        "output": None if output is None else str(output),
        **about(result),
        "residuals": plain(np.asarray(result.residuals).tolist()),
    }
