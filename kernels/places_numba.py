"""CPU kernels that sort the places of entries, in time linear in their number."""

import numpy as np
from numba import njit

from learnsolve.kernels.threads import MATH


@njit(fastmath=MATH, cache=True)
def begins_of(major, lines):
    """Where each line begins, ``(lines + 1,)`` int64, if entries were sorted by ``major``."""
    indptr = np.zeros(lines + 1, np.int64)
    for p in range(major.size):
        indptr[major[p] + 1] += 1
    for i in range(lines):
        indptr[i + 1] += indptr[i]
    return indptr


@njit(fastmath=MATH, cache=True)
def by_line(major, minor, payload, indptr, minor_out, payload_out):
    """Entries line by line, in a line as they come; ``indptr`` says where each line begins."""
    following = indptr[:-1].copy()
    for p in range(major.size):
        q = following[major[p]]
        following[major[p]] = q + 1
        minor_out[q] = minor[p]
        payload_out[q] = payload[p]


@njit(fastmath=MATH, cache=True)
def turned(indptr, minor, payload, following, minor_out, payload_out, first):
    """Entries that are sorted by line, from line ``first`` on, by their minor index.

    ``following`` says where the next entry of each goes, and is moved on. In a line of the result the
    indices rise.
    """
    for i in range(indptr.size - 1):
        for p in range(indptr[i], indptr[i + 1]):
            q = following[minor[p]]
            following[minor[p]] = q + 1
            minor_out[q] = first + i
            payload_out[q] = payload[p]


@njit(fastmath=MATH, cache=True)
def rising(rows, cols):
    """Whether places stand by row, in a row by column, each once; and the first that does not, or -1."""
    for p in range(1, rows.size):
        if rows[p] < rows[p - 1] or (rows[p] == rows[p - 1] and cols[p] <= cols[p - 1]):
            return p
    return -1


@njit(fastmath=MATH, cache=True)
def merged(rows, cols, values, weights):
    """Means of entries at the same place, which stand side by side, in place; returns how many are left."""
    last, total = 0, 0.0
    if weights.size == 0:
        count = 1
        total = values[0]
        for p in range(1, rows.size):
            if rows[p] == rows[last] and cols[p] == cols[last]:
                total += values[p]
                count += 1
            else:
                values[last] = total / count
                last += 1
                rows[last], cols[last] = rows[p], cols[p]
                total, count = values[p], 1
        values[last] = total / count
        return last + 1
    weight = weights[0]
    total = weight * values[0]
    for p in range(1, rows.size):
        if rows[p] == rows[last] and cols[p] == cols[last]:
            total += weights[p] * values[p]
            weight += weights[p]
        else:
            values[last], weights[last] = total / weight, weight
            last += 1
            rows[last], cols[last] = rows[p], cols[p]
            weight = weights[p]
            total = weight * values[p]
    values[last], weights[last] = total / weight, weight
    return last + 1
