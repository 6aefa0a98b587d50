"""Least squares by rows on sampled entries, residuals and products: against the obvious."""

import numpy as np
import pytest

from learnsolve.operators.sampled import InMemory, RowProblems
from tests.completion_cases import matrix


def sampled_problem(m, n, k, share, seed):
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random((m, n)) < share)
    order = rng.permutation(rows.size)
    rows, cols = rows[order], cols[order]
    values, weights = rng.standard_normal(rows.size), rng.uniform(0.1, 2, rows.size)
    factors = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    return rows, cols, values, weights, *factors, rng


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("unobserved", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 2, 5, 9, 70])
def test_row_problems_are_least_squares(k, unobserved, weighted, transposed):
    """Short rows and rows of several chunks, in both directions; the last rank is beyond all lanes."""
    rows, cols, values, weights, U, V, rng = sampled_problem(12, 40 if k < 9 else 400, k, 0.7, k)
    if transposed:
        rows, cols, U, V = cols, rows, V, U
    known = InMemory(rows, cols, values, (len(U), len(V)), weights if weighted else None)
    fixed, free = (U, V) if transposed else (V, U)
    major, minor = (cols, rows) if transposed else (rows, cols)
    offset = np.zeros(len(fixed)) if unobserved else rng.standard_normal(len(fixed))
    problems = {"ridge": 0.05, "shrinkage": 0.2, "unobserved": unobserved}

    def solve(**how):
        return known.solve_rows(
            fixed, free, RowProblems(**problems, **how), transposed=transposed, offset=offset, measure=True
        )

    exact, squares = solve()
    sketched, sketched_squares = solve(solver="sketch", steps=300, rtol=1e-12)
    steps, _ = solve(solver="cg", steps=10 * k, rtol=1e-14)
    truth = np.zeros_like(free)
    for i in range(len(free)):
        mine = major == i
        w = weights[mine] if weighted else np.ones(mine.sum())
        F, x = fixed[minor[mine]], values[mine] - offset[minor[mine]]
        G = F.T @ ((w - unobserved)[:, None] * F) + unobserved * fixed.T @ fixed
        G += (0.2 + 0.05 * (1 if unobserved else mine.sum())) * np.eye(k)
        truth[i] = np.linalg.solve(G, F.T @ (w * x)) if mine.any() else 0
    assert exact == pytest.approx(truth, rel=1e-7, abs=1e-8)
    assert sketched == pytest.approx(truth, rel=1e-6, abs=1e-6)
    assert steps == pytest.approx(truth, rel=1e-5, abs=1e-5)
    left = values - offset[minor] - np.einsum("pc,pc->p", truth[major], fixed[minor])
    assert squares == pytest.approx(left @ left, rel=1e-6)
    assert sketched_squares == pytest.approx(left @ left, rel=1e-4)


@pytest.mark.parametrize("sketch", ["countsketch", "srht", "leverage"])
def test_sketches_are_good_preconditioners(sketch):
    """Few steps do where the own Gram matrix is far from that of all rows."""
    rng = np.random.default_rng(0)
    V = rng.standard_normal((4000, 16))
    # The row sees a corner of the factor's space.
    V[:1500] *= np.logspace(0, -3, 16)
    rows, cols = np.zeros(1500, np.int64), np.arange(1500)
    values = V[:1500] @ np.logspace(0, 3, 16)
    known, gone = InMemory(rows, cols, values, (1, 4000)), {}
    for how in (RowProblems("cg", steps=10), RowProblems("sketch", steps=10, sketch=sketch, seed=3)):
        squares = known.solve_rows(V, np.zeros((1, 16)), how, measure=True)[1]
        gone[how.solver] = np.sqrt(squares) / np.linalg.norm(values)
    assert gone["sketch"] < 1e-2
    assert gone["sketch"] < 0.1 * gone["cg"]


@pytest.mark.parametrize("sketch", ["countsketch", "srht", "leverage"])
def test_gram_matrices_of_sketches_are_right_on_the_average(sketch):
    from learnsolve.kernels.sketch_numba import sketched_gram, transform_size
    from learnsolve.operators.sampled import SKETCHES

    rng = np.random.default_rng(1)
    W, weights = rng.standard_normal((90, 3)), rng.uniform(0.5, 2, 90)
    truth, total = W.T @ (weights[:, None] * W), np.zeros((3, 3))
    S, x, places = np.empty((3, 20)), np.empty(transform_size(90)), np.arange(90)
    for seed in range(4000):
        sketched_gram(places, W, 0, 90, weights, 7, 10 * seed, SKETCHES[sketch], S, x, total)
    assert np.tril(total / 4000) == pytest.approx(np.tril(truth), abs=0.03 * truth.max())


