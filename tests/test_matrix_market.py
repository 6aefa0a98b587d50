import gzip
import os
import pickle
import re

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learnsolve.datasets import matrix_market
from learnsolve.datasets.errors import DataError
from learnsolve.files import replacing

COORDINATE = "%%MatrixMarket matrix coordinate real general\n"
SYMMETRIC = "%%MatrixMarket matrix coordinate real symmetric\n"
ARRAY = "%%MatrixMarket matrix array real general\n"
HERMITIAN = "%%MatrixMarket matrix coordinate complex hermitian\n"
SKEW = "%%MatrixMarket matrix coordinate real skew-symmetric\n"
INTEGER = "%%MatrixMarket matrix coordinate integer general\n"

BAD = {
    "empty file": ("", 1, "ends inside its header"),
    "binary": ("\x00\x01\x02\n", 1, "not a Matrix Market file"),
    "other banner": ("%%HDF5 matrix\n1 1\n", 1, "not a Matrix Market file"),
    "vector object": (
        "%%MatrixMarket vector coordinate real general\n1 1 0\n",
        1,
        "not a Matrix Market file",
    ),
    "unknown format": ("%%MatrixMarket matrix sparse real general\n1 1 0\n", 1, "coordinate, array"),
    "unknown field": ("%%MatrixMarket matrix coordinate float general\n1 1 0\n", 1, "real, integer"),
    "unknown symmetry": ("%%MatrixMarket matrix coordinate real upper\n1 1 0\n", 1, "general, symmetric"),
    "array pattern": ("%%MatrixMarket matrix array pattern general\n1 1\n", 1, "no such matrix"),
    "real hermitian": ("%%MatrixMarket matrix array real hermitian\n1 1\n1\n", 1, "no such matrix"),
    "skew pattern": ("%%MatrixMarket matrix coordinate pattern skew-symmetric\n1 1 0\n", 1, "no such matrix"),
    "no sizes": (COORDINATE + "% a comment\n", 3, "ends inside its header"),
    "two sizes": (COORDINATE + "2 2\n1 1 1\n", 2, "rows, columns, entries"),
    "negative size": (COORDINATE + "-2 2 1\n1 1 1\n", 2, "not below zero"),
    "negative count": (COORDINATE + "2 2 -1\n", 2, "not below zero"),
    "fraction": (COORDINATE + "2.0 2 1\n1 1 1\n", 2, "rows, columns, entries"),
    "endless size": (COORDINATE + "9" * 40 + " 2 1\n1 1 1\n", 2, "at most 18 digits"),
    "sizes cut": (COORDINATE + "2 2 1", 2, "ends inside its header"),
    "not square": (SYMMETRIC + "2 3 1\n1 1 1\n", 2, "must be square"),
    "too few": (COORDINATE + "2 2 3\n1 1 1.0000\n2 2 1.0000\n", 4, "3 entries announced, but the file ends"),
    "too many": (COORDINATE + "2 2 1\n1 1 1\n\n2 2 1\n", 5, "1 entries announced, but there are more"),
    "far too few": (COORDINATE + "2 2 1000\n1 1 1\n", 2, "room for 1 at most"),
    "lie of a petabyte": (COORDINATE + "9 9 999999999999999\n1 1 1\n", 2, "room for 1 at most"),
    "huge empty": (COORDINATE + "999999999999999 3 0\n", 2, "max_bytes"),
    "huge array": (ARRAY + "999999999 999999999\n1\n", 2, "room for 1 at most"),
    "row zero": (COORDINATE + "2 2 1\n0 1 1\n", 3, "row from 1 to 2"),
    "row beyond": (COORDINATE + "2 2 2\n1 1 1\n3 1 1\n", 4, "row from 1 to 2"),
    "column below": (COORDINATE + "2 2 1\n1 -1 1\n", 3, "column from 1 to 2"),
    "column beyond": (COORDINATE + "2 2 1\n1 3 1\n", 3, "column from 1 to 2"),
    "row beyond all integers": (
        COORDINATE + "2 2 1\n99999999999999999999 1 1\n",
        3,
        "expected 'row column value'",
    ),
    "row a fraction": (COORDINATE + "2 2 1\n1.0 1 1\n", 3, "expected 'row column value'"),
    "no value": (COORDINATE + "2 2 2\n1 1 1\n2 2\n1 2 3\n", 4, "expected 'row column value'"),
    "extra value": (COORDINATE + "2 2 1\n1 1 1 1\n", 3, "expected 'row column value'"),
    "nan": (COORDINATE + "2 2 1\n1 1 nan\n", 3, "found '1 1 nan'"),
    "infinity": (COORDINATE + "2 2 1\n1 1 inf\n", 3, "found '1 1 inf'"),
    "overflow": (COORDINATE + "2 2 1\n1 1 1e999\n", 3, "finite"),
    "two points": (COORDINATE + "2 2 1\n1 1 1.2.3\n", 3, "found '1 1 1.2.3'"),
    "half an exponent": (COORDINATE + "2 2 1\n1 1 1e\n", 3, "expected 'row column value'"),
    "a word": (COORDINATE + "2 2 1\n1 1 one\n", 3, "found '1 1 one'"),
    "late comment": (COORDINATE + "2 2 1\n1 1 1\n% that is all\n", 4, "found '% that is all'"),
    "trailing garbage": (COORDINATE + "2 2 1\n1 1 1\n\x00\x00\n", 4, "expected 'row column value'"),
    "last line cut": (COORDINATE + "2 2 1\n1 1 1", 3, "no line end"),
    "fraction of an integer": (INTEGER + "2 2 1\n1 1 1.5\n", 3, "expected 'row column value'"),
    "integer too large": (INTEGER + "2 2 1\n1 1 9223372036854775808\n", 3, "expected 'row column value'"),
    "integer sum too large": (INTEGER + "1 1 2\n" + 2 * "1 1 9223372036854775807\n", None, "too large"),
    "sum overflows": (COORDINATE + "1 1 2\n" + 2 * "1 1 1e308\n", None, "too large"),
    "upper triangle": (SYMMETRIC + "2 2 1\n1 2 1\n", 3, "above the diagonal"),
    "skew diagonal": (SKEW + "2 2 1\n1 1 1\n", 3, "diagonal"),
    "hermitian diagonal": (HERMITIAN + "2 2 1\n1 1 1 1\n", 3, "diagonal"),
    "hermitian array diagonal": (
        "%%MatrixMarket matrix array complex hermitian\n2 2\n1 0\n0 0\n1 1\n",
        None,
        "diagonal",
    ),
    "array short": (ARRAY + "2 2\n1.5\n2.5\n3.5\n", 5, "4 entries announced, but the file ends after 3"),
    "array long": (ARRAY + "1 2\n1\n2\n3\n", 5, "there are more"),
    "array two on a line": (ARRAY + "2 1\n1 2\n", 3, "expected 'value'"),
    "endless comment": (COORDINATE + "%" * 100_000 + "\n1 1 0\n", 2, "too long"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_bad_files_are_refused_by_name_line_and_reason(tmp_path, name, suffix):
    text, line, what = BAD[name]
    path = tmp_path / f"bad{suffix}"
    data = text.encode("latin-1")
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    if suffix.endswith("gz") and "room" in what:
        what = "entries announced"
        line = None
    with pytest.raises(DataError, match=re.escape(what)) as caught:
        matrix_market.read(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if line is not None:
        assert caught.value.line == line


GOOD = {
    "blank lines, tabs, carriage returns": (
        "%%MatrixMarket  MATRIX Coordinate Real General\r\n% caf\xe9\r\n\r\n 2 3  2\r\n\r\n"
        " 1\t1  +1.5\r\n\n2 3 -2.E-1 \r\n\n",
        [[1.5, 0, 0], [0, 0, -0.2]],
    ),
    "duplicates": (COORDINATE + "2 2 3\n1 1 1\n2 1 5\n1 1 2\n", [[3.0, 0], [5, 0]]),
    "symmetric": (SYMMETRIC + "2 2 2\n1 1 4\n2 1 -1\n", [[4.0, -1], [-1, 0]]),
    "skew": (SKEW + "2 2 2\n1 1 0\n2 1 3\n", [[0.0, -3], [3, 0]]),
    "hermitian": (HERMITIAN + "2 2 2\n1 1 4 0\n2 1 1 2\n", [[4, 1 - 2j], [1 + 2j, 0]]),
    "pattern": ("%%MatrixMarket matrix coordinate pattern symmetric\n2 2 1\n2 1\n", [[0.0, 1], [1, 0]]),
    "integer": (INTEGER + "1 2 1\n1 2 9007199254740993\n", [[0, 9007199254740993]]),
    "array is stored by columns": (ARRAY + "2 2\n1\n2\n3\n4\n", [[1.0, 3], [2, 4]]),
    "array symmetric": ("%%MatrixMarket matrix array real symmetric\n2 2\n1\n2\n3\n", [[1.0, 2], [2, 3]]),
    "array skew": ("%%MatrixMarket matrix array integer skew-symmetric\n2 2\n7\n", [[0, -7], [7, 0]]),
    "array hermitian": (
        "%%MatrixMarket matrix array complex hermitian\n2 2\n1 0\n0 2\n3 0\n",
        [[1, -2j], [2j, 3]],
    ),
    "empty": (COORDINATE + "0 0 0\n", np.zeros((0, 0))),
    "no columns": (ARRAY + "3 0\n", np.zeros((3, 0))),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_good_files_are_read_as_scipy_reads_them(tmp_path, name, suffix):
    text, expected = GOOD[name]
    path = tmp_path / f"good{suffix}"
    data = text.encode("latin-1")
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    matrix = matrix_market.read(path)
    assert sp.issparse(matrix) == ("coordinate" in text.lower())
    expected = np.asarray(expected)
    assert matrix.dtype == expected.dtype
    np.testing.assert_array_equal(dense(matrix), expected)
    if "+" not in text and expected.size:
        np.testing.assert_array_equal(dense(scipy.io.mmread(path, spmatrix=False)), expected)


def test_sparse_matrices_come_back_canonical(tmp_path):
    path = tmp_path / "A.mtx"
    path.write_text(COORDINATE + "2 3 4\n1 3 1\n1 1 2\n2 2 3\n1 3 1\n")
    matrix = matrix_market.read(path)
    assert matrix.format == "csr"
    assert matrix.has_canonical_format
    assert matrix.nnz == 3


def test_many_blocks_are_read_as_one(tmp_path, monkeypatch):
    matrix = sp.random_array((40, 30), density=0.3, rng=np.random.default_rng(0), format="csr")
    path = tmp_path / "A.mtx"
    matrix_market.write(path, matrix)
    monkeypatch.setattr(matrix_market, "BLOCK", 37)
    np.testing.assert_array_equal(matrix_market.read(path).toarray(), matrix.toarray())
    lines = path.read_bytes().split(b"\n")
    lines[200] = b"1 1 oops"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"line 201: .*oops"):
        matrix_market.read(path)
    path.write_bytes(b"\n".join(lines[:2]) + b"\n40 30 5\n" + b"7" * 100_000)
    with pytest.raises(DataError, match="line 4: the line is longer"):
        matrix_market.read(path)


def test_max_bytes_bounds_the_matrix(tmp_path):
    path = tmp_path / "b.mtx"
    matrix_market.write(path, np.ones(1000))
    assert matrix_market.read(path, max_bytes=8000).shape == (1000, 1)
    with pytest.raises(DataError, match="max_bytes=7999"):
        matrix_market.read(path, max_bytes=7999)


def test_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        matrix_market.read(tmp_path / "none.mtx")


def test_data_error_crosses_processes():
    error = DataError("A.mtx", "cut short", line=3)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError)
    assert str(again) == str(error) == "A.mtx, line 3: cut short"


def dense(matrix):
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


numbers = st.one_of(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    hnp.arrays(
        np.complex128,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.complex_numbers(allow_nan=False, allow_infinity=False),
    ),
)


def mirrored(matrix, kind):
    """A square matrix of the given kind out of any."""
    n = min(matrix.shape)
    lower = np.tril(matrix[:n, :n], -1)
    diagonal = np.diag(np.diagonal(matrix))[:n, :n]
    with np.errstate(over="ignore"):
        return {
            "symmetric": lower + lower.T + diagonal,
            "skew-symmetric": lower - lower.T,
            "hermitian": lower + lower.conj().T + diagonal.real,
        }.get(kind, matrix)


@settings(max_examples=100, deadline=None)
@given(
    numbers,
    st.sampled_from(["general", "symmetric", "skew-symmetric", "hermitian"]),
    st.booleans(),
    st.booleans(),
)
def test_round_trip_is_exact(tmp_path_factory, matrix, kind, sparse, compressed):
    matrix = mirrored(matrix, kind)
    path = tmp_path_factory.getbasetemp() / ("round.mtx.gz" if compressed else "round.mtx")
    matrix_market.write(path, sp.csr_array(matrix) if sparse else matrix)
    again = matrix_market.read(path)
    assert sp.issparse(again) == sparse
    if again.size:  # scipy writes a sparse matrix without entries as real
        assert again.dtype == matrix.dtype
    np.testing.assert_array_equal(dense(again), matrix)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "bool", "uint8", "float16", "longdouble"])
