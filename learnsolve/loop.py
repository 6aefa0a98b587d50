"""The one iteration loop: counting, stopping on the true residual, history, callback, timeout.

A method is a frozen dataclass of options. It owns one step of the iteration and nothing else::

    setup(A)               what can be kept from solve to solve (a factorisation, spectral bounds)
    start(system, x, r)    a mutable state; r = b - A x
    step(system, state)    changes the state, returns its estimate of norm(b - A x)
    solution(state)        the iterate; by default ``state.x``
    resume(...)            as start, where the true residual is not what the state claimed
    finished(...)          told how a solve ended, by methods that learn from it

and raises `Breakdown` where its mathematics ends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from learnsolve.kernels.vector import norm
from learnsolve.operators import Operator
from learnsolve.result import Status


class Breakdown(Exception):  # noqa: N818
    """A quantity by which the method must divide is zero, or has the wrong sign."""


@dataclass
class System:
    """A linear system at the door of a method: one dtype, one device, one column."""

    A: Operator
    b: Tensor
    M: Operator | None = None
    setup: Any = None

    def residual(self, x: Tensor) -> Tensor:
        """``b - A x``."""
        return self.b - self.A._apply(x)

    def precondition(self, r: Tensor) -> Tensor:
        """``M r``; ``r`` itself without a preconditioner."""
        return r if self.M is None else self.M._apply(r)


@dataclass(frozen=True)
class Method:
    """What a method may override; see the module's docstring."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    least_squares: ClassVar[bool] = False

    def setup(self, A: Operator) -> Any:
        """Prepare what every solve with ``A`` shares."""
        return None

    def start(self, system: System, x: Tensor, r: Tensor) -> Any:
        """Begin at ``x`` with residual ``r``; the method may change both in place."""
        raise NotImplementedError

    def step(self, system: System, state: Any) -> float:
        """One iteration; returns the norm of the residual as the method knows it."""
        raise NotImplementedError

    def solution(self, state: Any) -> Tensor:
        """The iterate that the state stands for."""
        return state.x

    def resume(self, system: System, state: Any, x: Tensor, r: Tensor) -> Any:
        """Begin anew at ``x`` in the middle of a solve."""
        return self.start(system, x, r)

    def finished(self, state: Any, status: Status) -> None:
        """Hear how the solve of a state ended; what it puts into ``state.extras`` is in the result."""


@dataclass(frozen=True)
class Progress:
    """What a callback sees after each iteration; a true return value stops the solve.

    Attributes
    ----------
    iteration : int
        Iterations done.
    residual, relative_residual : float
        The method's estimate of ``norm(b - A x)``, and this over ``norm(b)``.
    seconds : float
        Since the solve began.
    """

    iteration: int
    residual: float
    relative_residual: float
    seconds: float
    solution: Callable[[], Any] = field(repr=False)

    @property
    def x(self) -> Any:
        """The iterate, in the form of the answer; computed when asked for."""
        return self.solution()


@dataclass
class Outcome:
    """What the loop hands back for one column."""

    x: Tensor
    status: Status
    residuals: np.ndarray
    iterations: int
    detail: str = ""
    extras: dict[str, Any] = field(default_factory=dict)


def check_limits(rtol: float, atol: float, maxiter: int | None, timeout: float | None) -> None:
    """Raise ValueError for what is no limit of a solve."""
    for value, name in ((rtol, "rtol"), (atol, "atol")):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; a finite number that is not negative is accepted")
    if maxiter is not None and maxiter < 0:
        raise ValueError(f"maxiter is {maxiter}; a number that is not negative is accepted")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout}; a positive number of seconds is accepted")


@dataclass
class Limits:
    """When to stop."""

    rtol: float
    atol: float
    maxiter: int
    deadline: float = float("inf")
    began: float = 0.0
    callback: Callable[[Progress], Any] | None = None
    restore: Callable[[Tensor], Any] = lambda x: x


