"""Learned solvers: a learned part proposes, a classical iteration certifies."""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING

_root = _Path(__file__).resolve().parents[1]
if (_root / "pyproject.toml").is_file() and (_root / "kernels").is_dir():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from learnsolve.batch.reconstruct_mri import reconstruct_mri
    from learnsolve.completion import Completion, complete
    from learnsolve.dynamics import DynamicalModel, Reconstruction, reconstruct_dynamics
    from learnsolve.linear import methods_table, prepare, solve
    from learnsolve.result import ConvergenceWarning, Result, SolveError, Status

__version__ = "0.1.0"
__all__ = [
    "Completion",
    "ConvergenceWarning",
    "DynamicalModel",
    "Reconstruction",
    "Result",
    "SolveError",
    "Status",
    "complete",
    "methods_table",
    "prepare",
    "reconstruct_dynamics",
    "reconstruct_mri",
    "solve",
]
_ROOMS = (
    "batch",
    "completion",
    "datasets",
    "distributed",
    "dynamics",
    "forecasting",
    "kernels",
    "linearize",
    "methods",
    "mri",
    "online",
    "operators",
    "plots",
    "preconditioners",
    "problems",
    "sequence",
    "training",
)
_HOMES = {
    "batch.reconstruct_mri": ("reconstruct_mri",),
    "completion": ("Completion", "complete"),
    "dynamics": ("DynamicalModel", "Reconstruction", "reconstruct_dynamics"),
    "linear": ("methods_table", "prepare", "solve"),
    "result": ("ConvergenceWarning", "Result", "SolveError", "Status"),
}


def __getattr__(name: str) -> object:
    """Import a public name, and torch with it, when it is first used: the command line starts without."""
    if name in _ROOMS:
        return _import_module(f"learnsolve.{name}")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(_import_module(f"learnsolve.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'learnsolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
