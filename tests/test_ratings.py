"""Ratings out of files of text, and their parts."""

import gzip
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.datasets import rating_lines as module
from learnsolve.datasets.errors import DataError
from learnsolve.datasets.ratings import Ratings, read_ratings, split
from tests.rating_cases import entries_of, put

LINES = [(196, 242, "3", 881250949), (186, 302, "3.5", 891717742), (22, 242, "0.5", 878887116)]


def text_of(separator, header=""):
    return header + "".join(separator.join(map(str, line)) + "\n" for line in LINES)


LAYOUTS = {
    "u.data": text_of("\t"),
    "u1.base": text_of("\t"),
    "ratings.dat": text_of("::"),
    "ratings.csv": text_of(",", "userId,movieId,rating,timestamp\n"),
    "carriage.csv": text_of(",", "userId,movieId,rating,timestamp\n").replace("\n", "\r\n"),
    "mark.csv": "\ufeff" + text_of(",", "userId,movieId,rating,timestamp\n"),
    "mark_alone.csv": "\ufeff" + text_of(","),
    "blanks.tsv": "\n \n" + text_of(" \t ").replace("\n", " \n\n"),
    "unfinished.csv": text_of(",").rstrip("\n"),
    "quoted.csv": text_of(",").replace("196", '"196"').replace("3.5", '"3.5"'),
    "powers.csv": text_of(",").replace("3.5", "+35.e-1"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("compressed", [False, True])
def test_movielens_and_its_like(tmp_path, name, compressed):
    path = put(tmp_path / (name + ".gz" * compressed), LAYOUTS[name])
    ratings = read_ratings(path)
    assert entries_of(ratings) == [(196, 242, 3.0), (186, 302, 3.5), (22, 242, 0.5)]
    assert ratings.rows.tolist() == [2, 1, 0]
    assert ratings.shape == (3, 2)
    assert ratings.row_labels.tolist() == [22, 186, 196]
    assert ratings.timestamps.tolist() == [881250949, 891717742, 878887116]
    for array in (ratings.rows, ratings.cols, ratings.row_labels, ratings.timestamps):
        assert array.dtype == np.int64
    assert ratings.values.dtype == np.float64
    assert len(ratings) == 3


def test_names_are_strings_where_one_is(tmp_path):
    path = put(tmp_path / "a.csv", "10,é b,1\n9,a,2\n10,007,-3\n")
    ratings = read_ratings(path)
    assert entries_of(ratings) == [(10, "é b", 1.0), (9, "a", 2.0), (10, "007", -3.0)]
    assert ratings.row_labels.tolist() == [9, 10]
    assert ratings.col_labels.tolist() == ["007", "a", "é b"]
    assert ratings.timestamps is None


def test_integers_keep_their_order_and_leading_zeros_make_names(tmp_path):
    signed = read_ratings(put(tmp_path / "a.csv", "-10,1,1\n9,01,1\n-9,1,1\n"))
    assert signed.row_labels.tolist() == [-10, -9, 9]
    assert signed.rows.tolist() == [0, 2, 1]
    assert signed.col_labels.tolist() == ["01", "1"]
    large = read_ratings(put(tmp_path / "b.csv", f"{10**17},{10**20},1\n3,4,1\n"))
    assert large.row_labels.tolist() == [3, 10**17]
    assert large.col_labels.tolist() == [str(10**20), "4"]


def test_quotes_hold_separators(tmp_path):
    path = put(tmp_path / "a.csv", '"user";"film";"rating"\n"276";"Yes; ""No""";"5"\n"1";A "b";4\n')
    ratings = read_ratings(path, separator=";")
    assert entries_of(ratings) == [(276, 'Yes; "No"', 5.0), (1, 'A "b"', 4.0)]
    again = read_ratings(put(path, path.read_text().replace(";", "é")), separator="é")
    assert entries_of(again) == [(276, 'Yesé "No"', 5.0), (1, 'A "b"', 4.0)]


@pytest.mark.parametrize("columns", [("user", "film", "stars"), (3, 0, 2), ("user", 0, "stars")])
def test_columns_by_name_or_number(tmp_path, columns):
    path = put(tmp_path / "a.csv", "film,day,stars,user\n7,monday,2.5,1\n8,tuesday,3,2\n")
    ratings = read_ratings(path, columns=columns)
    assert entries_of(ratings) == [(1, 7, 2.5), (2, 8, 3.0)]
    assert ratings.timestamps is None


def test_times_are_a_fourth_column_of_integers(tmp_path):
    path = put(tmp_path / "a.csv", "1,2,3,monday,17\n2,2,3,tuesday,18\n")
    assert read_ratings(path).timestamps is None
    assert read_ratings(path, columns=(0, 1, 2, 4)).timestamps.tolist() == [17, 18]
    with pytest.raises(DataError, match=r"line 1: expected an integer, the time, in field 4, found 'monday'"):
        read_ratings(path, columns=(0, 1, 2, 3))


def test_the_header_is_seen_or_told(tmp_path):
    path = put(tmp_path / "a.csv", "a,b,c\n1,2,3\n")
    assert len(read_ratings(path)) == 1
    with pytest.raises(DataError, match="line 1: expected a finite number in field 3"):
        read_ratings(path, skip_header=False)
    path = put(tmp_path / "b.csv", "a,b,1\nc,d,2\n")
    assert len(read_ratings(path)) == 2
    assert len(read_ratings(path, skip_header=True)) == 1


def test_what_is_rated_twice_is_there_twice(tmp_path):
    assert entries_of(read_ratings(put(tmp_path / "a.csv", "1,1,2\n1,1,3\n"))) == [(1, 1, 2.0), (1, 1, 3.0)]


@pytest.mark.parametrize("separator", [",", " ", "|", "::", "->", "é"])
def test_any_separator(tmp_path, separator):
    ratings = read_ratings(put(tmp_path / "ratings.txt", text_of(separator)), separator=separator)
    assert entries_of(ratings) == [(196, 242, 3.0), (186, 302, 3.5), (22, 242, 0.5)]


BAD = {
    "empty": ("", None, "no ratings"),
    "blank": ("\n \n\n", None, "no ratings"),
    "header alone": ("user,film,rating\n", None, "no ratings"),
    "too few fields": ("1,2,3\n4,5\n", 2, "expected at least 3 fields with ',' between them, found 2: '4,5'"),
    "too few fields at once": ("1,2\n", 1, "at least 3 fields"),
    "no time": ("1,2,3,4\n1,2,3\n", 2, "at least 4 fields"),
    "a word": ("1,2,3\n\n1,2,x\n", 3, "expected a finite number in field 3, found 'x'"),
    "a word at once": ("1,2,x\n", 1, "expected a finite number in field 3, found 'x'"),
    "nan": ("1,2,3\n1,2,nan\n", 2, "finite"),
    "infinity": ("1,2,3\n1,2,inf\n", 2, "finite"),
    "minus infinity": ("1,2,3\n1,2,-Infinity\n", 2, "finite"),
    "overflow": ("1,2,3\n1,2,1e999\n", 2, "finite"),
    "underscore": ("1,2,3\n1,2,1_0\n", 2, "finite"),
    "two points": ("1,2,3\n1,2,1.2.3\n", 2, "finite"),
    "a point": ("1,2,3\n1,2,.\n", 2, "finite"),
    "a minus": ("1,2,3\n1,2,-\n", 2, "finite"),
    "no value": ("1,2,3\n1,2,\n", 2, "finite"),
    "no row": ("1,2,3\n,2,3\n", 2, "expected a name of 1 to 255 bytes in field 1, found ''"),
    "no column": ("1,2,3\n1,,3\n", 2, "in field 2"),
    "long name": ("1,2,3\n1," + 256 * "a" + ",3\n", 2, "in field 2"),
    "time of day": ("1,2,3,4\n1,2,3,4.5\n", 2, "the time"),
    "endless time": ("1,2,3,4\n1,2,3," + "9" * 19 + "\n", 2, "the time"),
    "binary": ("1,2,3\n1,\0,3\n", 2, "NUL"),
    "binary at once": ("\0\1\2\n", 1, "NUL"),
    "open quote": ('1,2,3\n1,"2,3\n', 2, "quotes"),
    "endless line": ("1" * 70_000, 1, "longer than"),
    "endless later line": ("1,2,3\n" + "1" * 70_000, 2, "longer than"),
    "not UTF-8": (b"1,2,3\na\xff,2,3\n", None, "UTF-8"),
    "not UTF-8, quoted": (b'1,2,3\n"a\xff",2,3\n', None, "UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_bad_files_are_refused_by_name_line_and_reason(tmp_path, name, suffix):
    text, line, what = BAD[name]
    path = put(tmp_path / f"bad{suffix}", text)
    with pytest.raises(DataError, match=re.escape(what)) as caught:
        read_ratings(path)
    assert caught.value.path == path
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


def test_compressed_files_that_are_damaged(tmp_path):
    data = gzip.compress(text_of(",").encode() * 1000)
    for wrong in (data[:-20], data[:50] + b"\xff" * 20 + data[70:], b"1,2,3\n"):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(wrong)
        with pytest.raises(DataError, match="damaged or cut short"):
            read_ratings(path)


@pytest.mark.parametrize("name", ["none.csv", "none.csv.gz", "none.mtx"])
def test_missing_file_is_an_oserror(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        read_ratings(tmp_path / name)


def test_a_column_that_the_header_lacks(tmp_path):
    path = put(tmp_path / "a.csv", "user,film,stars\n1,2,3\n")
    with pytest.raises(DataError, match="expected a column 'rating' in the header, found 'user', 'film'"):
        read_ratings(path, columns=("user", "film", "rating"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"format": "xls"}, "format is 'xls'"),
        ({"separator": ""}, "empty"),
        ({"separator": '"'}, "quote"),
        ({"separator": "\n"}, "line end"),
        ({"separator": "\r"}, "line end"),
        ({"columns": (0, 1)}, "three or four"),
        ({"columns": (0, 1, 1)}, "different"),
        ({"columns": (0, 1, -1)}, "three or four"),
        ({"columns": ("a", "b", "c"), "skip_header": False}, "skip_header is False"),
        ({"format": "mtx", "separator": ","}, "Matrix Market"),
        ({"format": "mtx", "columns": (0, 1, 2)}, "Matrix Market"),
        ({"format": "mtx", "skip_header": True}, "Matrix Market"),
    ],
)
def test_arguments_that_are_wrong(tmp_path, options, what):
    path = put(tmp_path / "a.csv", text_of(","))
    with pytest.raises(ValueError, match=what):
        read_ratings(path, **options)


def test_a_name_that_does_not_tell_the_format(tmp_path):
    path = put(tmp_path / "ratings", text_of("::"))
    with pytest.raises(ValueError, match="does not tell the format"):
        read_ratings(path)
    assert len(read_ratings(path, format="dat")) == 3


def test_max_bytes_bounds_the_ratings(tmp_path):
    path = put(tmp_path / "a.csv", text_of(","))
    assert len(read_ratings(path, max_bytes=96)) == 3
    with pytest.raises(DataError, match="max_bytes=95"):
        read_ratings(path, max_bytes=95)


# Many lines.


def test_many_blocks_are_read_as_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows, cols, values = (
        rng.integers(50, size=500),
        rng.integers(30, size=500),
        rng.integers(11, size=500) / 2,
    )
    lines = [f"{r},{c},{v}" for r, c, v in zip(rows, cols, values, strict=True)]
    path = put(tmp_path / "a.csv", "\n".join(lines) + "\n")
    monkeypatch.setattr(module, "BLOCK", 37)
    assert entries_of(read_ratings(path)) == list(
        zip(rows.tolist(), cols.tolist(), values.tolist(), strict=True)
    )
    lines[300] = "anna,1,1"
    names = read_ratings(put(path, "\n".join(lines)))
    assert names.row_labels[names.rows[:2]].tolist() == [str(row) for row in rows[:2]]
    lines[400] = "1,1,oops"
    with pytest.raises(DataError, match=r"line 401: .*oops"):
        read_ratings(put(path, "\n".join(lines)))
    with pytest.raises(DataError, match="line 402: the line is longer"):
        read_ratings(put(path, "\n".join([*lines[:400], lines[0], "7" * 100_000])))


@pytest.mark.parametrize("name", ["u.data", "ratings.dat", "ratings.csv", "carriage.csv", "mark_alone.csv"])
def test_usual_files_take_the_fast_way(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, "_careful", None)
    assert len(read_ratings(put(tmp_path / name, LAYOUTS[name]))) == 3
    assert len(read_ratings(put(tmp_path / name, LAYOUTS[name].replace("242", "é-7")))) == 3


names = st.one_of(
    st.integers(-20, 20).map(str),
    st.integers(0, 10**19).map(str),
    st.text("abé€0-+.", min_size=1, max_size=6),
)
numbers = st.one_of(
    st.integers(-(10**17), 10**17).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1.", ".5", "-.5", "-0", "007", "0.1000000000000001", "9007199254740993"]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(names, names, numbers, st.integers(0, 10**18 - 1)), min_size=1, max_size=8))
def test_both_ways_of_reading_give_what_python_reads(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    results = [
        read_ratings(put(path, text), skip_header=False),
        read_ratings(put(path, text.replace(",", " ,")), skip_header=False),
    ]
    for found in results:
        assert found.values.tolist() == [float(line[2]) for line in lines]
        assert found.timestamps.tolist() == [line[3] for line in lines]
        for side, codes, labels in ((0, found.rows, found.row_labels), (1, found.cols, found.col_labels)):
            expected = [line[side] for line in lines]
            if labels.dtype == np.int64:
                expected = [int(name) for name in expected]
            assert labels[codes].tolist() == expected
            assert labels.tolist() == sorted(set(expected))
    assert results[0].row_labels.dtype == results[1].row_labels.dtype


# Training and testing.


@pytest.mark.parametrize("timed", [False, True])
def test_split_parts_the_ratings(timed):
    codes = np.arange(20)
    times = codes * 2 if timed else None
    ratings = Ratings(codes, codes[::-1], codes / 2, (20, 20), codes, codes, times)
    training, held_out = split(ratings, 0.24, seed=1)
    assert (len(training), len(held_out)) == (15, 5)
    assert training.shape == held_out.shape == (20, 20)
    assert (np.sort(np.concatenate([training.rows, held_out.rows])) == codes).all()
    for part in (training, held_out):
        assert (np.diff(part.rows) > 0).all()
        assert (part.cols == 19 - part.rows).all()
        assert (part.values == part.rows / 2).all()
        assert part.row_labels is codes
        assert (part.timestamps == part.rows * 2).all() if timed else part.timestamps is None
    assert (split(ratings, 0.24, seed=1)[1].rows == held_out.rows).all()
    assert not (split(ratings, 0.24, seed=2)[1].rows == held_out.rows).all()


@pytest.mark.parametrize("fraction", [-0.5, 1.0, 0.96, 2.0])
def test_split_leaves_something_to_train_on(fraction):
    codes = np.arange(20)
    with pytest.raises(ValueError, match="would be held out"):
        split(Ratings(codes, codes, codes / 2, (20, 20), codes, codes, None), fraction)
