"""Methods that tune themselves beside fixed parameters, and beside who knows the sequence beforehand."""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

PROBLEMS = ("heat", "high", "low", "drift")
POLICIES = ("tsallis-inf", "tsallis-inf, importance", "chebcb", "log-barrier", "young")
RTOL = 1e-8


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    command.add_argument("--problem", choices=PROBLEMS, default="heat")
    command.add_argument("--grid", type=int, help="unknowns along each axis (50; shifts: 10)")
    command.add_argument("--steps", type=int, default=5000)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--policy", nargs="+", choices=POLICIES, default=["tsallis-inf", "chebcb", "young"])
    command.add_argument("--every", type=int, default=1, help="the table takes one of so many systems")
    command.add_argument(
        "--replay", action="store_true", help="policies read the table, each row --every times"
    )
    command.add_argument(
        "--horizon", type=int, help="rounds of a replay, drawn from the table (default: its own)"
    )
    command.add_argument(
        "--leave-out", nargs="+", default=[], choices=["cg", "omega 1", "best omega", "superlu"]
    )
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def sequence(options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """All systems ``(A, b)`` with their contexts, and where each begins."""
    import learnsolve
    from learnsolve.preconditioners import SSORPreconditioner
    from learnsolve.problems.heat import Heat, shifted

    if options.problem != "heat":
        steps = list(shifted(options.steps, options.problem, shape=(options.grid,) * 2, seed=options.seed))
        return steps, [None] * len(steps)
    heat, steps, starts = Heat(options.grid), [], []
    M = SSORPreconditioner(1.5, "lexicographic")
    for _ in range(options.steps):
        step = heat.problem()
        steps.append(step)
        starts.append(heat.u)
        heat.accept(learnsolve.solve(step.A, step.b, x0=heat.u, method="cg", M=M, rtol=RTOL, check=True).x)
    return steps, starts


def solver(problem: str, omega: float) -> tuple[Any, Any]:
    """Method and preconditioner with a fixed ``omega``."""
    from learnsolve.methods import CG, SOR
    from learnsolve.preconditioners import SSORPreconditioner

    if problem == "heat":
        return CG(), SSORPreconditioner(omega, "lexicographic")
    return SOR(omega, "lexicographic"), None


def solve_all(steps: list[Any], starts: list[Any], method: Any, M: Any, told: Any = None) -> dict[str, Any]:
    """Iterations of each system, and the seconds of all."""
    import learnsolve

    counts = []
    began = time.perf_counter()
    for step, x0 in zip(steps, starts, strict=True):
        if told is not None:
            told.value = step.context
        result = learnsolve.solve(step.A, step.b, x0=x0, method=method, M=M, rtol=RTOL, maxiter=100_000)
        counts.append(result.iterations)
    return {"iterations": counts, "seconds": time.perf_counter() - began}


@njit(cache=True)
def _sor_count(indptr, indices, values, b, omega, rtol, maxiter):
    """Iterations of lexicographic over-relaxation from zero; as `learnsolve.solve` counts them."""
    x, size = np.zeros_like(b), np.sqrt((b * b).sum())
    for count in range(1, maxiter + 1):
        for i in range(b.size):
            total, diagonal = b[i], 0.0
            for p in range(indptr[i], indptr[i + 1]):
                total -= values[p] * x[indices[p]]
                if indices[p] == i:
                    diagonal = values[p]
            x[i] += omega * total / diagonal
        square = 0.0
        for i in range(b.size):
            total = b[i]
            for p in range(indptr[i], indptr[i + 1]):
                total -= values[p] * x[indices[p]]
            square += total * total
        if np.sqrt(square) <= rtol * size:
            return count
    return maxiter


def counts_of(options: argparse.Namespace, steps: list[Any], starts: list[Any], omega: float) -> list[int]:
    """Iterations of each system with one ``omega``."""
    if options.problem == "heat":
        return solve_all(steps, starts, *solver(options.problem, omega))["iterations"]
    return [
        _sor_count(
            step.A.indptr.numpy(), step.A.indices.numpy(), step.A.values.numpy(), step.b, omega, RTOL, 100_000
        )
        for step in steps
    ]


def superlu(steps: list[Any]) -> float:
    """Seconds to factorise every matrix anew; its assembly is not counted."""
    from scipy.sparse.linalg import splu

    total = 0.0
    for step in steps:
        A = step.A.to_scipy().tocsc()
        began = time.perf_counter()
        splu(A).solve(step.b.reshape(-1))
        total += time.perf_counter() - began
    return total


def policy_of(name: str, arms: int, seed: int) -> Any:
    """A policy of the table."""
    from learnsolve.online import POLICIES as KINDS
    from learnsolve.online import TsallisINF

    if name == "tsallis-inf, importance":
        return TsallisINF(arms, estimator="importance", seed=seed)
    return KINDS[name](arms, seed=seed)


def tuned(name: str, options: argparse.Namespace, seed: int) -> tuple[Any, Any]:
    """A method that tunes itself, and what it is to be told."""
    from learnsolve.cli.tune import Told
    from learnsolve.online import TunedSOR, TunedSSORCG

    told = None if name == "young" else Told()
    policy = name if name == "young" else policy_of(name, 20, seed)
    kind: Any = TunedSSORCG if options.problem == "heat" else TunedSOR
    return kind(policy, context=told, order="lexicographic"), told


def measure_all(options: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    """Everything that the table shows."""
    from learnsolve.online import best_fixed, growth, instance_optimum, regret, replay

    options.seed = 0
    report("the sequence")
    steps, starts = sequence(options)
    omegas = np.linspace(1, 1.95, 20)
    some = slice(None, None, options.every)
    columns = []
    for omega in omegas:
        report(f"omega {omega:.2f} on {len(steps[some])} systems")
        columns.append(counts_of(options, steps[some], starts[some], omega))
    costs = np.array(columns, float).T
    arm, best = best_fixed(costs)
    share = len(steps) / len(costs)
    record: dict[str, Any] = {
        "best_fixed": best * share,
        "omega": float(omegas[arm]),
        "instance_optimum": instance_optimum(costs) * share,
        "rows": {},
        "policies": {},
    }
    rows = record["rows"]
    if options.problem == "heat" and "cg" not in options.leave_out:
        report("conjugate gradients")
        rows["cg"] = solve_all(steps, starts, "cg", None)
    for name, omega in (("omega 1", 1.0), ("best omega", float(omegas[arm]))):
        if name not in options.leave_out:
            report(name)
            rows[name] = solve_all(steps, starts, *solver(options.problem, omega))
    if "superlu" not in options.leave_out:
        report("SuperLU")
        few = steps[:: max(len(steps) // 50, 1)]
        rows["superlu"] = {"iterations": [0], "seconds": superlu(few) * len(steps) / len(few)}
    contexts = np.array([step.context for step in steps[some]])
    if options.replay:
        costs, contexts = np.repeat(costs, options.every, axis=0), np.repeat(contexts, options.every)
    if options.horizon is not None:
        drawn = np.random.default_rng(1).integers(len(costs), size=options.horizon)
        costs, contexts = costs[drawn], contexts[drawn]
        record["best_fixed"], record["instance_optimum"] = best_fixed(costs)[1], instance_optimum(costs)
    for name in options.policy:
        runs = record["policies"][name] = []
        for seed in range(options.seeds):
            report(f"{name}, seed {seed}")
            if options.replay and name != "young":
                paid = replay(policy_of(name, 20, seed), costs, contexts)
                curve = regret(paid, costs)
                slope = growth(curve, max(len(curve) // 1000, 1))
                slope = None if np.isnan(slope) else slope
                entry = {"iterations": paid.tolist(), "seconds": None, "growth": slope}
            else:
                method, told = tuned(name, options, seed)
                entry = solve_all(steps, starts, method, None, told)
            runs.append(entry)
            if name == "young":
                break
    return record


def shown(record: dict[str, Any], title: str) -> Table:
    """The table."""
    out = Table(title=title, title_justify="left")
    headings = ("", "iterations", "over best fixed", "over per-instance", "worst seed", "seconds", "growth")
    for heading in headings:
        out.add_column(heading, justify="left" if not heading else "right")
    best, optimum = record["best_fixed"], record["instance_optimum"]

    def row(name: str, totals: list[float], seconds: list[float], growths: list[float]) -> None:
        middle = statistics.median(totals)
        out.add_row(
            name,
            f"{middle:,.0f}",
            f"{100 * (middle / best - 1):+.1f} %",
            f"{100 * (middle / optimum - 1):+.1f} %",
            f"{100 * (max(totals) / best - 1):+.1f} %" if len(totals) > 1 else "",
            f"{statistics.median(seconds):.1f}" if seconds else "",
            f"{statistics.median(growths):.2f}" if growths else "",
        )

    row(f"best fixed, {record['omega']:.2f}", [best], [], [])
    row("per-instance optimum", [optimum], [], [])
    for name, entry in record["rows"].items():
        row(name, [sum(entry["iterations"])], [entry["seconds"]], [])
    for name, runs in record["policies"].items():
        row(
            name,
            [sum(run["iterations"]) for run in runs],
            [run["seconds"] for run in runs if run["seconds"] is not None],
            [run["growth"] for run in runs if run.get("growth") is not None],
        )
    return out


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    options.grid = options.grid or (50 if options.problem == "heat" else 10)
    if min(options.grid, options.steps, options.seeds, options.every, options.threads) < 1:
        command.error("positive numbers are accepted")
    if options.threads > numba.config.NUMBA_NUM_THREADS:
        command.error(f"there are {numba.config.NUMBA_NUM_THREADS} threads")
    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    console, progress = consoles()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = measure_all(options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
    size = f"{options.grid}x{options.grid}"
    console.print(shown(record, f"{options.problem}, {size}, {options.steps} systems, rtol {RTOL:g}"))
    record["conditions"] = measure.conditions(options.threads)
    record["options"] = {**vars(options), "json": str(options.json)}
    path = measure.write("online", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
