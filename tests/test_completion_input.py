"""What goes into a completion: entries, what is kept aside of them, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve.completion import AltMin
from learnsolve.completion.aside import keep_aside
from learnsolve.completion.entries import as_entries

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
        (np.eye(2), {"shrinkage": -1.0}, "shrinkage"),
        (np.eye(2), {"method": "irls", "shrinkage": 1.0}, "irls"),
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


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("size", [1e160, 1e300, 1e-160, 1e-300])
def test_values_whose_squares_are_no_numbers_are_refused(size, device):
    known = size * np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    with pytest.raises(ValueError, match="root mean square"):
        learnsolve.complete(known, 1, device=device)


@pytest.mark.parametrize("size", [1e60, 1e-60])
@pytest.mark.parametrize("method", ["altmin", "auto", "irls"])
def test_values_of_any_other_size_are_completed(size, method):
    M = size * np.outer(np.arange(1.0, 30), np.arange(1.0, 27) % 7 + 1)
    known = np.where(np.random.default_rng(0).random(M.shape) < 0.6, M, np.nan)
    res = learnsolve.complete(known, 1, method)
    assert res.success
    assert res.to_dense() == pytest.approx(M, rel=1e-4)
