"""CPU kernels for attention with a state: products with, and solves by, semiseparable triangular matrices.

Arrays are (batch, time, heads, K or V), states (pieces, heads, K, V); ``pieces`` (n, 3) names the sequences:
batch, first time, last time and one. A decay's logarithm has K channels, one for all of them, or none: its
last axis tells. A step costs three passes at most over the state, which stays in the first cache; gradients
keep no state, but run once from the end, for what depends on the later, and once from the beginning.
"""

import numpy as np
from numba import prange

from learnsolve.kernels.threads import kernel


@kernel
def attend(q, k, v, g, first, pieces, scale, o, last, threads):
    """``S = e^g S + k v'``, ``o = scale S' q``."""
    heads, width = q.shape[2], v.shape[3]
    channels = g.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = first[piece, h].copy()
        row = np.empty(width, v.dtype)
        for t in range(begin, end):
            row[:] = 0
            for i in range(q.shape[3]):
                a = np.exp(g[n, t, h, i if channels > 1 else 0]) if channels > 0 else q.dtype.type(1)
                x, y = k[n, t, h, i], q[n, t, h, i] * scale
                for j in range(width):
                    s = a * S[i, j] + x * v[n, t, h, j]
                    S[i, j] = s
                    row[j] += y * s
            o[n, t, h] = row
        last[piece, h] = S


@kernel
def attend_adjoint(q, k, v, g, first, pieces, scale, do, last, dq, dk, dv, dg, carried, threads):
    """Gradients; ``carried`` comes with that of the last state, and becomes that of the first.

    Each channel's decay has the gradient of what stands before it less of what stands after: the sum from the
    end on of ``q dq - k dk``.
    """
    heads, width = q.shape[2], v.shape[3]
    channels = g.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = first[piece, h].copy()
        for t in range(begin, end):
            for i in range(q.shape[3]):
                a = np.exp(g[n, t, h, i if channels > 1 else 0]) if channels > 0 else q.dtype.type(1)
                x, sum_ = k[n, t, h, i], q.dtype.type(0)
                for j in range(width):
                    s = a * S[i, j] + x * v[n, t, h, j]
                    S[i, j] = s
                    sum_ += s * do[n, t, h, j]
                dq[n, t, h, i] = sum_ * scale
        dS = carried[piece, h].copy()
        later = np.zeros(max(channels, 1), q.dtype)
        if channels > 0:
            for i in range(q.shape[3]):
                sum_ = q.dtype.type(0)
                for j in range(width):
                    sum_ += dS[i, j] * last[piece, h, i, j]
                later[i if channels > 1 else 0] += sum_
        row = np.empty(width, v.dtype)
        for t in range(end - 1, begin - 1, -1):
            row[:] = 0
            for i in range(q.shape[3]):
                a = np.exp(g[n, t, h, i if channels > 1 else 0]) if channels > 0 else q.dtype.type(1)
                x, y, sum_ = k[n, t, h, i], q[n, t, h, i] * scale, q.dtype.type(0)
                for j in range(width):
                    s = dS[i, j] + y * do[n, t, h, j]
                    sum_ += s * v[n, t, h, j]
                    row[j] += x * s
                    dS[i, j] = a * s
                dk[n, t, h, i] = sum_
                if channels > 0:
                    later[i if channels > 1 else 0] += q[n, t, h, i] * dq[n, t, h, i] - x * sum_
            dv[n, t, h] = row
            for i in range(channels):
                dg[n, t, h, i] = later[i]
        carried[piece, h] = dS


