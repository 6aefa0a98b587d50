"""Completion of low-rank matrices: the row problems, the whole, and what goes wrong."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve import ConvergenceWarning, SolveError, Status
from learnsolve.completion import AltMin, RobustAltMin, error_of
from learnsolve.completion.altmin import reach, spectral
from learnsolve.completion.anderson import Anderson
from learnsolve.completion.aside import keep_aside
from learnsolve.completion.entries import as_entries
from learnsolve.operators.sampled import InMemory, RowProblems
from learnsolve.problems.low_rank import low_rank


def matrix(m=80, n=60, rank=3, share=0.4, noise=0.0, seed=0):
    """A matrix of low rank, and the places where it is known."""
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    rows, cols = np.nonzero(rng.random((m, n)) < share)
    values = M[rows, cols] + noise * rng.standard_normal(rows.size)
    return M, rows, cols, values


def error(res, M):
    return np.linalg.norm(res.to_dense() - M) / np.linalg.norm(M)


# The row problems.


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
    problems = {"ridge": 0.05, "unobserved": unobserved}

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
        G += 0.05 * (1 if unobserved else mine.sum()) * np.eye(k)
        truth[i] = np.linalg.solve(G, F.T @ (w * x)) if mine.any() else 0
    assert exact == pytest.approx(truth, rel=1e-7, abs=1e-8)
    assert sketched == pytest.approx(truth, rel=1e-6, abs=1e-6)
    assert steps == pytest.approx(truth, rel=1e-5, abs=1e-5)
    left = values - offset[minor] - np.einsum("pc,pc->p", truth[major], fixed[minor])
    assert squares == pytest.approx(left @ left, rel=1e-6)
    assert sketched_squares == pytest.approx(left @ left, rel=1e-4)


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


def test_a_completion_is_the_same_to_the_bit_with_any_number_of_threads():
    import numba

    M, rows, cols, values = matrix(700, 500, rank=4, noise=0.01, seed=33)
    before, found = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found.append(learnsolve.complete((rows, cols, values), 4, shape=M.shape))
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(found[0].residuals, found[1].residuals)
    assert np.array_equal(found[0].U, found[1].U)


def test_the_spectral_start_is_the_singular_value_decomposition_of_the_zero_filled_matrix():
    _, rows, cols, values = matrix(share=0.5, seed=3)
    known = InMemory(rows, cols, values, (80, 60))
    U, V = spectral(known, 3, seed=0, passes=30)
    u, s, v = np.linalg.svd(known.matrix().toarray())
    best = (u[:, :3] * s[:3]) @ v[:3] / (rows.size / 4800)
    assert U @ V.T == pytest.approx(best, abs=1e-3 * np.abs(best).max())


# The whole.


def test_accuracies_that_double_keep_the_convergence_of_exact_rows():
    M, rows, cols, values = matrix(200, 150, rank=4, share=0.3, seed=20)
    known, found = (rows, cols, values), {}
    for solver in ("exact", "sketch"):
        res = learnsolve.complete(known, 4, AltMin(solver), shape=M.shape, rtol=1e-9)
        assert res.success
        found[solver] = res.iterations
    assert found["sketch"] <= 1.1 * found["exact"] + 1


def test_the_paper_to_the_letter():
    M, rows, cols, values = matrix(300, 300, rank=2, share=0.9, seed=21)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = learnsolve.complete((rows, cols, values), 2, RobustAltMin(8), shape=M.shape, rtol=1e-9)
    assert res.iterations == 8
    assert (res.residuals[2:] < 0.7 * res.residuals[1:-1]).all()
    assert error(res, M) < 1e-3
    with pytest.raises(ValueError, match="RobustAltMin"):
        learnsolve.complete((rows, cols, values), 2, RobustAltMin(), shape=M.shape, bias=True)
    for options in ({"sweeps": 0}, {"incoherence": 0.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RobustAltMin(**options)


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("initial", ["spectral", "random"])
def test_exact_entries_are_completed(solver, initial):
    M, rows, cols, values = matrix()
    method = AltMin(solver, initial=initial, steps=3)
    res = learnsolve.complete((rows, cols, values), 3, method, shape=M.shape, rtol=1e-9, maxiter=2000)
    assert res.success
    assert error(res, M) < 1e-7
    assert res.residuals[-1] <= 1e-9 * np.linalg.norm(values)
    assert len(res.residuals) == len(res.held_out) == res.iterations + 1
    truth = np.linalg.norm(res.predict(rows, cols) - values) / np.linalg.norm(values)
    assert truth < 2e-9


@pytest.mark.parametrize("condition", [10, 1e4])
def test_what_alternating_minimization_does_not_find_is_polished(condition):
    p = low_rank((200, 180), 3, oversampling=2, condition=condition, seed=1)
    known = (p.rows, p.cols, p.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = learnsolve.complete(known, 3, "altmin", shape=p.shape, rtol=1e-10)
    assert p.error(plain.U, plain.V) > 1e-4
    for method in ("auto", "irls"):
        res = learnsolve.complete(known, 3, method, shape=p.shape, rtol=1e-10)
        assert res.success
        assert p.error(res.U, res.V) < 1e-8
        assert len(res.residuals) == len(res.held_out) == res.iterations + 1
        assert res.method == ("irls" if method == "irls" else "altmin + irls")
    assert res.extras["polish"]["iterations"] == res.iterations


def test_all_forms_of_entries_are_one():
    M, rows, cols, values = matrix(seed=1)
    holes = np.full(M.shape, np.nan)
    holes[rows, cols] = values
    forms = [
        holes,
        np.ma.masked_invalid(holes),
        scipy.sparse.coo_array((values, (rows, cols)), shape=M.shape),
        scipy.sparse.csc_matrix((values, (rows, cols)), shape=M.shape),
    ]
    truth = learnsolve.complete((rows, cols, values), 3, shape=M.shape)
    for form in forms:
        assert np.array_equal(learnsolve.complete(form, 3).U, truth.U)


def test_the_rank_is_found():
    M, rows, cols, values = matrix(150, 120, rank=4, seed=2)
    res = learnsolve.complete((rows, cols, values), shape=M.shape)
    assert res.rank == 4
    assert error(res, M) < 1e-4
    M, rows, cols, values = matrix(150, 120, rank=4, noise=0.3, seed=2)
    assert learnsolve.complete((rows, cols, values), shape=M.shape).rank == 4


def test_noise_is_not_fitted_far_beyond_the_oracle():
    M, rows, cols, values = matrix(200, 150, rank=3, noise=0.1, seed=4)
    res = learnsolve.complete((rows, cols, values), 3, shape=M.shape)
    assert res.success
    assert res.extras["ended"] == "settled"
    # Who knows the columns' space has only the rows to fit.
    V = np.linalg.svd(M)[2][:3].T
    oracle = InMemory(rows, cols, values, M.shape).solve_rows(V, np.zeros((200, 3)))[0] @ V.T
    assert np.linalg.norm(res.to_dense() - M) < 1.8 * np.linalg.norm(oracle - M)


@pytest.mark.parametrize("wrong", [0.0, 0.05])
@pytest.mark.parametrize("decibel", [20, 40])
def test_of_a_long_matrix_the_error_is_within_a_tenth_of_who_knows_the_row_space(decibel, wrong):
    """Its k m numbers are nearly all of the k (m + n - k) that are to be found."""
    p = low_rank((4000, 400), 5, oversampling=12, seed=decibel)
    M = p.U @ p.V.T
    rng = np.random.default_rng(decibel)
    values = p.values + p.values.std() * 10 ** (-decibel / 20) * rng.standard_normal(p.values.size)
    V = np.linalg.svd(M, full_matrices=False)[2][:5].T
    oracle = InMemory(p.rows, p.cols, values, p.shape).solve_rows(V, np.zeros((4000, 5)))[0] @ V.T
    gross = rng.random(values.size) < wrong
    values[gross] += 20 * p.values.std() * rng.choice([-1, 1], int(gross.sum()))
    robust = "trimmed" if wrong else None
    res = learnsolve.complete((p.rows, p.cols, values), 5, shape=p.shape, robust=robust)
    assert res.success
    allowed = 1.1 if not wrong else 1.2
    assert error(res, M) < allowed * np.linalg.norm(oracle - M) / np.linalg.norm(M)


@pytest.mark.parametrize("robust", ["huber", "trimmed"])
def test_gross_errors_are_left_out(robust):
    M, rows, cols, values = matrix(200, 150, rank=3, noise=0.01, seed=5)
    wrong = np.random.default_rng(5).random(values.size) < 0.05
    values[wrong] += 20.0
    res = learnsolve.complete((rows, cols, values), 3, shape=M.shape, robust=robust)
    clean = learnsolve.complete((rows[~wrong], cols[~wrong], values[~wrong]), 3, shape=M.shape)
    assert res.success
    assert error(res, M) < (1.1 if robust == "trimmed" else 2) * error(clean, M)


def test_biases_take_what_is_theirs():
    rng = np.random.default_rng(6)
    M, rows, cols, values = matrix(100, 80, rank=2, seed=6)
    shift = 3.0 + rng.standard_normal(100)[:, None] + rng.standard_normal(80)
    values = values + shift[rows, cols]
    res = learnsolve.complete((rows, cols, values), 2, shape=M.shape, bias=True, maxiter=2000)
    assert res.success
    assert error(res, M + shift) < 1e-5
    assert (
        not learnsolve.complete(
            (rows, cols, values), 4, shape=M.shape, bias=True, regularization=0.1
        ).relative_residual
        < 1e-3
    )


def test_weights_count():
    """An entry of weight two is one that comes twice."""
    M, rows, cols, values = matrix(60, 50, rank=2, noise=0.5, seed=7)
    twice = np.random.default_rng(7).random(values.size) < 0.3
    options = {"shape": M.shape, "held_out": 0.0, "maxiter": 400}
    weights = np.where(twice, 2.0, 1.0)
    one = learnsolve.complete((rows, cols, values), 2, weights=weights, **options)
    parts = [np.concatenate([part, part[twice]]) for part in (rows, cols, values)]
    other = learnsolve.complete(tuple(parts), 2, weights=np.ones(len(parts[0])), **options)
    assert one.to_dense() == pytest.approx(other.to_dense())
    plain = learnsolve.complete((rows, cols, values), 2, **options)
    assert np.abs(one.to_dense() - plain.to_dense()).max() > 1e-3


def test_a_warm_start_goes_on():
    M, rows, cols, values = matrix(seed=8)
    known = (rows, cols, values)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        first = learnsolve.complete(known, 3, shape=M.shape, maxiter=4, rtol=1e-9)
    assert first.status is Status.MAXITER
    second = learnsolve.complete(known, 3, shape=M.shape, rtol=1e-9, x0=first)
    assert second.residuals[0] == pytest.approx(first.residuals[-1])
    assert second.success
    again = learnsolve.complete(known, shape=M.shape, rtol=1e-9, x0=(first.U, first.V))
    assert again.iterations == second.iterations


def test_it_can_be_repeated():
    M, rows, cols, values = matrix(seed=9)
    one, other = (learnsolve.complete((rows, cols, values), 3, shape=M.shape, seed=3) for _ in range(2))
    assert np.array_equal(one.U, other.U)


def test_what_is_fitted_but_not_predicted_is_no_success():
    """Noise alone, and a rank that fits it."""
    rng = np.random.default_rng(10)
    rows, cols = np.nonzero(rng.random((40, 40)) < 0.3)
    values = rng.standard_normal(rows.size)
    with pytest.warns(ConvergenceWarning, match="kept aside"):
        res = learnsolve.complete((rows, cols, values), 4, shape=(40, 40), held_out=0.1)
    assert res.status is Status.OVERFITTED
    with pytest.raises(SolveError):
        learnsolve.complete((rows, cols, values), 4, shape=(40, 40), held_out=0.1, check=True)


def test_a_row_that_runs_away_is_no_success():
    """Two entries that disagree, in columns nearly alike: they are fitted by huge numbers elsewhere."""
    rng = np.random.default_rng(17)
    V = rng.standard_normal((40, 2))
    V[1] = V[0] + 1e-3 * rng.standard_normal(2)
    M = rng.standard_normal((60, 2)) @ V.T
    known = M.copy()
    known[0, 2:] = np.nan
    known[0, :2] += [0.1, -0.1]
    with pytest.warns(ConvergenceWarning, match="OVERFITTED"):
        res = learnsolve.complete(known, 2, rtol=1e-8)
    assert res.extras["spikes"][0] == 1
    known[0, :2] = M[0, :2]
    assert learnsolve.complete(known, 2, rtol=1e-8).extras["spikes"] == (0, 0)


def test_a_callback_sees_and_stops():
    M, rows, cols, values = matrix(seed=11)
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.iteration == 3

    with pytest.warns(ConvergenceWarning, match="callback"):
        res = learnsolve.complete((rows, cols, values), 3, shape=M.shape, rtol=1e-12, callback=callback)
    assert res.status is Status.STOPPED
    assert [p.iteration for p in seen] == [1, 2, 3]
    assert seen[-1].observed == pytest.approx(res.relative_residual)
    with pytest.warns(ConvergenceWarning, match="timeout"):
        res = learnsolve.complete((rows, cols, values), 3, shape=M.shape, rtol=1e-15, timeout=1e-9)
    assert res.status is Status.TIMEOUT


# What comes of a completion.


def test_predictions():
    M, rows, cols, values = matrix(seed=12)
    res = learnsolve.complete((rows, cols, values), 3, shape=M.shape, rtol=1e-10)
    whole = res.to_dense()
    assert res.predict(3, [[1], [2]]) == pytest.approx(whole[3, [[1], [2]]])
    assert res.row(5) == pytest.approx(whole[5])
    best, found = res.top(5, 4)
    assert best.tolist() == np.argsort(-whole[5])[:4].tolist()
    assert found == pytest.approx(whole[5][best])
    assert res.top(5, 3, exclude=best[:1])[0].tolist() == best[1:].tolist()
    assert len(res.top(5, 1000)[0]) == 60
    assert len(res.top(5, 0)[0]) == 0
    u, s, v = res.svd()
    assert u.T @ u == pytest.approx(np.eye(3), abs=1e-12)
    assert (u * s) @ v.T == pytest.approx(res.U @ res.V.T)
    assert s == pytest.approx(np.linalg.svd(M)[1][:3])
    assert error_of(res, rows, cols, values) < 1e-8
    (U, _), info = res
    assert info == 0
    assert U is res.U
    with pytest.raises(IndexError, match="row"):
        res.predict(-1, 0)
    with pytest.raises(IndexError, match="column 60"):
        res.predict(0, 60)
    with pytest.raises(ValueError, match="elements"):
        res.to_dense(most=10)


# Edges.


def test_rows_and_columns_without_entries_become_zero():
    M, rows, cols, values = matrix(seed=13)
    kept = (rows != 4) & (cols != 7)
    res = learnsolve.complete((rows[kept], cols[kept], values[kept]), 3, shape=M.shape)
    assert res.row(4) == pytest.approx(0)
    assert res.to_dense()[:, 7] == pytest.approx(0)


def test_one_entry():
    res = learnsolve.complete((np.array([2]), np.array([1]), np.array([5.0])), 1, shape=(4, 3))
    assert res.predict(2, 1) == pytest.approx(5)
    assert np.isfinite(res.to_dense()).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_all_equal_values(value, bias):
    _, rows, cols, values = matrix(seed=14)
    res = learnsolve.complete((rows, cols, np.full(values.size, value)), 1, shape=(80, 60), bias=bias)
    assert res.success
    assert res.to_dense() == pytest.approx(value, abs=1e-4)


def test_full_rank_is_defined():
    known = np.random.default_rng(15).standard_normal((6, 5))
    res = learnsolve.complete(known, 5, held_out=0.0)
    assert res.to_dense() == pytest.approx(known, abs=1e-4)


def test_shapes_whose_product_overflows():
    rng = np.random.default_rng(16)
    big = (2**31 - 2, 2**31 - 2)
    known = as_entries((rng.integers(0, big[0], 9), rng.integers(0, big[1], 9), np.ones(9)), big)
    assert known.nnz == 9


def test_duplicates():
    places = np.array([0, 0, 1]), np.array([1, 1, 0])
    found = as_entries((*places, np.array([1.0, 3.0, 5.0])), (2, 2))
    assert found.values.tolist() == [2.0, 5.0]
    found = as_entries((*places, np.array([1.0, 3.0, 5.0])), (2, 2), weights=[3.0, 1.0, 1.0])
    assert (found.values.tolist(), found.weights.tolist()) == ([1.5, 5.0], [4.0, 1.0])
    with pytest.raises(ValueError, match=r"\(0, 1\) comes twice"):
        as_entries((*places, np.ones(3)), (2, 2), duplicates="refuse")


GOOD = (np.array([0, 1]), np.array([1, 0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("entries", "options", "words"),
    [
        (GOOD, {}, "need a shape"),
        (GOOD, {"shape": (0, 2)}, "shape"),
        ((GOOD[0], GOOD[1], np.array([1.0])), {"shape": (2, 2)}, "1 values"),
        ((GOOD[0], GOOD[1]), {"shape": (2, 2)}, "2 arrays"),
        ((GOOD[0], GOOD[1], np.array([1.0, np.nan])), {"shape": (2, 2)}, r"\(1, 0\) is nan"),
        ((GOOD[0], GOOD[1], np.array([1.0, np.inf])), {"shape": (2, 2)}, "inf"),
        ((GOOD[0], GOOD[1], np.array([1.0, 1j])), {"shape": (2, 2)}, "real"),
        ((np.array([0, 2]), GOOD[1], GOOD[2]), {"shape": (2, 2)}, "rows 0 to 2"),
        ((GOOD[0], np.array([-1, 0]), GOOD[2]), {"shape": (2, 2)}, "columns -1"),
        ((np.array([0.5, 1]), GOOD[1], GOOD[2]), {"shape": (2, 2)}, "integers"),
        ((GOOD[0][:0], GOOD[1][:0], GOOD[2][:0]), {"shape": (2, 2)}, "no entry"),
        (np.full((2, 2), np.nan), {}, "no entry"),
        (np.ones(3), {}, "axes"),
        (np.eye(2), {"shape": (3, 2)}, "shape"),
        (np.eye(2), {"rank": 3}, "rank"),
        (np.eye(2), {"rank": 0}, "rank"),
        (np.eye(2), {"method": "als"}, "method"),
        (np.eye(2), {"rtol": 0.0}, "rtol"),
        (np.eye(2), {"method": "irls", "rank": 2}, "irls"),
        (np.eye(2), {"method": "irls", "bias": True}, "irls"),
        (np.eye(2), {"method": "irls", "regularization": 1.0}, "irls"),
        (np.eye(2), {"maxiter": 0}, "maxiter"),
        (np.eye(2), {"regularization": -1.0}, "regularization"),
        (np.eye(2), {"robust": "l1"}, "robust"),
        (np.eye(2), {"held_out": 1.0}, "held_out"),
        (np.eye(2), {"timeout": 0.0}, "timeout"),
        (np.eye(2), {"duplicates": "sum"}, "duplicates"),
        (np.eye(2), {"weights": [1.0]}, "1 weights"),
        (np.eye(2), {"weights": [1.0, 1.0, 1.0, 0.0]}, "positive"),
        (np.eye(2), {"rank": None, "held_out": 0.0}, "rank"),
        (np.eye(2), {"x0": (np.ones((2, 1)), np.ones((3, 1)))}, "x0"),
        (np.eye(2), {"x0": (np.ones((2, 2)), np.ones((2, 2)))}, "x0 has rank 2"),
        (np.eye(2), {"x0": (np.full((2, 1), np.nan), np.ones((2, 1)))}, "finite"),
    ],
)
def test_bad_input_is_named(entries, options, words):
    with pytest.raises(ValueError, match=words):
        learnsolve.complete(entries, **({"rank": 1} | options))


def test_another_form_is_refused():
    with pytest.raises(TypeError, match="list"):
        learnsolve.complete([[1.0, 2.0]], 1)


@pytest.mark.parametrize(
    "options", [{"solver": "qr"}, {"steps": 0}, {"initial": "zeros"}, {"sketch": "fft"}, {"acceleration": -1}]
)
def test_bad_options_of_the_method(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AltMin(**options)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.floats(0, 0.9), st.integers(0, 10**6))
def test_what_is_kept_aside_leaves_every_line_its_due(m, n, rank, share, seed):
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random((m, n)) < 0.7)
    if rows.size == 0:
        return
    known = as_entries((rows, cols, rng.standard_normal(rows.size)), (m, n))
    fit, aside = keep_aside(known, share, rank, seed)
    if aside is None:
        assert fit.nnz == known.nnz
        return
    assert fit.nnz + aside.nnz == known.nnz
    assert aside.nnz <= share * known.nnz
    for index, size in (("rows", m), ("cols", n)):
        left = np.bincount(getattr(fit, index), minlength=size)
        taken = np.bincount(getattr(aside, index), minlength=size)
        assert (left[taken > 0] > rank).all()


@given(st.integers(0, 10**6), st.sampled_from(["huber", "trimmed"]))
def test_the_reach_of_a_loss_goes_with_the_noise(seed, loss):
    left = np.random.default_rng(seed).standard_normal(50)
    assert reach(loss, 7 * left) == pytest.approx(7 * reach(loss, left))
    assert reach(loss, np.append(left, [1e9] * 5)) < 3 * reach(loss, left)


# Acceleration.


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize(("condition", "bias"), [(1.0, False), (10.0, False), (1.0, True)])
def test_acceleration_saves_sweeps(condition, bias, solver):
    saved = []
    for seed in range(4):
        p = low_rank((300, 250), 4, oversampling=6, condition=condition, seed=seed)
        known, options = (p.rows, p.cols, p.values), {"shape": p.shape, "rtol": 1e-9, "bias": bias}
        plain = learnsolve.complete(known, 4, AltMin(solver, acceleration=0), **options)
        fast = learnsolve.complete(known, 4, AltMin(solver), **options)
        assert fast.success
        assert (np.diff(fast.residuals) <= 0).all()
        assert error(fast, p.U @ p.V.T) < 1e-6
        saved.append(1 - fast.iterations / plain.iterations)
    assert np.mean(saved) > 0.1


def test_a_point_that_does_not_help_is_forgotten():
    anderson = Anderson(2)
    x = np.array([1.0])
    assert anderson.helped(1.0)
    x = anderson.next(x, 0.5 * x, 1.0)
    assert anderson.helped(0.5)
    assert anderson.next(x, 0.5 * x, 0.5) == pytest.approx(0.0)
    assert not anderson.helped(0.7)
    assert (anderson.points, anderson.ahead) == ([], None)
    assert anderson.helped(0.9)


@given(st.integers(0, 10**6))
def test_acceleration_solves_linear_iterations_in_as_many_steps_as_there_are_unknowns(seed):
    rng = np.random.default_rng(seed)
    A, b = 0.4 * rng.standard_normal((3, 3)), rng.standard_normal(3)
    truth, x, anderson = np.linalg.solve(np.eye(3) - A, b), np.zeros(3), Anderson(3)
    for _ in range(6):
        x = anderson.next(x, A @ x + b, np.inf)
    assert x == pytest.approx(truth, rel=1e-4, abs=1e-4 * np.abs(truth).max())


# Implicit feedback, and factors without negative numbers.


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unobserved": -1.0}, "unobserved"),
        ({"unobserved": 1.0, "bias": True}, "bias"),
        ({"nonnegative": True, "bias": True}, "bias"),
        ({"unobserved": 1.0, "robust": "huber"}, "robust"),
        ({"unobserved": 1.0, "rank": None}, "rank"),
    ],
)
def test_what_does_not_go_together_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        learnsolve.complete(np.eye(3), **({"rank": 1} | options))


def test_few_entries_are_given_to_reweighted_least_squares_first():
    p = low_rank((200, 200), 3, oversampling=2, seed=5)
    known, seen = (p.rows, p.cols, p.values), []
    res = learnsolve.complete(known, 3, shape=p.shape, rtol=1e-9, callback=seen.append)
    assert res.success
    assert p.error(res.U, res.V) < 1e-6
    assert len(seen) > 3
    assert np.isnan(seen[0].held_out)
    with pytest.warns(ConvergenceWarning, match="callback"):
        stopped = learnsolve.complete(
            known, 3, shape=p.shape, rtol=1e-9, callback=lambda now: now.iteration == 3
        )
    assert stopped.status is Status.STOPPED
    assert np.isfinite(stopped.residuals).all()


def test_few_entries_with_noise_are_swept():
    p = low_rank((200, 200), 3, oversampling=3, seed=6)
    values = p.values + 0.01 * p.values.std() * np.random.default_rng(6).standard_normal(p.values.size)
    res = learnsolve.complete((p.rows, p.cols, values), 3, shape=p.shape)
    assert p.error(res.U, res.V) < 0.1


def test_few_entries_out_of_time():
    p = low_rank((300, 300), 3, oversampling=1.5, seed=5)
    with pytest.warns(ConvergenceWarning, match="timeout"):
        res = learnsolve.complete((p.rows, p.cols, p.values), 3, shape=p.shape, timeout=0.02)
    assert res.status is Status.TIMEOUT
