"""Matrix Market files (``.mtx``, ``.mtx.gz``), read with suspicion and written whole.

The format: https://math.nist.gov/MatrixMarket/formats.html
"""

import gzip
import io
import os
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import scipy.io
import scipy.sparse as sp

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.matrix_market_header import LONGEST_LINE, SYMMETRIES, Header, read_header, shown
from learnsolve.files import replacing

BLOCK = 1 << 24
GZIP_RATIO = 1032
NUMBER_CHARACTERS = b"0123456789+-.eE \t\n"


def read(path: str | os.PathLike, *, max_bytes: int = 1 << 33) -> sp.csr_array | np.ndarray:
    r"""Read a Matrix Market file; trust nothing in it.

    Parameters
    ----------
    path : str or os.PathLike
        A file of text, compressed if its name ends in ``.gz``.
    max_bytes : int
        Refuse a matrix that would take more memory than this, before any is taken.
        Reading takes up to about four times the matrix's own memory.

    Returns
    -------
    (m, n) scipy.sparse.csr_array or (m, n) numpy.ndarray
        Sparse for the coordinate format (indices sorted, duplicates summed), dense for the array format.
        float64 for the fields real and pattern (all ones), int64 for integer, complex128 for complex.
        Symmetric, skew-symmetric and Hermitian matrices come back in full.

    Raises
    ------
    DataError
        If the file is damaged, cut short, goes on after its last entry, or says one thing and holds another:
        an unknown banner; sizes that are negative, too large or more than the file has room for;
        more or fewer entries than announced; indices out of range, or in the triangle that the symmetry
        leaves out; values that are not finite or not of the announced field; a last line without its end.
        The message names the file, the line and what was expected there.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.datasets import matrix_market
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "A.mtx"
    >>> _ = path.write_text("%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 1 4\n2 1 -1\n")
    >>> matrix_market.read(path).toarray()
    array([[ 4., -1.],
           [-1.,  0.]])
    """
    header, records = records_of(path, max_bytes)
    return _sparse(records, header, path) if header.format == "coordinate" else _dense(records, header, path)


def records_of(path: str | os.PathLike, max_bytes: int) -> tuple[Header, np.ndarray]:
    """Header and checked entries of a file, as `read` describes it."""
    compressed = os.fspath(path).endswith(".gz")
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        stream: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            header, lines, start = read_header(stream, path)
            room = size * GZIP_RATIO if compressed else size - start
            _check_sizes(header, path, lines, room, max_bytes)
            records = _body(stream, path, header, lines)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(path, f"the compressed data is damaged or cut short ({error})") from error
    return header, records


def write(
    path: str | os.PathLike,
    matrix: Any,
    *,
    comment: str = "",
    symmetry: str = "auto",
    precision: int | None = None,
) -> None:
    """Write a Matrix Market file; the file at ``path`` is replaced only when the new one is whole.

    Parameters
    ----------
    path : str or os.PathLike
        Compressed if the name ends in ``.gz``.
    matrix : (m, n) scipy.sparse matrix or array, or (m, n) or (n,) array_like
        Sparse matrices are written in the coordinate format, others in the array format.
        A vector is written as a column, booleans as integers.
    comment : str
        Goes below the banner.
    symmetry : str
        ``"general"``, ``"symmetric"``, ``"skew-symmetric"``, ``"hermitian"``, or ``"auto"``: the one that
        the matrix has.
    precision : int, optional
        Digits of a value; left out, as many as it takes to get the same number back in its own precision.

    Raises
    ------
    ValueError
        If the matrix is not finite, has not one or two dimensions, or has not the given symmetry.
    TypeError
        If its entries are not numbers.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.datasets import matrix_market
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "b.mtx.gz"
    >>> matrix_market.write(path, [1.0, 0.1])
    >>> matrix_market.read(path).ravel().tolist()
    [1.0, 0.1]
    """
    matrix = _writable(matrix)
    found = _symmetry(matrix) if symmetry == "auto" else symmetry
    if found not in SYMMETRIES:
        raise ValueError(f"symmetry must be 'auto' or one of {SYMMETRIES}, not {symmetry!r}")
    if not _has(matrix, found):
        raise ValueError(f"the matrix is not {found}")
    options = {
        "comment": comment,
        "field": {"i": "integer", "f": "real", "c": "complex"}[matrix.dtype.kind],
        "symmetry": found,
        "precision": precision,
    }
    with replacing(path) as part, open(part, "wb") as raw:
        if os.fspath(path).endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
                scipy.io.mmwrite(stream, matrix, **options)
        else:
            scipy.io.mmwrite(raw, matrix, **options)


