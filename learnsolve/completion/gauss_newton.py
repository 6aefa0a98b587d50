"""Matrix completion by damped Gauss-Newton steps on the factors."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from learnsolve.operators.sampled import products_at

Array = NDArray[Any]

STEPS = 300
LARGEST_DAMPING = 1e8


def gauss_newton(
    rows: ArrayLike,
    cols: ArrayLike,
    values: ArrayLike,
    shape: tuple[int, int],
    rank: int,
    *,
    U: Array | None = None,
    V: Array | None = None,
    maxiter: int = 200,
    rtol: float = 1e-12,
    timeout: float | None = None,
    seed: int = 0,
    report: Callable[[int, float], object] | None = None,
) -> tuple[Array, Array, list[float], bool]:
    """Complete a low-rank matrix by Levenberg-Marquardt steps from given factors.

    With balanced factors ``U.T @ U = V.T @ V = diag(s)`` a step solves, by conjugate gradients,

        min ‖P(U dV.T + dU V.T) - r‖² + λ (‖dU‖² + ‖dV‖²),    r = values - P(U V.T),

    over the observed entries P; the best rank-k approximation of U V.T + U dV.T + dU V.T is accepted if it
    lowers ‖r‖. Convergence is superlinear near a solution, whatever its conditioning. Far from one and with
    few observations the descent often ends at a stationary point; `irls` needs no good start.

    Parameters
    ----------
    rows, cols : array_like of int, shape (nnz,)
        Where the observed entries are; none may occur twice.
    values : array_like of float, shape (nnz,)
        The observed entries.
    shape : (int, int)
        Shape (m, n) of the matrix.
    rank : int
        Its rank k.
    U, V : ndarray, shapes (m, k) and (n, k), optional
        Factors to start from; random ones unless both are given.
    maxiter : int
        Most steps, rejected ones included.
    rtol : float
        Stop when ``‖r‖ ≤ rtol ‖values‖``.
    timeout : float, optional
        Stop after so many seconds.
    seed : int
        Of the random start.
    report : callable, optional
        Called with the number of steps and the relative residual after each.

    Returns
    -------
    U, V : ndarray, shapes (m, k) and (n, k)
        Balanced factors.
    history : list of float
        Relative residual at the start and after each step; it does not rise.
    converged : bool
        Whether the last is at most ``rtol``.

    References
    ----------
    P. Zilber and B. Nadler, "GNMR: a provable one-line algorithm for low rank matrix recovery", SIAM J. Math.
    Data Sci. 4 (2022), Section 2, for the step; the damping is Levenberg's and Marquardt's.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.completion.gauss_newton import gauss_newton
    >>> rng = np.random.default_rng(0)
    >>> L, R = rng.standard_normal((40, 2)), rng.standard_normal((30, 2))
    >>> rows, cols = np.nonzero(rng.random((40, 30)) < 0.4)
    >>> observed = (L @ R.T)[rows, cols]
    >>> U, V, history, converged = gauss_newton(rows, cols, observed, (40, 30), 2, U=L + 0.1, V=R - 0.1)
    >>> converged, bool(np.allclose(U @ V.T, L @ R.T))
    (True, True)
    """
    from learnsolve.kernels.gauss_newton_numba import tangent_residual, tangent_solve

    m, n = shape
    if not 1 <= rank <= min(shape):
        raise ValueError(f"rank must be at least 1 and at most min{shape}, not {rank}")
    observed: Any = csr_array(
        (np.asarray(values, float), (np.asarray(rows, np.int64), np.asarray(cols, np.int64))), shape=shape
    )
    observed.sort_indices()
    pattern, target = (observed.indptr, observed.indices), observed.data
    norm = float(np.linalg.norm(target))
    if norm == 0:
        return np.zeros((m, rank)), np.zeros((n, rank)), [0.0], True
    if U is None or V is None:
        rng = np.random.default_rng(seed)
        U, V = rng.standard_normal((m, rank)), rng.standard_normal((n, rank))
        U = U * (norm / np.sqrt(target.size * rank))
    if U.shape != (m, rank) or V.shape != (n, rank):
        raise ValueError(f"U and V must have shapes {(m, rank)} and {(n, rank)}, not {U.shape} and {V.shape}")

    end = np.inf if timeout is None else monotonic() + timeout
    density = target.size / (m * n)
    left, s, right = _truncated(U, V, rank)
    r, trial = target - products_at(*pattern, left * s, right), np.empty_like(target)
    squares = float(r @ r)
    history = [np.sqrt(squares) / norm]
    damping = 1e-2
    while history[-1] > rtol and len(history) <= maxiter and monotonic() < end and damping < LARGEST_DAMPING:
        weights = damping * density * s[0] / np.maximum(s, 1e-10 * s[0])
        core = weights[:, None] * weights / (weights[:, None] + weights)
        A, B = np.zeros_like(right), np.zeros_like(left)
        accuracy = float(np.clip(history[-1], 1e-6, 0.1))
        tangent_solve(*pattern, r, left, right, weights, core, A, B, accuracy, STEPS)
        expected = squares - tangent_residual(*pattern, r, left, right, A, B, trial)
        moved = _truncated(np.hstack([left, B + left * s]), np.hstack([A, right]), rank)
        trial = target - products_at(*pattern, moved[0] * moved[1], moved[2])
        after = float(trial @ trial)
        gain = (squares - after) / expected if expected > 0 else -np.inf
        if after < squares:
            (left, s, right), squares = moved, after
            r, trial = trial, r
            damping *= 0.2 if gain > 0.5 else 1 if gain > 0.2 else 2
        else:
            damping *= 4
        history.append(np.sqrt(squares) / norm)
        if report is not None:
            report(len(history) - 1, history[-1])
    history = [float(value) for value in history]
    scale = np.sqrt(s)
    return left * scale, right * scale, history, history[-1] <= rtol


def _truncated(L: Array, R: Array, rank: int) -> tuple[Array, Array, Array]:
    """Leading singular triplets of ``L @ R.T``."""
    left, upper = np.linalg.qr(L)
    right, lower = np.linalg.qr(R)
    u, s, vt = np.linalg.svd(upper @ lower.T)
    return left @ u[:, :rank], s[:rank], right @ vt[:rank].T
