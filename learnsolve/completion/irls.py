"""Matrix completion by iteratively reweighted least squares, for few observations and bad conditioning."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from learnsolve.completion.gauss_newton import gauss_newton
from learnsolve.operators.sampled import products_at

Array = NDArray[Any]

# While the smoothing anneals, the weights change faster than an accurate solve could pay for.
ROUGH, ROUGH_STEPS = 0.1, 20
SHARP, SHARP_STEPS = 1e-4, 300
GAP = 0.01
SPARE = 3
PATIENCE = 25
POLISH = 50


def irls(
    rows: ArrayLike,
    cols: ArrayLike,
    values: ArrayLike,
    shape: tuple[int, int],
    rank: int,
    *,
    maxiter: int = 1000,
    rtol: float = 1e-12,
    timeout: float | None = None,
    seed: int = 0,
    report: Callable[[int, float], object] | None = None,
    decay: float = 0.93,
    restarts: int = 2,
) -> tuple[Array, Array, list[float], bool]:
    """Complete a low-rank matrix by minimizing a smoothed log-determinant (MatrixIRLS).

    One iteration takes the leading singular triplets of the iterate X, lowers the smoothing ε towards
    σ_{k+1}(X), and minimizes a quadratic majorant of Σ log max(σ_i, ε) over the matrices that agree with
    the observations. By the Woodbury identity this is a penalized least-squares problem in the tangent
    space at the best rank-k approximation, plus the part of the data that it leaves over.

    Unlike the original method, ε falls at most by the factor ``decay`` per iteration, and the inner
    problems are solved roughly, until σ_{k+1} ≪ σ_k; from there on convergence is superlinear. At 1.5 times
    as many observations as degrees of freedom the slow descent decides whether the matrix is found. If ε
    stalls when σ_{k+1} ≪ σ_k, as it does where a row has hardly more entries than the rank, `gauss_newton`
    takes over; if that fails, or ε stalls earlier, the iteration starts again with ``decay`` closer to 1.

    Parameters
    ----------
    rows, cols : array_like of int, shape (nnz,)
        Where the observed entries are; none may occur twice.
    values : array_like of float, shape (nnz,)
        The observed entries.
    shape : (int, int)
        Shape (m, n) of the matrix.
    rank : int
        Its rank k, less than m and n.
    maxiter : int
        Most iterations, over all restarts and with the steps of `gauss_newton`.
    rtol : float
        Stop when the rank-k iterate has a residual ``‖P(U V.T) - values‖ ≤ rtol ‖values‖``.
    timeout : float, optional
        Stop after so many seconds.
    seed : int
        Of the start of the subspace iteration.
    report : callable, optional
        Called with the number of iterations and the relative residual after each.
    decay : float
        Least factor, in [0, 1), by which ε falls.
    restarts : int
        How often to start again; each halves ``1 - decay``.

    Returns
    -------
    U, V : ndarray, shapes (m, k) and (n, k)
        Factors of the iterate with the least residual, with ``U.T @ U = V.T @ V`` diagonal.
    history : list of float
        Relative residual of the rank-k iterate after each iteration; it rises where a restart begins.
    converged : bool
        Whether the residual of what is returned is at most ``rtol``.

    References
    ----------
    C. Kümmerle and C. Mayrink Verdun, "A scalable second order method for ill-conditioned matrix completion
    from few samples", ICML 2021, Algorithm 1 and Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.completion.irls import irls
    >>> rng = np.random.default_rng(0)
    >>> M = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    >>> rows, cols = np.nonzero(rng.random(M.shape) < 0.4)
    >>> U, V, history, converged = irls(rows, cols, M[rows, cols], M.shape, 2)
    >>> converged, bool(np.allclose(U @ V.T, M))
    (True, True)
    """
    if not 1 <= rank < min(shape):
        raise ValueError(f"rank must be at least 1 and less than min{shape}, not {rank}")
    observed: Any = csr_array(
        (np.asarray(values, float), (np.asarray(rows, np.int64), np.asarray(cols, np.int64))), shape=shape
    )
    observed.sort_indices()
    if not observed.data.any():
        return np.zeros((shape[0], rank)), np.zeros((shape[1], rank)), [0.0], True
    end = np.inf if timeout is None else monotonic() + timeout
    history: list[float] = []
    best: tuple[float, Array, Array] | None = None
    for attempt in range(restarts + 1):
        slowness = 1 - (1 - decay) / 2**attempt
        rng = np.random.default_rng((seed, attempt))
        found, sharp = _anneal(observed, rank, slowness, rng, maxiter, rtol, end, report, history)
        steps, left = min(POLISH, maxiter - len(history)), end - monotonic()
        if sharp and found[0] > rtol and steps > 0 and left > 0:
            found = _polished(observed, rank, found, steps, rtol, left, report, history)
        if best is None or found[0] < best[0]:
            best = found
        if best[0] <= rtol or len(history) >= maxiter or monotonic() > end:
            break
    assert best is not None
    return best[1], best[2], history, best[0] <= rtol


def _anneal(
    observed: Any,
    rank: int,
    decay: float,
    rng: np.random.Generator,
    maxiter: int,
    rtol: float,
    end: float,
    report: Callable[[int, float], object] | None,
    history: list[float],
) -> tuple[tuple[float, Array, Array], bool]:
    """One run from the zero-filled matrix, which extends ``history``.

    Returns the best residual with its factors, and whether the last iterate had σ_{k+1} ≪ σ_k.
    """
    from learnsolve.kernels.gauss_newton_numba import tangent_residual, tangent_solve

    m, n = observed.shape
    pattern, values = (observed.indptr, observed.indices), observed.data
    rest = observed.copy()
    norm = np.linalg.norm(values)
    width = min(rank + 1 + SPARE, m, n)

    start = rng.standard_normal((n, width))
    none = np.zeros((m, 0)), np.zeros((n, 0))
    left, s, right = _leading(*none, rest, start, width, 10)
    smoothing, sharp = s[rank], False
    best: tuple[float, Array, Array] = (np.inf, left[:, :rank], right[:, :rank])
    trail: list[tuple[float, float]] = []
    while True:
        U, V = np.ascontiguousarray(left[:, :rank]), np.ascontiguousarray(right[:, :rank])
        sigma = np.maximum(s[:rank], smoothing * (1 + 1e-6))
        weights = smoothing / (sigma - smoothing)
        core = smoothing**2 / (np.outer(sigma, sigma) - smoothing**2)
        A, B = V * (s[:rank] / 2), U * (s[:rank] / 2)
        accuracy = (SHARP, SHARP_STEPS) if sharp else (ROUGH, ROUGH_STEPS)
        tangent_solve(*pattern, values, U, V, weights, core, A, B, *accuracy)
        tangent_residual(*pattern, values, U, V, A, B, rest.data)
        basis = np.hstack([V, A, right[:, rank:]])
        left, s, right = _leading(np.hstack([U, B]), np.hstack([A, V]), rest, basis, width, 2)

        scale = np.sqrt(s[:rank])
        U, V = left[:, :rank] * scale, right[:, :rank] * scale
        residual = float(np.linalg.norm(values - products_at(*pattern, U, V)) / norm)
        history.append(residual)
        if report is not None:
            report(len(history), residual)
        if residual < best[0]:
            best = residual, U, V
        if residual <= rtol or len(history) >= maxiter or monotonic() > end:
            return best, sharp

        sharp = bool(s[rank] < GAP * s[rank - 1])
        lowest = 1e-15 * s[0] if sharp else decay * smoothing
        smoothing = min(smoothing, max(s[rank], lowest))
        trail.append((smoothing, residual))
        if len(trail) > PATIENCE:
            earlier = trail[-1 - PATIENCE]
            if smoothing > 0.9 * earlier[0] and residual > 0.9 * earlier[1]:
                return best, sharp


def _polished(
    observed: Any,
    rank: int,
    found: tuple[float, Array, Array],
    maxiter: int,
    rtol: float,
    timeout: float,
    report: Callable[[int, float], object] | None,
    history: list[float],
) -> tuple[float, Array, Array]:
    """Continue by `gauss_newton`."""
    entries = observed.tocoo()
    rows, cols = entries.coords
    done = len(history)
    U, V, residuals, _ = gauss_newton(
        rows,
        cols,
        entries.data,
        observed.shape,
        rank,
        U=found[1],
        V=found[2],
        maxiter=maxiter,
        rtol=rtol,
        timeout=None if timeout == np.inf else timeout,
        report=None if report is None else lambda step, residual: report(done + step, residual),
    )
    history.extend(residuals[1:])
    return residuals[-1], U, V


def _leading(
    L: Array, R: Array, rest: Any, basis: Array, width: int, iterations: int
) -> tuple[Array, Array, Array]:
    """Leading singular triplets of ``L @ R.T + rest`` by subspace iteration from columns of ``basis``."""
    Y = np.linalg.qr(basis)[0]
    for _ in range(iterations):
        X = np.linalg.qr(L @ (R.T @ Y) + rest @ Y)[0]
        Y, triangle = np.linalg.qr(R @ (L.T @ X) + rest.T @ X)
    u, s, vt = np.linalg.svd(triangle.T)
    return (X @ u)[:, :width], s[:width], (Y @ vt.T)[:, :width]
