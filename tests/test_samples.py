"""Files of samples hold what they say, and are refused where they do not."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.samples import Samples, write_samples


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    vectors = np.random.default_rng(0).standard_normal((500, 5, 3))
    return write_samples(tmp_path_factory.mktemp("samples") / "a.h5", vectors)


def test_vectors_are_written_as_they_come(tmp_path):
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal((3, 4)) * 10.0**k for k in (-200, 0, 200)]
    mixed = [vectors[0], torch.from_numpy(vectors[1]).bfloat16(), vectors[2].astype(np.longdouble)]
    path = write_samples(tmp_path / "a.h5", iter(mixed), seed=7, attributes={"scene": "plüme", "dt": 0.5})
    with Samples(path) as data:
        assert data.values is None
        assert data.attributes == {"seed": 7, "scene": "plüme", "dt": 0.5}
        found = data.batch(torch.tensor([2, 0, 1, 2]))
    for got, number in zip(found, (2, 0, 1, 2), strict=True):
        wanted = vectors[number] / np.abs(vectors[number]).max()
        wanted /= np.linalg.norm(wanted)
        np.testing.assert_allclose(got, wanted, atol=2e-3 if number == 1 else 1e-7)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([], "no vectors"),
        ([np.ones(3), np.zeros(3)], "vector 1 is zero"),
        ([np.array([1.0, np.nan])], "vector 0 is not finite"),
        ([torch.tensor([1.0, torch.inf])], "vector 0 is not finite"),
        ([np.ones(3), np.ones(4)], "vector 1 has shape"),
        ([np.ones(0)], "vector 0 has shape"),
        ([1.0], "vector 0 has shape"),
        ([np.ones(3) * 1j], "real numbers"),
        ([np.array(["a"])], "real numbers"),
    ],
)
def test_vectors_that_are_refused(tmp_path, vectors, message):
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / "a.h5", vectors)
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_format_needs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="names that the format needs"):
        write_samples(tmp_path / "a.h5", [np.ones(3)], attributes={"version": 2})


@given(st.lists(st.integers(0, 499), max_size=20))
@settings(max_examples=20, deadline=None)
def test_a_batch_is_what_was_asked_for(written, indices):
    with Samples(written) as data, h5py.File(written) as file:
        found = data.batch(indices)
        assert found.shape == (len(indices), *data.shape)
        for got, index in zip(found, indices, strict=True):
            np.testing.assert_array_equal(got, file["samples"][index])


@pytest.mark.parametrize(("index", "error"), [(500, IndexError), (-1, IndexError), (1.0, TypeError)])
def test_samples_that_are_not_there(written, index, error):
    with Samples(written) as data, pytest.raises(error):
        data.batch([0, index])


@given(st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_split_is_disjoint_and_complete(written, fraction, seed):
    with Samples(written) as data:
        held = int(np.ceil(fraction * 500))
        if held == 500:
            with pytest.raises(ValueError, match="would be held out"):
                data.split(fraction, seed)
            return
        training, held_out = data.split(fraction, seed)
        assert len(held_out) == held
        assert sorted([*training, *held_out]) == list(range(500))
        again = data.split(fraction, seed)
        np.testing.assert_array_equal(again[0], training)
        np.testing.assert_array_equal(again[1], held_out)


def replace(file, name, data, **options):
    del file[name]
    return file.create_dataset(name, data=data, **options)


def spoil(file, value, name="samples"):
    file[name][0] = value


DAMAGE = {
    "no format": (lambda f: f.attrs.__delitem__("format"), "not a file of samples"),
    "other format": (lambda f: f.attrs.update(format=np.bytes_("weights")), "not a file of samples"),
    "format of numbers": (lambda f: f.attrs.update(format=np.ones(3)), "not a file of samples"),
    "format of variable length": (lambda f: f.attrs.update(format="learnsolve samples"), "text of fixed"),
    "no version": (lambda f: f.attrs.__delitem__("version"), "version None"),
    "wrong version": (lambda f: f.attrs.update(version=2), "version 2"),
    "no samples": (lambda f: f.__delitem__("samples"), "'samples' is missing"),
    "group": (lambda f: (f.__delitem__("samples"), f.create_group("samples")), "not a dataset"),
    "link": (
        lambda f: (f.__delitem__("samples"), f.__setitem__("samples", h5py.ExternalLink("b.h5", "/x"))),
        "'samples' is missing",
    ),
    "integers": (lambda f: replace(f, "samples", np.ones((5, 4, 4), np.int32)), "dtype int32"),
    "half": (lambda f: replace(f, "samples", np.ones((5, 4, 4), np.float16)), "dtype float16"),
    "words": (lambda f: replace(f, "samples", ["a"]), "dtype object"),
    "no shape": (lambda f: f.attrs.__delitem__("shape"), "'shape' says None"),
    "other shape": (lambda f: f.attrs.update(shape=(4, 5)), "'shape' says"),
    "flat": (lambda f: replace(f, "samples", np.ones(5, np.float32)), "'shape' says"),
    "scalar": (lambda f: replace(f, "samples", np.float32(1)), "is empty"),
    "null": (lambda f: replace(f, "samples", h5py.Empty("f")), "is empty"),
    "none": (lambda f: replace(f, "samples", np.ones((0, 4, 4), np.float32)), "is empty"),
    "unwritten": (lambda f: f["samples"].resize(1000, axis=0), "bytes, but"),
    "compressed": (
        lambda f: replace(f, "samples", np.ones((50, 4, 4), np.float32), compression="gzip"),
        "bytes, but",
    ),
    "petabyte": (
        lambda f: (
            f.__delitem__("samples"),
            f.create_dataset("samples", (10**9, 4, 4), "f4", chunks=(1, 4, 4)),
        ),
        "bytes, but",
    ),
    "values of another dtype": (lambda f: replace(f, "ritz_values", np.ones(4, np.float32)), "dtype float32"),
    "descending values": (lambda f: replace(f, "ritz_values", np.array([2.0, 1.0])), "ascending"),
    "negative values": (lambda f: replace(f, "ritz_values", np.array([-1.0, 1.0])), "not negative"),
    "values that are NaN": (lambda f: spoil(f, np.nan, "ritz_values"), "finite"),
    "values in a table": (lambda f: replace(f, "ritz_values", np.ones((2, 2))), "ascending"),
    "NaN": (lambda f: spoil(f, np.nan), "sample 0 has the norm nan"),
    "infinity": (lambda f: spoil(f, np.inf), "sample 0 has the norm inf"),
    "zeros": (lambda f: spoil(f, 0.0), "sample 0 has the norm 0"),
    "not of unit norm": (lambda f: spoil(f, 1.0), "sample 0 has the norm 4"),
}


@pytest.fixture
def small(tmp_path):
    path = write_samples(tmp_path / "small.h5", np.random.default_rng(0).standard_normal((5, 4, 4)))
    with h5py.File(path, "a") as file:
        file["ritz_values"] = np.arange(1.0, 5.0)
    return path


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_file_is_said(small, name):
    spoiled, message = DAMAGE[name]
    with Samples(small) as data:
        assert data.batch([0, 4]).shape == (2, 4, 4)
    with h5py.File(small, "a") as file:
        spoiled(file)
    with pytest.raises(DataError, match=message) as caught, Samples(small) as data:
        data.batch([0])
    assert "small.h5" in str(caught.value)


def test_every_truncated_file_is_refused(small):
    whole = small.read_bytes()
    for length in [0, 7, 100, *range(500, len(whole), 997), len(whole) - 1]:
        small.write_bytes(whole[:length])
        with pytest.raises(DataError), Samples(small) as data:
            data.batch(range(5))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_is_refused_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a.h5"
    write_samples(path, np.eye(4))
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        with Samples(path) as samples:
            found = samples.batch(range(len(samples)))
        assert torch.isfinite(found).all()
    except DataError:
        pass


def test_a_text_file_is_no_file_of_samples_and_a_missing_file_is_missing(tmp_path):
    (tmp_path / "a.h5").write_text("samples")
    with pytest.raises(DataError, match="not a whole HDF5 file"):
        Samples(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        Samples(tmp_path / "b.h5")
    with pytest.raises(IsADirectoryError):
        Samples(tmp_path)