def _check_sizes(header: Header, path: Any, line: int, room: int, max_bytes: int) -> None:
    shortest = max(2 * len(header.record.names or ()), 2)
    most = (room + 1) // shortest
    if header.entries > most:
        what = f"{header.entries} entries announced, but the file has room for {most} at most"
        raise DataError(path, what, line)
    if header.bytes > max_bytes:
        what = f"the {header.rows} x {header.columns} matrix would take {header.bytes} bytes of memory"
        raise DataError(path, f"{what}, allowed are max_bytes={max_bytes}", line)


def _body(stream: BinaryIO, path: Any, header: Header, line: int) -> np.ndarray:
    """All entries, each checked on its own."""
    pieces = [np.empty(0, header.record)]
    count = 0
    for block in _blocks(stream, path, line):
        try:
            records = _records(block, header.record)
        except ValueError as error:
            offset, text = _first_bad(block, header.record)
            what = f"expected '{' '.join(header.record.names or ())}', found {shown(text)}"
            raise DataError(path, what, line + 1 + offset) from error
        for wrong, what in _wrong(records, header):
            if wrong.any():
                entry = int(np.argmax(wrong))
                offset, text = _nth_entry(block, entry)
                raise DataError(path, f"{what}: {shown(text)}", line + 1 + offset)
        count += len(records)
        if count > header.entries:
            offset, text = _nth_entry(block, header.entries - count + len(records))
            what = f"{header.entries} entries announced, but there are more: {shown(text)}"
            raise DataError(path, what, line + 1 + offset)
        pieces.append(records)
        line += block.count(b"\n")
    if count < header.entries:
        raise DataError(path, f"{header.entries} entries announced, but the file ends after {count}", line)
    return np.concatenate(pieces)


def _blocks(stream: BinaryIO, path: Any, line: int) -> Iterator[bytes]:
    """The rest of the stream in pieces of whole lines."""
    rest = b""
    while chunk := stream.read(BLOCK):
        text = rest + chunk
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        if cut:
            line += text.count(b"\n")
            yield text[:cut]
        if len(rest) > LONGEST_LINE:
            raise DataError(path, f"the line is longer than {LONGEST_LINE} bytes", line + 1)
    if rest:
        what = "the last line has no line end, so it may have been cut short (add one if it is whole)"
        raise DataError(path, what, line + 1)


def _records(block: bytes, record: np.dtype) -> np.ndarray:
    """The lines of ``block`` as records; `ValueError` unless every line is blank or exactly one record."""
    block = block.replace(b"\r\n", b"\n")
    if block.translate(None, NUMBER_CHARACTERS):
        raise ValueError("not a number")
    if not block.strip():
        return np.empty(0, record)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.loadtxt(io.StringIO(block.decode("ascii")), dtype=record, comments=None, ndmin=1)


def _first_bad(block: bytes, record: np.dtype) -> tuple[int, bytes]:
    """The first line of a bad block that is bad by itself, by bisection."""
    lines = block.split(b"\n")
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _records(b"\n".join(lines[low:middle]) + b"\n", record)
            low = middle
        except ValueError:
            high = middle
    return low, lines[low]


def _nth_entry(block: bytes, entry: int) -> tuple[int, bytes]:
    """The line of an entry: blank lines hold none."""
    filled = ((offset, line) for offset, line in enumerate(block.split(b"\n")) if line.strip())
    return next(item for index, item in enumerate(filled) if index == entry)


def _wrong(records: np.ndarray, header: Header) -> Iterator[tuple[np.ndarray, str]]:
    """Masks of the entries that cannot be, each with a word on what they should be."""
    names = records.dtype.names or ()
    if header.format == "coordinate":
        row, column = records["row"], records["column"]
        yield (row < 1) | (row > header.rows), f"expected a row from 1 to {header.rows}"
        yield (column < 1) | (column > header.columns), f"expected a column from 1 to {header.columns}"
        if header.symmetry != "general":
            yield row < column, f"a {header.symmetry} file holds no entry above the diagonal"
        if header.symmetry == "skew-symmetric":
            nonzero = np.zeros(len(records), bool)
            for name in names[2:]:
                nonzero |= records[name] != 0
            yield nonzero & (row == column), "the diagonal of a skew-symmetric matrix is zero"
        if header.symmetry == "hermitian":
            yield (records["imag"] != 0) & (row == column), "the diagonal of a Hermitian matrix is real"
    for name in names:
        if records.dtype[name].kind == "f":
            yield ~np.isfinite(records[name]), "expected a finite value"


