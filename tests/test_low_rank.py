"""Matrices of low rank, of which some entries are known."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.problems import low_rank as module
from learnsolve.problems.images import image_mask
from learnsolve.problems.low_rank import low_rank, products


def keys_of(problem):
    return problem.rows * problem.shape[1] + problem.cols


def degrees_of(problem):
    m, n = problem.shape
    return np.bincount(problem.rows, minlength=m), np.bincount(problem.cols, minlength=n)


# The matrix.


@pytest.mark.parametrize("coherence", [0.0, 0.5, 1.0])
def test_singular_values_go_in_equal_ratios_from_the_condition_to_one(coherence):
    problem = low_rank((50, 40), 3, condition=100, entries=500, coherence=coherence)
    found = np.linalg.svd(problem.U @ problem.V.T, compute_uv=False)
    assert found[:3] == pytest.approx([100, 10, 1])
    assert found[3] < 1e-12
    assert problem.U.shape == (50, 3)
    assert problem.V.shape == (40, 3)
    assert (problem.rank, problem.shape) == (3, (50, 40))


def test_values_are_the_truth_without_noise():
    problem = low_rank((30, 20), 2, entries=200)
    dense = problem.U @ problem.V.T
    assert problem.values == pytest.approx(dense[problem.rows, problem.cols])
    assert (problem.values == problem.truth(problem.rows, problem.cols)).all()
    assert problem.noise_level == 0
    assert not problem.outlier.any()


def test_coherence_concentrates_the_factors():
    found = []
    for coherence in (0.0, 0.5, 1.0):
        problem = low_rank((2000, 1000), 5, oversampling=3, coherence=coherence, seed=1)
        found.append(
            [len(F) / 5 * (np.linalg.qr(F)[0] ** 2).sum(axis=1).max() for F in (problem.U, problem.V)]
        )
    assert max(found[0]) < 8
    assert (np.diff(found, axis=0) > 0).all()
    assert min(found[2]) > 100


def test_a_seed_gives_one_problem_and_the_matrix_is_that_of_the_seed_alone():
    one, same = (low_rank((30, 20), 2, entries=200, snr=10, outliers=0.1, seed=3) for _ in range(2))
    for name in ("rows", "cols", "values", "U", "V", "outlier"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    more = low_rank((30, 20), 2, entries=300, seed=3)
    np.testing.assert_array_equal(one.U, more.U)
    clean = low_rank((30, 20), 2, entries=200, seed=3)
    np.testing.assert_array_equal(one.rows, clean.rows)
    assert not np.array_equal(clean.U, low_rank((30, 20), 2, entries=200, seed=4).U)


# What is known of it.


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_entries_are_distinct_sorted_and_enough_in_each_row_and_column(data):
    m, n = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    count = data.draw(st.integers(1, m * n))
    minimum = data.draw(st.integers(0, min(min(m, n), count // max(m, n))))
    seed = data.draw(st.integers(0, 100))
    problem = low_rank((m, n), 1, entries=count, minimum=minimum, seed=seed)
    assert problem.rows.dtype == problem.cols.dtype == np.int64
    assert len(problem.rows) == len(problem.cols) == len(problem.values) == count
    assert (np.diff(keys_of(problem)) > 0).all()
    assert 0 <= problem.rows.min() <= problem.rows.max() < m
    assert 0 <= problem.cols.min() <= problem.cols.max() < n
    assert min(degrees.min() for degrees in degrees_of(problem)) >= minimum


@pytest.mark.parametrize(("shape", "entries"), [((40, 7), 80), ((7, 40), 80), ((20, 20), 40), ((20, 20), 45)])
def test_a_minimum_that_takes_all_or_nearly_all_entries_is_kept(shape, entries):
    for seed in range(10):
        problem = low_rank(shape, 2, entries=entries, seed=seed)
        assert len(problem.values) == entries
        assert min(degrees.min() for degrees in degrees_of(problem)) >= 2


def test_the_minimum_is_the_rank_where_there_are_entries_for_it():
    assert min(d.min() for d in degrees_of(low_rank((60, 50), 4, oversampling=1.2))) >= 4
    few = low_rank((60, 50), 4, entries=60)
    assert min(d.min() for d in degrees_of(few)) == 0
    none = low_rank((300, 250), 4, entries=1300, minimum=0)
    assert min(d.min() for d in degrees_of(none)) == 0


def test_few_entries_move_where_few_rows_lack_some():
    before = low_rank((400, 300), 3, entries=6000, minimum=0, seed=1)
    after = low_rank((400, 300), 3, entries=6000, minimum=8, seed=1)
    lacking = sum(np.maximum(8 - degrees, 0).sum() for degrees in degrees_of(before))
    assert 0 < len(np.setdiff1d(keys_of(after), keys_of(before))) <= lacking


@pytest.mark.parametrize("entries", [3, 5])
def test_all_choices_are_equally_likely(entries):
    seen = np.zeros(8)
    for seed in range(400):
        seen[keys_of(low_rank((2, 4), 1, entries=entries, minimum=0, seed=seed))] += 1
    expected = 400 * entries / 8
    assert np.abs(seen - expected).max() < 4.5 * np.sqrt(expected * (1 - entries / 8))


def test_oversampling_counts_in_degrees_of_freedom():
    assert len(low_rank((50, 40), 3, oversampling=2.5).values) == round(2.5 * 3 * 87)


def test_memory_is_for_the_entries_and_not_for_the_matrix():
    tracemalloc.start()
    problem = low_rank((100_000, 100_000), 1, entries=200_000, minimum=1)
    held = problem.held_out(1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e8
    assert min(degrees.min() for degrees in degrees_of(problem)) >= 1
    assert len(held[0]) == 1000


# Noise.


@pytest.mark.parametrize("options", [{"snr": 20}, {"noise": 0.1}])
def test_noise_has_the_level_asked_for(options):
    problem = low_rank((200, 150), 3, entries=20_000, seed=2, **options)
    truth = problem.truth(problem.rows, problem.cols)
    assert problem.noise_level == pytest.approx(0.1 * np.sqrt(np.mean(truth**2)))
    assert np.std(problem.values - truth) == pytest.approx(problem.noise_level, rel=0.05)


def test_outliers_are_where_they_are_said_to_be():
    problem = low_rank((60, 50), 3, entries=1000, outliers=0.1, condition=10)
    truth = problem.truth(problem.rows, problem.cols)
    assert problem.outlier.sum() == 100
    np.testing.assert_array_equal(problem.values[~problem.outlier], truth[~problem.outlier])
    size = np.abs(problem.values[problem.outlier]) / np.sqrt(np.mean(truth**2))
    assert 5 <= size.min() <= size.max() <= 10
    assert 20 < (problem.values[problem.outlier] > 0).sum() < 80
    assert low_rank((6, 5), 1, entries=20, outliers=1.0).outlier.all()


# What it is for.


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(0, 1000))
def test_error_is_that_of_the_dense_matrices(m, n, r, seed):
    problem = low_rank((m, n), min(m, n, 3), condition=10, entries=1, seed=seed)
    rng = np.random.default_rng(seed)
    U, V = rng.standard_normal((m, r)), rng.standard_normal((n, r))
    M = problem.U @ problem.V.T
    assert problem.error(U, V) == pytest.approx(np.linalg.norm(U @ V.T - M) / np.linalg.norm(M), rel=1e-9)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_errors_are_not_lost(size):
    problem = low_rank((500, 400), 4, condition=100, oversampling=3)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    U, V = problem.U @ turn, problem.V @ turn
    assert problem.error(U, V) < 1e-14
    assert problem.error((1 + size) * U, V) == pytest.approx(size, rel=max(1e-3, 1e-14 / size))


def test_held_out_entries_are_new():
    problem = low_rank((30, 20), 2, entries=400, snr=0)
    rows, cols, values = problem.held_out(200, seed=5)
    assert rows.dtype == cols.dtype == np.int64
    every = np.concatenate([keys_of(problem), rows * 20 + cols])
    assert (np.sort(every) == np.arange(600)).all()
    np.testing.assert_array_equal(values, problem.truth(rows, cols))
    rows, cols, _ = problem.held_out(50, seed=6)
    assert (np.diff(rows * 20 + cols) > 0).all()
    assert not np.isin(rows * 20 + cols, keys_of(problem)).any()
    assert len(problem.held_out(0)[2]) == 0
    assert len(low_rank((4, 4), 1, entries=16).held_out(0)[2]) == 0
    for count in (-1, 201):
        with pytest.raises(ValueError, match="200 entries are not known"):
            problem.held_out(count)


def test_products_are_the_same_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    rows, cols = rng.integers(5, size=50), rng.integers(4, size=50)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert products(U, V, rows, cols) == pytest.approx((U @ V.T)[rows, cols])
    assert products(U, V, np.array([], int), np.array([], int)).shape == (0,)


@pytest.mark.parametrize(
    ("rows", "cols", "what"),
    [([0], [0, 1], "one length"), ([-1], [0], "rows holds -1"), ([0], [9], "cols holds 9"), (0, 0, "length")],
)
def test_entries_that_are_not_there(rows, cols, what):
    with pytest.raises(ValueError, match=what):
        low_rank((10, 9), 1, entries=20).truth(rows, cols)


@pytest.mark.parametrize(
    ("U", "V"), [((9, 2), (9, 2)), ((10, 2), (10, 2)), ((10, 2), (9, 3)), ((10,), (9,)), ((10, 1, 1), (9, 1))]
)
def test_factors_of_other_shapes(U, V):
    with pytest.raises(ValueError, match=r"\(10, r\) and \(9, r\)"):
        low_rank((10, 9), 1, entries=20).error(np.ones(U), np.ones(V))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"shape": (3, 4, 5)}, "two sizes"),
        ({"shape": (0, 4)}, "positive sizes"),
        ({"shape": (-3, -4)}, "positive sizes"),
        ({"shape": (2**32, 2**31)}, "below"),
        ({"rank": 0}, "rank is 0"),
        ({"rank": 10}, "rank is 10"),
        ({"condition": 0.5}, "condition"),
        ({"condition": np.inf}, "condition"),
        ({"condition": np.nan}, "condition"),
        ({"entries": None}, "exactly one"),
        ({"oversampling": 2}, "exactly one"),
        ({"entries": 0}, "entries is 0"),
        ({"entries": -1}, "entries is -1"),
        ({"entries": 91}, "1 to 90"),
        ({"entries": None, "oversampling": 100}, "which makes 3400 entries"),
        ({"entries": None, "oversampling": 0}, "oversampling is 0"),
        ({"entries": None, "oversampling": np.nan}, "oversampling is nan"),
        ({"minimum": -1}, "minimum is -1"),
        ({"minimum": 10}, "minimum is 10"),
        ({"minimum": 6}, "takes 60 entries, not 50"),
        ({"noise": -0.1}, "noise"),
        ({"noise": np.nan}, "noise"),
        ({"noise": 0.1, "snr": 20}, "say the same"),
        ({"snr": np.inf}, "snr"),
        ({"snr": np.nan}, "snr"),
        ({"outliers": -0.1}, "outliers"),
        ({"outliers": 1.1}, "outliers"),
        ({"coherence": -0.1}, "coherence"),
        ({"coherence": np.nan}, "coherence"),
    ],
)
def test_what_cannot_be(options, what):
    with pytest.raises(ValueError, match=what):
        low_rank(**({"shape": (10, 9), "rank": 2, "entries": 50} | options))


@pytest.mark.parametrize(
    "options", [{"rank": 2.0}, {"entries": 50.0}, {"minimum": 1.0}, {"shape": (10.0, 9)}]
)
def test_counts_are_integers(options):
    with pytest.raises(TypeError, match="integer"):
        low_rank(**({"shape": (10, 9), "rank": 2, "entries": 50} | options))


# Images.


def test_the_pixels_of_an_image_are_known_or_held_out():
    image = np.random.default_rng(0).integers(256, size=(20, 30)).astype(np.uint8)
    problem = image_mask(image, 0.3, seed=1)
    assert problem.shape == (20, 30)
    assert len(problem.values) == 180
    assert problem.values.dtype == np.float64
    np.testing.assert_array_equal(problem.values, image[problem.rows, problem.cols])
    rows, cols, values = problem.held_out
    np.testing.assert_array_equal(values, image[rows, cols])
    assert (np.sort(np.concatenate([keys_of(problem), rows * 30 + cols])) == np.arange(600)).all()
    assert min(degrees.min() for degrees in degrees_of(problem)) >= 1
    np.testing.assert_array_equal(image_mask(image, 0.3, seed=1).rows, problem.rows)


def test_each_row_and_column_of_an_image_is_seen_where_there_are_pixels_for_it():
    for seed in range(10):
        seen = degrees_of(image_mask(np.ones((30, 20)), 0.05, seed=seed))
        assert min(degrees.min() for degrees in seen) == 1
    assert len(image_mask(np.ones((30, 20)), 0.01).values) == 6


def test_rmse_is_over_what_is_held_out():
    image = np.outer(np.arange(1.0, 11), np.arange(1.0, 13))
    problem = image_mask(image, 0.5)
    U, V = np.arange(1.0, 11)[:, None], np.arange(1.0, 13)[:, None]
    assert problem.rmse(U, V) < 1e-12
    assert problem.rmse(2 * U, V) == pytest.approx(np.sqrt(np.mean(problem.held_out[2] ** 2)))
    with pytest.raises(ValueError, match="are needed"):
        problem.rmse(V, U)


@pytest.mark.parametrize(
    ("image", "fraction", "what"),
    [
        (np.ones(4), 0.5, "two dimensions"),
        (np.ones((4, 4, 3)), 0.5, "two dimensions"),
        (np.full((4, 4), np.nan), 0.5, "not finite"),
        (np.ones((4, 4)), 0.0, "fraction"),
        (np.ones((4, 4)), -0.5, "fraction"),
        (np.ones((4, 4)), 1.0, "fraction"),
        (np.ones((4, 4)), 0.01, "fraction"),
        (np.ones((4, 4)), 0.99, "fraction"),
        (np.ones((4, 4)), np.nan, "fraction"),
        (np.ones((0, 4)), 0.5, "fraction"),
    ],
)
def test_images_that_cannot_be_masked(image, fraction, what):
    with pytest.raises(ValueError, match=what):
        image_mask(image, fraction)
