"""Learned solvers: a learned part proposes, a classical iteration certifies."""

from pathlib import Path as _Path

_root = _Path(__file__).resolve().parents[1]
if (_root / "pyproject.toml").is_file() and (_root / "kernels").is_dir():
    __path__.append(str(_root))

from learnsolve.linear import methods_table, prepare, solve  # noqa: E402
from learnsolve.result import ConvergenceWarning, Result, SolveError, Status  # noqa: E402

__version__ = "0.1.0"
__all__ = ["ConvergenceWarning", "Result", "SolveError", "Status", "methods_table", "prepare", "solve"]
