"""Ratings out of Matrix Market files."""

import gzip

import numpy as np
import pytest

import learnsolve
from learnsolve.datasets import matrix_market
from learnsolve.datasets.errors import DataError
from learnsolve.datasets.ratings import read_ratings
from tests.rating_cases import entries_of, put

COORDINATE = "%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_matrix_market(tmp_path, suffix):
    path = put(tmp_path / f"A{suffix}", COORDINATE + "4 3 3\n3 1 2.5\n1 3 0\n1 2 4\n")
    ratings = read_ratings(path)
    assert entries_of(ratings) == [(1, 2, 4.0), (1, 3, 0.0), (3, 1, 2.5)]
    assert ratings.shape == (4, 3)
    assert ratings.row_labels.tolist() == [1, 2, 3, 4]
    assert ratings.rows.dtype == ratings.cols.dtype == np.int64
    assert ratings.timestamps is None


@pytest.mark.parametrize(
    ("kind", "lines", "expected"),
    [
        ("real general", "2 1 1\n1 2 8\n2 1 4\n", [(1, 2, 8.0), (2, 1, 1.0), (2, 1, 4.0)]),
        ("integer symmetric", "2 1 4\n2 2 7\n2 1 1\n",
         [(1, 2, 4.0), (1, 2, 1.0), (2, 1, 4.0), (2, 1, 1.0), (2, 2, 7.0)]),
        ("real skew-symmetric", "2 1 4\n2 2 0\n2 1 1\n",
         [(1, 2, -4.0), (1, 2, -1.0), (2, 1, 4.0), (2, 1, 1.0), (2, 2, 0.0)]),
        ("pattern general", "2 1\n1 2\n2 1\n", [(1, 2, 1.0), (2, 1, 1.0), (2, 1, 1.0)]),
        ("real general", "2 1 1e308\n2 1 1e308\n2 1 -1e308\n",
         [(2, 1, 1e308), (2, 1, 1e308), (2, 1, -1e308)]),
    ],
)  # fmt: skip
def test_what_comes_twice_in_a_matrix_market_file_is_there_twice(tmp_path, kind, lines, expected):
    path = put(tmp_path / "A.mtx", f"%%MatrixMarket matrix coordinate {kind}\n2 2 3\n{lines}")
    assert entries_of(read_ratings(path)) == expected


@pytest.mark.parametrize("name", ["A.mtx", "A.csv"])
def test_complete_decides_on_what_is_rated_twice(tmp_path, name):
    lines = [(i, j, i * j) for i in range(1, 7) for j in range(1, 6)]
    lines = [*lines[:7], (2, 3, 4), *lines[8:], (2, 3, 8)]
    text = {
        "A.mtx": COORDINATE + f"6 5 {len(lines)}\n" + "".join(f"{i} {j} {v}\n" for i, j, v in lines),
        "A.csv": "".join(f"{i},{j},{v}\n" for i, j, v in lines),
    }
    ratings = read_ratings(put(tmp_path / name, text[name]))
    entries = ratings.rows, ratings.cols, ratings.values
    found = learnsolve.complete(entries, 1, shape=ratings.shape, held_out=0.0, rtol=1e-9)
    assert found.predict(1, 2) == pytest.approx(6)
    with pytest.raises(ValueError, match=r"\(1, 2\) comes twice"):
        learnsolve.complete(entries, 1, shape=ratings.shape, duplicates="refuse")


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
@pytest.mark.parametrize("field", ["real", "integer", "pattern"])
def test_entries_add_up_to_the_matrix(tmp_path, field, suffix):
    rng = np.random.default_rng(0)
    lines = [
        f"{max(i, j)} {min(i, j)}" + f" {v}" * (field != "pattern") + "\n"
        for i, j, v in rng.integers(1, 9, size=(50, 3))
    ]
    for symmetry in ("general", "symmetric"):
        head = f"%%matrixmarket matrix coordinate {field} {symmetry}\n8 8 50\n"
        path = put(tmp_path / f"A{suffix}", head + "".join(lines))
        ratings, matrix = read_ratings(path), matrix_market.read(path)
        assert (np.diff(ratings.rows * 8 + ratings.cols) >= 0).all()
        assert len(ratings) > matrix.nnz
        sums = np.zeros((8, 8))
        np.add.at(sums, (ratings.rows, ratings.cols), ratings.values)
        np.testing.assert_array_equal(sums, matrix.toarray())


def test_damaged_matrix_market_files(tmp_path):
    text = COORDINATE + "2 2 2\n1 1 1\n2 1 x\n"
    with pytest.raises(DataError, match=r"expected 'row column value', found '2 1 x'") as caught:
        read_ratings(put(tmp_path / "A.mtx", text))
    assert caught.value.line == 4
    whole = COORDINATE + "9 9 1000\n" + "".join(f"{i % 9 + 1} {i % 7 + 1} {i}\n" for i in range(1000))
    (tmp_path / "A.mtx.gz").write_bytes(gzip.compress(whole.encode())[:-20])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_ratings(tmp_path / "A.mtx.gz")


def test_matrix_market_of_other_kinds(tmp_path):
    banner = "%%MatrixMarket matrix "
    dense = read_ratings(put(tmp_path / "A.mtx", banner + "array integer general\n2 2\n1\n2\n3\n4\n"))
    assert entries_of(dense) == [(1, 1, 1.0), (1, 2, 3.0), (2, 1, 2.0), (2, 2, 4.0)]
    assert dense.values.dtype == np.float64
    with pytest.raises(DataError, match="complex"):
        read_ratings(put(tmp_path / "A.mtx", banner + "coordinate complex general\n1 1 1\n1 1 1 1\n"))
    with pytest.raises(DataError, match="no ratings"):
        read_ratings(put(tmp_path / "A.mtx", COORDINATE + "2 2 0\n"))
    with pytest.raises(DataError, match="max_bytes=8"):
        read_ratings(put(tmp_path / "A.mtx", COORDINATE + "2 2 1\n1 1 1\n"), max_bytes=8)
