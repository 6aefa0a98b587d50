"""What is done to each of many files: a system solved, a matrix completed."""

import warnings
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

import learnsolve
from learnsolve.datasets import matrix_market, ratings
from learnsolve.files import replacing
from learnsolve.result import Result


def _about(result: Result) -> dict[str, Any]:
    """What a record says of a result."""
    error = float(result.relative_residual)
    return {
        "status": result.status.name,
        "success": bool(result.success),
        "method": result.method,
        "iterations": int(result.iterations),
        "relative_residual": error if isfinite(error) else None,
        "seconds": float(result.seconds),
    }


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
        A = matrix_market.read(path)
        A = A.astype(float) if A.dtype.kind == "i" else A
        beside = right_hand_side(path)
        b = np.ones(A.shape[0])
        if beside is not None:
            held = matrix_market.read(beside)
            b = np.asarray(held if isinstance(held, np.ndarray) else held.toarray())
            b = b.astype(float) if b.dtype.kind == "i" else b
            b = b[:, 0] if b.shape[1] == 1 else b
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", learnsolve.ConvergenceWarning)
            result = learnsolve.solve(A, b, method=self.method, M=self.M, **self.options)
        matrix_market.write(target, result.x, comment=f"{result!r} by {result.method}")
        return {**_about(result), "right_hand_side": "ones" if beside is None else str(beside)}


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", learnsolve.ConvergenceWarning)
            entries = (known.rows, known.cols, known.values)
            result = learnsolve.complete(entries, self.rank, shape=known.shape, **self.options)
        write_factors(target, known, result)
        aside = float(result.held_out[-1])
        return {**_about(result), "rank": int(result.rank), "held_out": aside if isfinite(aside) else None}


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
