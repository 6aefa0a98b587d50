"""``learnsolve tune``: how methods that tune themselves do on a sequence of systems."""

from __future__ import annotations

import json
import math
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from learnsolve.cli.common import Json
from learnsolve.files import check_folder, replacing

if TYPE_CHECKING:
    from learnsolve.online.trace import Systems, Trace

POLICIES = ("tsallis-inf", "chebcb", "log-barrier", "young")


class Problem(StrEnum):
    """A sequence of systems."""

    heat = "heat"
    shifted = "shifted"
    drift = "drift"
    switch = "switch"
    smoke = "smoke"


def tune(
    problem: Annotated[
        Problem,
        typer.Option(
            help="The heat equation with a varying coefficient, A + cI with c drawn at random, "
            "or the pressure of smoke that passes a moving obstacle."
        ),
    ] = Problem.heat,
    grid: Annotated[
        int | None, typer.Option(min=2, help="Unknowns along each axis.", show_default="50; shifts: 10")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="One of " + ", ".join(POLICIES) + "; can be repeated.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Systems.")] = 1000,
    arms: Annotated[int, typer.Option(min=1, help="Values of omega from 1 to 1.95.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of policies and problems.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the picture.", file_okay=False)
    ] = Path("."),
    as_json: Json = False,
) -> None:
    """Solve a sequence of systems with a method that tunes its over-relaxation while it goes.

    Prints the iterations and seconds of the policies, of fixed values, and (heat, smoke) of plain conjugate
    gradients, and writes tune.png: what each has cost more than the best of those, and what was chosen.
    With smoke multigrid comes too, as it is and tuned by the policies that need no context.
    """
    wanted = policy or ["tsallis-inf", "chebcb"]
    unknown = sorted(set(wanted) - set(POLICIES))
    if unknown:
        raise typer.BadParameter(
            f"there is no {unknown[0]!r}; there are {', '.join(POLICIES)}", param_hint="--policy"
        )
    whole = problem in (Problem.heat, Problem.smoke)
    size = grid or (50 if whole else 10)
    if not whole and size > 10:
        raise typer.BadParameter(
            "at most 10 with shifts: on more the matrix is indefinite", param_hint="--grid"
        )
    output.mkdir(parents=True, exist_ok=True)
    check_folder(output / "tune.png")
    bars = Console(stderr=True)
    with bars.status("loading"):
        methods = contenders(problem.value, wanted, arms, seed)
    traces: dict[str, Trace] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=bars,
        disable=not bars.is_terminal,
    ) as progress:
        for name, (method, M, context) in methods.items():
            task = progress.add_task(name, total=steps)
            traces[name] = run(
                problem.value,
                size,
                steps,
                seed,
                method,
                M,
                context,
                lambda: progress.advance(task),  # noqa: B023
            )
    path = output / "tune.png"
    with replacing(path) as part:
        draw(traces).savefig(part, format="png", dpi=120)
    if as_json:
        typer.echo(json.dumps({name: record(trace) for name, trace in traces.items()}))
        return
    console = Console()
    console.print(table(traces, f"{problem.value}, {size}x{size} unknowns, {steps} systems"))
    console.print(f"wrote {path}")


class Told:
    """The context of the system at hand, for a method's ``context``."""

    value = 0.0

    def __call__(self, A: Any) -> float:
        """What was last told."""
        return self.value


