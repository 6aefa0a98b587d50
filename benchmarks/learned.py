"""Learned methods beside classical ones, on systems that no training has seen."""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

FAMILIES = ("smoke", "obstacles", "free_surface", "maze", "jump")
# No network was trained on domains of these kinds.
UNSEEN = ("porous", "maze_9", "jump_1e6")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.learned", description=__doc__)
    command.add_argument("--family", nargs="+", choices=FAMILIES + UNSEEN, default=["smoke"])
    command.add_argument("--shape", nargs="+", type=int, default=[64, 64, 64])
    command.add_argument("--systems", type=int, default=5, help="of each family")
    command.add_argument("--seed", type=int, default=1000, help="of the first system")
    command.add_argument("--rtol", type=float, default=1e-4)
    command.add_argument("--maxiter", type=int, default=2000)
    command.add_argument("--repeats", type=int, default=1, help="of each solve; its seconds are their median")
    command.add_argument("--weights", help="of dcdm: a name or a file; default: by dimension")
    command.add_argument("--multigrid-weights", help="of the learned multigrid: a name or a file")
    command.add_argument("--only", nargs="+", help="solvers of the table")
    command.add_argument("--leave-out", nargs="+", default=[], help="solvers of the table")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def smoke(shape: tuple[int, ...], seed: int) -> Any:
    """The pressure equation of a plume that has met random obstacles for some steps."""
    import numpy as np

    from learnsolve.problems.pressure import pressure_systems
    from learnsolve.problems.smoke_scene import Box, Sphere

    rng = np.random.default_rng(seed)
    extent = np.array(shape) / shape[-1]
    obstacles: list[Any] = []
    for _ in range(int(rng.integers(2, 6))):
        centre = tuple(rng.uniform(0.25, 0.9, len(shape)) * extent)
        size = rng.uniform(0.05, 0.15)
        if rng.random() < 0.5:
            obstacles.append(Sphere(centre, size))
        else:
            obstacles.append(Box(centre, tuple(rng.uniform(0.5, 1.5, len(shape)) * size)))
    *_, last = pressure_systems(shape, int(rng.integers(10, 30)), obstacles=obstacles, seed=seed)
    return last


def unseen(family: str, shape: tuple[int, ...], seed: int, rhs: Any) -> Any:
    """A system of a family that no network was trained on."""
    import numpy as np
    import scipy.ndimage

    from learnsolve.operators import GridPoisson
    from learnsolve.problems import poisson

    if family == "maze_9":
        return poisson.maze(shape, seed=seed, period=9, rhs=rhs)
    if family == "jump_1e6":
        return poisson.jump(shape, 1e6, seed=seed, rhs=rhs)
    # A porous medium: the fluid is where smooth noise is low, and its largest connected part.
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3.0)
    parts, _ = scipy.ndimage.label(noise < np.quantile(noise, 0.6))
    cells = (parts != 1 + np.argmax(np.bincount(parts.reshape(-1))[1:])).astype(np.int8)
    b = poisson.right_hand_side(cells, rhs, seed + 1)
    return poisson.LinearProblem(GridPoisson(cells, boundary="dirichlet"), b)


def systems(family: str, shape: tuple[int, ...], count: int, seed: int) -> Iterator[Any]:
    """So many systems of a family, with seeds from ``seed`` on; right-hand sides of all kinds in turn."""
    from learnsolve.problems import poisson

    for number in range(count):
        if family == "smoke":
            yield smoke(shape, seed + number)
        else:
            rhs = ("noise", "ones", "bump")[number % 3]
            if family in UNSEEN:
                yield unseen(family, shape, seed + number, rhs)
                continue
            yield getattr(poisson, family)(shape, seed=seed + number, rhs=rhs)


def solvers(options: argparse.Namespace) -> dict[str, Callable[[Any], Any]]:
    """What is compared, by name."""
    import torch

    import learnsolve
    from learnsolve.methods import DCDM
    from learnsolve.methods.dcdm_network import NetworkOptions
    from learnsolve.methods.dcdm_weights import load
    from learnsolve.preconditioners import LearnedMultigrid

    dims = len(options.shape)
    tuned = LearnedMultigrid.load(options.multigrid_weights or f"poisson{dims}d")
    network = load(options.weights or f"poisson{dims}d")
    torch.manual_seed(0)
    untrained = NetworkOptions(dims=dims).build()
    with torch.no_grad():
        for parameter in untrained.parameters():
            parameter.normal_(0, 0.1)
    methods: dict[str, tuple[Any, Any]] = {
        "dcdm": (DCDM(network), None),
        "dcdm, not conjugated": (DCDM(network, memory=0), None),
        "dcdm, random network": (DCDM(untrained), None),
        "cg": ("cg", None),
        "cg + ic": ("cg", "ic"),
        "cg + multigrid": ("cg", "multigrid"),
        "cg + learned multigrid": ("cg", tuned),
        "cg + ruge_stuben": ("cg", "ruge_stuben"),
        "cg + smoothed_aggregation": ("cg", "smoothed_aggregation"),
    }

    def solver(method: Any, M: Any) -> Callable[[Any], Any]:
        return lambda problem: learnsolve.solve(
            problem.A, problem.b, method=method, M=M, rtol=options.rtol, maxiter=options.maxiter
        )

    table: dict[str, Callable[[Any], Any]] = {name: solver(*pair) for name, pair in methods.items()}
    table["deflated cg"] = lambda problem: deflated(problem, options)
    wanted = options.only or list(table)
    return {name: solve for name, solve in table.items() if name in wanted and name not in options.leave_out}