def _reached(
    method: Method, system: System, r: Tensor, true: float, tolerance: float, limits: Limits
) -> bool:
    """Whether a residual is small enough, or for a rectangular matrix orthogonal to the range."""
    if true <= tolerance:
        return True
    rows, columns = system.A.shape
    return rows != columns and _orthogonal(method, system, r, true, limits)


def _orthogonal(method: Method, system: System, r: Tensor, true: float, limits: Limits) -> bool:
    """Whether a least squares method's residual is orthogonal to the range of ``A``."""
    return method.least_squares and norm(system.A._adjoint(r)) <= limits.rtol * system.setup * true


def iterate(method: Method, system: System, x: Tensor, limits: Limits) -> Outcome:
    """Run ``method`` from ``x`` until the true residual is within the tolerance, or nothing more can be done.

    Parameters
    ----------
    method : Method
        The method; its `Method.setup` is in ``system.setup``.
    system : System
        The system.
    x : Tensor
        Where to begin; changed in place.
    limits : Limits
        Tolerances, limits and callback.
    """
    size = norm(system.b)
    tolerance = max(limits.rtol * size, limits.atol)
    patience = 5000 if system.b.numel() > 2500 else max(1000, 2 * system.b.numel())
    r = system.residual(x)
    true = norm(r)
    history, iterations, detail = [true], 0, ""
    safe, safe_norm = x, true
    if not np.isfinite(true):
        return Outcome(x, Status.NONFINITE, np.array(history), 0)
    if _reached(method, system, r, true, tolerance, limits):
        return Outcome(x, Status.CONVERGED, np.array(history), 0)
    claimed, best, best_at = np.inf, true, 0
    status: Status | None = None
    state: Any = None
    try:
        state = method.start(system, x.clone(), r)
        while status is None:
            if iterations >= limits.maxiter:
                status = Status.MAXITER
                break
            if time.perf_counter() > limits.deadline:
                status = Status.TIMEOUT
                break
            estimate = method.step(system, state)
            iterations += 1
            history.append(estimate)
            if estimate <= tolerance or (method.least_squares and iterations % 10 == 0):
                x = method.solution(state)
                r = system.residual(x)
                true = norm(r)
                if _reached(method, system, r, true, tolerance, limits):
                    status = Status.CONVERGED
                elif estimate <= tolerance:
                    if not true < 0.5 * claimed:
                        status = Status.STAGNATED
                    else:
                        claimed, safe, safe_norm = true, x.clone(), true
                        state = method.resume(system, state, x.clone(), r)
                elif _orthogonal(method, system, r, 1e-3 * true, limits):
                    status = Status.STAGNATED
                history[-1] = true
            if not np.isfinite(estimate):
                status = Status.NONFINITE
            elif estimate > 1e10 * max(history[0], size):
                status = Status.DIVERGED
            elif estimate < 0.99 * best:
                best, best_at = estimate, iterations
            elif iterations - best_at >= patience and status is None:
                status = Status.STAGNATED
            if limits.callback is not None and status in (None, Status.CONVERGED):
                now, current = time.perf_counter() - limits.began, state
                progress = Progress(
                    iterations,
                    history[-1],
                    history[-1] / size if size else history[-1],
                    now,
                    lambda: limits.restore(method.solution(current).clone()),  # noqa: B023
                )
                if limits.callback(progress) and status is None:
                    status = Status.STOPPED
    except Breakdown as reason:
        status, detail = Status.BREAKDOWN, str(reason)
    if status is not Status.CONVERGED:
        x = safe if state is None else method.solution(state)
        r = system.residual(x)
        true = norm(r)
        if not np.isfinite(true) or (true > safe_norm and status is not Status.STAGNATED):
            x, true = safe, safe_norm
            r = system.residual(x)
        if _reached(method, system, r, true, tolerance, limits):
            status = Status.CONVERGED
    history[-1] = true
    assert status is not None
    if state is not None:
        method.finished(state, status)
    return Outcome(x, status, np.array(history), iterations, detail, dict(getattr(state, "extras", {})))
