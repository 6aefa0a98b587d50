"""Completions that go on while entries come in."""

import numpy as np
import pytest

import learnsolve
from learnsolve.completion import Stream
from learnsolve.problems.low_rank import low_rank


def problem(seed, shape=(120, 100), rank=3, entries=6000):
    p = low_rank(shape, rank, entries=entries, seed=seed)
    return p, (p.rows, p.cols, p.values)


def some(known, chosen):
    return tuple(part[chosen] for part in known)


@pytest.mark.parametrize("bias", [False, True])
def test_a_new_row_and_a_new_column_are_predicted(bias):
    p, known = problem(0)
    whole = p.U @ p.V.T
    whole = whole / whole.std() + 2.0 * bias
    known = (known[0], known[1], whole[known[0], known[1]])
    old = (known[0] < 119) & (known[1] < 99)
    first = learnsolve.complete(some(known, old), 3, shape=(119, 99), rtol=1e-10, bias=bias)
    stream = Stream(first, some(known, old), shape=(119, 99), bias=bias, rounds=4)
    stream.add(*some(known, ~old))
    assert stream.completion.shape == (120, 100)
    assert stream.completion.row(119) == pytest.approx(whole[119], abs=1e-3 if bias else 1e-6)
    assert stream.completion.predict(np.arange(120), 99) == pytest.approx(
        whole[:, 99], abs=1e-3 if bias else 1e-6
    )
    assert first.shape == (119, 99)
    assert [len(part) for part in stream.entries] == [6000] * 3


def test_entries_one_by_one_come_to_what_all_at_once_give():
    p, known = problem(1)
    order = np.random.default_rng(0).permutation(6000)
    begin, later = order[:4000], order[4000:]
    noisy = (*known[:2], known[2] + 0.05 * known[2].std() * np.random.default_rng(1).standard_normal(6000))
    first = learnsolve.complete(some(noisy, begin), 3, shape=p.shape)
    stream = Stream(first, some(noisy, begin), shape=p.shape)
    for part in np.array_split(later, 40):
        stream.add(*some(noisy, part))
    whole = learnsolve.complete(noisy, 3, shape=p.shape, held_out=0.0)
    now = stream.completion
    before, after, best = (p.error(res.U, res.V) for res in (first, now, whole))
    assert after < 0.3 * before + 0.7 * best + 0.1 * best
    rows, cols, values = stream.entries
    in_order = np.lexsort((noisy[1], noisy[0]))
    assert np.array_equal(rows, noisy[0][in_order])
    assert np.array_equal(cols, noisy[1][in_order])
    assert np.array_equal(values, noisy[2][in_order])
    again = learnsolve.complete(stream.entries, 3, shape=p.shape, x0=now)
    assert again.success


def test_the_last_entry_at_a_place_counts():
    known = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    stream = Stream(learnsolve.complete(known, 1, held_out=0.0), known)
    for value in (100.0, 200.0, 6.0):
        stream.add([0], [5], [value])
    rows, cols, values = stream.entries
    assert values[(rows == 0) & (cols == 5)].tolist() == [6.0]
    assert values.size == 48
    assert stream.completion.to_dense() == pytest.approx(known, rel=1e-2)


def test_only_rows_and_columns_with_new_entries_change():
    p, known = problem(2)
    first = learnsolve.complete(known, 3, shape=p.shape)
    stream = Stream(first, known, shape=p.shape)
    stream.add([4, 4], [7, 9], [50.0, -50.0])
    now = stream.completion
    assert np.flatnonzero((now.U != first.U).any(axis=1)).tolist() == [4]
    assert np.flatnonzero((now.V != first.V).any(axis=1)).tolist() == [7, 9]
    stream.add([], [], [])
    assert stream.completion is now


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([0], [-1], [1.0]), "cols"),
        (([0.5], [1], [1.0]), "rows"),
        (([0], [1], [np.nan]), "nan"),
        (([0, 1], [1], [1.0]), "2 rows"),
    ],
)
def test_bad_entries_are_refused_and_change_nothing(given, words):
    known = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    stream = Stream(learnsolve.complete(known, 1), known)
    before = stream.completion
    with pytest.raises(ValueError, match=words):
        stream.add(*given)
    assert stream.completion is before
    assert stream.entries[2].size == 48


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"regularization": -1.0}, {"shrinkage": np.nan}, {"shape": (9, 6)}]
)
def test_bad_options_are_refused(options):
    known = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    with pytest.raises(ValueError, match=next(iter(options))):
        Stream(learnsolve.complete(known, 1), known, **options)
