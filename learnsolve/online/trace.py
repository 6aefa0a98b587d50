"""What a method paid on a sequence of systems."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.linear import solve

# Yields ``A, b, x0`` of one system after another, and is sent the answer of each.
Systems = Generator[tuple[Any, Any, Any], Any, None]


@dataclass(frozen=True)
class Trace:
    """A method's way through a sequence.

    Attributes
    ----------
    iterations, seconds : (systems,) arrays
        Of each solve; the seconds are those of the solves alone.
    choices : list
        ``extras["choice"]`` of each solve, or None.
    failures : int
        Solves that did not reach the tolerance.
    """

    iterations: NDArray[np.int64]
    seconds: NDArray[np.float64]
    choices: list[Any]
    failures: int


def follow(
    systems: Systems,
    method: Any,
    M: Any = None,
    *,
    rtol: float = 1e-8,
    maxiter: int = 100_000,
    report: Callable[[], None] = lambda: None,
) -> Trace:
    """Solve the systems of a sequence in turn.

    Parameters
    ----------
    systems : generator
        Yields ``A, b, x0`` of one system after another, and is sent the answer of each.
    method, M, rtol, maxiter
        As in `learnsolve.solve`.
    report : callable
        Called after each solve.

    Returns
    -------
    Trace

    Examples
    --------
    >>> def systems():
    ...     for k in range(1, 4):
    ...         x = yield np.diag([1.0, 10.0**k]), np.ones(2), None
    >>> follow(systems(), "cg").iterations.tolist()
    [2, 2, 2]
    """
    iterations: list[int] = []
    seconds: list[float] = []
    choices: list[Any] = []
    failures, answer = 0, None
    while True:
        try:
            A, b, x0 = systems.send(answer)
        except StopIteration:
            break
        began = time.perf_counter()
        result = solve(A, b, method=method, M=M, x0=x0, rtol=rtol, maxiter=maxiter)
        seconds.append(time.perf_counter() - began)
        iterations.append(result.iterations)
        choices.append(result.extras.get("choice"))
        failures += not result.success
        answer = result.x
        report()
    return Trace(np.array(iterations), np.array(seconds), choices, failures)
