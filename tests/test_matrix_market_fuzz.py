"""The reader against a slow one that spells the format out, on files cut short and changed."""

import gzip
import math
import re

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.datasets import matrix_market
from learnsolve.datasets.errors import DataError

INDEX = r"[+-]?[0-9]+"
REAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
BODY = {"real": [REAL], "integer": [INDEX], "complex": [REAL, REAL], "pattern": []}


def slow_read(text):
    """The format, spelled out line by line: shape and a list of values for each place, or None."""
    if not text.endswith("\n"):
        return None
    lines = text.split("\n")[:-1]
    if any(len(line) >= 1 << 16 for line in lines):
        return None
    banner = re.fullmatch(
        r"\s*%%matrixmarket\s+matrix\s+(coordinate|array)\s+(real|integer|complex|pattern)\s+"
        r"(general|symmetric|skew-symmetric|hermitian)\s*",
        lines.pop(0).lower(),
    )
    if banner is None:
        return None
    layout, field, symmetry = banner.groups()
    sign = {"general": None, "symmetric": 1, "skew-symmetric": -1, "hermitian": 1}[symmetry]
    if (layout, field) == ("array", "pattern") or (symmetry, field) == ("skew-symmetric", "pattern"):
        return None
    if symmetry == "hermitian" and field != "complex":
        return None
    while lines and (not lines[0].strip() or lines[0].strip().startswith("%")):
        lines.pop(0)
    size = re.fullmatch(
        r"\s*" + r"\s+".join(["([0-9]{1,18})"] * (3 if layout == "coordinate" else 2)) + r"\s*",
        lines.pop(0) if lines else "",
    )
    if size is None:
        return None
    rows, columns, *announced = map(int, size.groups())
    if symmetry != "general" and rows != columns:
        return None
    places = None
    if layout == "array":
        if rows * columns > 10_000:
            return None
        first = {"general": lambda j: 0, "skew-symmetric": lambda j: j + 1}.get(symmetry, lambda j: j)
        places = [(i, j) for j in range(columns) for i in range(first(j), rows)]
        announced = [len(places)]
    pattern = [INDEX, INDEX] * (layout == "coordinate") + BODY[field]
    entries = {}
    count = 0
    for line in lines:
        line = line[:-1] if line.endswith("\r") else line
        if re.search(r"[^0-9+\-.eE \t]", line):
            return None
        words = line.split()
        if not words:
            continue
        if len(words) != len(pattern) or not all(map(re.fullmatch, pattern, words)):
            return None
        if layout == "coordinate":
            place = int(words[0]) - 1, int(words[1]) - 1
            words = words[2:]
            if not (0 <= place[0] < rows and 0 <= place[1] < columns):
                return None
        elif count == len(places):
            return None
        else:
            place = places[count]
        if field == "integer":
            value = int(words[0])
            if not -(2**63) <= value < 2**63:
                return None
        else:
            value = complex(*map(float, words)) if field == "complex" else float(words[0]) if words else 1.0
            if not (math.isfinite(value.real) and math.isfinite(value.imag)):
                return None
        entries.setdefault(place, []).append(value)
        count += 1
        if sign is not None:
            i, j = place
            if i < j or (i == j and symmetry == "skew-symmetric" and value != 0):
                return None
            if i == j and symmetry == "hermitian" and value.imag != 0:
                return None
            if i != j:
                mirror = value.conjugate() if symmetry == "hermitian" else sign * value
                entries.setdefault((j, i), []).append(mirror)
    return ((rows, columns), entries) if count == announced[0] else None


SEEDS = [
    "%%MatrixMarket matrix coordinate real symmetric\n"
    "% five points\n4 4 5\n1 1 4.25\n2 2 4.5e0\n3 3 -4\n4 4 40\n4 1 1e-3\n",
    "%%MatrixMarket matrix coordinate real general\r\n\r\n3 2 3\r\n1 1 +1.5\r\n3 2 .5\r\n1 1 5.\r\n",
    "%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 2\n1 1 0\n2 1 3\n",
    "%%MatrixMarket matrix coordinate complex hermitian\n2 2 2\n1 1 4 0\n2 1 1 2\n",
    "%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n2 1\n3 3\n",
    "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 2 9007199254740993\n2 2 -7\n",
    "%%MatrixMarket matrix array integer skew-symmetric\n2 2\n7\n",
    "%%MatrixMarket matrix array complex hermitian\n2 2\n1 0\n0 2\n3 0\n",
    "%%MatrixMarket matrix array real general\n3 2\n1.5\n-2\n3e2\n.5\n5.\n6\n",
]


def check_against_slow_read(path, data):
    path.write_bytes(data)
    expected = slow_read(data.decode("latin-1"))
    try:
        matrix = matrix_market.read(path, max_bytes=1 << 24)
    except DataError:
        if expected is not None:
            (rows, columns), entries = expected
            sums = [sum(values) for values in entries.values()]
            assert rows > 10_000 or columns > 10_000 or any(not abs(value) < 2.0**63 for value in sums)
        return
    assert expected is not None, f"read, though it is bad: {data!r}"
    shape, entries = expected
    assert matrix.shape == shape
    assert np.prod(shape, dtype=object) > 10_000 or np.count_nonzero(
        matrix.data if sp.issparse(matrix) else matrix
    ) <= len(entries)
    for place, values in entries.items():
        assert matrix[place] == pytest.approx(sum(values), rel=1e-14, abs=0)


@pytest.mark.parametrize("text", SEEDS)
def test_every_truncation_is_noticed(tmp_path, text):
    data = text.encode("latin-1")
    for end in range(len(data)):
        check_against_slow_read(tmp_path / "cut.mtx", data[:end])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_flipped_bytes_give_an_error_or_a_correct_read(tmp_path_factory, text, data):
    content = bytearray(text.encode("latin-1"))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(
            st.one_of(st.sampled_from(b"0123456789+-.eE% \t\r\nn"), st.integers(0, 255))
        )
    check_against_slow_read(tmp_path_factory.getbasetemp() / "flipped.mtx", bytes(content))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_gzip_is_refused_or_unharmed(tmp_path_factory, data):
    text = SEEDS[-1].encode()
    content = bytearray(gzip.compress(text, mtime=0))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.mtx.gz"
    path.write_bytes(content)
    try:
        matrix = matrix_market.read(path)
    except DataError:
        return
    np.testing.assert_array_equal(matrix, [[1.5, 0.5], [-2, 5], [300, 6]])
