"""Known entries in a file, for those that are more than memory holds."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.completion.entries import Duplicates, Entries, as_entries, merge
from learnsolve.files import noted, replacing
from learnsolve.operators.lines import Lines, sorted_places
from learnsolve.operators.sampled import Sampled

FORMAT = "learnsolve entries 1"
RECORD = np.dtype([("row", np.int32), ("col", np.int32), ("value", np.float64)])
# Entries that are sorted in memory at a time, and that are read at a time.
SORTED, READ = 8_000_000, 4_000_000
# A row or column with fewer entries has none kept aside.
SPARE = 20
PROBES = 100_000


class StoredEntries(Sampled):
    """Entries in an HDF5 file, by row and by column, which are read in blocks.

    `store_entries` makes such a file. `complete` takes it in the place of entries: beside a block, which are
    some 50 MB, only the factors and a few numbers a row are in memory.

    Parameters
    ----------
    path : str or os.PathLike

    Attributes
    ----------
    shape : (m, n)
    nnz : int
        Without those kept aside.
    aside : Entries or None
        Kept aside to judge a completion by.
    probe : Entries
        Some of those that are fitted.

    Raises
    ------
    ValueError
        The file was not made by `store_entries`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        open(path, "rb").close()  # raises what the operating system has against it, which h5py hides
        try:
            self._file = h5py.File(path, "r")
            about = {name: noted(self._file.attrs, name) for name in ("format", "shape", "nnz")}
            if about["format"] != FORMAT:
                raise KeyError
            m, n = (int(size) for size in about["shape"])
            self.shape, self.nnz = (m, n), int(about["nnz"])
            probe, self.aside = self._some("probe"), self._some("aside")
            self._begins = [self._lines(name, size) for name, size in (("by_row", m), ("by_column", n))]
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no entries as learnsolve stores them") from error
        if probe is None:
            raise ValueError(f"{path} holds no entries")
        self.probe = probe

    def _lines(self, name: str, size: int) -> NDArray[np.int64]:
        """Where lines begin; ValueError if that, or what they hold, is not as it was written."""
        group = self._file[name]
        indptr = group["indptr"][:]
        sound = indptr.shape == (size + 1,) and indptr.dtype == np.int64 and indptr[0] == 0
        sound = sound and indptr[-1] == self.nnz and bool((np.diff(indptr) >= 0).all())
        for field, dtype in (("indices", np.int32), ("values", np.float64)):
            data = group[field]
            sound = sound and data.dtype == dtype and data.ndim == 1 and len(data) >= self.nnz
        if not sound:
            raise ValueError
        return indptr

    def _some(self, name: str) -> Entries | None:
        """Entries that are held in memory; None if there are none."""
        parts = tuple(self._file[name][field][:] for field in ("rows", "cols", "values"))
        return as_entries(parts, self.shape, duplicates="keep") if parts[0].size else None

    def blocks(self, transposed: bool = False) -> Iterator[Lines]:
        """All rows, or columns, in blocks of a few million entries."""
        group, indptr = self._file["by_column" if transposed else "by_row"], self._begins[transposed]
        for first, last in _runs(indptr, READ):
            begin, end = int(indptr[first]), int(indptr[last])
            indices, values = group["indices"][begin:end], group["values"][begin:end]
            # Kernels believe what they are given, and the file may have been damaged.
            inside = not indices.size or (indices.min() >= 0 and indices.max() < self.shape[1 - transposed])
            if not (inside and np.isfinite(values).all()):
                raise ValueError(f"{self._file.filename} is damaged: an entry is out of range or not finite")
            yield Lines(first, indptr[first : last + 1] - begin, indices, values, np.empty(0))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "StoredEntries":
        return self

    def __exit__(self, *what: object) -> None:
        self.close()


