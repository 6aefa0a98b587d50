"""Lines of text, each with a row, a column, a value and perhaps a time, as arrays."""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError
from learnsolve.datasets.matrix_market_header import LONGEST_LINE, shown

BLOCK = 1 << 22
LONGEST_ID = 255
MARK = b"\x1f"
UNUSUAL = b'"\0\r \t\x0b\x0c' + MARK
POWERS = np.array([float(10**power) for power in range(16)])
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
PLAIN_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,17}")


class Ids(NamedTuple):
    """Names, each once and ascending, and for each entry the place of its own among them."""

    labels: NDArray[Any]
    codes: NDArray[np.int64]


class Part(NamedTuple):
    """Entries of a file."""

    rows: Ids
    cols: Ids
    values: NDArray[np.float64]
    times: NDArray[np.int64] | None


class Layout(NamedTuple):
    """How a line is read."""

    separator: bytes
    row: int
    col: int
    value: int
    time: int | None

    @property
    def fields(self) -> int:
        """How many fields a line has at least."""
        return 1 + max(self.row, self.col, self.value, -1 if self.time is None else self.time)


def parts_of(
    stream: BinaryIO,
    path: Any,
    separator: bytes,
    columns: Sequence[int | str] | None,
    skip_header: bool | None,
    max_bytes: int,
) -> list[Part]:
    """All ratings, block by block."""
    line, text = _next_line(stream, path, 0)
    first = _fields(text.removeprefix(b"\xef\xbb\xbf"), separator, path, line)
    by_name = columns is not None and any(isinstance(column, str) for column in columns)
    if skip_header is None and not by_name:
        chosen = [first[c] for c in (columns or range(3))[:3] if isinstance(c, int) and c < len(first)]
        skip_header = len(chosen) == 3 and not any(NUMBER.fullmatch(field) for field in chosen)
    if skip_header or by_name:
        names, (line, text) = first, _next_line(stream, path, line)
        first = _fields(text, separator, path, line)
    else:
        names, text = [], text.removeprefix(b"\xef\xbb\xbf")
    layout = _layout(separator, columns, names, first, path)
    parts = []
    room = max_bytes
    line -= 1
    for block in _blocks(stream, path, text, line):
        block = block.replace(b"\r\n", b"\n")
        if block.strip():
            part = _plain(block, layout) or _careful(block, layout, path, line)
            room -= 32 * len(part.values)
            if room < 0:
                raise DataError(path, f"the ratings would take more memory than max_bytes={max_bytes}")
            parts.append(part)
        line += block.count(b"\n")
    return parts


def _next_line(stream: BinaryIO, path: Any, line: int) -> tuple[int, bytes]:
    """The next line that is not blank, with its number."""
    while text := stream.readline(LONGEST_LINE):
        line += 1
        if len(text) == LONGEST_LINE:
            raise DataError(path, f"the line is longer than {LONGEST_LINE} bytes", line)
        if text.strip():
            return line, text
    raise DataError(path, "the file holds no ratings")


def _layout(
    separator: bytes,
    columns: Sequence[int | str] | None,
    names: list[bytes],
    first: list[bytes],
    path: Any,
) -> Layout:
    if columns is None:
        timed = len(first) > 3 and INTEGER.fullmatch(first[3])
        return Layout(separator, 0, 1, 2, 3 if timed else None)
    places = []
    for column in columns:
        if isinstance(column, int):
            places.append(column)
        elif column.encode() in names:
            places.append(names.index(column.encode()))
        else:
            header = ", ".join(shown(name) for name in names)
            raise DataError(path, f"expected a column {column!r} in the header, found {header}")
    return Layout(separator, places[0], places[1], places[2], places[3] if len(places) > 3 else None)


def _blocks(stream: BinaryIO, path: Any, rest: bytes, line: int) -> Iterator[bytes]:
    """What is left of the stream in pieces of whole lines, after a piece that is there already."""
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
        yield rest if rest.endswith(b"\n") else rest + b"\n"


