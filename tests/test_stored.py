"""Completion of entries in a file, and runs that go on after they were killed."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import learnsolve
from learnsolve import ConvergenceWarning, Status
from learnsolve.completion import AltMin, StoredEntries, store_entries, stored
from learnsolve.operators.sampled import InMemory, RowProblems
from learnsolve.problems.low_rank import low_rank


@pytest.fixture
def blocks_are_small(monkeypatch):
    monkeypatch.setattr(stored, "SORTED", 1000)
    monkeypatch.setattr(stored, "READ", 700)


def problem(seed=0, shape=(120, 90), rank=3, entries=5000):
    p = low_rank(shape, rank, entries=entries, seed=seed)
    order = np.random.default_rng(seed).permutation(p.values.size)
    return p, (p.rows[order], p.cols[order], p.values[order])


def parts(known, count=7):
    return zip(*(np.array_split(part, count) for part in known), strict=True)


def all_of(sampled, transposed):
    """Major, minor and value of all entries as the blocks give them."""
    found = []
    for lines in sampled.blocks(transposed):
        major = lines.first + np.repeat(np.arange(lines.indptr.size - 1), np.diff(lines.indptr))
        found.append(np.stack([major, lines.indices, lines.values]))
    return np.concatenate(found, axis=1)


@pytest.mark.usefixtures("blocks_are_small")
def test_blocks_are_the_entries_in_order(tmp_path):
    _, known = problem()
    held = store_entries(tmp_path / "a.h5", parts(known), (120, 90), held_out=0)
    assert held.aside is None
    assert len(list(held.blocks())) > 5
    memory = InMemory(*(np.ascontiguousarray(part) for part in known), (120, 90))
    for transposed in (False, True):
        assert np.array_equal(all_of(held, transposed), all_of(memory, transposed))
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((120, 4)), rng.standard_normal((90, 4))
    for how in (RowProblems(), RowProblems("cg"), RowProblems("sketch", steps=60, rtol=1e-12)):
        one, other = (k.solve_rows(V, U, how, measure=True) for k in (held, memory))
        # A row's sketch depends on its number in the block.
        tolerance = 1e-7 if how.solver == "sketch" else 1e-13
        assert one[0] == pytest.approx(other[0], rel=tolerance, abs=tolerance)
        assert one[1] == pytest.approx(other[1], rel=1e-9)
    assert held.times(U, transposed=True) == pytest.approx(memory.times(U, transposed=True))
    assert held.mean() == pytest.approx(memory.mean())
    assert [len(list(tmp_path.iterdir())), held.nnz] == [1, 5000]


@pytest.mark.usefixtures("blocks_are_small")
def test_what_is_stored_is_completed(tmp_path):
    p, known = problem(1)
    with store_entries(tmp_path / "a.h5", parts(known), p.shape) as held:
        assert 0 < held.aside.nnz < 200
        assert held.nnz + held.aside.nnz == 5000
        for options in ({}, {"regularization": 1e-9}, {"method": AltMin("sketch")}):
            res = learnsolve.complete(held, 3, rtol=1e-8, **options)
            assert res.success
            assert p.error(res.U, res.V) < 1e-6
        assert np.isfinite(res.held_out[-1])
        again = learnsolve.complete(held, x0=res)
        assert (again.iterations, again.rank) == (0, 3)


def test_places_that_come_twice(tmp_path):
    path, twice = tmp_path / "a.h5", [([0, 1], [1, 0], [1.0, 5.0]), ([0], [1], [3.0])]
    held = store_entries(path, twice, (2, 2))
    assert all_of(held, False).tolist() == [[0, 1], [1, 0], [2.0, 5.0]]
    assert all_of(held, True).tolist() == [[0, 1], [1, 0], [5.0, 2.0]]
    assert held.probe.nnz >= 1
    with pytest.raises(ValueError, match=r"\(0, 1\) comes twice"):
        store_entries(tmp_path / "b.h5", twice, (2, 2), duplicates="refuse")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("given", "shape", "words"),
    [
        ([], (2, 2), "no entry"),
        ([([0], [0])], (2, 2), "2 arrays"),
        ([([0], [5], [1.0])], (2, 2), "columns 5"),
        ([([0], [0], [np.nan])], (2, 2), "nan"),
        ([([0], [0], [1.0])], (2**31, 2), "2\\^31"),
    ],
)
def test_parts_that_are_refused(tmp_path, given, shape, words):
    with pytest.raises(ValueError, match=words):
        store_entries(tmp_path / "a.h5", given, shape)
    assert not list(tmp_path.iterdir())


def test_files_that_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError):
        StoredEntries(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="holds no entries"):
        StoredEntries(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1.0
    with pytest.raises(ValueError, match="holds no entries"):
        StoredEntries(path)


@pytest.mark.parametrize("field", ["by_row/indices", "by_column/indices", "by_row/values"])
def test_a_file_that_was_damaged_is_no_wrong_answer(tmp_path, field):
    p, known = problem()
    path = tmp_path / "a.h5"
    store_entries(path, parts(known), p.shape).close()
    with h5py.File(path, "r+") as file:
        file[field][7] = np.nan if field.endswith("values") else 10**6
    with pytest.raises(ValueError, match="damaged"):
        learnsolve.complete(StoredEntries(path), 3)


@pytest.mark.parametrize("field", ["by_row/indptr", "by_column/indptr"])
def test_a_file_whose_lines_do_not_fit_is_refused(tmp_path, field):
    p, known = problem()
    path = tmp_path / "a.h5"
    store_entries(path, parts(known), p.shape).close()
    with h5py.File(path, "r+") as file:
        file[field][3] = 10**9
    with pytest.raises(ValueError, match="holds no entries"):
        StoredEntries(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="holds no entries"):
        StoredEntries(path)


def test_options_that_are_refused(tmp_path):
    held = store_entries(tmp_path / "a.h5", [([0, 1], [1, 0], [1.0, 5.0])], (2, 2))
    for options, words in (
        ({}, "rank"),
        ({"rank": 1, "method": "irls"}, "irls"),
        ({"rank": 1, "weights": [1.0, 1.0]}, "weights"),
        ({"rank": 1, "held_out": 0.1}, "aside"),
        ({"rank": 1, "shape": (3, 2)}, "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            learnsolve.complete(held, **options)


# Checkpoints.


@pytest.mark.parametrize("robust", [None, "trimmed"])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, robust):
    p, known = problem(2)
    options = {"shape": p.shape, "rtol": 1e-9, "robust": robust, "method": AltMin("sketch"), "maxiter": 40}
    whole = learnsolve.complete(known, 3, **options)
    path = tmp_path / "run.npz"
    with pytest.warns(ConvergenceWarning):
        first = learnsolve.complete(
            known, 3, checkpoint=path, callback=lambda now: now.iteration == 4, **options
        )
    assert first.status is Status.STOPPED
    second = learnsolve.complete(known, 3, checkpoint=path, **options)
    assert np.array_equal(second.residuals, whole.residuals)
    assert np.array_equal(second.U, whole.U)
    third = learnsolve.complete(known, 3, checkpoint=path, **options)
    assert third.iterations >= second.iterations


KILLED = """
import os, sys, learnsolve
from learnsolve.completion import StoredEntries
def callback(now):
    if now.iteration == 3 and sys.argv[3] == "die":
        os.kill(os.getpid(), 9)
res = learnsolve.complete(
    StoredEntries(sys.argv[1]), 3, rtol=1e-9, checkpoint=sys.argv[2], callback=callback
)
print(res.iterations, *res.U.ravel()[:5])
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_run_that_is_killed_goes_on(tmp_path):
    p, known = problem(3)
    store_entries(tmp_path / "a.h5", parts(known), p.shape).close()

    def run(checkpoint, how):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "a.h5"), str(tmp_path / checkpoint), how]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("run.npz", "die").returncode == -9
    assert (tmp_path / "run.npz").exists()
    resumed, whole = run("run.npz", "live"), run("other.npz", "live")
    assert resumed.stdout == whole.stdout != ""


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    p, known = problem(4)
    path = tmp_path / "run.npz"
    learnsolve.complete(known, 3, shape=p.shape, checkpoint=path)
    with pytest.raises(ValueError, match="another run"):
        learnsolve.complete(known, 3, shape=p.shape, checkpoint=path, seed=1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no checkpoint"):
        learnsolve.complete(known, 3, shape=p.shape, checkpoint=path)
    with pytest.raises(ValueError, match="no checkpoints"):
        learnsolve.complete(known, 3, "irls", shape=p.shape, checkpoint=path)
