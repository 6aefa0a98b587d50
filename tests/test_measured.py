"""Files of measurements, and delay embedding."""

import math

import numpy as np
import pytest

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.measured import decorrelation_lag, delay_embedding, read_measured


def written(tmp_path, text, name="run.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_tables_of_numbers(tmp_path):
    found = read_measured(written(tmp_path, "1,2\n,3\nnan,NA\n"))
    assert found.names == ("x1", "x2") and found.times is None and len(found) == 3
    np.testing.assert_array_equal(found.values, [[1, 2], [math.nan, 3], [math.nan, math.nan]])
    found = read_measured(written(tmp_path, "a, time ,b\n1,0,2\n3,0.5,4\n"), time="time")
    assert found.names == ("a", "b") and found.times.tolist() == [0, 0.5]


def test_arrays(tmp_path):
    x, t = np.arange(6.0).reshape(3, 2), np.arange(3) / 10
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(read_measured(tmp_path / "x.npy").values, x)
    np.savez(tmp_path / "x.npz", x=x, t=t)
    found = read_measured(tmp_path / "x.npz", time="t")
    assert np.array_equal(found.values, x) and np.array_equal(found.times, t)
    assert read_measured(tmp_path / "x.npz", key="t").values.shape == (3, 1)
    with pytest.raises(DataError, match="say which"):
        read_measured(tmp_path / "x.npz")
    with pytest.raises(DataError, match="no array 'y'"):
        read_measured(tmp_path / "x.npz", key="y")
    np.save(tmp_path / "z.npy", x + 1j)
    with pytest.raises(DataError, match="complex"):
        read_measured(tmp_path / "z.npy")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing"),
        ("1,2\n", "two lines"),
        ("a,b\n1,2\n3\n", "line 3: expected 2 fields"),
        ("a,b\n1,2\n3,four\n", "line 3: expected a number or a gap, found 'four'"),
        ("a,a\n1,2\n3,4\n", "several the same"),
        ("a,b\n1,inf\n3,4\n", "infinite"),
        ("a,b\n1,1_0\n3,4\n", "1_0"),
        (b"\xff\xfe1,2\n", "UTF-8"),
        ('a,b\n"1,2\n', "CSV"),
        ("t\n1\n2\n", "beside the times"),
        ("t,x\n1,2\n,3\n", "times are missing"),
        ("x,y\n1,2\n2,3\n", "no column 't'"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_measured(
            written(tmp_path, text),
            time="t" if "t\n" in str(text) or "t'" in words or "times" in words else None,
        )


@pytest.mark.parametrize("name", ["run.npy", "run.npz"])
def test_damaged_arrays_are_refused(tmp_path, name):
    for content in (b"", b"\x93NUMPY", b"PK\x03\x04 and so on", b"text"):
        with pytest.raises(DataError, match="arrays of numbers"):
            read_measured(written(tmp_path, content, name))


def test_sizes_are_limited(tmp_path):
    with pytest.raises(DataError, match="more than the 3"):
        read_measured(written(tmp_path, "1\n2\n"), max_bytes=3)
    with pytest.raises(DataError, match="keys"):
        read_measured(written(tmp_path, "1\n2\n"), key="x")


def test_delays():
    x = np.arange(20.0)
    found = delay_embedding(x, 3, 4)
    assert found.shape == (12, 3)
    for row, t in zip(found, range(8, 20), strict=True):
        assert row.tolist() == [t, t - 4, t - 8]
    for wrong in ((x, 0, 1), (x, 6, 4), (x[:, None], 2, 1)):
        with pytest.raises(ValueError, match="accepted"):
            delay_embedding(*wrong)


def test_the_lag_is_where_the_correlation_has_fallen():
    rng = np.random.default_rng(0)
    x = np.zeros(200_000)
    noise = rng.normal(size=len(x))
    for t in range(1, len(x)):
        x[t] = 0.9 * x[t - 1] + noise[t]
    assert abs(decorrelation_lag(x) - math.ceil(-1 / math.log(0.9))) <= 1
    for wrong in (np.ones(10), np.array([1.0, np.nan]), np.ones((3, 2))):
        with pytest.raises(ValueError, match="accepted"):
            decorrelation_lag(wrong)
    assert decorrelation_lag([0.0, 1.0]) == 1
