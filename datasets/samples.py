"""Files of unit vectors to train on.

HDF5: the dataset ``samples``, one after the other along its first axis, each a chunk of its own; for sets
made of Ritz vectors the dataset ``ritz_values``; and as attributes ``format``, ``version``, ``shape``,
``seed`` and how the set was made.
"""

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.datasets.errors import DataError
from learnsolve.files import noted, replacing

FORMAT, VERSION = "learnsolve samples", 1
CHECKSUM_BYTES = 4  # of each chunk
CHECKSUMS = ("v110", "v110")  # before 1.10, HDF5 had no checksums for all of its own data


def write_samples(
    path: str | os.PathLike,
    vectors: Iterable[Any],
    *,
    seed: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write vectors, each over its norm, in single precision; one at a time is in memory.

    Parameters
    ----------
    path : str or os.PathLike
        The file is there when it is whole.
    vectors : iterable of real arrays or tensors
        All of one shape.
    seed : int, optional
        Noted in the file.
    attributes : mapping of str to str or numbers, optional
        Further notes.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        If there are no vectors, or one is zero, not finite, not real, or of another shape than the first;
        if a note has a name that the format needs.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> path = write_samples("b.h5", [np.array([3.0, 4.0]), np.array([0.0, 2.0])])
    >>> with Samples(path) as data:
    ...     data.batch(range(len(data)))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    notes = dict(attributes or {})
    taken = sorted(notes.keys() & {"format", "version", "shape", "seed"})
    if taken:
        raise ValueError(f"attributes has {taken}, names that the format needs")
    if seed is not None:
        notes["seed"] = seed
    path = Path(path)
    with new_file(path) as file:
        out: Any = None
        for number, vector in enumerate(vectors):
            unit = _unit(vector, number)
            if out is None:
                out = create_samples(file, unit.shape, "float32", notes)
            if unit.shape != out.shape[1:]:
                raise ValueError(f"vector {number} has shape {unit.shape}, the first has {out.shape[1:]}")
            out.resize(number + 1, axis=0)
            out[number] = unit
        if out is None:
            raise ValueError("there are no vectors")
    return path


class Samples:
    """A file of samples, read with suspicion.

    Parameters
    ----------
    path : str or os.PathLike
        The file; it stays open until `close`, or the end of a ``with``.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    values : float64 array or None
        Ritz values, ascending.
    attributes : dict
        What the file notes of its making.

    Raises
    ------
    DataError
        If the file is damaged, cut short, of another format or version, or lacks a field; if a field has
        another shape or dtype than it should, is not stored in full in this file, or holds what cannot be.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> with Samples(write_samples("c.h5", np.eye(10))) as data:
    ...     training, held_out = data.split(0.2, seed=0)
    ...     len(data), data.shape, len(training), data.batch(held_out).shape
    (10, (10,), 8, torch.Size([2, 10]))
    """

    def __init__(self, path: str | os.PathLike) -> None:
        import h5py

        self.path = Path(path)
        open(self.path, "rb").close()  # raises what the operating system has against it, which h5py hides
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(path, f"not a whole HDF5 file ({error})") from error
        try:
            self._open()
        except DataError:
            self.close()
            raise
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            self.close()
            raise DataError(path, f"damaged ({error})") from error

    def _open(self) -> None:
        attributes = {name: self._note(name) for name in self._file.attrs}
        if attributes.pop("format", None) != FORMAT:
            raise DataError(self.path, f"not a file of samples: its attribute 'format' is not {FORMAT!r}")
        version = attributes.pop("version", None)
        if version != VERSION:
            raise DataError(self.path, f"version {version!r} of the format; this reads version {VERSION}")
        self._samples = self._dataset("samples", (np.float32, np.float64))
        self.shape: tuple[int, ...] = tuple(self._samples.shape[1:])
        claimed = attributes.pop("shape", None)
        if claimed != list(self.shape) or not self.shape:
            what = f"samples of shape {self.shape}, but the attribute 'shape' says {claimed}"
            raise DataError(self.path, what)
        self.values: NDArray[np.float64] | None = None
        if "ritz_values" in self._file:
            values = self._dataset("ritz_values", (np.float64,))[...]
            if values.ndim != 1 or not (
                np.isfinite(values).all() and (np.diff(values, prepend=0) >= 0).all()
            ):
                raise DataError(self.path, "expected Ritz values that are finite, not negative and ascending")
            self.values = values
        self.attributes = attributes

    def _note(self, name: str) -> Any:
        try:
            return noted(self._file.attrs, name)
        except ValueError as error:
            raise DataError(self.path, str(error)) from None

    def _dataset(self, name: str, kinds: tuple[type, ...]) -> Any:
        """A field that lies in this file and is stored in full, so that no size can be a lie."""
        import h5py

        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise DataError(self.path, f"the dataset {name!r} is missing")
        found = self._file[name]
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise DataError(self.path, f"{name!r} is not a dataset of this file")
        if found.dtype not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(self.path, f"{name!r} has dtype {found.dtype}, expected {names}")
        if not found.shape or 0 in found.shape:
            raise DataError(self.path, f"{name!r} is empty")
        stored, needed = found.id.get_storage_size(), prod(found.shape) * found.dtype.itemsize
        if found.fletcher32:
            needed += CHECKSUM_BYTES * found.id.get_num_chunks()
        if stored != needed or stored > self.path.stat().st_size:
            raise DataError(self.path, f"{name!r} takes {needed} bytes, but {stored} are stored")
        return found

    def __len__(self) -> int:
        return int(self._samples.shape[0])

    def batch(self, indices: Iterable[int]) -> Tensor:
        """Read some samples.

        Parameters
        ----------
        indices : iterable of int
            From 0 to ``len(self) - 1``, in any order.

        Returns
        -------
        float32 tensor of shape ``(B, *shape)``

        Raises
        ------
        DataError
            If a sample cannot be read, is not finite, or has another norm than one.
        IndexError
            If there is no such sample.
        """
        rows = [operator.index(index) for index in indices]
        for row in rows:
            if not 0 <= row < len(self):
                raise IndexError(f"there is no sample {row}: there are {len(self)}")
        out = np.empty((len(rows), *self.shape), np.float32)
        try:
            for place, row in enumerate(rows):
                self._samples.read_direct(out, np.s_[row], np.s_[place])
        except OSError as error:
            raise DataError(self.path, f"damaged samples ({error})") from error
        found = torch.from_numpy(out)
        sizes = torch.linalg.vector_norm(found.flatten(1), dim=1, dtype=torch.float64)
        for row, norm in zip(rows, sizes.tolist(), strict=True):
            if not abs(norm - 1) < 1e-3:
                raise DataError(self.path, f"sample {row} has the norm {norm:.4g}, expected 1")
        return found

    def split(self, fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Part the samples at random.

        Parameters
        ----------
        fraction : float
            Of the samples that are held out, rounded up.
        seed : int
            Of the choice.

        Returns
        -------
        training, held_out : int64 arrays
            Disjoint, ascending; together they are all.

        Raises
        ------
        ValueError
            If nothing would be left for training.
        """
        held = ceil(fraction * len(self))
        if not 0 <= held < len(self):
            raise ValueError(f"fraction is {fraction}: of {len(self)} samples, {held} would be held out")
        order = np.random.default_rng(seed).permutation(len(self))
        return np.sort(order[held:]), np.sort(order[:held])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def new_file(path: Path) -> Iterator[Any]:
    """An HDF5 file that is there when it is whole."""
    import h5py

    with replacing(path) as part, h5py.File(part, "w", libver=CHECKSUMS) as file:
        yield file


def create_samples(
    file: Any, shape: tuple[int, ...], dtype: str, notes: dict[str, Any], count: int | None = None
) -> Any:
    """The notes, and the dataset of so many samples or of a number yet unknown."""
    for name, note in {"format": FORMAT, "version": VERSION, "shape": shape, **notes}.items():
        file.attrs[name] = np.bytes_(note.encode()) if isinstance(note, str) else note
    most = (count, *shape)
    return file.create_dataset(
        "samples", (count or 0, *shape), dtype, maxshape=most, chunks=(1, *shape), fletcher32=True
    )


def _unit(vector: Any, number: int) -> np.ndarray:
    if isinstance(vector, Tensor):
        vector = vector.detach().to("cpu", torch.promote_types(vector.dtype, torch.float64))
    values = np.asarray(vector)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"vector {number} has dtype {values.dtype}; real numbers are accepted")
    values = values.astype(np.float64)
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"vector {number} has shape {values.shape}")
    largest = float(np.abs(values).max())
    if not np.isfinite(largest):
        raise ValueError(f"vector {number} is not finite")
    if largest == 0:
        raise ValueError(f"vector {number} is zero")
    values /= largest
    return values / np.linalg.norm(values)
