"""CPU kernels for attention with a state: products with, and solves by, semiseparable triangular matrices.

Arrays are (batch, time, heads, K or V), states (pieces, heads, K, V); ``pieces`` (n, 3) names the sequences:
batch, first time, last time and one. A decay's logarithm has K channels, one for all of them, or none: its
last axis tells. A token costs one pass over the state, which stays in the first cache: it is written and,
for the token itself and for the one that follows, read at once. Gradients keep no state, but run once from
the end, for what depends on the later, and once from the beginning.
"""

import numpy as np
from numba import njit, prange

from learnsolve.kernels import state_numba as state
from learnsolve.kernels.copies_numba import copy_matrix, copy_vector
from learnsolve.kernels.threads import INLINE, kernel

# Of a head that are copied at a time.
TOKENS = 64


@njit(**INLINE)
def decays(g, K, a):
    """Set what a state's rows are multiplied with, of logarithms for K channels, for all, or of none."""
    if g.shape[0] == 1:
        a[:] = np.exp(g[0])
    elif g.shape[0] > 1:
        for i in range(K):
            a[i] = np.exp(g[i])


@njit(**INLINE)
def decay(g):
    """One decay for all rows."""
    return np.exp(g[0]) if g.shape[0] > 0 else g.dtype.type(1)


@kernel
def attend(q, k, v, g, first, pieces, scale, o, last, threads):
    """``S = e^g S + k v'``, ``o = scale S' q``."""
    heads, K = q.shape[2], q.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = state.opened(first[piece, h])
        a, x, y = np.ones(len(S), v.dtype), np.zeros(len(S), v.dtype), np.zeros(len(S), v.dtype)
        for t in range(begin, end):
            decays(g[n, t, h], K, a)
            for i in range(K):
                x[i], y[i] = k[n, t, h, i], q[n, t, h, i] * scale
            state.step(S, a, x, v[n, t, h], y, o[n, t, h])
        copy_matrix(S[:K], last[piece, h])


@kernel
def attend_adjoint(q, k, v, g, first, pieces, scale, do, last, dq, dk, dv, dg, carried, threads):
    """Gradients; ``carried`` comes with that of the last state, and becomes that of the first.

    Each channel's decay has the gradient of what stands before it less of what stands after: the sum from the
    end on of ``q dq - k dk``.
    """
    heads, K, width = q.shape[2], q.shape[3], v.shape[3]
    channels = g.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = state.opened(first[piece, h])
        a, x, y = np.ones(len(S), v.dtype), np.zeros(len(S), v.dtype), np.zeros(len(S), v.dtype)
        sums = np.empty(len(S), v.dtype)
        for t in range(begin, end):
            decays(g[n, t, h], K, a)
            for i in range(K):
                x[i] = k[n, t, h, i]
            state.step_by_rows(S, a, x, v[n, t, h], do[n, t, h], sums)
            for i in range(K):
                dq[n, t, h, i] = sums[i] * scale
        S = state.opened(carried[piece, h])
        later = np.zeros(max(channels, 1), q.dtype)
        if channels > 0:
            for i in range(K):
                total = q.dtype.type(0)
                for j in range(width):
                    total += S[i, j] * last[piece, h, i, j]
                later[i if channels > 1 else 0] += total
        for t in range(end - 1, begin - 1, -1):
            decays(g[n, t, h], K, a)
            for i in range(K):
                x[i], y[i] = k[n, t, h, i], q[n, t, h, i] * scale
            state.step_back(S, y, do[n, t, h], v[n, t, h], sums, x, dv[n, t, h], a)
            for i in range(K):
                dk[n, t, h, i] = sums[i]
                if channels > 0:
                    later[i if channels > 1 else 0] += q[n, t, h, i] * dq[n, t, h, i] - x[i] * sums[i]
            for i in range(channels):
                dg[n, t, h, i] = later[i]
        copy_matrix(S[:K], carried[piece, h])


