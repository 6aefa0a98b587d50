"""Data of variable length in HDF5 files, found without following a pointer unchecked.

HDF5 keeps such data in heaps that records point into, and its library ends the process where a damaged file
points elsewhere. Here the records' bytes are read from where the library says that they lie, and heaps by
their own layout (HDF5 file format specification, III.E and IV.A.2.d), everything within bounds.
"""

import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError

DEFLATE, SHUFFLE = 1, 2
POINTER = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
# Bytes of all records, and of one heap, and how many heaps are kept.
LARGEST, LARGEST_HEAP, KEPT = 1 << 30, 1 << 30, 16


class Member(NamedTuple):
    """Where in a record it is, what it is made of, and whether records only point to it."""

    offset: int
    dtype: np.dtype
    pointed_to: bool


class Records:
    """A one-dimensional dataset whose records may hold data of variable length.

    Parameters
    ----------
    path : Path
        Of the file.
    dataset : h5py.Dataset
        Of the file, open.

    Raises
    ------
    DataError
        The dataset is of another kind, is compressed in a way that is not read here, or has no room in the
        file.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self._path, self._base = path, int(dataset.file.userblock_size)
        self._bytes = path.stat().st_size
        kind = dataset.id.get_type()
        self._members, self._size = _members(path, kind)
        if dataset.ndim != 1:
            raise DataError(path, f"{dataset.name} has {dataset.ndim} axes; one is accepted")
        count = int(dataset.shape[0])
        if count * self._size > min(LARGEST, 1024 * self._bytes):
            raise DataError(
                path, f"{dataset.name} has {count} records by its own account, and no room for them"
            )
        self._heaps: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        with path.open("rb") as stream:
            self._records = self._read(stream, dataset, count)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def member(self, name: str = "") -> NDArray[Any]:
        """What all records hold under a name; of records that are no compounds the name is empty."""
        offset, dtype, pointed_to = self._members[name]
        if pointed_to:
            raise DataError(self._path, f"{name!r} is of variable length")
        part = self._records[:, offset : offset + dtype.itemsize]
        return np.ascontiguousarray(part).view(dtype)[:, 0]

    def values(self, row: int, name: str = "") -> NDArray[Any]:
        """What a record points to under a name.

        Raises
        ------
        DataError
            It points to nothing of that length.
        """
        offset, dtype, pointed_to = self._members[name]
        if not pointed_to:
            raise DataError(self._path, f"{name!r} is not of variable length")
        raw = np.ascontiguousarray(self._records[row, offset : offset + POINTER.itemsize])
        length, address, index = raw.view(POINTER)[0].tolist()
        if length == 0:
            return np.zeros(0, dtype)
        held = self._heap(int(address)).get(int(index))
        if held is None or len(held) < length * dtype.itemsize:
            raise DataError(self._path, f"record {row} points to data that are not there")
        return np.frombuffer(held, dtype, length)

    def _at(self, stream: BinaryIO, begin: int, size: int) -> bytes:
        begin += self._base
        if begin < 0 or size < 0 or begin + size > self._bytes:
            raise DataError(self._path, "points beyond its end")
        stream.seek(begin)
        return stream.read(size)

    def _read(self, stream: BinaryIO, dataset: Any, count: int) -> NDArray[np.uint8]:
        found = np.zeros((count, self._size), np.uint8)
        if not dataset.chunks:
            begin = dataset.id.get_offset()
            if begin is not None and count:
                # What the library says counts from the file's first byte.
                data = self._at(stream, int(begin) - self._base, found.size)
                found[:] = np.frombuffer(data, np.uint8).reshape(found.shape)
            return found
        length = int(dataset.chunks[0])
        filters = _filters(self._path, dataset)
        chunks: list[tuple[int, int, int, int]] = []
        dataset.id.chunk_iter(
            lambda info: chunks.append((info.chunk_offset[0], info.filter_mask, info.byte_offset, info.size))
        )
        for first, mask, begin, size in chunks:
            if not 0 <= first < count:
                continue
            data = self._at(stream, int(begin) - self._base, int(size))
            for place in range(len(filters) - 1, -1, -1):
                if not mask >> place & 1:
                    data = self._undone(filters[place], data, length * self._size)
            rows = min(length, count - first)
            if len(data) < rows * self._size:
                raise DataError(self._path, f"the records from {first} on are cut short")
            part = np.frombuffer(data, np.uint8, rows * self._size)
            found[first : first + rows] = part.reshape(rows, self._size)
        return found

    def _undone(self, kind: int, data: bytes, size: int) -> bytes:
        if kind == DEFLATE:
            try:
                return zlib.decompressobj().decompress(data, size)
            except zlib.error as error:
                raise DataError(self._path, f"is damaged ({error})") from None
        whole = len(data) // self._size
        planes = np.frombuffer(data, np.uint8, whole * self._size).reshape(self._size, whole)
        return planes.T.tobytes()

    def _heap(self, address: int) -> dict[int, bytes]:
        """The objects of a heap by their numbers."""
        if address in self._heaps:
            self._heaps.move_to_end(address)
            return self._heaps[address]
        with self._path.open("rb") as stream:
            head = self._at(stream, address, 16)
            size = int.from_bytes(head[8:], "little")
            if head[:5] != b"GCOL\x01" or not 16 <= size <= LARGEST_HEAP:
                raise DataError(self._path, "points to a heap that is none")
            data = self._at(stream, address, size)
        objects: dict[int, bytes] = {}
        place = 16
        while place + 16 <= size:
            index = int.from_bytes(data[place : place + 2], "little")
            length = int.from_bytes(data[place + 8 : place + 16], "little")
            if index == 0:
                break
            objects[index] = data[place + 16 : place + 16 + length]
            place += 16 + (length + 7) // 8 * 8
        self._heaps[address] = objects
        if len(self._heaps) > KEPT:
            self._heaps.popitem(last=False)
        return objects


def _members(path: Path, kind: Any) -> tuple[dict[str, Member], int]:
    """The members of a compound, or a single one without a name of any other type; and a record's size.

    The library tells of places in memory, where a text takes 8 bytes that takes 16 in the file.
    """
    import h5py

    if not isinstance(kind, h5py.h5t.TypeCompoundID):
        member = _member(path, kind, 0)
        return {"": member}, _taken(member)
    places = sorted((int(kind.get_member_offset(i)), i) for i in range(kind.get_nmembers()))
    found, moved = {}, 0
    for offset, i in places:
        inner = kind.get_member_type(i)
        member = _member(path, inner, offset + moved)
        found[kind.get_member_name(i).decode("utf-8", "replace")] = member
        moved += _taken(member) - int(inner.get_size())
    size = int(kind.get_size()) + moved
    if any(member.offset + _taken(member) > size for member in found.values()):
        raise DataError(path, "a record's members are beyond its end")
    return found, size


def _taken(member: Member) -> int:
    """Bytes of a record."""
    return POINTER.itemsize if member.pointed_to else member.dtype.itemsize


def _member(path: Path, kind: Any, offset: int) -> Member:
    import h5py

    if isinstance(kind, h5py.h5t.TypeVlenID):
        inner = kind.get_super().dtype
    elif isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
        inner = np.dtype(np.uint8)
    else:
        dtype = kind.dtype
        if dtype.hasobject or dtype.itemsize != kind.get_size() or dtype.itemsize == 0:
            raise DataError(path, f"holds data of the type {dtype}, which is not accepted")
        return Member(offset, dtype, False)
    if inner.hasobject or inner.itemsize == 0:
        raise DataError(path, f"holds data of variable length of the type {inner}, which is not accepted")
    return Member(offset, inner, True)


def _filters(path: Path, dataset: Any) -> list[int]:
    """By which chunks were compressed, in the order in which they were applied."""
    plist = dataset.id.get_create_plist()
    kinds = [int(plist.get_filter(i)[0]) for i in range(plist.get_nfilters())]
    unknown = set(kinds) - {DEFLATE, SHUFFLE}
    if unknown:
        raise DataError(
            path, f"{dataset.name} is compressed by HDF5's filters {sorted(unknown)}; gzip is accepted"
        )
    return kinds
