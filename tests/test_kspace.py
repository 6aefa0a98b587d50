"""Files of k-space."""

import gzip

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnsolve.datasets import kspace as kspace_files
from learnsolve.datasets.errors import DataError
from learnsolve.datasets.kspace import open_kspace


def volume(shape=(3, 4, 12, 10), centred=True, seed=0):
    """Most of its energy is about the origin."""
    rng = np.random.default_rng(seed)
    v, u = (np.arange(n) - n // 2 for n in shape[-2:])
    k = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    k = (k * np.exp(-0.5 * (v[:, None] ** 2 + u**2) / 4)).astype(np.complex64)
    return k if centred else np.fft.ifftshift(k, (-2, -1))


def write_fastmri(path, k, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = k
        for name, value in more.items():
            file[name] = value
        file.attrs["acquisition"] = "AXT1"
    return path


def write_calgary(path, k):
    both = np.stack([k.real, k.imag], -1).transpose(0, 2, 3, 1, 4).reshape(k.shape[0], *k.shape[2:], -1)
    return write_fastmri(path, both.astype(np.float32))


def write_cfl(path, k):
    sizes = [k.shape[2], k.shape[3], 1, k.shape[1], *[1] * 9, k.shape[0], 1, 1]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")
    path.with_suffix(".cfl").write_bytes(k.transpose(2, 3, 1, 0).tobytes(order="F"))
    return path.with_suffix(".cfl")


WRITERS = {
    "fastmri": lambda folder, k: write_fastmri(folder / "a.h5", k),
    "calgary": lambda folder, k: write_calgary(folder / "a.h5", k),
    "cfl": lambda folder, k: write_cfl(folder / "a.cfl", k),
}


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("layout", list(WRITERS))
def test_layouts_are_found(tmp_path, layout, centred):
    k = volume(centred=centred)
    with open_kspace(WRITERS[layout](tmp_path, k)) as found:
        assert found.layout == layout
        assert found.shape == k.shape
        assert found.centred == centred
        assert len(found) == 3
        for i in (0, 2, -1):
            assert found[i].dtype == np.complex64
            np.testing.assert_array_equal(found[i], k[i])
        with pytest.raises(IndexError):
            found[3]
        assert f"{layout}: 3 slices of 4 coils, 12 x 10" in found.verdict()


def test_numpys_files(tmp_path):
    k = volume()
    np.save(tmp_path / "a.npy", k[0])
    np.savez(tmp_path / "a.npz", kspace=k, other=k[0])
    np.savez(tmp_path / "b.npz", x=k, y=k[0])
    with open_kspace(tmp_path / "a.npy") as found:
        assert found.shape == (1, 4, 12, 10)
        np.testing.assert_array_equal(found[0], k[0])
    with open_kspace(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found[1], k[1])
    with open_kspace(tmp_path / "b.npz", key="y") as found:
        np.testing.assert_array_equal(found[0], k[0])
    with pytest.raises(DataError, match="key must name"):
        open_kspace(tmp_path / "b.npz")


@pytest.mark.parametrize("axes", ["xyc", "csyx", "yxsc", "rscyx", "syxcr", "yx"])
def test_any_order_of_axes(tmp_path, axes):
    k = volume()
    pairs = np.stack([k.real, k.imag]) if "r" in axes else k[None]
    kept = pairs[(slice(None), *(slice(None) if axis in axes else 0 for axis in "sc"))]
    names = "r" + "".join(axis for axis in "scyx" if axis in axes)
    if "r" not in axes:
        kept, names = kept[0], names[1:]
    write_fastmri(tmp_path / "a.h5", kept.transpose([names.index(axis) for axis in axes]))
    with open_kspace(tmp_path / "a.h5", axes=axes) as found:
        assert found.shape[2:] == (12, 10)
        expected = k[0] if "c" in axes else k[0, :1]
        np.testing.assert_array_equal(found[0], expected)


def test_what_a_file_has_beside(tmp_path):
    k = volume()
    mask = np.array([1, 0] * 5, np.float32)
    path = write_fastmri(tmp_path / "a.h5", k, mask=mask, reconstruction_rss=np.abs(k).sum(1))
    with open_kspace(path) as found:
        assert found.sampled.shape == (12, 10)
        assert np.array_equal(found.sampled[3], mask != 0)
        np.testing.assert_allclose(found.references(1), np.abs(k[1]).sum(0), rtol=1e-6)
        assert found.attributes["acquisition"] == "AXT1"
        assert "a mask, reconstruction_rss" in found.verdict()
    single = write_fastmri(tmp_path / "b.h5", k[:, 0])
    with open_kspace(single) as found:
        assert found.shape == (3, 1, 12, 10)
        with pytest.raises(DataError, match="no reference"):
            found.references(0)


def test_what_is_refused(tmp_path):
    k = volume()
    (tmp_path / "a.h5").write_text("no such thing")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["other"] = k
    for name, more, what in (
        ("a.h5", {}, "no HDF5 file"),
        ("b.h5", {}, "no dataset 'kspace'; it holds other"),
        ("b.h5", {"key": "other", "axes": "cyx"}, "4 axes"),
    ):
        with pytest.raises(DataError, match=what):
            open_kspace(tmp_path / name, **more)
    for number, (array, what) in enumerate(
        (
            (np.ones((3, 4), np.int32), "complex numbers"),
            (np.ones((3, 4, 5, 6, 7, 8), np.complex64), "were expected"),
            (np.ones((3, 0, 5, 6), np.complex64), "empty"),
            (np.ones((2, 3, 4), np.float32), "complex numbers"),
        )
    ):
        with pytest.raises(DataError, match=what):
            open_kspace(write_fastmri(tmp_path / f"c{number}.h5", array))
    with pytest.raises(DataError, match="mask"):
        open_kspace(write_fastmri(tmp_path / "d.h5", k, mask=np.ones(7)))
    with pytest.raises(FileNotFoundError):
        open_kspace(tmp_path / "none.h5")
    for axes in ("zyx", "yyx", "cy"):
        with pytest.raises(ValueError, match="axes"):
            open_kspace(tmp_path / "b.h5", key="other", axes=axes)
    path = write_cfl(tmp_path / "e.cfl", k)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="header wants"):
        open_kspace(path)
    path.with_suffix(".hdr").write_text("# Dimensions\n4 4 3 2\n")
    with pytest.raises(DataError, match="two dimensions"):
        open_kspace(path)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["fastmri", "calgary", "ismrmrd", "npy", "npz", "cfl"]), st.data())
