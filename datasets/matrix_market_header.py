"""The first lines of a Matrix Market file: what it says of itself."""

import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from learnsolve.datasets.errors import DataError

LONGEST_LINE = 1 << 16
FORMATS = ("coordinate", "array")
FIELDS = ("real", "integer", "complex", "pattern")
SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")
INDICES: list = [("row", np.int64), ("column", np.int64)]
VALUES: dict[str, list] = {
    "real": [("value", np.float64)],
    "integer": [("value", np.int64)],
    "complex": [("real", np.float64), ("imag", np.float64)],
    "pattern": [],
}


@dataclass(frozen=True)
class Header:
    """What the first lines of a file say of the rest."""

    format: str
    field: str
    symmetry: str
    rows: int
    columns: int
    entries: int

    @property
    def record(self) -> np.dtype:
        """One line of the body."""
        return np.dtype((INDICES if self.format == "coordinate" else []) + VALUES[self.field])

    @property
    def itemsize(self) -> int:
        """Bytes of one value in memory."""
        return 16 if self.field == "complex" else 8

    @property
    def bytes(self) -> int:
        """Bytes of the matrix in memory."""
        if self.format == "array":
            return self.rows * self.columns * self.itemsize
        stored = self.entries if self.symmetry == "general" else 2 * self.entries
        return stored * (8 + self.itemsize) + 8 * (self.rows + 1)


def read_header(stream: BinaryIO, path: Any) -> tuple[Header, int, int]:
    """The header, the number of its lines and of its bytes."""
    lines = 0
    start = 0

    def next_line() -> str:
        nonlocal lines, start
        line = stream.readline(LONGEST_LINE)
        lines += 1
        start += len(line)
        if not line.endswith(b"\n"):
            what = "the file ends inside its header" if len(line) < LONGEST_LINE else "the line is too long"
            raise DataError(path, what, lines)
        return line.decode("latin-1").strip()

    banner = next_line().lower().split()
    if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
        expected = "%%MatrixMarket matrix FORMAT FIELD SYMMETRY"
        raise DataError(path, f"not a Matrix Market file: its first line should be '{expected}'", lines)
    layout, field, symmetry = banner[2:]
    for word, known in ((layout, FORMATS), (field, FIELDS), (symmetry, SYMMETRIES)):
        if word not in known:
            raise DataError(path, f"expected one of {', '.join(known)} in the banner, found {word!r}", lines)
    if (
        (layout == "array" and field == "pattern")
        or (symmetry == "hermitian" and field != "complex")
        or (symmetry == "skew-symmetric" and field == "pattern")
    ):
        raise DataError(path, f"there is no such matrix as {layout} {field} {symmetry}", lines)

    line = next_line()
    while not line or line.startswith("%"):
        line = next_line()
    words = line.split()
    names = ["rows", "columns", "entries"][: 3 if layout == "coordinate" else 2]
    if len(words) != len(names) or not all(re.fullmatch("[0-9]{1,18}", word) for word in words):
        expected = f"expected the sizes ({', '.join(names)}: numbers not below zero, of at most 18 digits)"
        raise DataError(path, f"{expected}, found {shown(line)}", lines)
    sizes = [int(word) for word in words]
    rows, columns = sizes[:2]
    if symmetry != "general" and rows != columns:
        raise DataError(path, f"a {symmetry} matrix must be square, this one is {rows} x {columns}", lines)
    if layout == "coordinate":
        entries = sizes[2]
    else:
        entries = {
            "general": rows * columns,
            "skew-symmetric": rows * (rows - 1) // 2,
        }.get(symmetry, rows * (rows + 1) // 2)
    return Header(layout, field, symmetry, rows, columns, entries), lines, start


def shown(text: str | bytes) -> str:
    """A line of a file that may hold anything, fit to print."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    text = text.strip()
    return ascii(text if len(text) <= 60 else text[:57] + "...")