def test_other_dtypes_keep_their_values(tmp_path, dtype):
    matrix = (np.arange(6).reshape(2, 3) / 7).astype(dtype)
    matrix_market.write(tmp_path / "A.mtx", matrix)
    np.testing.assert_array_equal(matrix_market.read(tmp_path / "A.mtx").astype(dtype), matrix)


@pytest.mark.parametrize(
    ("matrix", "options", "error", "what"),
    [
        (np.array([[np.nan]]), {}, ValueError, "not finite"),
        (sp.csr_array([[np.inf]]), {}, ValueError, "not finite"),
        (np.ones((2, 2, 2)), {}, ValueError, "shape"),
        (np.array([["a"]]), {}, TypeError, "dtype"),
        (np.array([[2**63]], np.uint64), {}, ValueError, "below"),
        (np.eye(2), {"symmetry": "upper"}, ValueError, "symmetry must be"),
        (np.array([[1.0, 2], [3, 4]]), {"symmetry": "symmetric"}, ValueError, "not symmetric"),
        (np.ones((2, 3)), {"symmetry": "symmetric"}, ValueError, "not symmetric"),
        (np.eye(2), {"symmetry": "hermitian"}, ValueError, "not hermitian"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, matrix, options, error, what):
    path = tmp_path / "A.mtx"
    path.write_text("old")
    with pytest.raises(error, match=what):
        matrix_market.write(path, matrix, **options)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["A.mtx"]


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "A.mtx"
    path.write_text("old")

    def interrupted(stream, *args, **kwargs):
        stream.write(b"%%MatrixMarket")
        raise KeyboardInterrupt

    monkeypatch.setattr(scipy.io, "mmwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        matrix_market.write(path, np.eye(2))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["A.mtx"]


def test_replacing_keeps_the_permissions_of_new_files(tmp_path):
    (tmp_path / "plain").write_text("x")
    with replacing(tmp_path / "new") as part:
        part.write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_comment_and_precision(tmp_path):
    path = tmp_path / "A.mtx"
    matrix_market.write(path, np.array([1 / 3]), comment="made\nby hand", precision=3)
    assert path.read_text().splitlines()[1:3] == ["%made", "%by hand"]
    assert abs(matrix_market.read(path)[0, 0] - 1 / 3) < 1e-3
