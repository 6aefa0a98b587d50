"""What is done to each of many files: a system solved, a matrix completed."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from learnsolve.completion import Completion, complete
from learnsolve.datasets import matrix_market, ratings
from learnsolve.datasets.matrix_market_system import read_system
from learnsolve.files import replacing
from learnsolve.linear import solve
from learnsolve.result import Result, without_convergence_warnings


def about(result: Result) -> dict[str, Any]:
    """What a record says of a result, as JSON can hold it."""
    told = {
        "status": result.status.name,
        "advice": result.status.value,
        "success": bool(result.success),
        "method": result.method,
        "iterations": int(result.iterations),
        "relative_residual": _finite(result.relative_residual),
        "seconds": float(result.seconds),
    }
    if isinstance(result, Completion):
        told |= {"rank": int(result.rank), "held_out": _finite(result.held_out[-1])}
    return told


def _finite(value: Any) -> float | None:
    return float(value) if isfinite(value) else None


@dataclass(frozen=True)
class SolveFile:
    """Solve a system of a Matrix Market file into another.

    The right-hand side is in the file beside it of the same name with ``_b`` added, ``K_b.mtx`` for
    ``K.mtx``, as in the SuiteSparse collection; where there is none, it is all ones.

    Parameters
    ----------
    method, M : str
        Of `learnsolve.solve`.
    options : dict
        All else that it takes.

    Examples
    --------
    >>> SolveFile(method="cg", M="ruge_stuben", options={"rtol": 1e-8}).suffix
    '.mtx'
    """

    method: str = "auto"
    M: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    suffix = ".mtx"

    def __call__(self, path: Path, target: Path) -> dict[str, Any]:
        beside = right_hand_side(path)
        A, b = read_system(path, beside)
        with without_convergence_warnings():
            result = solve(A, b, method=self.method, M=self.M, **self.options)
        matrix_market.write(target, result.x, comment=f"{result!r} by {result.method}")
        return {**about(result), "right_hand_side": "ones" if beside is None else str(beside)}


def right_hand_side(path: Path) -> Path | None:
    """The file of a system's right-hand side, if it is there."""
    stem, dot, suffixes = path.name.partition(".mtx")
    for ending in (dot + suffixes, ".mtx", ".mtx.gz"):
        beside = path.with_name(f"{stem}_b{ending}")
        if beside.is_file():
            return beside
    return None


@dataclass(frozen=True)
class CompleteFile:
    """Complete the matrix of a file of ratings, or of a Matrix Market file, into factors.

    The file made is that of ``learnsolve complete``.

    Parameters
    ----------
    rank : int, optional
        Of `learnsolve.complete`.
    options : dict
        All else that it takes.

    Examples
    --------
    >>> CompleteFile(rank=5).suffix
    '.npz'
    """

    rank: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    suffix = ".npz"

    def __call__(self, path: Path, target: Path) -> dict[str, Any]:
        known = ratings.read_ratings(path)
        with without_convergence_warnings():
            entries = (known.rows, known.cols, known.values)
            result = complete(entries, self.rank, shape=known.shape, **self.options)
        write_factors(target, known, result)
        return about(result)


def write_factors(path: Path, known: "ratings.Ratings", result: Any) -> None:
    """The factors of a completed matrix, and what its rows and columns are called."""
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(
            stream,
            U=result.U,
            V=result.V,
            mean=result.mean,
            row_bias=result.row_bias,
            col_bias=result.col_bias,
            row_labels=known.row_labels,
            col_labels=known.col_labels,
        )