def _plain(block: bytes, layout: Layout) -> Part | None:
    """The ratings of a block whose lines are all alike and without frills; None if it is not one."""
    unusual = UNUSUAL.replace(layout.separator, b"")
    if len(block.translate(None, unusual)) < len(block):
        return None
    mark = layout.separator
    if len(mark) > 1:
        block = block.replace(mark, MARK)
        mark = MARK
    text = np.frombuffer(block, dtype=np.uint8)
    stops = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate([[0], stops[:-1] + 1])
    places = np.flatnonzero(text == mark[0])
    each, odd = divmod(len(places), len(stops))
    if odd or each + 1 < layout.fields:
        return None
    marks = places.reshape(len(stops), each)
    if (marks[:, 0] < starts).any() or (marks[:, -1] > stops).any():
        return None

    def field(place: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return (
            starts if place == 0 else marks[:, place - 1] + 1,
            stops if place == each else np.ascontiguousarray(marks[:, place]),
        )

    rows, cols = (_ids(text, *field(place)) for place in (layout.row, layout.col))
    values = _decimals(text, *field(layout.value))
    times = None if layout.time is None else _digits(text, *field(layout.time))
    if rows is None or cols is None or values is None or (times is None and layout.time is not None):
        return None
    return Part(rows, cols, values, times)


def _digits(
    text: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Integers without sign; None if anything else is among them."""
    widths = stops - starts
    if widths.min() < 1 or widths.max() > 18:
        return None
    numbers = np.zeros(len(starts), dtype=np.int64)
    for place in range(widths.max()):
        here = slice(None) if place < widths.min() else np.flatnonzero(widths > place)
        digits = text[starts[here] + place] - np.uint8(48)
        if (digits > 9).any():
            return None
        numbers[here] = 10 * numbers[here] + digits
    return numbers


def _decimals(
    text: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Numbers of up to 15 digits, perhaps with a minus or a point; None if anything else is among them.

    The digits and the power of ten are exact, so that their quotient is what `float` makes of the text.
    """
    negative = text[starts] == ord("-")
    starts = starts + negative
    widths = stops - starts
    if widths.min() < 1 or widths.max() > 16:
        return None
    digits = np.zeros(len(starts), dtype=np.int64)
    after = np.zeros(len(starts), dtype=np.int64)
    points = np.zeros(len(starts), dtype=np.int64)
    for place in range(widths.max()):
        here = slice(None) if place < widths.min() else np.flatnonzero(widths > place)
        found = text[starts[here] + place]
        point = found == ord(".")
        digit = found - np.uint8(48)
        if ((digit > 9) & ~point).any():
            return None
        digits[here] = np.where(point, digits[here], 10 * digits[here] + digit)
        after[here] += (points[here] > 0) & ~point
        points[here] += point
    given = widths - points
    if points.max() > 1 or given.min() < 1 or given.max() > 15:
        return None
    values = digits / POWERS[after]
    return np.where(negative, -values, values)


def _ids(text: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Ids | None:
    """Names of any kind; None if one is empty or too long."""
    widths = stops - starts
    if not 1 <= widths.min() <= widths.max() <= LONGEST_ID:
        return None
    if not ((text[starts] == ord("0")) & (widths > 1)).any():
        numbers = _digits(text, starts, stops)
        if numbers is not None:
            return _numbered(numbers)
    names = np.zeros((len(starts), widths.max()), dtype=np.uint8)
    for place in range(widths.max()):
        here = np.flatnonzero(widths > place)
        names[here, place] = text[starts[here] + place]
    return _named(names.view(f"S{names.shape[1]}").ravel())


def _numbered(numbers: NDArray[np.int64]) -> Ids:
    low = numbers.min()
    span = int(numbers.max()) - int(low) + 1
    if span > 16 * len(numbers):
        return Ids(*np.unique(numbers, return_inverse=True))
    seen = np.zeros(span, dtype=bool)
    seen[numbers - low] = True
    return Ids(np.flatnonzero(seen) + low, (np.cumsum(seen) - 1)[numbers - low])


def _named(names: NDArray[np.bytes_]) -> Ids:
    labels, codes = np.unique(names, return_inverse=True)
    if not all(PLAIN_INTEGER.fullmatch(label) for label in labels.tolist()):
        return Ids(labels, codes)
    ordered = _numbered(labels.astype(np.int64))
    return Ids(ordered.labels, ordered.codes[codes])


def _careful(block: bytes, layout: Layout, path: Any, line: int) -> Part:
    """The ratings of a block, line by line."""
    names: tuple[list[bytes], list[bytes]] = ([], [])
    values: list[float] = []
    times: list[int] = []
    for number, text in enumerate(block.split(b"\n"), line + 1):
        if not text.strip():
            continue
        fields = _fields(text, layout.separator, path, number)
        if len(fields) < layout.fields:
            apart = ascii(layout.separator.decode())
            what = f"expected at least {layout.fields} fields with {apart} between them, found {len(fields)}"
            raise DataError(path, f"{what}: {shown(text)}", number)
        for place, ids in zip((layout.row, layout.col), names, strict=True):
            if not 1 <= len(fields[place]) <= LONGEST_ID:
                what = f"expected a name of 1 to {LONGEST_ID} bytes in field {place + 1}"
                raise DataError(path, f"{what}, found {shown(fields[place])}", number)
            ids.append(fields[place])
        value = float(fields[layout.value]) if NUMBER.fullmatch(fields[layout.value]) else math.nan
        if not math.isfinite(value):
            what = f"expected a finite number in field {layout.value + 1}"
            raise DataError(path, f"{what}, found {shown(fields[layout.value])}", number)
        values.append(value)
        if layout.time is not None:
            if not INTEGER.fullmatch(fields[layout.time]):
                what = f"expected an integer, the time, in field {layout.time + 1}"
                raise DataError(path, f"{what}, found {shown(fields[layout.time])}", number)
            times.append(int(fields[layout.time]))
    rows, cols = (_named(np.array(ids)) for ids in names)
    return Part(rows, cols, np.array(values), None if layout.time is None else np.array(times))


def _fields(text: bytes, separator: bytes, path: Any, line: int) -> list[bytes]:
    """The fields of a line, without the blanks around them."""
    if b"\0" in text:
        raise DataError(path, "the line holds a NUL byte: not a file of text", line)
    text = text.rstrip(b"\r\n")
    fields = text.split(separator)
    if b'"' in text and len(separator.decode()) == 1:
        whole = text.decode("utf-8", "surrogateescape")
        try:
            quoted = next(csv.reader([whole], delimiter=separator.decode(), strict=True))
        except csv.Error as error:
            raise DataError(path, f"the quotes do not match ({error}): {shown(text)}", line) from error
        fields = [field.encode("utf-8", "surrogateescape") for field in quoted]
    return [field.strip() for field in fields]


def merged(parts: list[Ids], path: Any) -> Ids:
    """The names of all parts as one; strings if they are not integers in all of them."""
    lists = [part.labels for part in parts]
    if any(labels.dtype.kind == "S" for labels in lists):
        lists = [labels.astype(np.bytes_) for labels in lists]
    labels, places = np.unique(np.concatenate(lists), return_inverse=True)
    ends = np.cumsum([len(part.labels) for part in parts])
    codes = [places[end - len(part.labels) : end][part.codes] for part, end in zip(parts, ends, strict=True)]
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(path, f"the names are not UTF-8 ({error.reason})") from error
    return Ids(labels, np.concatenate(codes))