@kernel
def substitute(w, k, b, g, pieces, u, threads):
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on."""
    heads, width = k.shape[2], b.shape[3]
    channels = g.shape[3]
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = np.zeros((k.shape[3], width), b.dtype)
        row = np.empty(width, b.dtype)
        for t in range(begin, end):
            for j in range(width):
                row[j] = b[n, t, h, j]
            for i in range(k.shape[3]):
                a = np.exp(g[n, t, h, i if channels > 1 else 0]) if channels > 0 else b.dtype.type(1)
                x = w[n, t, h, i]
                for j in range(width):
                    s = a * S[i, j]
                    S[i, j] = s
                    row[j] -= x * s
            for i in range(k.shape[3]):
                x = k[n, t, h, i]
                for j in range(width):
                    S[i, j] += x * row[j]
            u[n, t, h] = row


@kernel
def delta(q, k, v, beta, g, first, pieces, scale, u, o, last, threads):
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``; one decay or none."""
    heads, width = q.shape[2], v.shape[3]
    decays = g.shape[3] > 0
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        S = first[piece, h].copy()
        row = np.empty(width, v.dtype)
        for t in range(begin, end):
            row[:] = 0
            a = np.exp(g[n, t, h, 0]) if decays else q.dtype.type(1)
            for i in range(q.shape[3]):
                x = k[n, t, h, i]
                for j in range(width):
                    row[j] += x * S[i, j]
            for j in range(width):
                u[n, t, h, j] = beta[n, t, h] * (v[n, t, h, j] - a * row[j])
            row[:] = 0
            for i in range(q.shape[3]):
                x, y = k[n, t, h, i], q[n, t, h, i] * scale
                for j in range(width):
                    s = a * S[i, j] + x * u[n, t, h, j]
                    S[i, j] = s
                    row[j] += y * s
            o[n, t, h] = row
        last[piece, h] = S


@kernel
def delta_adjoint(
    q, k, v, beta, g, first, pieces, scale, u, o, do, last, dq, dk, dv, dbeta, dg, carried, threads
):
    """Gradients as by `attend_adjoint`; ``u`` and ``o`` are those of `delta`.

    The decay's gradient is a sum from the end on, of ``o do - beta v du``.
    """
    heads, width = q.shape[2], v.shape[3]
    decays = g.shape[3] > 0
    for job in prange(pieces.shape[0] * heads):
        piece, h = job // heads, job % heads
        n, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        dS = carried[piece, h].copy()
        later = q.dtype.type(0)
        if decays:
            for i in range(q.shape[3]):
                for j in range(width):
                    later += dS[i, j] * last[piece, h, i, j]
        du = np.empty(width, v.dtype)
        for t in range(end - 1, begin - 1, -1):
            du[:] = 0
            a, b = np.exp(g[n, t, h, 0]) if decays else q.dtype.type(1), beta[n, t, h]
            for i in range(q.shape[3]):
                x, y, sum_ = k[n, t, h, i], q[n, t, h, i] * scale, q.dtype.type(0)
                for j in range(width):
                    s = dS[i, j] + y * do[n, t, h, j]
                    dS[i, j] = s
                    du[j] += x * s
                    sum_ += s * u[n, t, h, j]
                dk[n, t, h, i] = sum_
            for i in range(q.shape[3]):
                x = b * k[n, t, h, i]
                for j in range(width):
                    dS[i, j] = a * (dS[i, j] - x * du[j])
            for j in range(width):
                dv[n, t, h, j] = du[j]
                later += do[n, t, h, j] * o[n, t, h, j] - b * v[n, t, h, j] * du[j]
            if decays:
                dg[n, t, h, 0] = later
        carried[piece, h] = dS
        S = first[piece, h].copy()
        for t in range(begin, end):
            a, b = np.exp(g[n, t, h, 0]) if decays else q.dtype.type(1), beta[n, t, h]
            # Until here dv holds what u receives.
            slope = q.dtype.type(0)
            for j in range(width):
                du[j] = dv[n, t, h, j]
                slope += du[j] * v[n, t, h, j]
            for i in range(q.shape[3]):
                x, sum_, back = k[n, t, h, i], q.dtype.type(0), q.dtype.type(0)
                for j in range(width):
                    s = a * S[i, j]
                    back += s * du[j]
                    s += x * u[n, t, h, j]
                    sum_ += s * do[n, t, h, j]
                    S[i, j] = s
                dk[n, t, h, i] -= b * back
                slope -= x * back
                dq[n, t, h, i] = sum_ * scale
            dbeta[n, t, h] = slope
            for j in range(width):
                dv[n, t, h, j] = b * du[j]
