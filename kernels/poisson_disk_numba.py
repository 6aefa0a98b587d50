"""Points that keep a distance from each other, which grows away from the middle of a grid."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def poisson_disk(order: NDArray, radius: NDArray, taken: NDArray) -> int:
    """Take points in an order unless one nearer than its radius is taken; how many were taken.

    ``order`` holds flat indices, ``radius`` (height, width) distances, ``taken`` (height, width) booleans
    that the points are added to.
    """
    height, width = radius.shape
    count = 0
    for p in order:
        y, x = p // width, p % width
        if taken[y, x]:
            continue
        r = radius[y, x]
        reach = int(np.ceil(r)) - 1
        free = True
        for v in range(max(0, y - reach), min(height, y + reach + 1)):
            for u in range(max(0, x - reach), min(width, x + reach + 1)):
                if taken[v, u] and (v - y) ** 2 + (u - x) ** 2 < r * r:
                    free = False
                    break
            if not free:
                break
        if free:
            taken[y, x] = True
            count += 1
    return count
