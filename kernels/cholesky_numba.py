"""Small positive definite systems on the CPU, alone and several at once."""

import numpy as np
from numba import njit

from learnsolve.kernels.threads import MATH

# How many systems are solved at once.
LANES = 8
# A multiple of the diagonal that makes any finite matrix positive definite.
HIGHEST = 1e10


@njit(fastmath=MATH, cache=True)
def solve_factored(G, x):
    """``x = (G G^T)^-1 x`` in place, with a lower triangle ``G``."""
    k = x.size
    for j in range(k):
        total = x[j]
        for c in range(j):
            total -= G[j, c] * x[c]
        x[j] = total / G[j, j]
    for j in range(k - 1, -1, -1):
        x[j] /= G[j, j]
        for c in range(j):
            x[c] -= G[j, c] * x[j]


@njit(fastmath=MATH, cache=True)
def cholesky(G, L, k):
    """The lower factor of the first rows of ``G`` into ``L``; if need be of ``G`` and a small diagonal.

    It is 1e-10 of the largest diagonal element, or as many times ten as make it positive definite; if nothing
    does, for ``G`` is not finite, the factor is NaN. Returns False if ``G`` is zero.
    """
    most, lift = 0.0, 0.0
    for c in range(k):
        most = max(most, G[c, c])
    if most == 0.0:
        return False
    while True:
        done = True
        for i in range(k):
            for j in range(i + 1):
                total = G[i, j]
                for c in range(j):
                    total -= L[i, c] * L[j, c]
                if i > j:
                    L[i, j] = total / L[j, j]
                    continue
                total += lift * most
                if not total > 0.0:
                    done = False
                    break
                L[i, i] = np.sqrt(total)
            if not done:
                break
        if done:
            return True
        lift = max(10 * lift, 1e-10)
        if not lift < HIGHEST:
            L[:] = np.nan
            return True


@njit(fastmath=MATH, cache=True)
def cholesky_lanes(G, Y, sound):
    """Solve ``LANES`` systems at once, with matrices ``G[:, :, lane]``, in place of both.

    A lane whose matrix is not positive definite is marked in ``sound``, and what it holds is worth nothing.
    """
    k = G.shape[0]
    sound[:] = True
    for j in range(k):
        for i in range(j, k):
            t0, t1, t2, t3 = G[i, j, 0], G[i, j, 1], G[i, j, 2], G[i, j, 3]
            t4, t5, t6, t7 = G[i, j, 4], G[i, j, 5], G[i, j, 6], G[i, j, 7]
            for c in range(j):
                t0 -= G[i, c, 0] * G[j, c, 0]
                t1 -= G[i, c, 1] * G[j, c, 1]
                t2 -= G[i, c, 2] * G[j, c, 2]
                t3 -= G[i, c, 3] * G[j, c, 3]
                t4 -= G[i, c, 4] * G[j, c, 4]
                t5 -= G[i, c, 5] * G[j, c, 5]
                t6 -= G[i, c, 6] * G[j, c, 6]
                t7 -= G[i, c, 7] * G[j, c, 7]
            G[i, j, 0], G[i, j, 1], G[i, j, 2], G[i, j, 3] = t0, t1, t2, t3
            G[i, j, 4], G[i, j, 5], G[i, j, 6], G[i, j, 7] = t4, t5, t6, t7
        for lane in range(LANES):
            if not G[j, j, lane] > 0.0:
                sound[lane] = False
                G[j, j, lane] = 1.0
            G[j, j, lane] = 1.0 / np.sqrt(G[j, j, lane])
        for i in range(j + 1, k):
            for lane in range(LANES):
                G[i, j, lane] *= G[j, j, lane]
    # The diagonal holds inverses.
    for j in range(k):
        for lane in range(LANES):
            Y[j, lane] *= G[j, j, lane]
        for i in range(j + 1, k):
            for lane in range(LANES):
                Y[i, lane] -= G[i, j, lane] * Y[j, lane]
    for j in range(k - 1, -1, -1):
        for lane in range(LANES):
            Y[j, lane] *= G[j, j, lane]
        for i in range(j):
            for lane in range(LANES):
                Y[i, lane] -= G[j, i, lane] * Y[j, lane]
