"""Completion of implicit feedback, and with factors without negative numbers."""

import numpy as np
import pytest

import learnsolve
from learnsolve.completion import AltMin
from tests.completion_cases import error


def test_zeros_of_little_weight_are_those_of_the_whole_matrix():
    """Against an iteration over the dense matrix, in which every place has its weight."""
    rng = np.random.default_rng(30)
    counts = rng.poisson(0.4, (40, 30))
    rows, cols = np.nonzero(counts)
    weights = 1.0 + 5.0 * counts[rows, cols]
    options = {"unobserved": 1.0, "regularization": 0.5, "weights": weights, "shape": (40, 30), "maxiter": 60}
    res = learnsolve.complete((rows, cols, np.ones(rows.size)), 3, AltMin("exact"), **options)
    W, P = np.ones((40, 30)), (counts > 0) + 0.0
    W[rows, cols] = weights

    def objective(X, U, V):
        return np.sum(W * np.square(P - X)) + 0.5 * (np.sum(U * U) + np.sum(V * V))

    U, V = res.U, res.V
    for _ in range(500):
        for i in range(40):
            U[i] = np.linalg.solve(V.T @ (W[i, :, None] * V) + 0.5 * np.eye(3), V.T @ (W[i] * P[i]))
        for j in range(30):
            V[j] = np.linalg.solve(U.T @ (W[:, j, None] * U) + 0.5 * np.eye(3), U.T @ (W[:, j] * P[:, j]))
    assert objective(res.to_dense(), res.U, res.V) == pytest.approx(objective(U @ V.T, U, V), rel=0.01)
    assert np.isnan(res.held_out[-1])


def test_clicks_are_ranked_better_than_by_popularity():
    rng = np.random.default_rng(31)
    taste = rng.random((300, 4)) ** 3 @ rng.random((4, 120)) ** 3
    clicked = rng.random(taste.shape) < 0.35 * taste / taste.mean()
    hidden = clicked & (rng.random(taste.shape) < 0.2)
    seen = clicked & ~hidden
    rows, cols = np.nonzero(seen)
    res = learnsolve.complete(
        (rows, cols, np.ones(rows.size)),
        4,
        shape=seen.shape,
        weights=np.full(rows.size, 5.0),
        unobserved=1.0,
        regularization=5.0,
    )
    popular = np.broadcast_to(seen.sum(axis=0), seen.shape)

    def precision(score):
        best = np.argsort(-np.where(seen, -np.inf, score), axis=1)[:, :10]
        return np.take_along_axis(hidden, best, axis=1).mean()

    assert precision(res.to_dense()) > 1.1 * precision(popular)


def test_factors_without_negative_numbers():
    rng = np.random.default_rng(32)
    M = rng.random((120, 3)) @ rng.random((3, 90))
    rows, cols = np.nonzero(rng.random(M.shape) < 0.4)
    res = learnsolve.complete((rows, cols, M[rows, cols]), 3, shape=M.shape, nonnegative=True, rtol=1e-4)
    assert res.success
    assert (res.U >= 0).all()
    assert (res.V >= 0).all()
    assert error(res, M) < 1e-3
    M[:60] *= -1
    res = learnsolve.complete((rows, cols, M[rows, cols]), 3, shape=M.shape, nonnegative=True)
    assert (res.to_dense() >= 0).all()
    assert res.relative_residual > 0.5
