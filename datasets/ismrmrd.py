"""Cartesian slices from ISMRMRD's HDF5 files, whose acquisitions come line by line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.variable_length import Records


def _bit(number: int) -> int:
    """Of a flag; they are counted from one."""
    return 1 << (number - 1)


# Noise, navigators, corrections of phase, feedback and scans that only prepare.
USELESS = sum(_bit(number) for number in (19, 23, 24, 26, 27, 28, 29))
CALIBRATION, REVERSED = _bit(20), _bit(22)
NEEDED = {"flags", "number_of_samples", "active_channels", "center_sample", "idx"}
# Of several echoes, repetitions and the like the first is taken.
REPEATED = ("contrast", "phase", "repetition", "set")
# Complex numbers that a slice may have.
LARGEST = 1 << 28


class Acquisitions:
    """Slices of a file, made of its lines when they are asked for: ``acquisitions[i, ...]``.

    Parameters
    ----------
    path : Path
    group : h5py.Group
        With ``data``, whose records have ``head`` and ``data``, and perhaps ``xml``. Where in a record they
        are, the file itself tells.

    Attributes
    ----------
    shape : (slices, coils, lines, samples)
    dtype : numpy.dtype
    left_out : int
        Lines of other echoes, repetitions and the like.

    Raises
    ------
    DataError
        There are no such records, or they do not fit together.
    """

    dtype = np.dtype(np.complex64)

    def __init__(self, path: Path, group: Any) -> None:
        self._path, self._data = path, Records(path, group["data"])
        if "head" not in self._data or "data" not in self._data or len(self._data) == 0:
            raise DataError(path, "'data' is no list of acquisitions, which have 'head' and 'data'")
        head = self._data.member("head")
        missing = NEEDED - set(head.dtype.names or ())
        if missing:
            raise DataError(path, f"the heads of acquisitions lack {', '.join(sorted(missing))}")
        text = _text(path, group)
        path_taken = re.search(r"<trajectory>\s*(\w+)", text)
        if path_taken and path_taken.group(1).lower() != "cartesian":
            raise DataError(
                path, f"was sampled along a {path_taken.group(1)} trajectory; Cartesian lines are accepted"
            )
        kept = (head["flags"] & np.uint64(USELESS)) == 0
        index = head["idx"]
        counted = index.dtype.names or ()
        if "kspace_encode_step_1" not in counted or "slice" not in counted:
            raise DataError(path, "the heads of acquisitions do not say which line and slice they are")
        if "kspace_encode_step_2" in counted and np.unique(index["kspace_encode_step_2"][kept]).size > 1:
            raise DataError(path, "is encoded in three dimensions; slices of two are accepted")
        first = {name: index[name][kept].min() for name in REPEATED if name in counted and kept.any()}
        wanted = kept.copy()
        for name, value in first.items():
            wanted &= index[name] == value
        self.left_out = int(kept.sum() - wanted.sum())
        if not wanted.any():
            raise DataError(path, "has no acquisitions of an image")
        self._places = np.flatnonzero(wanted)
        self._head = head[wanted]
        coils, samples = self._head["active_channels"], self._head["number_of_samples"]
        if np.unique(coils).size > 1 or np.unique(samples).size > 1:
            raise DataError(path, "its acquisitions have different numbers of coils or samples")
        self._coils, self._samples = int(coils[0]), int(samples[0])
        lines = self._head["idx"]["kspace_encode_step_1"].astype(np.int64)
        height = _size(text, "encodedSpace", "y") or int(lines.max()) + 1
        middle = _middle(text)
        self._rows = lines if middle is None else lines - middle + height // 2
        if self._rows.min() < 0 or self._rows.max() >= height:
            raise DataError(path, f"a line is number {int(lines.max())}, and the matrix has {height}")
        full = max(self._samples, _size(text, "encodedSpace", "x") or 0)
        wide = _size(text, "reconSpace", "x") or full
        # Along the readout twice as much is sampled as is kept of the image.
        self._full, width = full, wide if full == 2 * wide else full
        self._slices, self._slice = np.unique(self._head["idx"]["slice"], return_inverse=True)
        self.shape = (len(self._slices), self._coils, height, width)
        if min(self.shape) < 1 or self._coils * height * self._full > LARGEST:
            raise DataError(path, f"its sizes make no sense: {self.shape}")

    def __getitem__(self, place: tuple[Any, ...]) -> NDArray[np.complex64]:
        chosen = np.flatnonzero(self._slice == place[0])
        _, coils, height, width = self.shape
        sums = np.zeros((2, coils, height, self._full), np.complex64)
        counts = np.zeros((2, height), int)
        for one in chosen:
            values = np.asarray(self._data.values(int(self._places[one]), "data"), np.float32)
            if values.size != 2 * coils * self._samples:
                raise DataError(self._path, f"an acquisition holds {values.size} numbers; expected "
                                f"{2 * coils * self._samples}")  # fmt: skip
            line = values.view(np.complex64).reshape(coils, self._samples)
            flags, centre = int(self._head["flags"][one]), int(self._head["center_sample"][one])
            if flags & REVERSED:
                line, centre = line[:, ::-1], self._samples - 1 - centre
            begin = self._full // 2 - centre if self._samples < self._full else 0
            if not 0 <= begin <= self._full - self._samples:
                raise DataError(self._path, f"sample {centre} is said to be the centre of {self._samples}")
            kind, row = int(bool(flags & CALIBRATION)), int(self._rows[one])
            sums[kind, :, row, begin : begin + self._samples] += line
            counts[kind, row] += 1
        # A line that is there only to calibrate by counts where there is no other.
        found = np.where((counts[0] > 0)[:, None], sums[0], sums[1])
        number = np.where(counts[0] > 0, counts[0], counts[1])
        found = found / np.maximum(number, 1)[:, None]
        if width < self._full:
            axes = (-1,)
            image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(found, axes), norm="ortho"), axes)
            begin = (self._full - width) // 2
            image = image[..., begin : begin + width]
            found = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes), norm="ortho"), axes)
        return found.astype(np.complex64)


def _text(path: Path, group: Any) -> str:
    if "xml" not in group or group["xml"].shape == ():
        return ""
    held = Records(path, group["xml"])
    if len(held) == 0:
        return ""
    pointed_to = group["xml"].dtype.hasobject
    first = held.values(0).tobytes() if pointed_to else held.member()[:1].tobytes()
    return first.decode("utf-8", "replace")


def _size(text: str, space: str, axis: str) -> int | None:
    """A size of a space's matrix; a few numbers want no parser that a file could lead astray."""
    match = re.search(rf"<{space}>.*?<matrixSize>.*?<{axis}>\s*(\d{{1,6}})\s*</{axis}>", text, re.DOTALL)
    return int(match.group(1)) if match and int(match.group(1)) > 0 else None


def _middle(text: str) -> int | None:
    """The line of the origin."""
    block = re.search(r"<kspace_encoding_step_1>(.*?)</kspace_encoding_step_1>", text, re.DOTALL)
    match = re.search(r"<center>\s*(\d{1,6})\s*</center>", block.group(1)) if block else None
    return int(match.group(1)) if match else None
