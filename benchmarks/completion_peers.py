"""Completion beside its peers: seconds until unseen entries are met to a goal, interleaved in one run."""

import argparse
import importlib.util
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import measure
from benchmarks.poisson import consoles

# Peers for dense matrices are left out where there are more places than this.
DENSE = 4_000_000
# By how much the iterations grow of a peer that has no tolerance.
GROWTH = 1.4


@dataclass(frozen=True)
class Answer:
    """What a method gives; unpacks as ``(U, V)``.

    Attributes
    ----------
    U, V : arrays or None
        None where the method does not fit the values.
    sweep : float or None
        Seconds of one sweep.
    seconds : float or None
        What it took, if that is not all of the call.
    """

    U: Any
    V: Any
    sweep: float | None = None
    seconds: float | None = None

    def __iter__(self) -> Iterator[Any]:
        yield from (self.U, self.V)


def ours(problem: Any, rank: int, options: argparse.Namespace, method: Any = "auto") -> Answer:
    """As a user calls it."""
    import learnsolve

    known, times = (problem.rows, problem.cols, problem.values), []
    res = learnsolve.complete(
        known,
        rank,
        method,
        shape=problem.shape,
        rtol=options.goal / 5,
        timeout=options.limit,
        maxiter=10_000,
        callback=lambda progress: times.append(time.perf_counter()),
    )
    return Answer(res.U, res.V, _between(times))


