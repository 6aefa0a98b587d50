"""Completion from few observations: `irls`, `gauss_newton`, and the tangent-space kernels they share."""

from itertools import pairwise

import numpy as np
import pytest

from learnsolve.completion.gauss_newton import gauss_newton
from learnsolve.completion.irls import irls
from learnsolve.kernels import gauss_newton_numba as kernels
from learnsolve.operators.sampled import products_at


def instance(shape, rank, oversampling, condition, seed):
    rng = np.random.default_rng(seed)
    m, n = shape
    X, Y = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in shape)
    L = X * np.geomspace(condition, 1, rank)
    degrees = rank * (m + n - rank)
    while True:
        chosen = rng.choice(m * n, int(oversampling * degrees), replace=False)
        rows, cols = np.divmod(chosen, n)
        if min(np.bincount(rows, minlength=m).min(), np.bincount(cols, minlength=n).min()) >= rank:
            return rows, cols, (L @ Y.T)[rows, cols], L @ Y.T


def error(U, V, M):
    return np.linalg.norm(U @ V.T - M) / np.linalg.norm(M)


@pytest.mark.parametrize("condition", [10, 1e3])
@pytest.mark.parametrize("shape", [(180, 180), (120, 220)])
def test_irls_recovers_at_twice_the_degrees_of_freedom(shape, condition):
    rows, cols, values, M = instance(shape, 3, 2, condition, 1)
    U, V, history, converged = irls(rows, cols, values, shape, 3)
    assert converged and history[-1] <= 1e-12
    assert U.shape == (shape[0], 3) and V.shape == (shape[1], 3)
    assert error(U, V, M) < 1e-9


@pytest.mark.parametrize("condition", [10, 1e3])
def test_gauss_newton_converges_superlinearly_from_nearby(condition):
    rows, cols, values, M = instance((150, 160), 3, 2, condition, 2)
    u, s, vt = np.linalg.svd(M)
    rng = np.random.default_rng(0)
    U = u[:, :3] * s[:3] + 1e-3 * s[2] * rng.standard_normal((150, 3)) / np.sqrt(150)
    U, V, history, converged = gauss_newton(rows, cols, values, M.shape, 3, U=U, V=vt[:3].T)
    assert converged and len(history) < 30
    assert error(U, V, M) < 1e-9
    assert all(after <= before for before, after in pairwise(history))


def test_gauss_newton_finishes_what_irls_began():
    rows, cols, values, M = instance((150, 150), 3, 2, 1e3, 3)
    U, V, _, converged = irls(rows, cols, values, M.shape, 3, rtol=1e-4)
    assert converged
    U, V, history, converged = gauss_newton(rows, cols, values, M.shape, 3, U=U, V=V)
    assert converged and history[0] > 1e-9
    assert error(U, V, M) < 1e-9


def test_balanced_factors():
    rows, cols, values, M = instance((100, 90), 2, 3, 10, 4)
    U, V, _, _ = irls(rows, cols, values, M.shape, 2)
    np.testing.assert_allclose(U.T @ U, V.T @ V, atol=1e-9)
    np.testing.assert_allclose(np.diag(U.T @ U), [10, 1], rtol=1e-8)


@pytest.mark.parametrize("method", [irls, gauss_newton])
def test_a_seed_fixes_the_answer(method):
    rows, cols, values, M = instance((100, 100), 3, 2.5, 10, 5)
    first = method(rows, cols, values, M.shape, 3, seed=7, maxiter=20)
    second = method(rows, cols, values, M.shape, 3, seed=7, maxiter=20)
    other = method(rows, cols, values, M.shape, 3, seed=8, maxiter=20)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[2] == second[2]
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("method", [irls, gauss_newton])
def test_the_order_of_the_entries_does_not_matter(method):
    rows, cols, values, M = instance((60, 70), 2, 3, 10, 6)
    order = np.random.default_rng(0).permutation(values.size)
    first = method(rows, cols, values, M.shape, 2, maxiter=5)
    second = method(rows[order], cols[order], values[order], M.shape, 2, maxiter=5)
    np.testing.assert_array_equal(first[0], second[0])


@pytest.mark.parametrize("method", [irls, gauss_newton])
def test_too_few_iterations_are_admitted(method):
    rows, cols, values, M = instance((100, 100), 3, 2, 1e3, 7)
    seen = []
    U, V, history, converged = method(
        rows, cols, values, M.shape, 3, maxiter=4, report=lambda *args: seen.append(args)
    )
    assert not converged
    assert [count for count, _ in seen] == [1, 2, 3, 4]
    assert seen[-1][1] == history[-1] > 1e-12
    actual = np.linalg.norm((U @ V.T)[rows, cols] - values) / np.linalg.norm(values)
    assert actual == pytest.approx(min(history))


@pytest.mark.parametrize("method", [irls, gauss_newton])
def test_time_runs_out(method):
    rows, cols, values, M = instance((100, 100), 3, 2, 1e3, 7)
    _, _, history, converged = method(rows, cols, values, M.shape, 3, timeout=0)
    assert not converged and len(history) <= 1


def test_noise_is_not_called_convergence():
    rows, cols, values, M = instance((80, 80), 2, 3, 10, 8)
    noisy = values + 1e-3 * np.random.default_rng(0).standard_normal(values.size)
    _, _, history, converged = irls(rows, cols, noisy, M.shape, 2)
    assert not converged and min(history) > 1e-4


@pytest.mark.parametrize("method", [irls, gauss_newton])
def test_zeros(method):
    U, V, history, converged = method([0, 2, 3], [1, 0, 2], [0, 0, 0], (4, 3), 2)
    assert converged and history == [0] and not U.any() and not V.any()


