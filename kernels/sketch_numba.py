"""CPU kernels that sketch the matrix of a row's least-squares problem.

A sketch ``S W`` of fewer rows than ``W`` has nearly the same Gram matrix: by random signs and buckets
(CountSketch), by a subsampled randomized Hadamard transform (SRHT), or by rows that are drawn in proportion
to their squared lengths, which are leverage scores if the whole factor is white.
"""

import numpy as np
from numba import njit

from learnsolve.kernels.threads import MATH

COUNTSKETCH, SRHT, LEVERAGE = 0, 1, 2


@njit(fastmath=MATH, cache=True)
def _bits(i, e, seed):
    """Sixty-four bits for an entry of a row (the finalizer of splitmix64)."""
    key = np.uint64(seed) + np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(e)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@njit(fastmath=MATH, cache=True)
def transform_size(count):
    """The least power of two that is no less."""
    size = 1
    while size < count:
        size *= 2
    return size


@njit(fastmath=MATH, cache=True)
def _hadamard(x, size):
    """The Walsh-Hadamard transform of the first elements in place, without a factor."""
    step = 1
    while step < size:
        for begin in range(0, size, 2 * step):
            for e in range(begin, begin + step):
                a, b = x[e], x[e + step]
                x[e], x[e + step] = a + b, a - b
        step *= 2


@njit(fastmath=MATH, cache=True)
def _count(indices, W, begin, end, weights, i, seed, S):
    """Each entry goes to a bucket, with a sign."""
    buckets = S.shape[1]
    for e in range(end - begin):
        bits = _bits(i, e, seed)
        place = np.int64((bits & np.uint64(0xFFFFFFFF)) % np.uint64(buckets))
        scale = np.sqrt(max(weights[e], 0.0))
        if not bits >> np.uint64(63):
            scale = -scale
        for c in range(W.shape[1]):
            S[c, place] += scale * W[indices[begin + e], c]


@njit(fastmath=MATH, cache=True)
def _subsampled(indices, W, begin, end, weights, i, seed, S, x):
    """Entries with signs are transformed, and some places of the result are drawn."""
    buckets, size = S.shape[1], transform_size(end - begin)
    for c in range(W.shape[1]):
        for e in range(end - begin):
            scale = np.sqrt(max(weights[e], 0.0))
            x[e] = (scale if _bits(i, e, seed) >> np.uint64(63) else -scale) * W[indices[begin + e], c]
        for e in range(end - begin, size):
            x[e] = 0.0
        _hadamard(x, size)
        for q in range(buckets):
            place = np.int64(_bits(i, q, seed + 1) % np.uint64(size))
            S[c, q] = x[place] / np.sqrt(np.float64(buckets))


@njit(fastmath=MATH, cache=True)
def _drawn(indices, W, begin, end, weights, i, seed, S):
    """Entries drawn in proportion to their squared length, at even steps from a random one on."""
    buckets, k, total = S.shape[1], W.shape[1], 0.0
    for e in range(end - begin):
        for c in range(k):
            total += max(weights[e], 0.0) * W[indices[begin + e], c] ** 2
    if not total > 0.0:
        return
    step = total / buckets
    following = step * (np.float64(_bits(i, 0, seed) >> np.uint64(11)) / 9007199254740992.0)
    reached, q = 0.0, 0
    for e in range(end - begin):
        j, weight, length = indices[begin + e], max(weights[e], 0.0), 0.0
        for c in range(k):
            length += weight * W[j, c] ** 2
        reached += length
        while q < buckets and following < reached:
            for c in range(k):
                S[c, q] = np.sqrt(weight * step / length) * W[j, c]
            following += step
            q += 1


@njit(fastmath=MATH, cache=True)
def sketched_gram(indices, W, begin, end, weights, i, seed, kind, S, x, G):
    """The Gram matrix of a row's sketch, added to the lower triangle of ``G``.

    A row that is no longer than the sketch is taken as it is. ``weights`` are those of its entries, ``S`` has
    a column for each row of the sketch, and ``x`` is for the transform of a column.
    """
    k, count = W.shape[1], min(end - begin, S.shape[1])
    S[:] = 0.0
    if end - begin <= S.shape[1]:
        for e in range(count):
            for c in range(k):
                S[c, e] = np.sqrt(max(weights[e], 0.0)) * W[indices[begin + e], c]
    elif kind == SRHT:
        _subsampled(indices, W, begin, end, weights, i, seed, S, x)
    elif kind == LEVERAGE:
        _drawn(indices, W, begin, end, weights, i, seed, S)
    else:
        _count(indices, W, begin, end, weights, i, seed, S)
    for a in range(k):
        for b in range(a + 1):
            total = 0.0
            for e in range(count):
                total += S[a, e] * S[b, e]
            G[a, b] += total
