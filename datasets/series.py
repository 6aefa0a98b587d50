"""Series of several variates out of CSV files with a column of dates, as those of ETT and its like."""

import csv
import math
import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learnsolve.datasets.errors import DataError

# Months of 30 days, as the benchmarks on ETT count: to learn from, to choose by, to judge by.
MONTH = timedelta(days=30)
MONTHS = (12, 4, 4)


class Splits(NamedTuple):
    """Times of three parts, one after the other: first time, and last time and one.

    Attributes
    ----------
    train, valid, test : (int, int)
        What is learned from, chosen by, and judged by. Windows of a part look back into those before it.
    """

    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Series:
    """Variates at regular times.

    Attributes
    ----------
    values : float64 array, ``(T, V)``
        All finite.
    names : tuple of str
        Of the variates.
    start : datetime
        Of the first values.
    step : timedelta
        From one time to the next.

    Examples
    --------
    >>> from datetime import datetime, timedelta
    >>> import numpy as np
    >>> from learnsolve.datasets.series import Series
    >>> series = Series(np.zeros((3, 1)), ("load",), datetime(2024, 1, 1), timedelta(hours=1))
    >>> len(series), str(series.time(3))
    (3, '2024-01-01 03:00:00')
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    start: datetime
    step: timedelta

    def __len__(self) -> int:
        return len(self.values)

    def time(self, number: int) -> datetime:
        """When values of a number are, or will be, counted from zero."""
        return self.start + number * self.step

    def months(self, counts: tuple[int, int, int] = MONTHS) -> Splits:
        """Parts of so many months of 30 days each, from the beginning on; what is left over is in none.

        Raises
        ------
        ValueError
            The series is shorter, or a count is not positive.
        """
        if min(counts) < 1:
            raise ValueError(f"counts are {counts}; positive numbers of months are accepted")
        ends = [round(sum(counts[: n + 1]) * MONTH / self.step) for n in range(3)]
        if ends[2] > len(self):
            raise ValueError(
                f"the series has {len(self)} times; {'/'.join(map(str, counts))} months are {ends[2]}"
            )
        return Splits((0, ends[0]), (ends[0], ends[1]), (ends[1], ends[2]))

    def fractions(self, valid: float = 0.1, test: float = 0.2) -> Splits:
        """Parts by their shares, of which the later ones are at the end.

        Raises
        ------
        ValueError
            A share is not in (0, 1), or a part would be empty.
        """
        length = len(self)
        ends = length - round(length * (valid + test)), length - round(length * test)
        if min(valid, test) <= 0 or not 0 < ends[0] < ends[1] < length:
            raise ValueError(
                f"shares are {valid:g} to choose by and {test:g} to judge by, of {length} times; shares that "
                "leave no part empty are accepted"
            )
        return Splits((0, ends[0]), (ends[0], ends[1]), (ends[1], length))

    def moments(self, train: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each variate over the training part; of what is constant there, one.

        Returns
        -------
        mean, scale : float64 array, ``(V,)``
        """
        given = self.values[train[0] : train[1]]
        scale = given.std(0)
        return given.mean(0), np.where(scale > 0, scale, 1.0)

    def standardised(self, train: tuple[int, int]) -> "Series":
        """Values less their mean, over their deviation, both over the training part alone.

        Examples
        --------
        >>> from datetime import datetime, timedelta
        >>> import numpy as np
        >>> from learnsolve.datasets.series import Series
        >>> values = np.array([[1.0], [3.0], [9.0]])
        >>> series = Series(values, ("load",), datetime(2024, 1, 1), timedelta(hours=1))
        >>> series.standardised((0, 2)).values.ravel().tolist()
        [-1.0, 1.0, 7.0]
        """
        mean, scale = self.moments(train)
        return replace(self, values=(self.values - mean) / scale)


def read_series(
    path: str | os.PathLike, *, date: str | None = None, max_bytes: int = 1 << 30, max_variates: int = 4096
) -> Series:
    r"""Read a CSV file with a header, a column of dates, and columns of numbers.

    Parameters
    ----------
    path : str or os.PathLike
        A file of text in UTF-8.
    date : str, optional
        Name of the column of dates, in the format of ISO 8601, as ``2016-07-01 00:00:00``. Left out, it is
        the first column.
    max_bytes : int
        Refuse files that are larger.
    max_variates : int
        Refuse files with more columns of numbers.

    Returns
    -------
    Series
        All columns but that of dates, in the order of the file.

    Raises
    ------
    DataError
        If there is no such column; names are missing or not different; a line has another number of fields;
        a value is not a finite number; dates do not rise, or not by equal steps; or the file is too large,
        not in UTF-8, or has fewer than two lines of values. The message names the line.
    OSError
        The file is not there or cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from learnsolve.datasets.series import read_series
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "load.csv"
    >>> _ = path.write_text("date,load\n2024-01-01 00:00:00,1.5\n2024-01-01 01:00:00,2\n")
    >>> series = read_series(path)
    >>> series.names, series.values.ravel().tolist(), str(series.step)
    (('load',), [1.5, 2.0], '1:00:00')
    """
    with open(path, encoding="utf-8-sig", newline="") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise DataError(path, f"{size} bytes are more than the {max_bytes} that are accepted")
        try:
            return _read(csv.reader(stream, strict=True), path, date, max_variates)
        except csv.Error as error:
            raise DataError(path, f"expected CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise DataError(path, f"expected text in UTF-8 ({error.reason})") from None


def _read(lines: Any, path: str | os.PathLike, date: str | None, max_variates: int) -> Series:
    header = [name.strip() for name in next(lines, [])]
    if len(header) < 2:
        raise DataError(path, "expected a header with a column of dates and one of numbers or more", 1)
    if len(header) - 1 > max_variates:
        raise DataError(path, f"{len(header) - 1} variates are more than the {max_variates} accepted", 1)
    if not all(header) or len(set(header)) < len(header):
        raise DataError(path, "columns have no names, or several the same one", 1)
    if date is not None and date not in header:
        raise DataError(path, f"there is no column {date!r}; there are {', '.join(header[:20])}", 1)
    place = 0 if date is None else header.index(date)
    numbers = [number for number in range(len(header)) if number != place]
    rows: list[NDArray[np.float64]] = []
    start, before, step = None, None, timedelta(0)
    for fields in lines:
        line = lines.line_num
        if not fields:
            continue
        if len(fields) != len(header):
            raise DataError(path, f"expected {len(header)} fields, found {len(fields)}", line)
        now = _time(fields[place], path, line)
        if start is None or before is None:
            start = now
        elif (now.tzinfo is None) != (start.tzinfo is None):
            raise DataError(path, "some dates have a time zone, and some have none", line)
        elif now <= before:
            raise DataError(path, f"the date {now} does not come after {before}", line)
        elif len(rows) == 1:
            step = now - before
        elif now - before != step:
            raise DataError(path, f"expected a step of {step}, found one of {now - before}", line)
        before = now
        rows.append(np.array([_number(fields[n], header[n], path, line) for n in numbers]))
    if start is None or len(rows) < 2:
        raise DataError(path, f"expected two lines of values or more, found {len(rows)}")
    return Series(np.stack(rows), tuple(header[n] for n in numbers), start, step)


def _time(text: str, path: str | os.PathLike, line: int) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        found = text.strip()[:40]
        raise DataError(path, f"expected a date as 2016-07-01 00:00:00, found {found!r}", line) from None


def _number(text: str, name: str, path: str | os.PathLike, line: int) -> float:
    try:
        # Python's own numbers may have underscores.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(path, f"expected a finite number for {name}, found {text.strip()[:40]!r}", line)
    return value
