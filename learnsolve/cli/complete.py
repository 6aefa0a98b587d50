"""``learnsolve complete``: a table of ratings, or any sparse matrix, completed."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import (
    NOT_CONVERGED,
    Bias,
    Json,
    Quiet,
    Rank,
    Regularization,
    SplitSeed,
)
from learnsolve.files import check_folder

if TYPE_CHECKING:
    from learnsolve.completion import Completion
    from learnsolve.datasets.ratings import Ratings


class Robust(StrEnum):
    """How gross errors are weighed."""

    huber = "huber"
    trimmed = "trimmed"


def complete(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Ratings (MovieLens, CSV, TSV) or Matrix Market; .gz too.",
            show_default=False,
        ),
    ],
    rank: Rank = None,
    regularization: Regularization = 0.0,
    shrinkage: Annotated[float, typer.Option(help="For each row or column, however many entries.")] = 0.0,
    bias: Bias = False,
    robust: Annotated[
        Robust | None, typer.Option(help="For entries that are grossly wrong.", show_default=False)
    ] = None,
    nonnegative: Annotated[bool, typer.Option(help="Only factors without negative numbers.")] = False,
    implicit: Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            help="Values are counts c, of clicks and the like: all other entries are zeros of weight 1, and "
            "these are ones of weight 1 + ALPHA c.",
            show_default=False,
        ),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Stop where the observed error is so small.")] = 1e-6,
    maxiter: Annotated[int, typer.Option(min=1, help="Most sweeps.")] = 500,
    timeout: Annotated[float | None, typer.Option(help="Most seconds.", show_default=False)] = None,
    held_out: Annotated[
        float | None,
        typer.Option(help="Share of the entries to judge by.", show_default="0.05; --implicit: 0"),
    ] = None,
    seed: SplitSeed = 0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Keep the sweeps so far here; go on from it if it is there.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the factors here (.npz).", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the errors by sweep here (.png).", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Complete a matrix of low rank. Exit code 0: converged; 2: not, or only what is known; 1: bad input.

    The file of factors holds U, V, mean, row_bias, col_bias, row_labels, col_labels: the entry of row i and
    column j is U[i] @ V[j] + mean + row_bias[i] + col_bias[j].
    """
    for path in (output, plot, checkpoint):
        if path is not None:
            check_folder(path)
    from learnsolve.datasets.ratings import read_ratings

    known = read_ratings(table)
    with _progress(shown=not (quiet or as_json) and sys.stderr.isatty()) as callback:
        result = _completed(
            known,
            rank,
            callback,
            regularization=regularization,
            shrinkage=shrinkage,
            bias=bias,
            robust=None if robust is None else robust.value,
            rtol=rtol,
            maxiter=maxiter,
            timeout=timeout,
            held_out=0.05 if held_out is None and implicit is None else held_out,
            seed=seed,
            nonnegative=nonnegative,
            checkpoint=checkpoint,
            **_counted(known, implicit),
        )
    if output is not None:
        from learnsolve.batch.tasks import write_factors

        write_factors(output, known, result)
    if plot is not None:
        _draw(plot, result)
    if as_json:
        typer.echo(json.dumps(_record(table, known, result, output, plot), allow_nan=False))
    elif not quiet:
        _report(known, result, [path for path in (output, plot) if path is not None])
    if not result.success:
        raise typer.Exit(NOT_CONVERGED)


def _completed(known: "Ratings", rank: int | None, callback: Any, **options: Any) -> "Completion":
    import learnsolve
    from learnsolve.result import without_convergence_warnings

    with without_convergence_warnings():
        entries = (known.rows, known.cols, options.pop("values", known.values))
        return learnsolve.complete(entries, rank, shape=known.shape, callback=callback, **options)


def _counted(known: "Ratings", alpha: float | None) -> dict[str, Any]:
    """Options for values that are counts."""
    import numpy as np

    if alpha is None:
        return {}
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"--implicit is {alpha}; a positive number is accepted")
    if known.values.min() < 0:
        raise ValueError(f"with --implicit values are counts, and the least is {known.values.min():g}")
    ones = np.ones(known.values.size)
    return {"values": ones, "weights": ones + alpha * known.values, "unobserved": 1.0}


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[Any], None] | None]:
    """A line that tells of each sweep."""
    if not shown:
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("first sweep") as status:
        yield lambda sweep: status.update(
            f"sweep {sweep.iteration}, rank {sweep.rank}: observed error {sweep.observed:.2e}, "
            f"RMSE held out {sweep.held_out:.4g}"
        )


def _draw(path: Path, result: "Completion") -> None:
    import numpy as np
    from matplotlib.figure import Figure

    from learnsolve.files import replacing

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, curve in (
        ("observed", result.residuals / np.sqrt(max(result.extras["fitted_entries"], 1))),
        ("held out", result.held_out),
    ):
        if np.isfinite(curve).any():
            axes.semilogy(np.arange(len(curve)), curve, label=label)
    axes.set_xlabel("sweep")
    axes.set_ylabel("RMSE")
    axes.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)


def _record(
    table: Path, known: "Ratings", result: "Completion", output: Path | None, plot: Path | None
) -> dict[str, Any]:
    from learnsolve.batch.tasks import about

    named = {"table": table, "output": output, "plot": plot}
    return {
        **{name: None if path is None else str(path) for name, path in named.items()},
        "shape": list(known.shape),
        "entries": int(known.values.size),
        **about(result),
    }


def _report(known: "Ratings", result: "Completion", written: list[Path]) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    shown, aside = Table(show_header=False), result.held_out[-1]
    m, n = known.shape
    for name, value in (
        ("entries", f"{known.values.size:,} of {m:,} x {n:,}"),
        ("rank", str(result.rank)),
        ("sweeps", f"{result.iterations} in {result.seconds:.2f} s"),
        ("observed error", f"{result.relative_residual:.3e} of the values' norm"),
        ("RMSE held out", "nothing was held out" if np.isnan(aside) else f"{aside:.5g}"),
        ("status", f"{result.status.name}: {result.extras.get('ended', result.status.value)}"),
    ):
        shown.add_row(name, value)
    console = Console()
    console.print(shown)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