def _values(records: np.ndarray, header: Header) -> np.ndarray:
    if header.field == "pattern":
        return np.ones(len(records))
    if header.field != "complex":
        return np.ascontiguousarray(records["value"])
    values = np.empty(len(records), np.complex128)
    values.real = records["real"]
    values.imag = records["imag"]
    return values


def _mirrored(values: np.ndarray, symmetry: str) -> np.ndarray:
    if symmetry == "skew-symmetric":
        return -values
    return values.conj() if symmetry == "hermitian" else values


def _sparse(records: np.ndarray, header: Header, path: Any) -> sp.csr_array:
    row, column, values = records["row"] - 1, records["column"] - 1, _values(records, header)
    if header.symmetry != "general":
        off = row != column
        row, column, values = (
            np.concatenate([row, column[off]]),
            np.concatenate([column, row[off]]),
            np.concatenate([values, _mirrored(values[off], header.symmetry)]),
        )
    shape = (header.rows, header.columns)
    matrix = sp.coo_array((values, (row, column)), shape=shape).tocsr()
    matrix.sort_indices()
    if matrix.nnz < len(values):
        total = matrix
        if header.field == "integer":
            total = sp.coo_array((values.astype(np.float64), (row, column)), shape=shape).tocsr()
        limit = 2.0**63 if header.field == "integer" else np.inf
        if not (np.abs(total.data) < limit).all():
            raise DataError(path, "the sum of the entries in one place is too large")
    return matrix


def _dense(records: np.ndarray, header: Header, path: Any) -> np.ndarray:
    values = _values(records, header)
    if header.symmetry == "general":
        return np.ascontiguousarray(values.reshape(header.columns, header.rows).T)
    matrix = np.zeros((header.rows, header.columns), values.dtype)
    column, row = np.triu_indices(header.rows, k=1 if header.symmetry == "skew-symmetric" else 0)
    matrix[column, row] = _mirrored(values, header.symmetry)
    matrix[row, column] = values
    if header.symmetry == "hermitian" and np.diagonal(matrix).imag.any():
        place = int(np.argmax(np.diagonal(matrix).imag != 0)) + 1
        raise DataError(path, f"the diagonal of a Hermitian matrix is real; entry ({place}, {place}) is not")
    return matrix


def _writable(matrix: Any) -> Any:
    """CSR or a 2-D array, finite, of a dtype that the format has."""
    if not sp.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1)
    if matrix.ndim != 2:
        raise ValueError(f"a matrix or a vector is needed, not an array of shape {matrix.shape}")
    kind = matrix.dtype.kind
    if kind not in "biufc":
        raise TypeError(f"numbers are needed, not entries of dtype {matrix.dtype}")
    if kind in "biu":
        if kind == "u" and matrix.size and matrix.max() > np.iinfo(np.int64).max:
            raise ValueError("integers must be below 2**63")
        matrix = matrix.astype(np.int64)
    elif matrix.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        matrix = matrix.astype(np.complex128 if kind == "c" else np.float64)
    if sp.issparse(matrix):
        matrix = sp.csr_array(matrix, copy=True)
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data if sp.issparse(matrix) else matrix).all():
        raise ValueError("the matrix holds values that are not finite")
    return matrix


def _has(matrix: Any, symmetry: str) -> bool:
    if symmetry == "general":
        return True
    if matrix.shape[0] != matrix.shape[1]:
        return False
    if symmetry == "hermitian" and matrix.dtype.kind != "c":
        return False
    mirror = _mirrored(matrix.T, symmetry)
    return (matrix != mirror).nnz == 0 if sp.issparse(matrix) else np.array_equal(matrix, mirror)


def _symmetry(matrix: Any) -> str:
    return next(name for name in (*SYMMETRIES[1:], "general") if _has(matrix, name))
