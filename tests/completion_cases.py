"""Matrices of low rank for the tests of completion."""

import numpy as np


def matrix(m=80, n=60, rank=3, share=0.4, noise=0.0, seed=0):
    """A matrix of low rank, and the places where it is known."""
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    rows, cols = np.nonzero(rng.random((m, n)) < share)
    values = M[rows, cols] + noise * rng.standard_normal(rows.size)
    return M, rows, cols, values


def error(res, M):
    return np.linalg.norm(res.to_dense() - M) / np.linalg.norm(M)
