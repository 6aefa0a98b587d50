"""Completion beside its peers: seconds until unseen entries are met to a goal, interleaved in one run."""

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.sparse
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import measure
from benchmarks.poisson import consoles

Answer = tuple[Any, Any] | None


def ours(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """As a user calls it."""
    import learnsolve

    known = (problem.rows, problem.cols, problem.values)
    res = learnsolve.complete(
        known, rank, shape=problem.shape, rtol=options.goal / 5, timeout=options.limit, maxiter=10_000
    )
    return res.U, res.V


def exact_als(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Plain alternating least squares with exact row solves, by our kernels."""
    import learnsolve
    from learnsolve.completion import AltMin

    res = learnsolve.complete(
        (problem.rows, problem.cols, problem.values),
        rank,
        AltMin("exact", acceleration=0),
        shape=problem.shape,
        rtol=options.goal / 5,
        timeout=options.limit,
        maxiter=10_000,
    )
    return res.U, res.V


def irls(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Our form of MatrixIRLS."""
    from learnsolve.completion.irls import irls as solve

    known = (problem.rows, problem.cols, problem.values, problem.shape, rank)
    return solve(*known, rtol=options.goal / 5, timeout=options.limit)[:2]


def gnmr(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Gauss-Newton steps from the spectral start."""
    from learnsolve.completion.altmin import spectral
    from learnsolve.completion.gauss_newton import gauss_newton

    U, V = spectral(_sampled(problem), rank, options.seed)
    known = (problem.rows, problem.cols, problem.values, problem.shape, rank)
    return gauss_newton(*known, U=U, V=V, rtol=options.goal / 5, timeout=options.limit)[:2]


def scaledgd(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Scaled gradient descent (Tong, Ma and Chi, 2021) with the step of 0.5 of its authors."""
    from learnsolve.completion.altmin import spectral

    sampled, end = _sampled(problem), time.perf_counter() + options.limit
    share, size = sampled.nnz / np.prod(sampled.shape), np.linalg.norm(problem.values)
    U, V = spectral(sampled, rank, options.seed)
    while time.perf_counter() < end:
        ((_, left),) = sampled.residual(U, V)
        error = np.linalg.norm(left)
        if error <= options.goal / 5 * size or not error < 1e3 * size:
            break
        rest = sampled.matrix(left)
        step_u = rest @ V @ np.linalg.inv(V.T @ V)
        step_v = rest.T @ U @ np.linalg.inv(U.T @ U)
        U, V = U + 0.5 / share * step_u, V + 0.5 / share * step_v
    return U, V


def cmfrec(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Its alternating least squares for explicit ratings, with as many iterations as there is time for."""
    from cmfrec import CMF

    matrix = scipy.sparse.coo_matrix((problem.values, (problem.rows, problem.cols)), shape=problem.shape)
    best, niter, end = None, 10, time.perf_counter() + options.limit
    while time.perf_counter() < end:
        model = CMF(
            rank, method="als", niter=niter, lambda_=1e-10, user_bias=False, item_bias=False, center=False,
            use_cg=True, finalize_chol=False, nthreads=options.threads, use_float=False, verbose=False,
            handle_interrupt=False, random_state=options.seed,
        )  # fmt: skip
        model.fit(matrix)
        best = (model.A_, model.B_)
        if problem.error(*best) <= options.goal:
            break
        niter *= 2
    return best


def surprise(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Its stochastic gradient descent; the factors are put in the order of rows and columns."""
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    frame = pd.DataFrame({"user": problem.rows, "item": problem.cols, "rating": problem.values})
    bounds = (problem.values.min(), problem.values.max())
    train = Dataset.load_from_df(frame, Reader(rating_scale=bounds)).build_full_trainset()
    model = SVD(n_factors=rank, n_epochs=20, biased=False, reg_all=0.0, random_state=options.seed)
    model.fit(train)
    U, V = np.zeros((problem.shape[0], rank)), np.zeros((problem.shape[1], rank))
    U[[train.to_raw_uid(i) for i in range(train.n_users)]] = model.pu
    V[[train.to_raw_iid(i) for i in range(train.n_items)]] = model.qi
    return U, V


def fancyimpute(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Its soft imputation, of the whole matrix."""
    from fancyimpute import SoftImpute

    known = np.full(problem.shape, np.nan)
    known[problem.rows, problem.cols] = problem.values
    solve = SoftImpute(
        max_rank=rank, max_iters=300, convergence_threshold=1e-8, verbose=False, init_fill_method="zero"
    )
    u, s, v = np.linalg.svd(solve.fit_transform(known), full_matrices=False)
    return u[:, :rank] * s[:rank], v[:rank].T


def implicit(problem: Any, rank: int, options: argparse.Namespace, use_cg: bool = True) -> Answer:
    """Twenty iterations of its alternating least squares, which fits preferences and not values."""
    from implicit.als import AlternatingLeastSquares

    matrix = scipy.sparse.csr_matrix(
        (np.abs(problem.values).astype(np.float32), (problem.rows, problem.cols)), shape=problem.shape
    )
    model = AlternatingLeastSquares(
        rank,
        iterations=20,
        num_threads=options.threads,
        use_gpu=False,
        use_cg=use_cg,
        random_state=options.seed,
    )
    model.fit(matrix, show_progress=False)
    return None


def implicit_exact(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """The same with exact row solves."""
    return implicit(problem, rank, options, use_cg=False)


METHODS: dict[str, Callable[[Any, int, argparse.Namespace], Answer]] = {
    "ours": ours,
    "exact als": exact_als,
    "scaledgd": scaledgd,
    "gnmr": gnmr,
    "irls": irls,
    "cmfrec": cmfrec,
    "surprise": surprise,
    "fancyimpute": fancyimpute,
    "implicit": implicit,
    "implicit, exact": implicit_exact,
}


def _sampled(problem: Any) -> Any:
    from learnsolve.operators.sampled import InMemory

    return InMemory(
        *(np.ascontiguousarray(part) for part in (problem.rows, problem.cols, problem.values)), problem.shape
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.completion_peers", description=__doc__)
    command.add_argument("--size", type=int, default=10_000, help="rows, and as many columns")
    command.add_argument("--entries", type=int, default=2_000_000)
    command.add_argument("--rank", type=int, default=10)
    command.add_argument("--condition", type=float, default=1.0)
    command.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    command.add_argument("--goal", type=float, default=1e-6, help="relative error of unseen entries")
    command.add_argument("--limit", type=float, default=60.0, help="seconds of a run")
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def installed(name: str) -> bool:
    """Whether the package of a method is there."""
    package = name.split(",")[0]
    return package not in ("cmfrec", "surprise", "fancyimpute", "implicit") or bool(
        importlib.util.find_spec(package)
    )


def rows_of(options: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """What each method took, and what it reached."""
    from learnsolve.problems.low_rank import low_rank

    shape = (options.size, options.size)
    problem = low_rank(
        shape, options.rank, entries=options.entries, condition=options.condition, seed=options.seed
    )
    # Peers choose starts and steps for values of about one.
    size = problem.values.std()
    problem = replace(problem, values=problem.values / size, U=problem.U / size)
    small = low_rank((120, 110), 2, entries=6000, seed=1)
    names = [name for name in options.methods if installed(name)]
    for name in sorted(set(options.methods) - set(names)):
        report(f"{name} is not installed")
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in names}
    for name in names:
        METHODS[name](small, 2, argparse.Namespace(**{**vars(options), "limit": 1.0}))
    for repeat in range(options.repeats):
        for name in names:
            if repeat and found[name][0][0] > options.limit / 2:
                continue
            report(f"{name}, run {repeat + 1}")
            began = time.perf_counter()
            answer = METHODS[name](problem, options.rank, options)
            seconds = time.perf_counter() - began
            found[name].append((seconds, None if answer is None else problem.error(*answer)))
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    first = seconds[names[0]]
    return [
        {
            "method": name,
            "seconds": seconds[name],
            "error": found[name][-1][1],
            "ratio": seconds[name] / first,
        }
        for name in names
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if options.threads > numba.config.NUMBA_NUM_THREADS:
        command.error(f"there are {numba.config.NUMBA_NUM_THREADS} threads")
    before = numba.get_num_threads()
    numba.set_num_threads(options.threads)
    console, progress = consoles()
    try:
        with threadpool_limits(options.threads, "blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = rows_of(options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
    finally:
        numba.set_num_threads(before)
    size = f"{options.size} x {options.size}, {options.entries:,} entries"
    title = f"{size}, rank {options.rank}, goal {options.goal:g}"
    shown = Table(title=title, title_justify="left")
    for heading in ("method", "seconds", "ratio", "error"):
        shown.add_column(heading, justify="right")
    for row in rows:
        error = "20 sweeps" if row["error"] is None else f"{row['error']:.1e}"
        shown.add_row(row["method"], f"{row['seconds']:.2f}", f"{row['ratio']:.1f}", error)
    console.print(shown)
    about = {**vars(options), "json": str(options.json)}
    record = {"conditions": measure.conditions(options.threads), "options": about, "rows": rows}
    path = measure.write("completion_peers", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
