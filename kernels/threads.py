"""How many threads a kernel takes, and how long they wait for more work."""

import os
from collections.abc import Callable
from functools import cache, update_wrapper
from types import FunctionType
from typing import Any

import torch

# Threads of the OpenMP pool spin between two kernels of a solve, which are microseconds apart, and should
# sleep soon after it: libgomp's default of milliseconds holds cores that torch's own pool, or other
# programs, need. libgomp reads this when numba first loads it.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

MATH = {"reassoc", "contract", "nsz", "arcp"}

# Options of a function that is to dissolve in the loops that call it.
INLINE: Any = {"fastmath": MATH, "forceinline": True, "error_model": "numpy"}

SMALL = 1 << 14


@cache
def start_pool() -> None:
    """Let numba start its pool, and torch keep its number of threads.

    Numba starts it with the first kernel that may run in parallel, on one thread or several, or when it is
    asked for its number of threads; and then it gives torch as many as there are cores.
    """
    from numba import get_num_threads

    before = torch.get_num_threads()
    get_num_threads()
    torch.set_num_threads(before)


def threads(size: int) -> int:
    """How many threads pay for so many cells, entries or vector elements.

    Neither more than torch has, nor than numba: `torch.set_num_threads`, OMP_NUM_THREADS and
    NUMBA_NUM_THREADS all count.

    Examples
    --------
    >>> threads(100)
    1
    """
    if size < SMALL or torch.get_num_threads() < 2:
        return 1
    from numba import get_num_threads

    start_pool()

    return min(torch.get_num_threads(), get_num_threads())


class Kernel:
    """A compiled function of ``(..., threads)``: one form without the pool for one thread, one for several.

    Both are cached on disk, for which the first needs a name of its own.
    """

    def __init__(self, function: FunctionType) -> None:
        from numba import njit

        alone = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone")
        alone.__qualname__, alone.__module__ = f"{function.__qualname__}_alone", function.__module__
        self.serial = njit(fastmath=MATH, error_model="numpy", cache=True)(alone)
        self.parallel = njit(parallel=True, fastmath=MATH, error_model="numpy", cache=True)(function)
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Run the form for the number of threads that stands last."""
        return (self.serial if arguments[-1] == 1 else self.parallel)(*arguments)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Decorator: compile a function whose last parameter is the number of threads."""
    assert isinstance(function, FunctionType)
    return Kernel(function)
