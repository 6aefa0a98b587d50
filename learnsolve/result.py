"""What every solve function of the package returns."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Status(Enum):
    """Why an iteration ended; the value is the advice that a user reads."""

    CONVERGED = "the true residual is within the tolerance"
    MAXITER = (
        "maxiter was reached before the tolerance: raise maxiter or use a preconditioner, e.g. M='multigrid'"
    )
    TIMEOUT = "timeout was reached before the tolerance: raise timeout or use a preconditioner"
    STAGNATED = (
        "the true residual no longer falls: the tolerance is below what this precision can reach, "
        "or the system is singular and b is not in the range of A"
    )
    BREAKDOWN = (
        "the method broke down: A or M does not have the property that it needs "
        "(cg needs both positive definite); try method='gmres' or method='direct'"
    )
    DIVERGED = (
        "the residual grows without bound: this iteration does not converge for this A; try method='auto'"
    )
    NONFINITE = "NaN or infinity turned up: check the data, the operator and M for overflow"
    OVERFITTED = (
        "what is known is fitted, but what was kept aside is not: give more entries, a smaller rank or more "
        "regularization"
    )
    STOPPED = "the callback asked to stop"


class ConvergenceWarning(UserWarning):
    """The tolerance was not reached; the result says why."""


@contextmanager
def without_convergence_warnings() -> Iterator[None]:
    """For callers that look at the status themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


class SolveError(RuntimeError):
    """Raised instead of the warning with ``check=True``; ``result`` holds what was reached."""

    def __init__(self, result: "Result") -> None:
        super().__init__(f"{result!r}: {result.status.value}")
        self.result = result


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The outcome of a solve; unpacks as scipy's ``(x, info)``.

    Attributes
    ----------
    x : array
        The best answer, in the library, dtype, device and shape of ``b``.
    status : Status
        Why the iteration ended.
    iterations : int
        Iterations done; the largest over the columns of ``b``.
    residuals : (iterations + 1,) float64 array
        Norm of the residual before the first and after each iteration, as the method estimates it
        (the last one is recomputed from its definition); for ``b`` with several columns,
        ``(iterations + 1, columns)`` with a column's last value repeated.
    relative_residual : float
        ``norm(b - A @ x) / norm(b)``, recomputed; the largest over the columns.
    seconds : float
        Wall time, the set-up of method and preconditioner included.
    method : str
        What was done, e.g. ``"cg + multigrid"``.
    extras : dict
        What only this method has to say, e.g. ``setup_seconds``.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> res = learnsolve.solve(np.diag([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> res.x, res.success
    (array([1., 2.]), True)
    >>> x, info = res
    >>> info
    0
    """

    x: Any
    status: Status
    iterations: int
    residuals: NDArray[np.float64]
    relative_residual: float
    seconds: float
    method: str
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether the recomputed residual is within the tolerance."""
        return self.status is Status.CONVERGED

    @property
    def info(self) -> int:
        """Scipy's code: 0 converged, a positive count of iterations without success, -1 breakdown."""
        if self.success:
            return 0
        if self.status in (Status.BREAKDOWN, Status.NONFINITE):
            return -1
        return max(self.iterations, 1)

    def __bool__(self) -> bool:
        return self.success

    def __iter__(self) -> Iterator[Any]:
        return iter((self.x, self.info))

    def __repr__(self) -> str:
        return (
            f"<Result {self.status.name}: {self.iterations} iterations, "
            f"|r|/|b| = {self.relative_residual:.1e}, {self.seconds:.2f} s>"
        )
