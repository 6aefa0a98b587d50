"""K-space of a volume from a file, a slice at a time, whatever its layout."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.ismrmrd import Acquisitions

Complex = NDArray[np.complex64]
# What axes are called: slices, coils, height, width, and real and imaginary parts.
AXES = "scyxr"
# Dimensions of BART's files: readout, two phase encodings, coils; slices come as the fourteenth.
CFL_SLICES = 13
# In which a file's texts must be read.
SECONDS = 30


@dataclass
class KSpace:
    """K-space of a volume; ``kspace[i]`` reads a slice.

    Attributes
    ----------
    path : Path
    layout : {"fastmri", "calgary", "ismrmrd", "numpy", "cfl", "axes"}
    shape : (slices, coils, height, width)
    centred : bool
        The origin of k-space is in the middle, and not at index 0.
    sampled : (height, width) bool array or None
        Of a mask that the file has.
    reference : str or None
        Name of a dataset of reference images.
    attributes : mapping
        What the file says beside; read when it is asked for, while the file is open.
    """

    path: Path
    layout: str
    shape: tuple[int, int, int, int]
    centred: bool = True
    sampled: NDArray[np.bool_] | None = None
    reference: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    _array: Any = None
    _order: str = "scyx"
    _file: Any = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Complex:
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        place = tuple(index % len(self) if axis == "s" else slice(None) for axis in self._order)
        try:
            found = np.asarray(self._array[place])
        except DataError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise DataError(self.path, f"slice {index} cannot be read ({error})") from error
        order = self._order.replace("s", "")
        if self.layout == "calgary":
            found = _paired(found[..., 0::2], found[..., 1::2])
        elif "r" in order:
            found = np.moveaxis(found, order.index("r"), -1)
            found, order = _paired(found[..., 0], found[..., 1]), order.replace("r", "")
        if "c" not in order:
            found, order = found[None], "c" + order
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(found.transpose([order.index(axis) for axis in "cyx"]), np.complex64, order="C")

    def references(self, index: int) -> NDArray[np.float32]:
        """The reference image of a slice."""
        if self.reference is None:
            raise DataError(self.path, "has no reference images")
        try:
            return np.abs(np.asarray(self._file[self.reference][index])).astype(np.float32)
        except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(self.path, f"the reference of slice {index} cannot be read ({error})") from error

    def verdict(self) -> str:
        """What the file was taken for, in a line.

        Examples
        --------
        >>> KSpace(Path("a.h5"), "fastmri", (1, 16, 128, 128)).verdict()
        'fastmri: 1 slice of 16 coils, 128 x 128, centred, no mask, no reference'
        """
        slices, coils, height, width = self.shape
        return (
            f"{self.layout}: {slices} slice{'s' * (slices != 1)} of {coils} coil{'s' * (coils != 1)}, "
            f"{height} x {width}, {'centred' if self.centred else 'origin at 0'}, "
            f"{'no mask' if self.sampled is None else 'a mask'}, {self.reference or 'no reference'}"
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "KSpace":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_kspace(
    path: str | os.PathLike, *, key: str | None = None, axes: str | None = None, centred: bool | None = None
) -> KSpace:
    """Open a file of k-space; nothing but its outline is read.

    Known are fastMRI's HDF5 files (complex ``kspace`` of slices, perhaps coils, height and width, perhaps
    with ``mask`` and ``reconstruction_rss``), those of Calgary-Campinas (real ``kspace``, real and imaginary
    parts of the coils by turns in the last axis), Cartesian ones of ISMRMRD (``dataset/data``), NumPy's
    ``.npy`` and ``.npz``, and BART's pairs of ``.hdr`` and ``.cfl``.

    Parameters
    ----------
    path : str or os.PathLike
    key : str, optional
        Name of the dataset or array; ``"kspace"`` by default, or the only one.
    axes : str, optional
        What the axes are, for any other order: letters of ``"scyxr"`` for slices, coils, height, width and a
        pair of real and imaginary part, for instance ``"yxcs"``.
    centred : bool, optional
        Whether the origin is in the middle. By default it is where most of the energy is.

    Returns
    -------
    KSpace

    Raises
    ------
    DataError
        The file is damaged, has no k-space, or not in such a layout.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from learnsolve.datasets.kspace import open_kspace
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "k.npy"
    >>> np.save(path, np.ones((3, 2, 8, 6), np.complex64))
    >>> with open_kspace(path) as kspace:
    ...     print(kspace.shape, kspace[0].shape)
    (3, 2, 8, 6) (2, 8, 6)
    """
    path = Path(path)
    if axes is not None and (not set("yx") <= set(axes) <= set(AXES) or len(set(axes)) != len(axes)):
        raise ValueError(
            f"axes is {axes!r}; letters of {AXES!r}, each once, y and x among them, are accepted"
        )
    if path.suffix in (".cfl", ".hdr"):
        found = _cfl(path)
    elif path.suffix in (".npy", ".npz"):
        found = _numpy(path, key, axes)
    else:
        found = _hdf5(path, key, axes)
    try:
        found.centred = _centred(found) if centred is None else centred
    except BaseException:
        found.close()
        raise
    return found


def _outline(path: Path, array: Any, layout: str, axes: str | None, file: Any = None) -> KSpace:
    """K-space of an array whose axes are told, or are slices, coils, height, width as far as there are."""
    shape, kind = tuple(array.shape), np.dtype(array.dtype).kind
    order = axes
    if order is None:
        pair = kind != "c" and len(shape) in (3, 4, 5) and shape[-1] == 2
        names = {2: "yx", 3: "syx" if layout == "fastmri" else "cyx", 4: "scyx"}.get(len(shape) - pair)
        if names is None:
            raise DataError(path, f"k-space has shape {shape}; slices, coils, height, width were expected")
        order = names + "r" * pair
    if len(order) != len(shape):
        raise DataError(path, f"k-space has {len(shape)} axes, {shape}; {order!r} are {len(order)}")
    if kind not in "cf" or (kind != "c") != ("r" in order):
        found = f"k-space is {array.dtype} of shape {shape}"
        raise DataError(path, f"{found}; complex numbers, or pairs of real ones, were expected")
    sizes = dict(zip(order, shape, strict=True))
    if sizes.get("r", 2) != 2:
        raise DataError(path, f"the axis of real and imaginary parts has length {sizes['r']}, not 2")
    if 0 in shape:
        raise DataError(path, f"k-space is empty: its shape is {shape}")
    whole = (sizes.get("s", 1), sizes.get("c", 1), sizes["y"], sizes["x"])
    if "s" not in order:
        array, order = _Lone(array), "s" + order
    return KSpace(path, layout, whole, _array=array, _order=order, _file=file)


@dataclass(frozen=True)
class _Lone:
    """An array of one slice."""

    array: Any

    def __getitem__(self, place: tuple[Any, ...]) -> Any:
        return self.array[place[1:]]


class _Attributes(Mapping[str, Any]):
    """Attributes of an HDF5 file, none of which is read before it is asked for.

    k-space does not need them, and of a damaged file HDF5 may look for a text where no memory is: texts of
    variable length are read in a process of its own.
    """

    def __init__(self, path: Path, attributes: Any) -> None:
        self.path, self.attributes = path, attributes
        self._texts: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        try:
            if not self.attributes.get_id(name).dtype.hasobject:
                return self.attributes[name]
            if self._texts is None:
                self._texts = _texts(self.path)
            return self._texts[name]
        except (OSError, RuntimeError, ValueError, TypeError, subprocess.SubprocessError) as error:
            raise DataError(self.path, f"has a damaged attribute {name!r} ({error})") from error

    def __iter__(self) -> Iterator[str]:
        return map(str, self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)


def _texts(path: Path) -> dict[str, Any]:
    """All attributes of a file that JSON can hold, by a process that may die of it."""
    code = (
        "import h5py, json, sys\n"
        "with h5py.File(sys.argv[1]) as file:\n"
        "    print(json.dumps({name: value for name, value in file.attrs.items()}, default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _hdf5(path: Path, key: str | None, axes: str | None) -> KSpace:
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(path, f"is no HDF5 file, or is damaged ({error})") from error
    try:
        return _in_hdf5(path, file, key, axes)
    except DataError:
        file.close()
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        file.close()
        raise DataError(path, f"is damaged ({error})") from error


def _in_hdf5(path: Path, file: Any, key: str | None, axes: str | None) -> KSpace:
    import h5py

    acquired = file.get("dataset")
    if key is None and isinstance(acquired, h5py.Group) and "data" in acquired:
        lines = Acquisitions(path, acquired)
        beside = {"lines left out": lines.left_out} if lines.left_out else {}
        return KSpace(
            path, "ismrmrd", lines.shape, attributes=beside, _array=lines, _order="scyx", _file=file
        )
    name = key or "kspace"
    if name not in file or not isinstance(file[name], h5py.Dataset):
        held = ", ".join(list(file)[:10]) or "nothing"
        raise DataError(path, f"has no dataset {name!r}; it holds {held}")
    data = file[name]
    calgary = axes is None and data.dtype.kind == "f" and data.ndim == 4 and data.shape[-1] % 2 == 0
    if calgary and data.shape[-1] > 2:
        slices, height, width, both = data.shape
        if 0 in data.shape:
            raise DataError(path, f"k-space is empty: its shape is {data.shape}")
        shape = (slices, both // 2, height, width)
        return KSpace(path, "calgary", shape, _array=data, _order="syxc", _file=file)
    found = _outline(path, data, "fastmri" if axes is None else "axes", axes, file)
    found.attributes = _Attributes(path, file.attrs)
    found.reference = next((n for n in ("reconstruction_rss", "reconstruction_esc") if n in file), None)
    if "mask" in file and isinstance(file["mask"], h5py.Dataset):
        mask = np.asarray(file["mask"])
        height, width = found.shape[2:]
        if mask.shape not in ((width,), (height, width)) or mask.dtype.kind not in "bfiu":
            raise DataError(path, f"the mask is {mask.dtype} of shape {mask.shape}; ({width},) was expected")
        found.sampled = np.ascontiguousarray(np.broadcast_to(mask != 0, (height, width)))
    return found


def _numpy(path: Path, key: str | None, axes: str | None) -> KSpace:
    try:
        if path.suffix == ".npy":
            return _outline(path, np.lib.format.open_memmap(path, mode="r"), "numpy", axes)
        with path.open("rb") as raw, np.load(raw) as held:
            names = [key] if key else [name for name in held.files if name == "kspace"] or held.files
            if len(names) != 1 or names[0] not in held.files:
                raise DataError(path, f"holds {', '.join(held.files)}: key must name one of them")
            return _outline(path, held[names[0]], "numpy", axes)
    except (DataError, FileNotFoundError):
        raise
    except Exception as error:
        # What a damaged archive raises is of many kinds.
        raise DataError(path, f"is no array of NumPy's, or is damaged ({error})") from error


def _cfl(path: Path) -> KSpace:
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    text = header.read_text(errors="replace")
    match = re.search(r"#\s*Dimensions\s*\n([0-9 ]+)", text)
    sizes = [int(size) for size in match.group(1).split()] if match else []
    if len(sizes) < 4 or min(sizes) < 1:
        raise DataError(header, "expected '# Dimensions' and on the next line at least four sizes")
    sizes += [1] * (CFL_SLICES + 1 - len(sizes))
    others = [n for n, size in enumerate(sizes) if size > 1 and n not in (0, 1, 3, CFL_SLICES)]
    if others:
        raise DataError(
            header, f"dimension {others[0]} is {sizes[others[0]]}; slices in two dimensions are accepted"
        )
    expected = 8 * int(np.prod(sizes, dtype=object))
    if data.stat().st_size != expected:
        raise DataError(data, f"has {data.stat().st_size} bytes, and its header wants {expected}")
    shape = (sizes[0], sizes[1], sizes[3], sizes[CFL_SLICES])
    array = np.memmap(data, np.complex64, "r", shape=shape, order="F")
    return _outline(path, array, "cfl", "yxcs")


def _paired(real: NDArray[Any], imaginary: NDArray[Any]) -> NDArray[Any]:
    found = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    found.real, found.imag = real, imaginary
    return found


def _centred(kspace: KSpace) -> bool:
    """Whether most of the energy of the slice in the middle is in the middle of k-space."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.square(np.abs(kspace[len(kspace) // 2].astype(np.complex128))).sum(0)
    power = np.where(np.isfinite(power), power, 0)
    height, width = power.shape
    v = np.abs(np.arange(height) - height // 2) < max(1, height / 4)
    u = np.abs(np.arange(width) - width // 2) < max(1, width / 4)
    middle = power[np.ix_(v, u)].sum()
    corners = power[np.ix_(~v, ~u)].sum()
    return bool(middle >= corners)
