"""``learnsolve demo``: a smoke plume past obstacles, and what the pressure solver did for it."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from learnsolve.files import check_folder, replacing

if TYPE_CHECKING:
    from learnsolve.problems.smoke import SmokeSimulation, StepReport

_SHAPE = (96, 64, 64)


def demo(
    shape: Annotated[
        str | None, typer.Option(metavar="N N [N]", help="Cells along each axis, the height first.")
    ] = None,
    more: Annotated[list[int] | None, typer.Argument(hidden=True)] = None,
    steps: Annotated[int, typer.Option(min=1, help="Time steps.")] = 70,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the two pictures.", file_okay=False)
    ] = Path("."),
) -> None:
    """Simulate a smoke plume past obstacles and draw it.

    Prints iterations and time per step, compares multigrid-preconditioned with plain conjugate
    gradients on the last pressure equation, and writes demo_plume.png and demo_convergence.png.
    """
    sizes = _sizes(shape, more or [])
    output.mkdir(parents=True, exist_ok=True)
    check_folder(output / "demo_plume.png")
    console, bars = Console(), Console(stderr=True)
    with bars.status("loading"):
        from learnsolve.problems.smoke import SmokeSimulation

        sim = SmokeSimulation(sizes, obstacles=_obstacles(sizes), dt=0.036)
        reports = [sim.step()]
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeRemainingColumn(),
        console=bars,
        disable=not bars.is_terminal,
    ) as progress:
        task = progress.add_task("smoke", total=steps, completed=1, last="")
        while len(reports) < steps:
            reports.append(sim.step())
            progress.update(task, advance=1, last=f"{reports[-1].iterations} iterations")
    console.print(_summary(sim, reports))
    with bars.status("comparing methods"):
        compared = _compare(sim, console)
    for path in _draw(sim, compared, output):
        console.print(f"wrote {path}")


def _sizes(shape: str | None, more: list[int]) -> tuple[int, ...]:
    """Read ``--shape 96 64 64`` (which leaves two positional numbers), or ``--shape 96x64x64``."""
    if shape is None:
        if more:
            raise typer.BadParameter(f"unexpected {' '.join(map(str, more))}; did you mean --shape?")
        return _SHAPE
    try:
        sizes = (*(int(n) for n in shape.lower().replace(",", "x").split("x")), *more)
    except ValueError:
        raise typer.BadParameter(f"{shape!r} is not a number of cells", param_hint="--shape") from None
    if len(sizes) not in (2, 3) or min(sizes) < 16:
        raise typer.BadParameter(
            f"2 or 3 numbers of at least 16 are needed, got {' '.join(map(str, sizes))}", param_hint="--shape"
        )
    return sizes


def _obstacles(sizes: tuple[int, ...]) -> list[Any]:
    """Return a ball beside the source's axis and a slab above it, placed for any proportions."""
    from learnsolve.problems.smoke import Box, Sphere

    top = sizes[0] / sizes[-1]
    depth = [0.5 * n / sizes[-1] for n in sizes[1:-1]]
    return [
        Sphere((0.37 * top, *depth, 0.42), 0.11),
        Box(
            (0.60 * top, *(0.60 * d for d in depth), 0.53),
            (0.64 * top, *(1.40 * d for d in depth), 0.83),
        ),
    ]


def _summary(sim: SmokeSimulation, reports: list[StepReport]) -> Table:
    cells = " x ".join(map(str, sim.shape))
    table = Table(title=f"{cells}: {sim.density.size:,} cells, {len(reports)} steps")
    for name in ("of one step", "median", "largest"):
        table.add_column(name, justify="left" if name == "of one step" else "right")
    later = reports[1:] or reports
    rows: dict[str, tuple[list[float], str]] = {
        "pressure iterations": ([r.iterations for r in later], "{:.0f}"),
        "pressure solve, s": ([r.solve_seconds for r in later], "{:.3f}"),
        "everything else, s": ([r.step_seconds - r.solve_seconds for r in later], "{:.3f}"),
        "relative residual": ([r.relative_residual for r in later], "{:.1e}"),
    }
    for name, (values, form) in rows.items():
        table.add_row(name, form.format(statistics.median(values)), form.format(max(values)))
    return table


def _compare(sim: SmokeSimulation, console: Console) -> dict[str, Any]:
    """Solve the last pressure equation from zero, with and without the preconditioner."""
    import learnsolve

    problem = sim.pressure_problem()
    table = Table(title="the last pressure equation, to 1e-6")
    for name in ("method", "iterations", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right")
    results = {}
    for name, preconditioner in (("multigrid CG", "multigrid"), ("plain CG", None)):
        results[name] = learnsolve.solve(
            problem.A, problem.b, method="cg", M=preconditioner, rtol=1e-6, maxiter=5000
        )
    for name, result in results.items():
        table.add_row(name, str(result.iterations), f"{result.seconds:.3f}")
    console.print(table)
    return results


def _draw(sim: SmokeSimulation, compared: dict[str, Any], output: Path) -> list[Path]:
    from matplotlib.figure import Figure

    from learnsolve.plots import plot_convergence, plot_smoke

    plume = Figure(figsize=(6.4, 8.0), layout="constrained")
    ax = plot_smoke(sim, plume.add_subplot())
    ax.set_title(f"smoke past obstacles, {' x '.join(map(str, sim.shape))} cells, time {sim.time:.2f}")
    convergence = Figure(figsize=(7.0, 4.2), layout="constrained")
    ax = convergence.add_subplot()
    for name, result in compared.items():
        plot_convergence(result, ax, label=f"{name}: {result.iterations} iterations, {result.seconds:.2f} s")
    ax.set_xscale("symlog", linthresh=10)
    ax.set_title("one pressure equation")
    paths = [output / "demo_plume.png", output / "demo_convergence.png"]
    for figure, path in zip((plume, convergence), paths, strict=True):
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=150)
    return paths
