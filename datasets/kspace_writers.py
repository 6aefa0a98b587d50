"""Files of k-space in the layouts of fastMRI, Calgary-Campinas and ISMRMRD."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from learnsolve.files import check_room, replacing

Layout = Literal["fastmri", "calgary", "ismrmrd"]
LAYOUTS = ("fastmri", "calgary", "ismrmrd")
# Fields of an acquisition's head, of version 1 of the format, in their order and without gaps.
COUNTERS = (
    "kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition",
    "set", "segment",
)  # fmt: skip
INDEX = np.dtype([*((name, "<u2") for name in COUNTERS), ("user", "<u2", 8)])
HEAD = np.dtype(
    [
        ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", 3), ("number_of_samples", "<u2"),
        ("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", 16),
        ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"), ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"),
        ("position", "<f4", 3), ("read_dir", "<f4", 3), ("phase_dir", "<f4", 3), ("slice_dir", "<f4", 3),
        ("patient_table_position", "<f4", 3), ("idx", INDEX), ("user_int", "<i4", 8),
        ("user_float", "<f4", 8),
    ]
)  # fmt: skip


def write_kspace(
    path: str | os.PathLike,
    slices: Iterable[NDArray[np.complexfloating]],
    shape: tuple[int, int, int, int],
    layout: Layout = "fastmri",
    *,
    references: Iterable[NDArray[np.floating]] | None = None,
    sampled: NDArray[np.bool_] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a volume, a slice at a time, to an HDF5 file that is there whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
    slices : iterable of (coils, height, width) complex arrays
        With their origin at ``n // 2``; zero where nothing was sampled.
    shape : (slices, coils, height, width)
    layout : {"fastmri", "calgary", "ismrmrd"}
        Calgary-Campinas has its origin at 0; of ISMRMRD, rows are lines, and those that are zero are left
        out.
    references : iterable of (height, width) arrays, optional
        Images for the dataset ``reconstruction_rss``; not of ISMRMRD.
    sampled : (height, width) or (width,) bool array, optional
        For the dataset ``mask`` of fastMRI's layout.
    attributes : mapping, optional
        Of the file.

    Raises
    ------
    ValueError
        The layout is unknown, or a slice has another shape.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from learnsolve.datasets.kspace import open_kspace
    >>> from learnsolve.datasets.kspace_writers import write_kspace
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.h5"
    >>> write_kspace(path, iter(np.ones((2, 3, 8, 8), np.complex64)), (2, 3, 8, 8), "calgary")
    >>> with open_kspace(path) as kspace:
    ...     print(kspace.layout, kspace.shape)
    calgary (2, 3, 8, 8)
    """
    import h5py

    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; {', '.join(LAYOUTS)} are accepted")
    count, coils, height, width = shape
    checked = _checked(slices, shape)
    check_room(path, 8 * count * coils * height * width + 4 * count * height * width)
    with replacing(path) as part, h5py.File(part, "w") as file:
        if layout == "ismrmrd":
            _acquisitions(file, checked, shape)
        elif layout == "fastmri":
            data = file.create_dataset("kspace", shape, np.complex64, chunks=(1, *shape[1:]))
            for number, k in enumerate(checked):
                data[number] = k
        else:
            data = file.create_dataset(
                "kspace", (count, height, width, 2 * coils), np.float32, chunks=(1, height, width, 2 * coils)
            )
            for number, k in enumerate(checked):
                moved = np.moveaxis(_at_zero(k), 0, -1)
                data[number] = np.stack([moved.real, moved.imag], -1).reshape(height, width, 2 * coils)
        if references is not None and layout != "ismrmrd":
            images = file.create_dataset("reconstruction_rss", (count, height, width), np.float32)
            for number, image in enumerate(references):
                images[number] = image
        if sampled is not None and layout == "fastmri":
            file["mask"] = np.asarray(sampled, dtype=np.float32)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value


def _checked(
    slices: Iterable[NDArray[np.complexfloating]], shape: tuple[int, int, int, int]
) -> Iterable[NDArray[np.complex64]]:
    number = 0
    for k in slices:
        if k.shape != shape[1:] or number >= shape[0]:
            raise ValueError(f"slice {number} has shape {k.shape}; {shape[0]} of {shape[1:]} are accepted")
        number += 1
        yield np.asarray(k, dtype=np.complex64)
    if number != shape[0]:
        raise ValueError(f"there are {number} slices, not {shape[0]}")


def _at_zero(k: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """K-space of which the image, by a transform without shifts, is in the middle as before."""
    axes = (-2, -1)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, axes), norm="ortho"), axes)
    found: NDArray[np.complex64] = np.fft.fft2(image, norm="ortho").astype(np.complex64)
    return found


def _acquisitions(
    file: Any, slices: Iterable[NDArray[np.complex64]], shape: tuple[int, int, int, int]
) -> None:
    import h5py

    count, coils, height, width = shape
    record = np.dtype(
        [("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))]
    )
    group = file.create_group("dataset")
    data = group.create_dataset("data", (0,), record, maxshape=(None,), chunks=(height,))
    for number, k in enumerate(slices):
        lines = np.flatnonzero(k.any((0, 2)))
        table = np.zeros(len(lines), record)
        for one, line in zip(table, lines, strict=True):
            head = one["head"]
            head["version"], head["number_of_samples"], head["center_sample"] = 1, width, width // 2
            head["available_channels"] = head["active_channels"] = coils
            head["scan_counter"] = len(data) + 1
            head["read_dir"], head["phase_dir"], head["slice_dir"] = np.eye(3)
            head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = line, number
            one["traj"] = np.zeros(0, np.float32)
            one["data"] = np.ascontiguousarray(k[:, line]).view(np.float32).ravel()
        data.resize(len(data) + len(table), axis=0)
        if len(table):
            data[-len(table) :] = table
    matrix = f"<matrixSize><x>{width}</x><y>{height}</y><z>1</z></matrixSize>"
    limits = (
        f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{height - 1}</maximum>"
        f"<center>{height // 2}</center></kspace_encoding_step_1>"
        f"<slice><minimum>0</minimum><maximum>{count - 1}</maximum><center>0</center></slice>"
    )
    text = (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<experimentalConditions><H1resonanceFrequency_Hz>127740000</H1resonanceFrequency_Hz>"
        f"</experimentalConditions><encoding><encodedSpace>{matrix}</encodedSpace>"
        f"<reconSpace>{matrix}</reconSpace><encodingLimits>{limits}</encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )
    group.create_dataset("xml", data=[text.encode()])