def store_entries(
    path: str | os.PathLike[str],
    parts: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]],
    shape: tuple[int, int],
    *,
    held_out: int = 10_000,
    duplicates: Duplicates = "average",
    seed: int = 0,
) -> StoredEntries:
    """Sort entries, which come in parts, into a file; memory holds some of them at a time.

    The disk holds them three times over while it works: the file is whole, or not there at all.

    Parameters
    ----------
    path : str or os.PathLike
        The file to make or to replace.
    parts : iterable of (rows, cols, values)
        In any order. All places are below 2^31.
    shape : (m, n)
    held_out : int
        About so many entries, at most 2 %, are kept aside to judge completions by, none of rows or columns
        with fewer than 20.
    duplicates : {"average", "refuse"}
        What to do with a place that comes twice.
    seed : int
        Of those that are kept aside.

    Returns
    -------
    StoredEntries

    Raises
    ------
    ValueError
        A part is not as described, or there is no entry.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np, learnsolve
    >>> from learnsolve.completion import store_entries
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "entries.h5"
    >>> rows, cols = np.divmod(np.arange(600), 20)
    >>> known = store_entries(path, [(rows, cols, (1.0 + rows) * (2.0 + cols))], (30, 20))
    >>> learnsolve.complete(known, 1).success
    True
    """
    if max(shape) >= 2**31:
        raise ValueError(f"shape is {shape}; sides below 2^31 are accepted")
    if held_out < 0:
        raise ValueError(f"held_out is {held_out}; a number of entries is accepted")
    with TemporaryDirectory(dir=Path(path).parent, prefix=".entries-") as folder:
        raw = Path(folder) / "raw"
        counts = _copy(raw, parts, shape)
        nnz = int(counts[0].sum())
        if nnz == 0:
            raise ValueError("no entry is known")
        with replacing(path) as part, h5py.File(part, "w") as file:
            file.attrs["shape"], file.attrs["format"] = shape, np.bytes_(FORMAT)
            rows = _Buckets(folder, "row", counts[0])
            with open(raw, "rb") as stream:
                for records in _records(stream):
                    rows.add(records)
            raw.unlink()
            columns = _Buckets(folder, "col", counts[1])
            chosen = _by_row(file, rows, columns, counts, shape, duplicates, (held_out, seed))
            _by_column(file, columns, shape)
            for name, records in chosen.items():
                group = file.create_group(name)
                for key, values in _columns(records).items():
                    group[key] = values
    return StoredEntries(path)


def _copy(
    raw: Path, parts: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]], shape: tuple[int, int]
) -> list[NDArray[np.int64]]:
    """Check all parts, copy them to a file, and count the entries of rows and columns."""
    counts = [np.zeros(size, np.int64) for size in shape]
    with open(raw, "wb") as stream:
        for part in parts:
            if len(part) != 3:
                raise ValueError(f"a part has {len(part)} arrays; (rows, cols, values) are accepted")
            if np.size(part[0]) == 0:
                continue
            known = as_entries(tuple(part), shape, duplicates="keep")
            records = np.empty(known.nnz, RECORD)
            records["row"], records["col"], records["value"] = known.rows, known.cols, known.values
            records.tofile(stream)
            for count, index in zip(counts, (known.rows, known.cols), strict=True):
                count += np.bincount(index, minlength=count.size)
    return counts