@kernel
def substitute(w, k, b, g, pieces, u, threads):
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on."""
    heads, K, width = k.shape[2], k.shape[3], b.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = np.zeros((state.padded(K), width), b.dtype)
        a, here = np.ones(len(S), b.dtype), np.ones(len(S), b.dtype)
        x, z = np.zeros(len(S), b.dtype), np.zeros(len(S), b.dtype)
        ahead = np.zeros(width, b.dtype)
        if end > begin:
            decays(g[n, begin, h], K, a)
        for t in range(begin, end):
            for j in range(width):
                u[n, t, h, j] = b[n, t, h, j] - ahead[j]
            copy_vector(a, here)
            following = min(t + 1, end - 1)
            decays(g[n, following, h], K, a)
            for i in range(K):
                x[i], z[i] = k[n, t, h, i], a[i] * w[n, following, h, i]
            state.step(S, here, x, u[n, t, h], z, ahead)


@kernel
def delta(q, k, v, beta, g, first, pieces, scale, u, o, last, threads):
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``; one decay or none.

    Tokens of a head lie far from each other: some are copied at a time, which memory serves side by side. An
    empty ``u`` is not written.
    """
    heads, K, width = q.shape[2], q.shape[3], v.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = state.opened(first[piece, h])
        keys, queries = np.zeros((TOKENS + 1, len(S)), v.dtype), np.zeros((TOKENS, len(S)), v.dtype)
        values, found = np.empty((TOKENS, width), v.dtype), np.empty((TOKENS, width), v.dtype)
        z, ahead, following = np.zeros(len(S), v.dtype), np.empty(width, v.dtype), q.dtype.type(1)
        if end > begin:
            following = decay(g[n, begin, h])
            for i in range(K):
                z[i] = following * k[n, begin, h, i]
            state.read(S, z, ahead)
        for low in range(begin, end, TOKENS):
            count = min(TOKENS, end - low)
            for r in range(count):
                for i in range(K):
                    keys[r, i], queries[r, i] = k[n, low + r, h, i], q[n, low + r, h, i] * scale
                for j in range(width):
                    values[r, j] = v[n, low + r, h, j]
            for i in range(K):
                keys[count, i] = k[n, min(low + count, end - 1), h, i]
            for r in range(count):
                a, b = following, beta[n, low + r, h]
                for j in range(width):
                    values[r, j] = b * (values[r, j] - ahead[j])
                following = decay(g[n, min(low + r + 1, end - 1), h])
                for i in range(K):
                    z[i] = following * keys[r + 1, i]
                state.step_twice_read(S, a, keys[r], values[r], queries[r], found[r], z, ahead)
            for r in range(count):
                for j in range(width):
                    o[n, low + r, h, j] = found[r, j]
                if len(u) > 0:
                    for j in range(width):
                        u[n, low + r, h, j] = values[r, j]
        copy_matrix(S[:K], last[piece, h])


@kernel
def delta_adjoint(
    q, k, v, beta, g, first, pieces, scale, u, o, do, last, dq, dk, dv, dbeta, dg, carried, threads
):
    """Gradients as by `attend_adjoint`; ``u`` and ``o`` are those of `delta`.

    The decay's gradient is a sum from the end on, of ``o do - beta v du``.
    """
    heads, K, width = q.shape[2], q.shape[3], v.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = state.opened(carried[piece, h])
        x, y, c = np.zeros(len(S), v.dtype), np.zeros(len(S), v.dtype), np.zeros(len(S), v.dtype)
        before, sums = np.empty(len(S), v.dtype), np.empty(len(S), v.dtype)
        du, after, following = np.zeros(width, v.dtype), np.zeros(width, v.dtype), q.dtype.type(1)
        later = q.dtype.type(0)
        if g.shape[3] > 0:
            for i in range(K):
                for j in range(width):
                    later += S[i, j] * last[piece, h, i, j]
        for t in range(end - 1, begin - 1, -1):
            b = beta[n, t, h]
            for i in range(K):
                x[i], y[i] = k[n, t, h, i], q[n, t, h, i] * scale
            state.step_back_corrected(
                S, following, c, after, y, do[n, t, h], u[n, t, h], sums, x, du
            )  # fmt: skip
            for i in range(K):
                dk[n, t, h, i], c[i] = sums[i], b * x[i]
            for j in range(width):
                dv[n, t, h, j] = after[j] = du[j]
                later += do[n, t, h, j] * o[n, t, h, j] - b * v[n, t, h, j] * du[j]
            following = decay(g[n, t, h])
            if g.shape[3] > 0:
                dg[n, t, h, 0] = later
        for i in range(K):
            for j in range(width):
                carried[piece, h, i, j] = following * (S[i, j] - c[i] * after[j])
        S = state.opened(first[piece, h])
        for t in range(begin, end):
            b = beta[n, t, h]
            # Until here dv holds what u receives.
            slope = q.dtype.type(0)
            for j in range(width):
                du[j] = dv[n, t, h, j]
                slope += du[j] * v[n, t, h, j]
            for i in range(K):
                x[i] = k[n, t, h, i]
            state.step_by_rows_twice_read(
                S, decay(g[n, t, h]), x, u[n, t, h], du, before, do[n, t, h], sums
            )  # fmt: skip
            for i in range(K):
                dk[n, t, h, i] -= b * before[i]
                slope -= x[i] * before[i]
                dq[n, t, h, i] = sums[i] * scale
            dbeta[n, t, h] = slope
            for j in range(width):
                dv[n, t, h, j] = b * du[j]