def contenders(
    problem: str, policies: list[str], arms: int, seed: int
) -> dict[str, tuple[Any, Any, Told | None]]:
    """Methods by name, each with a preconditioner and what its context comes from."""
    from learnsolve.methods import SOR
    from learnsolve.online import POLICIES as KINDS
    from learnsolve.online import TunedMultigrid, TunedSOR, TunedSSORCG
    from learnsolve.preconditioners import SSORPreconditioner

    found: dict[str, tuple[Any, Any, Told | None]] = {}
    whole = problem in ("heat", "smoke")
    if whole:
        found["conjugate gradients"] = ("cg", None, None)
    for omega in (1.0, 1.5, 1.8):
        if whole:
            found[f"omega {omega:g}"] = ("cg", SSORPreconditioner(omega, "lexicographic"), None)
        else:
            found[f"omega {omega:g}"] = (SOR(omega, "lexicographic"), None, None)
    kind: Any = TunedSSORCG if whole else TunedSOR
    for name in policies:
        # Nothing that is known beforehand sets one pressure equation apart from another.
        told = None if name == "young" or problem == "smoke" else Told()
        found[name] = (kind(name, context=told, arms=arms, seed=seed, order="lexicographic"), None, told)
    if problem == "smoke":
        found["multigrid"] = ("cg", "multigrid", None)
        for name in policies:
            if not KINDS[name].contextual:
                found[f"multigrid, {name}"] = (TunedMultigrid(name, seed=seed), None, None)
    return found


def systems(problem: str, size: int, steps: int, seed: int, told: Told | None) -> Systems:
    """The systems of a sequence, for `learnsolve.online.trace.follow`."""
    from learnsolve.problems.heat import Heat, shifted

    if problem == "heat":
        heat = Heat(size)
        for _ in range(steps):
            step = heat.problem()
            if told is not None:
                told.value = step.context
            heat.accept((yield step.A, step.b, heat.u))
        return
    if problem == "smoke":
        from learnsolve.problems.pressure import pressure_systems
        from learnsolve.problems.smoke_scene import Sphere

        # Around the middle of the domain, once in 2 pi units of time.
        obstacle = Sphere((0.5, 0.7), 0.1, velocity=lambda t: (0.2 * math.cos(t), -0.2 * math.sin(t)))
        for pressure in pressure_systems((size, size), steps, obstacles=[obstacle], seed=seed):
            yield pressure.A, pressure.b, None
        return
    kind: Any = {"shifted": "high"}.get(problem, problem)
    for step in shifted(steps, kind, shape=(size, size), seed=seed):
        if told is not None:
            told.value = step.context
        yield step.A, step.b, None


def run(
    problem: str, size: int, steps: int, seed: int, method: Any, M: Any, told: Told | None, report: Any
) -> Trace:
    """What a method pays on a sequence."""
    from learnsolve.online.trace import follow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return follow(systems(problem, size, steps, seed, told), method, M, report=report)


def record(trace: Trace) -> dict[str, Any]:
    """What a method has paid, as JSON can hold it."""
    return {
        "systems": len(trace.iterations),
        "iterations": int(trace.iterations.sum()),
        "seconds": float(trace.seconds.sum()),
        "not_converged": int(trace.failures),
    }


def table(traces: dict[str, Trace], title: str) -> Table:
    """Iterations and seconds of each method."""
    shown = Table(title=title, title_justify="left")
    for heading in ("", "iterations", "for each", "in the last tenth", "seconds", "not converged"):
        shown.add_column(heading, justify="left" if not heading else "right", no_wrap=not heading)
    for name, trace in traces.items():
        last = trace.iterations[-max(len(trace.iterations) // 10, 1) :]
        shown.add_row(
            name,
            f"{trace.iterations.sum():,}",
            f"{trace.iterations.mean():.1f}",
            f"{last.mean():.1f}",
            f"{trace.seconds.sum():.2f}",
            str(trace.failures),
        )
    return shown


def draw(traces: dict[str, Trace]) -> Any:
    """The two pictures, on a matplotlib figure."""
    from matplotlib.figure import Figure

    from learnsolve.plots import plot_choices, plot_regret

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    fixed = [trace.iterations for name, trace in traces.items() if name.startswith("omega")]
    best = min(fixed, key=lambda iterations: iterations.sum())
    for name, trace in traces.items():
        if name.startswith("multigrid"):
            continue  # An iteration of it is another.
        if trace.iterations.sum() < 3 * best.sum():
            plot_regret(trace.iterations, best, left, label=name)
        if trace.choices[0] is not None:
            plot_choices(trace.choices, right, label=name)
    return figure