def test_damaged_files_end_in_an_error_or_in_data(tmp_path, layout, data):
    k = volume((2, 2, 6, 5))
    if layout == "npy":
        np.save(tmp_path / "a.npy", k)
        path = tmp_path / "a.npy"
    elif layout == "npz":
        np.savez(tmp_path / "a.npz", kspace=k)
        path = tmp_path / "a.npz"
    elif layout == "ismrmrd":
        path = write_ismrmrd(tmp_path / "a.h5", k, range(6))
    else:
        path = WRITERS[layout](tmp_path, k)
    victim = path.with_suffix(".hdr") if layout == "cfl" and data.draw(st.booleans()) else path
    raw = bytearray(victim.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, 12000), st.integers(0, 255)), max_size=8)
    ):
        if raw:
            raw[place % len(raw)] = value
    victim.write_bytes(bytes(raw))
    try:
        with open_kspace(path) as found:
            for i in range(min(len(found), 4)):
                assert found[i].ndim == 3
    except (DataError, OSError):
        pass


def test_a_file_that_is_compressed_is_no_kspace(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", volume())
    packed = tmp_path / "b.h5"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="no HDF5 file"):
        open_kspace(packed)


def write_ismrmrd(path, k, lines, *, centre=None, offset=0, oversampled=False, reverse=(), calibration=()):
    """Acquisitions in an order of their own, with noise before; ``offset`` moves the fields of the heads."""
    index = np.dtype(
        [("kspace_encode_step_1", "u2"), ("average", "u2"), ("slice", "u2"), ("repetition", "u2")]
    )
    names = ["flags", "number_of_samples", "active_channels", "center_sample", "idx"]
    formats, sizes = ["u8", "u2", "u2", "u2", index], [8, 2, 2, 2, index.itemsize]
    places = (np.cumsum([0, *sizes[:-1]]) + offset).tolist()
    head = np.dtype({"names": names, "formats": formats, "offsets": places, "itemsize": places[-1] + 20})
    record = np.dtype([("head", head), ("data", h5py.vlen_dtype(np.float32))])
    slices, coils, height, width = k.shape
    if oversampled:
        image = np.fft.ifft(np.fft.ifftshift(k, -1), norm="ortho")
        wide = np.zeros((*k.shape[:-1], 2 * width), complex)
        wide[..., width // 2 : width // 2 + width] = np.fft.fftshift(image, -1)
        k = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(wide, -1), norm="ortho"), -1)
    samples = k.shape[-1]
    rows = [(0, line, s, 0) for s in range(slices) for line in lines]
    rows = [(1 << 18, 0, 0, 0), *reversed(rows), (0, lines[0], 0, 1)]
    table = np.zeros(len(rows), record)
    for one, (flags, line, s, repetition) in zip(table, rows, strict=True):
        values = k[s, :, line] if not flags else 99 * np.ones((coils, samples))
        flags |= (1 << 21) * (line in reverse) | (1 << 19) * (line in calibration)
        values = values[:, ::-1] if line in reverse else values
        one["head"]["flags"], one["head"]["number_of_samples"] = flags, samples
        one["head"]["active_channels"], one["head"]["center_sample"] = coils, samples // 2
        number = line if centre is None else line - height // 2 + centre
        one["head"]["idx"]["kspace_encode_step_1"], one["head"]["idx"]["slice"] = number, s
        one["head"]["idx"]["repetition"] = repetition
        one["data"] = np.ascontiguousarray(values, np.complex64).view(np.float32).ravel()
    limits = (
        ""
        if centre is None
        else f"<kspace_encoding_step_1><center>{centre}</center></kspace_encoding_step_1>"
    )
    sizes = [f"<{s}><matrixSize><x>{x}</x><y>{height}</y></matrixSize></{s}>"
             for s, x in (("encodedSpace", samples), ("reconSpace", width))]  # fmt: skip
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group["data"] = table
        group.create_dataset("xml", data=[f"<header>{''.join(sizes)}{limits}</header>".encode()])
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"offset": 6}, {"oversampled": True}, {"reverse": (4, 5)}, {"centre": 7}, {"calibration": (6, 7)}],
)
def test_lines_of_ismrmrd_make_slices(tmp_path, options):
    k = volume()
    lines = [1, 4, 5, 6, 7, 8]
    with open_kspace(write_ismrmrd(tmp_path / "a.h5", k, lines, **options)) as found:
        assert found.layout == "ismrmrd"
        assert found.shape == k.shape
        assert found.centred
        assert found.attributes == {"lines left out": 1}
        expected = np.zeros_like(k)
        expected[:, :, lines] = k[:, :, lines]
        for i in range(3):
            np.testing.assert_allclose(found[i], expected[i], rtol=1e-4, atol=1e-5)