@pytest.mark.parametrize("solver", ["exact", "cg", "sketch"])
def test_squares_are_those_of_the_residuals(solver):
    """Of plain rows they come from the normal equations, until these cancel."""
    for noise in (1.0, 1e-7):
        M, rows, cols, _ = matrix(50, 300, 4, seed=1)
        V = np.linalg.svd(M)[2][:4].T
        values = M[rows, cols] + noise * np.random.default_rng(0).standard_normal(rows.size)
        known = InMemory(rows, cols, values, M.shape)
        U, squares = known.solve_rows(V, np.zeros((50, 4)), RowProblems(solver, steps=50), measure=True)
        left = np.concatenate([part for _, part in known.residual(U, V)])
        assert squares == pytest.approx(left @ left, rel=1e-5)


@pytest.mark.parametrize("loss", ["huber", "trimmed"])
@pytest.mark.parametrize("solver", ["exact", "cg", "sketch"])
def test_losses_weigh_by_the_residuals_of_what_is_given(solver, loss):
    rows, cols, values, _, U, V, _ = sampled_problem(12, 200, 3, 0.7, 4)
    known = InMemory(rows, cols, values, (12, 200))
    left = np.abs(values - np.einsum("pc,pc->p", U[rows], V[cols]))
    weights = np.minimum(1, 1.5 / left) if loss == "huber" else (left <= 1.5) + 0.0
    how = RowProblems(solver, steps=60, rtol=1e-12, loss=loss, reach=1.5)
    found, _ = known.solve_rows(V, U, how)
    wanted = InMemory(rows, cols, values, (12, 200), weights).solve_rows(V, U)[0]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_rows_without_negative_numbers_are_the_best_of_those():
    from scipy.optimize import nnls

    rows, cols, values, weights, U, V, _ = sampled_problem(12, 200, 4, 0.7, 5)
    U, V = np.abs(U), np.abs(V)
    known = InMemory(rows, cols, values, (12, 200), weights)
    found, squares = known.solve_rows(V, U, RowProblems(nonnegative=True, steps=500), measure=True)
    for i in range(12):
        mine = rows == i
        root = np.sqrt(weights[mine])
        assert found[i] == pytest.approx(
            nnls(root[:, None] * V[cols[mine]], root * values[mine])[0], abs=1e-8
        )
    left = values - np.einsum("pc,pc->p", found[rows], V[cols])
    assert squares == pytest.approx(left @ left)


def test_residuals_are_those_of_the_whole_matrix():
    rows, cols, values, _, U, V, rng = sampled_problem(30, 20, 4, 0.3, 0)
    a, b = rng.standard_normal(30), rng.standard_normal(20)
    known = InMemory(rows, cols, values, (30, 20))
    whole = U @ V.T + a[:, None] + b
    ((_, left),) = known.residual(U, V, a, b)
    order = np.lexsort((cols, rows))
    assert left == pytest.approx((values - whole[rows, cols])[order])
    assert (known.matrix().toarray()[rows, cols] == values).all()
    assert known.times(V) == pytest.approx(known.matrix() @ V)
    assert known.times(U, transposed=True, change=np.square) == pytest.approx(
        known.matrix(values[order] ** 2).T @ U
    )
    counts, squares = known.counts(transposed=True)
    assert counts.tolist() == np.bincount(cols, minlength=20).tolist()
    assert squares == pytest.approx(np.bincount(cols, values**2, minlength=20))
    assert known.mean() == pytest.approx(values.mean())


def test_a_row_that_is_short_takes_a_solution_that_fits():
    """Two entries and four unknowns: the normal equations are singular."""
    V = np.random.default_rng(0).standard_normal((6, 4))
    known = InMemory(np.array([0, 0]), np.array([1, 3]), np.array([1.0, 2.0]), (1, 6))
    u, _ = known.solve_rows(V, np.zeros((1, 4)))
    assert V[[1, 3]] @ u[0] == pytest.approx([1, 2], rel=1e-5)


def test_rows_longer_than_a_thread_keeps_are_gathered_again(monkeypatch):
    from learnsolve.kernels.chunks_numba import CHUNK, LARGEST, STRIDE

    k = 96
    count = CHUNK * (LARGEST // (k * STRIDE) + 2) + 5
    rng = np.random.default_rng(0)
    V, u = rng.standard_normal((count, k)), rng.standard_normal(k)
    known = InMemory(np.zeros(count, np.int32), np.arange(count, dtype=np.int32), V @ u, (1, count))
    for how in (RowProblems(), RowProblems("cg", steps=30), RowProblems("sketch", steps=50)):
        found, squares = known.solve_rows(V, np.zeros((1, k)), how, measure=True)
        assert found[0] == pytest.approx(u, abs=1e-8)
        assert squares < 1e-12


def test_threads_change_nothing():
    import numba

    rows, cols, values, _, U, V, _ = sampled_problem(300, 200, 4, 0.6, 1)
    known, before, found = InMemory(rows, cols, values, (300, 200)), numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found.append([known.solve_rows(V, U, RowProblems(s))[0] for s in ("exact", "cg")])
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
