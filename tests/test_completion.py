"""Completion of low-rank matrices: the whole, what comes of it, and what goes wrong."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import learnsolve
from learnsolve import ConvergenceWarning, SolveError, Status
from learnsolve.completion import AltMin, RobustAltMin, error_of
from learnsolve.completion.altmin import reach, spectral
from learnsolve.operators.sampled import InMemory
from learnsolve.problems.low_rank import low_rank
from tests.completion_cases import error, matrix


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


@given(st.integers(0, 10**6), st.sampled_from(["huber", "trimmed"]))
def test_the_reach_of_a_loss_goes_with_the_noise(seed, loss):
    left = np.random.default_rng(seed).standard_normal(50)
    assert reach(loss, 7 * left) == pytest.approx(7 * reach(loss, left))
    assert reach(loss, np.append(left, [1e9] * 5)) < 3 * reach(loss, left)


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