def test_damaged_acquisitions(tmp_path):
    path = write_ismrmrd(tmp_path / "a.h5", volume(), [5, 6])
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        short = table.copy()
        short[3]["data"] = short[3]["data"][:-2]
        file["dataset/data"][...] = short
    with open_kspace(path, centred=True) as found, pytest.raises(DataError, match="acquisition holds"):
        for i in range(3):
            found[i]
    for name, value, what in (
        ("number_of_samples", 3, "different numbers"),
        ("flags", 1 << 18, "no acquisitions of an image"),
    ):
        bad = table.copy()
        bad["head"][name][: 4 if name != "flags" else None] = value
        with h5py.File(path, "r+") as file:
            file["dataset/data"][...] = bad
        with pytest.raises(DataError, match=what):
            open_kspace(path)
    with h5py.File(path, "r+") as file:
        file["dataset/data"][...] = table
        del file["dataset/xml"]
        file["dataset/xml"] = [b"<trajectory>radial</trajectory>"]
    with pytest.raises(DataError, match="radial trajectory"):
        open_kspace(path)


def test_texts_of_damaged_files_end_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(kspace_files, "SECONDS", 5)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = volume()
        file.attrs["patient"], file.attrs["number"] = "nobody", 3
    with open_kspace(path) as found:
        assert dict(found.attributes) == {"patient": "nobody", "number": 3}
        assert found.attributes.get("absent") is None
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    # Of which HDF5 takes a length on trust.
    content[heap + 24 : heap + 32] = b"\xff" * 8
    path.write_bytes(content)
    with open_kspace(path) as found:
        assert found.attributes["number"] == 3
        with pytest.raises(DataError, match="patient"):
            found.attributes["patient"]