@pytest.mark.parametrize("method", [irls, gauss_newton])
@pytest.mark.parametrize("rank", [0, 4])
def test_impossible_ranks(method, rank):
    with pytest.raises(ValueError, match="rank"):
        method([0, 1, 2], [0, 1, 2], [1, 2, 3], (3, 3), rank)


def test_factors_of_the_wrong_shape():
    with pytest.raises(ValueError, match="shapes"):
        gauss_newton([0, 1], [0, 1], [1, 2], (3, 4), 1, U=np.ones((4, 1)), V=np.ones((3, 1)))


class TestKernels:
    m, n, k = 9, 7, 2

    @pytest.fixture
    def data(self):
        rng = np.random.default_rng(0)
        mask = rng.random((self.m, self.n)) < 0.6
        rows, cols = np.nonzero(mask)
        indptr = np.concatenate([[0], np.cumsum(mask.sum(1))])
        U = np.linalg.qr(rng.standard_normal((self.m, self.k)))[0]
        V = np.linalg.qr(rng.standard_normal((self.n, self.k)))[0]
        values = rng.standard_normal(rows.size)
        weights, core = rng.random(self.k) + 0.1, rng.random((self.k, self.k)) + 0.1
        return rows, cols, indptr, values, U, V, weights, core, rng

    def jacobian(self, rows, cols, U, V):
        """Dense, from the entries of (A, B), row by row, to the sampled ones."""
        J = np.zeros((rows.size, (self.n + self.m) * self.k))
        for unknown in range(J.shape[1]):
            z = np.zeros(J.shape[1])
            z[unknown] = 1
            A, B = self.split(z)
            J[:, unknown] = (U @ A.T + B @ V.T)[rows, cols]
        return J

    def split(self, z):
        A, B = np.split(z, [self.n * self.k])
        return A.reshape(self.n, self.k), B.reshape(self.m, self.k)

    def penalty(self, z, U, V, weights, core):
        A, B = self.split(z)
        C = U.T @ (U @ A.T + B @ V.T) @ V
        outside = (A - V @ (V.T @ A)) ** 2 @ weights, (B - U @ (U.T @ B)) ** 2 @ weights
        return (core * C**2).sum() + outside[0].sum() + outside[1].sum()

    def hessian(self, U, V, weights, core):
        size = (self.n + self.m) * self.k
        unit = np.eye(size)
        single = [self.penalty(e, U, V, weights, core) for e in unit]
        return np.array(
            [
                [
                    (self.penalty(unit[a] + unit[b], U, V, weights, core) - single[a] - single[b]) / 2
                    for a in range(size)
                ]
                for b in range(size)
            ]
        )

    def test_residuals(self, data):
        rows, cols, indptr, values, U, V, _, _, rng = data
        A, B = rng.standard_normal(V.shape), rng.standard_normal(U.shape)
        out = np.empty_like(values)
        np.testing.assert_allclose(products_at(indptr, cols, U, V), (U @ V.T)[rows, cols])
        total = kernels.tangent_residual(indptr, cols, values, U, V, A, B, out)
        np.testing.assert_allclose(out, values - (U @ A.T + B @ V.T)[rows, cols], atol=1e-14)
        assert total == pytest.approx(out @ out)

    def test_jacobian_is_the_derivative_of_the_sampled_product(self, data):
        _, cols, indptr, values, U, V, _, _, rng = data
        A, B = rng.standard_normal(V.shape), rng.standard_normal(U.shape)
        step = 1e-6
        along = np.empty_like(values)
        ahead = values - products_at(indptr, cols, U + step * B, V + step * A)
        behind = values - products_at(indptr, cols, U - step * B, V - step * A)
        kernels.tangent_residual(indptr, cols, np.zeros_like(values), U, V, A, B, along)
        np.testing.assert_allclose((ahead - behind) / (2 * step), along, atol=1e-8)

    def test_adjoint(self, data):
        rows, cols, indptr, values, U, V, _, _, _ = data
        A, B = np.empty_like(V), np.empty_like(U)
        kernels.tangent_adjoint(indptr, cols, values, U, V, A, B)
        expected = self.jacobian(rows, cols, U, V).T @ values
        np.testing.assert_allclose(np.concatenate([A.ravel(), B.ravel()]), expected, atol=1e-13)

    def test_normal_operator(self, data):
        rows, cols, indptr, _, U, V, weights, core, rng = data
        A, B = rng.standard_normal(V.shape), rng.standard_normal(U.shape)
        HA, HB = np.empty_like(A), np.empty_like(B)
        kernels.tangent_normal(indptr, cols, U, V, weights, core, A, B, HA, HB)
        J = self.jacobian(rows, cols, U, V)
        H = J.T @ J + self.hessian(U, V, weights, core)
        expected = H @ np.concatenate([A.ravel(), B.ravel()])
        np.testing.assert_allclose(np.concatenate([HA.ravel(), HB.ravel()]), expected, atol=1e-12)

    def test_solve(self, data):
        rows, cols, indptr, values, U, V, weights, core, _ = data
        A, B = np.zeros_like(V), np.zeros_like(U)
        iterations = kernels.tangent_solve(indptr, cols, values, U, V, weights, core, A, B, 1e-13, 500)
        assert 0 < iterations < 500
        J = self.jacobian(rows, cols, U, V)
        H = J.T @ J + self.hessian(U, V, weights, core)
        A_dense, B_dense = self.split(np.linalg.lstsq(H, J.T @ values, rcond=1e-12)[0])
        np.testing.assert_allclose(U @ A.T + B @ V.T, U @ A_dense.T + B_dense @ V.T, atol=1e-10)