class _Buckets:
    """Files of entries, each with those of a run of lines."""

    def __init__(self, folder: str, field: str, counts: NDArray[np.int64]) -> None:
        indptr = np.concatenate([[0], np.cumsum(counts)])
        self.field, self.runs = field, list(_runs(indptr, SORTED))
        self.paths = [Path(folder) / f"{field}-{number}" for number in range(len(self.runs))]
        self.begins = np.array([first for first, _ in self.runs])

    def add(self, records: NDArray[Any]) -> None:
        """Append entries to the files that they belong to."""
        place = np.searchsorted(self.begins, records[self.field], side="right") - 1
        for number in np.unique(place):
            with open(self.paths[number], "ab") as stream:
                records[place == number].tofile(stream)

    def read(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """First and last line of each file, and its entries; the file is gone then."""
        for (first, last), path in zip(self.runs, self.paths, strict=True):
            records = np.fromfile(path, RECORD) if path.exists() else np.empty(0, RECORD)
            path.unlink(missing_ok=True)
            yield first, last, records


def _by_row(
    file: Any,
    rows: _Buckets,
    columns: _Buckets,
    counts: list[NDArray[np.int64]],
    shape: tuple[int, int],
    duplicates: Duplicates,
    aside: tuple[int, int],
) -> dict[str, NDArray[Any]]:
    """Write the rows, pass their entries on to the columns; returns what is kept aside, and probes."""
    nnz, rng = int(counts[0].sum()), np.random.default_rng(aside[1])
    shares = {"aside": min(aside[0] / nnz, 0.02), "probe": min(PROBES / nnz, 1.0)}
    chosen: dict[str, list[NDArray[Any]]] = {"aside": [], "probe": []}
    writer = _Writer(file.create_group("by_row"), shape[0], nnz)
    for first, last, records in rows.read():
        # A row's number in its bucket keeps what is counted small.
        found = Entries(
            records["row"] - first, records["col"].copy(), records["value"].copy(), (last - first, shape[1])
        )
        i, j, values, _ = sorted_places(found.rows, found.cols, found.values, None, found.shape)
        found = merge(Entries(i, j, values, found.shape), duplicates, first)
        i, j, values = found.rows, found.cols, found.values
        spare = (counts[0][first + i] >= SPARE) & (counts[1][j] >= SPARE)
        out = spare & (rng.random(i.size) < shares["aside"])
        records = np.empty(i.size, RECORD)
        records["row"], records["col"], records["value"] = first + i, j, values
        chosen["aside"].append(records[out])
        records, i = records[~out], i[~out]
        chosen["probe"].append(records[rng.random(i.size) < shares["probe"]])
        writer.add(first, np.bincount(i, minlength=last - first), records["col"], records["value"])
        columns.add(records)
    file.attrs["nnz"] = writer.end()
    kept = {name: np.concatenate(parts) for name, parts in chosen.items()}
    if kept["probe"].size == 0:
        group = file["by_row"]
        kept["probe"] = np.empty(1, RECORD)
        kept["probe"]["row"] = np.searchsorted(group["indptr"][:], 0, side="right") - 1
        kept["probe"]["col"], kept["probe"]["value"] = group["indices"][0], group["values"][0]
    return kept


def _by_column(file: Any, columns: _Buckets, shape: tuple[int, int]) -> None:
    writer = _Writer(file.create_group("by_column"), shape[1], int(file.attrs["nnz"]))
    for first, last, records in columns.read():
        i, j, values, _ = sorted_places(
            records["col"] - first,
            records["row"].copy(),
            records["value"].copy(),
            None,
            (last - first, shape[0]),
        )
        writer.add(first, np.bincount(i, minlength=last - first), j, values)
    writer.end()


class _Writer:
    """Lines, written one run after the other."""

    def __init__(self, group: Any, lines: int, nnz: int) -> None:
        self.group, self.indptr, self.size = group, np.zeros(lines + 1, np.int64), 0
        group.create_dataset("indices", (nnz,), np.int32)
        group.create_dataset("values", (nnz,), np.float64)

    def add(
        self, first: int, counts: NDArray[np.int64], indices: NDArray[np.integer], values: NDArray[np.float64]
    ) -> None:
        self.indptr[first + 1 : first + 1 + counts.size] = counts
        if values.size:
            self.group["indices"][self.size : self.size + values.size] = indices
            self.group["values"][self.size : self.size + values.size] = values
        self.size += values.size

    def end(self) -> int:
        """Write where the lines begin; returns how many entries there are."""
        self.group["indptr"] = np.cumsum(self.indptr)
        return self.size


def _runs(indptr: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Runs of lines, each as long as it can be with at most so many entries; a line is not divided."""
    first, lines = 0, indptr.size - 1
    while first < lines:
        last = int(np.searchsorted(indptr, indptr[first] + most, side="right")) - 1
        last = min(max(last, first + 1), lines)
        yield first, last
        first = last


def _records(stream: IO[bytes]) -> Iterator[NDArray[Any]]:
    while True:
        records = np.fromfile(stream, RECORD, READ)
        if records.size == 0:
            return
        yield records


def _columns(records: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"rows": records["row"].copy(), "cols": records["col"].copy(), "values": records["value"].copy()}
