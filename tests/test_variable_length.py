"""Data of variable length, read by the file's own layout, against h5py."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.variable_length import Records

KIND = np.dtype(
    [
        ("head", [("a", "<u2"), ("b", ">f8", (3,))]),
        ("text", h5py.string_dtype()),
        ("one", h5py.vlen_dtype(np.float32)),
        ("two", h5py.vlen_dtype(np.int16)),
        ("last", "<i4"),
    ]
)


def table(count, seed):
    rng = np.random.default_rng(seed)
    found = np.zeros(count, KIND)
    for row in found:
        row["head"]["a"], row["head"]["b"] = rng.integers(1000), rng.standard_normal(3)
        row["text"], row["last"] = "é" * int(rng.integers(0, 9)), rng.integers(-9, 9)
        row["one"] = rng.standard_normal(rng.integers(0, 40)).astype(np.float32)
        row["two"] = rng.integers(-99, 99, rng.integers(0, 2000)).astype(np.int16)
    return found


OPTIONS = [
    {},
    {"chunks": (7,), "maxshape": (None,)},
    {"chunks": (1,), "maxshape": (None,)},
    {"chunks": (5,), "maxshape": (None,), "compression": "gzip"},
    {"chunks": (4,), "maxshape": (None,), "compression": "gzip", "shuffle": True},
]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from(OPTIONS), st.sampled_from([0, 512]))
def test_records_are_those_that_h5py_reads(tmp_path_factory, count, seed, options, userblock):
    path = tmp_path_factory.getbasetemp() / "records.h5"
    expected = table(count, seed)
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset("data", data=expected, **options)
    with h5py.File(path) as file:
        found = Records(path, file["data"])
        assert len(found) == count and "one" in found and "three" not in found
        np.testing.assert_array_equal(found.member("head")["b"], expected["head"]["b"])
        np.testing.assert_array_equal(found.member("last"), expected["last"])
        for row in range(count):
            assert found.values(row, "text").tobytes().decode() == expected["text"][row]
            for name in ("one", "two"):
                values = found.values(row, name)
                assert values.dtype == expected[name][row].dtype
                np.testing.assert_array_equal(values, expected[name][row])


def test_texts(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["any"] = ["Grüße", "", "x" * 100_000]
        file["fixed"] = np.array([b"abc", b"d"])
    with h5py.File(path) as file:
        found = Records(path, file["any"])
        assert [found.values(row).tobytes().decode() for row in range(3)] == ["Grüße", "", "x" * 100_000]
        assert Records(path, file["fixed"]).member().tolist() == [b"abc", b"d"]


@pytest.mark.parametrize("what", ["two axes", "references", "lzf"])
def test_other_data_are_refused(tmp_path, what):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        if what == "two axes":
            file["data"] = np.zeros((2, 2))
        elif what == "references":
            file.create_dataset("data", (2,), h5py.ref_dtype)
        else:
            file.create_dataset("data", data=np.zeros(10), chunks=(5,), compression="lzf")
    with h5py.File(path) as file, pytest.raises(DataError, match="accepted"):
        Records(path, file["data"])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=table(6, 1), chunks=(3,))
    with h5py.File(path) as file:
        info = file["data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    # Only what the library does not read itself: records, and the heap that they point to.
    begin, size = data.draw(st.sampled_from([(info.byte_offset, info.size), (heap, 200)]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[begin + data.draw(st.integers(0, size - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with h5py.File(path) as file:
        found = Records(path, file["data"])
        for row in range(6):
            for name in ("one", "two"):
                try:
                    found.values(row, name)
                except DataError as error:
                    assert str(path) in str(error)