def deflated(problem: Any, options: argparse.Namespace) -> Any:
    """What the table needs to know of a solve with `deflated_cg`."""
    import numpy as np
    import torch

    from benchmarks.deflation import deflated_cg

    b = problem.A.project(torch.from_numpy(problem.b)).numpy() if problem.A.singular else problem.b
    x, count = deflated_cg(problem.A, b, options.rtol, options.maxiter)
    left = float(np.linalg.norm(b - problem.A @ x) / np.linalg.norm(b))
    # The projected residual, by which it stops, is a little smaller than the true one.
    return SimpleNamespace(
        iterations=count, relative_residual=left, success=left <= 2 * options.rtol, extras={}
    )


def timed(solve: Callable[[Any], Any], problem: Any) -> tuple[float, Any]:
    """The seconds of a solve, set-up included, and what it gave."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = solve(problem)
    return time.perf_counter() - began, result


def compare(family: str, options: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each solver: its iterations and seconds on every system of a family.

    A small system of the family goes first and is not counted: it loads libraries and compiles kernels. The
    solvers take turns, in repeat after repeat, so that a busy minute of the machine falls on all alike.
    """
    table = solvers(options)
    rows: list[dict[str, Any]] = [
        {"family": family, "solver": name, "iterations": [], "seconds": [], "residuals": [], "converged": 0}
        for name in table
    ]
    shape = tuple(options.shape)
    small = next(systems(family, tuple(min(32, length) for length in shape), 1, options.seed - 1))
    for solve in table.values():
        timed(solve, small)
    for number, problem in enumerate(systems(family, shape, options.systems, options.seed), start=1):
        report(f"{family}: system {number} of {options.systems}, {problem.A.unknowns:,} unknowns")
        rounds = [[timed(solve, problem) for solve in table.values()] for _ in range(options.repeats)]
        for row, runs in zip(rows, zip(*rounds, strict=True), strict=True):
            result = runs[0][1]
            row["seconds"].append(statistics.median(seconds for seconds, _ in runs))
            row["iterations"].append(result.iterations)
            row["residuals"].append(result.relative_residual)
            row["converged"] += result.success
            row.setdefault("fallback_steps", []).append(result.extras.get("fallback_steps", 0))
    return rows


def above(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """On how many systems a solver took more iterations than multigrid CG; nothing if that was left out."""
    for other in rows:
        if (other["family"], other["solver"]) == (row["family"], "cg + multigrid"):
            return str(sum(a > b for a, b in zip(row["iterations"], other["iterations"], strict=True)))
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if (
        len(options.shape) not in (2, 3)
        or min(*options.shape, options.systems, options.threads, options.repeats) < 1
    ):
        command.error("two or three positive lengths, and positive numbers, are accepted")
    os.environ.update(dict.fromkeys(measure.THREAD_VARIABLES, str(options.threads)))
    import torch

    torch.set_num_threads(options.threads)
    console, progress = consoles()
    rows: list[dict[str, Any]] = []
    for family in options.family:
        rows += compare(family, options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
    shown = Table(
        title=f"{'x'.join(map(str, options.shape))}, {options.systems} systems each, rtol {options.rtol:g}",
        title_justify="left",
    )
    for heading in ("family", "solver"):
        shown.add_column(heading, no_wrap=True)
    for heading in (
        "iterations: median",
        "worst",
        "above multigrid",
        "fallback",
        "seconds: median",
        "converged",
    ):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row["family"],
            row["solver"],
            f"{statistics.median(row['iterations']):g}",
            str(max(row["iterations"])),
            above(row, rows),
            f"{statistics.median(row['fallback_steps']):g}",
            f"{statistics.median(row['seconds']):.3f}",
            f"{row['converged']} of {options.systems}",
        )
    console.print(shown)
    record = {
        "conditions": measure.conditions(options.threads),
        "options": {**vars(options), "json": str(options.json)},
        "rows": rows,
    }
    path = measure.write("learned", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
