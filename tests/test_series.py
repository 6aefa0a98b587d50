"""Series out of CSV files: what is read, what is refused, and how it is parted."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.series import Series, read_series
from learnsolve.problems.series import coupled_series

HOUR = timedelta(hours=1)
LINES = [
    "date,load,heat",
    "2016-07-01 00:00:00,5.5,2",
    "2016-07-01 01:00:00,5,-1e-3",
    "2016-07-01 02:00:00,4.5,0",
]


def written(path, lines, newline="\n"):
    path.write_bytes(newline.join(lines).encode("utf-8"))
    return path


def series(length, variates=2):
    values = np.arange(length * variates, dtype=float).reshape(length, variates)
    return Series(values, tuple("abcdef"[:variates]), datetime(2020, 1, 1), HOUR)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", [[], [""], ["", ""]])
def test_reads_what_is_there(tmp_path, newline, end):
    found = read_series(written(tmp_path / "a.csv", [*LINES, *end], newline))
    assert found.names == ("load", "heat")
    assert found.start == datetime(2016, 7, 1) and found.step == HOUR and len(found) == 3
    np.testing.assert_array_equal(found.values, [[5.5, 2], [5, -1e-3], [4.5, 0]])
    assert found.time(3) == datetime(2016, 7, 1, 3)


def test_dates_may_be_in_another_column_and_names_in_quotes(tmp_path):
    lines = ['load,"when, exactly"', "1,2020-02-28", "2,2020-02-29", "3,2020-03-01"]
    found = read_series(written(tmp_path / "a.csv", lines), date="when, exactly")
    assert found.names == ("load",) and found.step == timedelta(days=1)
    assert found.values.ravel().tolist() == [1, 2, 3]


def test_a_mark_at_the_beginning_is_no_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(LINES).encode())
    assert read_series(tmp_path / "a.csv", date="date").names == ("load", "heat")


def changed(number, text):
    return [text if n == number else line for n, line in enumerate(LINES)]


REFUSED = {
    "nothing": ([], "line 1: expected a header"),
    "one column": (["date", "2020-01-01"], "line 1: expected a header"),
    "no name": (changed(0, "date,,heat"), "line 1: columns have no names"),
    "a name twice": (changed(0, "date,heat,heat"), "line 1: columns have no names, or several"),
    "one line": (LINES[:2], "two lines of values or more, found 1"),
    "too few fields": (changed(2, "2016-07-01 01:00:00,5"), "line 3: expected 3 fields, found 2"),
    "too many fields": (changed(2, "2016-07-01 01:00:00,5,1,1"), "line 3: expected 3 fields, found 4"),
    "no number": (changed(3, "2016-07-01 02:00:00,x,0"), "line 4: expected a finite number for load"),
    "nothing for a number": (changed(3, "2016-07-01 02:00:00,1,"), "for heat, found ''"),
    "not finite": (changed(3, "2016-07-01 02:00:00,nan,0"), "line 4: expected a finite number"),
    "infinite": (changed(3, "2016-07-01 02:00:00,1,1e999"), "for heat"),
    "python's own number": (changed(3, "2016-07-01 02:00:00,1_0,0"), "found '1_0'"),
    "no date": (changed(1, "yesterday,1,1"), "line 2: expected a date as 2016"),
    "a date twice": (changed(2, LINES[1]), "line 3: the date 2016-07-01 00:00:00 does not come after"),
    "back in time": (changed(3, "2016-06-30 02:00:00,1,1"), "line 4: the date"),
    "a gap": (changed(3, "2016-07-01 03:00:00,1,1"), "line 4: expected a step of 1:00:00, found one of 2:00"),
    "zones": (changed(2, "2016-07-01 01:00:00+00:00,1,1"), "line 3: some dates have a time zone"),
    "an open quote": (changed(2, '"2016-07-01 01:00:00,1,1'), "expected CSV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(tmp_path, name):
    lines, match = REFUSED[name]
    with pytest.raises(DataError, match=match) as caught:
        read_series(written(tmp_path / "a.csv", lines))
    assert str(tmp_path / "a.csv") in str(caught.value)


def test_refuses_what_is_too_large_or_no_text(tmp_path):
    path = written(tmp_path / "a.csv", LINES)
    with pytest.raises(DataError, match="bytes are more than the 10"):
        read_series(path, max_bytes=10)
    with pytest.raises(DataError, match="2 variates are more than the 1"):
        read_series(path, max_variates=1)
    with pytest.raises(DataError, match="there is no column 'when'; there are date, load, heat"):
        read_series(path, date="when")
    path.write_bytes(b"date,load\n2020-01-01,\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_series(path)
    with pytest.raises(FileNotFoundError):
        read_series(tmp_path / "none.csv")


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_are_worse_than_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(b"date,a\n2020-01-01,1\n" + content)
    try:
        assert np.isfinite(read_series(path).values).all()
    except DataError:
        pass


def test_months_are_of_thirty_days():
    assert series(17420).months() == ((0, 8640), (8640, 11520), (11520, 14400))
    with pytest.raises(ValueError, match="the series has 100 times; 12/4/4 months are 14400"):
        series(100).months()
    with pytest.raises(ValueError, match="counts are"):
        series(20000).months((1, 0, 1))


@given(st.integers(3, 500), st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_shares_hold_every_time_once(length, valid, test):
    try:
        parts = series(length).fractions(valid, test)
    except ValueError:
        later, last = round(length * (valid + test)), round(length * test)
        assert min(length - later, later - last, last) < 1
        return
    assert parts.train[0] == 0 and parts.test[1] == length
    assert parts.train[1] == parts.valid[0] < parts.valid[1] == parts.test[0] < length


def test_only_the_training_part_sets_the_scale():
    values = np.random.default_rng(0).normal(3, 2, (50, 3))
    values[:, 2] = np.r_[np.full(30, 7.0), np.arange(20)]
    one = Series(values, ("a", "b", "c"), datetime(2020, 1, 1), HOUR)
    found = one.standardised((0, 30)).values
    np.testing.assert_allclose(found[:30].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found[:30].std(0), [1, 1, 0], atol=1e-12)
    values[30:] = 1e6
    np.testing.assert_array_equal(one.standardised((0, 30)).values[:30], found[:30])


def test_made_series_follow_each_other():
    values = coupled_series(4000, 3, noise=0.1)
    assert values.shape == (4000, 3)
    np.testing.assert_array_equal(values, coupled_series(4000, 3, noise=0.1))
    assert not np.array_equal(values, coupled_series(4000, 3, noise=0.1, seed=1))
    spectrum = np.abs(np.fft.rfft(values[:3984, 0]))
    assert spectrum[166] > 5 * np.median(spectrum)
    with pytest.raises(ValueError, match="period 1"):
        coupled_series(10, period=1)
