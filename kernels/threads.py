"""How many threads a kernel takes, and how long they wait for more work."""

import os

# Threads of the OpenMP pool spin between two kernels of a solve, which are microseconds apart, and should
# sleep soon after it: libgomp's default of milliseconds holds cores that torch's own pool, or other
# programs, need. libgomp reads this when numba first loads it.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

from numba import get_num_threads, njit

MATH = {"reassoc", "contract", "nsz", "arcp"}

SMALL = 1 << 14


def threads(size: int) -> int:
    """How many threads pay for so many cells, entries or vector elements.

    Examples
    --------
    >>> threads(100)
    1
    """
    return 1 if size < SMALL else get_num_threads()


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of ``(..., threads)`` twice: for one thread without the pool, and for several.

    Both are cached on disk, for which the copy needs a name of its own.
    """
    assert isinstance(function, FunctionType)
    alone = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone")
    alone.__qualname__, alone.__module__ = f"{function.__qualname__}_alone", function.__module__
    serial = njit(fastmath=MATH, cache=True)(alone)
    parallel = njit(parallel=True, fastmath=MATH, cache=True)(function)

    @wraps(function)
    def run(*arguments: Any) -> Any:
        return (serial if arguments[-1] == 1 else parallel)(*arguments)

    return run