def exact_als(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Plain alternating least squares with exact row solves, by our kernels."""
    from learnsolve.completion import AltMin

    return ours(problem, rank, options, AltMin("exact", acceleration=0))


def irls(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Our form of MatrixIRLS."""
    from learnsolve.completion.irls import irls as solve

    known = (problem.rows, problem.cols, problem.values, problem.shape, rank)
    return Answer(*solve(*known, rtol=options.goal / 5, timeout=options.limit)[:2])


def gnmr(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Gauss-Newton steps from the spectral start."""
    from learnsolve.completion.altmin import spectral
    from learnsolve.completion.gauss_newton import gauss_newton

    U, V = spectral(_sampled(problem), rank, options.seed)
    known = (problem.rows, problem.cols, problem.values, problem.shape, rank)
    return Answer(*gauss_newton(*known, U=U, V=V, rtol=options.goal / 5, timeout=options.limit)[:2])


def scaledgd(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Scaled gradient descent (Tong, Ma and Chi, 2021) with the step of 0.5 of its authors."""
    from learnsolve.completion.altmin import spectral

    sampled, end = _sampled(problem), time.perf_counter() + options.limit
    share, size = sampled.nnz / np.prod(sampled.shape), np.linalg.norm(problem.values)
    U, V = spectral(sampled, rank, options.seed)
    times = [time.perf_counter()]
    while times[-1] < end:
        ((_, left),) = sampled.residual(U, V)
        error = np.linalg.norm(left)
        if error <= options.goal / 5 * size or not error < 1e3 * size:
            break
        rest = sampled.matrix(left)
        step_u = rest @ V @ np.linalg.inv(V.T @ V)
        step_v = rest.T @ U @ np.linalg.inv(U.T @ U)
        U, V = U + 0.5 / share * step_u, V + 0.5 / share * step_v
        times.append(time.perf_counter())
    return Answer(U, V, _between(times))


def grown(
    fit: Callable[[int], tuple[Any, Any]], problem: Any, options: argparse.Namespace, first: int = 10
) -> Answer:
    """Fit anew with more and more iterations, until the goal is met or the next would take too long.

    Only the last fit counts, as if its number of iterations had been known.
    """
    count, end = first, time.perf_counter() + 3 * options.limit
    while True:
        began = time.perf_counter()
        U, V = fit(count)
        now = time.perf_counter()
        seconds = now - began
        late = seconds * GROWTH > options.limit or now + seconds * GROWTH > end
        if late or problem.error(U, V) <= options.goal:
            return Answer(U, V, seconds / count, seconds)
        count = math.ceil(count * GROWTH)


def cmfrec(problem: Any, rank: int, options: argparse.Namespace, use_cg: bool = True) -> Answer:
    """Its alternating least squares for explicit ratings."""
    from cmfrec import CMF

    matrix = scipy.sparse.coo_matrix((problem.values, (problem.rows, problem.cols)), shape=problem.shape)

    def fit(count: int) -> tuple[Any, Any]:
        model = CMF(
            rank, method="als", niter=count, lambda_=1e-10, user_bias=False, item_bias=False, center=False,
            use_cg=use_cg, nthreads=options.threads, use_float=False, verbose=False,
            handle_interrupt=False, random_state=options.seed,
        )  # fmt: skip
        model.fit(matrix)
        return model.A_, model.B_

    return grown(fit, problem, options)


def cmfrec_exact(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """The same with exact row solves."""
    return cmfrec(problem, rank, options, use_cg=False)


def surprise(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Its stochastic gradient descent; the factors are put in the order of rows and columns.

    Ten times its default learning rate is the best of 0.005, 0.02 and 0.05 for values of about one.
    """
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    frame = pd.DataFrame({"user": problem.rows, "item": problem.cols, "rating": problem.values})
    bounds = (problem.values.min(), problem.values.max())
    train = Dataset.load_from_df(frame, Reader(rating_scale=bounds)).build_full_trainset()
    users = [train.to_raw_uid(i) for i in range(train.n_users)]
    items = [train.to_raw_iid(i) for i in range(train.n_items)]

    def fit(count: int) -> tuple[Any, Any]:
        model = SVD(rank, count, biased=False, reg_all=0.0, lr_all=0.05, random_state=options.seed)
        model.fit(train)
        U, V = (np.zeros((size, rank)) for size in problem.shape)
        U[users], V[items] = model.pu, model.qi
        return U, V

    return grown(fit, problem, options)


def fancyimpute(problem: Any, rank: int, options: argparse.Namespace, svd: bool = False) -> Answer:
    """Its soft imputation of the whole matrix, hardly shrunk, or its iterative singular values."""
    from fancyimpute import iterative_svd, soft_impute, solver

    # scikit-learn no longer knows an option that it is given here; it only looks for what is not finite.
    for module in (solver, soft_impute, iterative_svd):
        module.check_array = lambda X, force_all_finite: X
    known = np.full(problem.shape, np.nan)
    known[problem.rows, problem.cols] = problem.values
    same: dict[str, Any] = {"convergence_threshold": 1e-14, "init_fill_method": "zero", "verbose": False}

    def fit(count: int) -> tuple[Any, Any]:
        if svd:
            model = iterative_svd.IterativeSVD(rank, max_iters=count, **same)
        else:
            model = soft_impute.SoftImpute(1e-8, max_rank=rank, max_iters=count, **same)
        u, s, v = scipy.sparse.linalg.svds(model.fit_transform(known), rank)
        return u * s, v.T

    return grown(fit, problem, options, 20)


def fancyimpute_svd(problem: Any, rank: int, options: argparse.Namespace) -> Answer:
    """Its iterative singular values."""
    return fancyimpute(problem, rank, options, svd=True)


def implicit(problem: Any, rank: int, options: argparse.Namespace, use_cg: bool = True) -> Answer:
    """Ten iterations of its alternating least squares, which fits preferences and not values."""
    from implicit.als import AlternatingLeastSquares

    matrix = scipy.sparse.csr_matrix(
        (np.abs(problem.values).astype(np.float32), (problem.rows, problem.cols)), shape=problem.shape
    )
    model = AlternatingLeastSquares(
        rank,
        iterations=10,
        num_threads=options.threads,
        use_gpu=False,
        use_cg=use_cg,
        random_state=options.seed,
    )
    taken: list[float] = []
    model.fit(matrix, show_progress=False, callback=lambda number, seconds, loss: taken.append(seconds))
    return Answer(None, None, statistics.median(taken))


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
    "cmfrec, exact": cmfrec_exact,
    "surprise": surprise,
    "fancyimpute": fancyimpute,
    "fancyimpute, svd": fancyimpute_svd,
    "implicit": implicit,
    "implicit, exact": implicit_exact,
}


def _between(times: list[float]) -> float | None:
    steps = [after - before for before, after in pairwise(times)]
    return statistics.median(steps) if steps else None


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


def refused(name: str, options: argparse.Namespace) -> str | None:
    """Why a method is left out."""
    package = name.split(",")[0]
    if package in ("cmfrec", "surprise", "fancyimpute", "implicit") and not importlib.util.find_spec(package):
        return "is not installed"
    if package == "fancyimpute" and options.size**2 > DENSE:
        return f"is for dense matrices, here of at most {DENSE:,} places"
    return None


def run_of(name: str, problem: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One run of a method."""
    began = time.perf_counter()
    answer = METHODS[name](problem, options.rank, options)
    seconds = time.perf_counter() - began
    if answer.U is None:
        return {"seconds": None, "sweep": answer.sweep, "error": None}
    error = problem.error(*answer)
    return {"seconds": answer.seconds or seconds, "sweep": answer.sweep, "error": error}


def rows_of(options: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """What each method took, and what it reached."""
    from learnsolve.problems.low_rank import low_rank

    names = []
    for name in options.methods:
        word = refused(name, options)
        if word is None:
            names.append(name)
        else:
            report(f"{name} {word}")
    # Whatever is compiled or loaded at first is not timed; ours solves rows in another way from rank 16 on.
    small = low_rank((300, 300), min(options.rank, 20), oversampling=4, seed=1)
    for name in list(names):
        try:
            METHODS[name](small, small.rank, argparse.Namespace(**{**vars(options), "limit": 1.0}))
        except (ImportError, TypeError, ValueError, AttributeError) as error:
            report(f"{name} fails: {error}")
            names.remove(name)
    shape = (options.size, options.size)
    problem = low_rank(
        shape, options.rank, entries=options.entries, condition=options.condition, seed=options.seed
    )
    # Peers choose starts and steps for values of about one.
    size = problem.values.std()
    problem = replace(problem, values=problem.values / size, U=problem.U / size)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    slow: set[str] = set()
    for repeat in range(options.repeats):
        for name in names:
            if name not in slow:
                report(f"{name}, run {repeat + 1}")
                began = time.perf_counter()
                found[name].append(run_of(name, problem, options))
                if time.perf_counter() - began > options.limit / 2:
                    slow.add(name)
    rows = []
    for name, runs in found.items():
        row = {field: measure.median(runs, field) for field in ("seconds", "error", "sweep")}
        rows.append({"method": name, **row, "runs": runs})
    first: dict[str, Any] = next((row for row in rows if row["method"] == "ours"), {})
    for row in rows:
        for field, ratio in (("seconds", "ratio"), ("sweep", "sweep_ratio")):
            both = row[field] and first.get(field)
            row[ratio] = row[field] / first[field] if both else None
    return rows


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
    for heading in ("method", "seconds", "of ours", "error", "sweep, s", "of our sweep"):
        shown.add_column(heading, justify="right")
    for row in rows:
        cells = zip(
            ("seconds", "ratio", "error", "sweep", "sweep_ratio"),
            (".2f", ".1f", ".1e", ".4f", ".1f"),
            strict=True,
        )
        shown.add_row(
            row["method"], *("" if row[field] is None else format(row[field], form) for field, form in cells)
        )
    console.print(shown)
    path = measure.write_rows("completion_peers", options, rows, options.threads)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
