"""Measured series out of CSV, npy and npz files, with gaps; and delay embedding."""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.datasets.errors import DataError

MISSING = {"", "na", "nan", "null", "none", "-", "?"}


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes
    ----------
    values : (T, N) float64 array
        NaN where nothing was.
    names : tuple of str
        Of the variables.
    times : (T,) float64 array or None
        When, if the file says it.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    times: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.values)


def read_measured(
    path: str | os.PathLike, *, time: str | None = None, key: str | None = None, max_bytes: int = 1 << 30
) -> Measured:
    r"""Read a file of measurements: a column of numbers for each variable, a row for each time.

    Parameters
    ----------
    path : str or os.PathLike
        CSV with or without a header, in which fields that are empty, or NaN or NA, are gaps; or an array (T,)
        or (T, N) in the formats of numpy, npy or npz.
    time : str, optional
        Column of a CSV file, or array of an npz file, that holds times.
    key : str, optional
        Which array of an npz file; left out, it has one beside the times.
    max_bytes : int
        Refuse files that are larger.

    Returns
    -------
    Measured

    Raises
    ------
    DataError
        The file is too large, damaged, or holds something else; the message names the line.
    OSError
        It is not there or cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from learnsolve.datasets.measured import read_measured
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = path.write_text("t,x,y\n0,1.5,2\n0.1,,3\n")
    >>> found = read_measured(path, time="t")
    >>> found.names, found.times.tolist(), found.values.tolist()
    (('x', 'y'), [0.0, 0.1], [[1.5, 2.0], [nan, 3.0]])
    """
    size = Path(path).stat().st_size
    if size > max_bytes:
        raise DataError(path, f"{size} bytes are more than the {max_bytes} that are accepted")
    if Path(path).suffix in (".npy", ".npz"):
        return _arrays(path, time, key)
    if key is not None:
        raise DataError(path, "only npz files have keys")
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return _lines(csv.reader(stream, strict=True), path, time)
    except csv.Error as error:
        raise DataError(path, f"expected CSV ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"expected text in UTF-8 ({error.reason})") from None


def _lines(lines: Any, path: str | os.PathLike, time: str | None) -> Measured:
    first = [field.strip() for field in next(lines, [])]
    if not first:
        raise DataError(path, "expected columns of numbers, found nothing")
    named = any(not _is_number(field) for field in first)
    names = first if named else [f"x{number}" for number in range(1, len(first) + 1)]
    if len(set(names)) < len(names) or not all(names):
        raise DataError(path, "columns have no names, or several the same one", 1)
    rows = [] if named else [_numbers(first, path, 1)]
    for fields in lines:
        if not fields:
            continue
        if len(fields) != len(names):
            raise DataError(path, f"expected {len(names)} fields, found {len(fields)}", lines.line_num)
        rows.append(_numbers(fields, path, lines.line_num))
    if len(rows) < 2:
        raise DataError(path, f"expected two lines of values or more, found {len(rows)}")
    if time is not None and time not in names:
        raise DataError(path, f"there is no column {time!r}; there are {', '.join(names[:20])}", 1)
    values = np.array(rows)
    kept = [number for number, name in enumerate(names) if name != time]
    if not kept:
        raise DataError(path, "there is no column beside the times", 1)
    times = None if time is None else values[:, names.index(time)]
    return _checked(path, values[:, kept], tuple(names[number] for number in kept), times)


def _is_number(text: str) -> bool:
    if text.strip().lower() in MISSING:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _numbers(fields: list[str], path: str | os.PathLike, line: int) -> list[float]:
    for field in fields:
        if not _is_number(field):
            raise DataError(path, f"expected a number or a gap, found {field.strip()[:40]!r}", line)
    return [math.nan if one.strip().lower() in MISSING else float(one) for one in fields]


def _arrays(path: str | os.PathLike, time: str | None, key: str | None) -> Measured:
    try:
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            single = isinstance(found, np.ndarray)
            arrays = {"values": found} if single else {name: found[name] for name in found.files}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("it holds something else, too")
    except OSError:
        raise
    except Exception as error:
        # What a damaged archive raises is of many kinds.
        raise DataError(path, f"expected arrays of numbers ({error})") from None
    if time is not None and time not in arrays:
        raise DataError(path, f"there is no array {time!r}; there are {', '.join(arrays) or 'none'}")
    others = [name for name in arrays if name != time]
    if key is None and len(others) != 1:
        raise DataError(path, f"there are {', '.join(others) or 'no arrays'}: say which by its key")
    chosen = others[0] if key is None else key
    if chosen not in arrays:
        raise DataError(path, f"there is no array {chosen!r}; there are {', '.join(others)}")
    values, times = arrays[chosen], None if time is None else arrays[time]
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2) or len(values) < 2:
        raise DataError(
            path, f"{chosen} is {values.dtype} {values.shape}; (T,) or (T, N) numbers are accepted"
        )
    values = values.astype(np.float64).reshape(len(values), -1)
    if times is not None and (times.shape != (len(values),) or times.dtype.kind not in "fiu"):
        raise DataError(path, f"{time} is {times.dtype} {times.shape}; one number for each time is accepted")
    names = tuple(f"x{number}" for number in range(1, values.shape[1] + 1))
    return _checked(path, values, names, None if times is None else times.astype(np.float64))


def _checked(
    path: str | os.PathLike,
    values: NDArray[np.float64],
    names: tuple[str, ...],
    times: NDArray[np.float64] | None,
) -> Measured:
    if np.isinf(values).any():
        raise DataError(path, "some values are infinite; finite ones, and gaps, are accepted")
    if times is not None and not np.isfinite(times).all():
        raise DataError(path, "some times are missing")
    return Measured(values, names, times)


def delay_embedding(series: ArrayLike, dim: int, lag: int) -> NDArray[np.float64]:
    r"""Vectors of values of one variable at several times: :math:`(x_t, x_{t-\tau}, \ldots)`.

    Parameters
    ----------
    series : (T,) array
    dim : int
        Components of each vector.
    lag : int
        :math:`\tau`, in times.

    Returns
    -------
    (T - (dim - 1) lag, dim) float64 array

    Raises
    ------
    ValueError
        The series is too short, or a number is not positive.

    References
    ----------
    F. Takens, *Detecting strange attractors in turbulence*, Lecture Notes in Mathematics 898, 1981.

    Examples
    --------
    >>> from learnsolve.datasets.measured import delay_embedding
    >>> delay_embedding([0, 1, 2, 3], 2, 2).tolist()
    [[2.0, 0.0], [3.0, 1.0]]
    """
    x = np.asarray(series, float)
    if min(dim, lag) < 1 or x.ndim != 1 or len(x) <= (dim - 1) * lag:
        raise ValueError(
            f"a series of shape {x.shape} in {dim} components {lag} times apart; (T,) with T of more than "
            f"{max(dim - 1, 0) * max(lag, 1)}, and positive numbers, are accepted"
        )
    first = (dim - 1) * lag
    return np.stack([x[first - k * lag : len(x) - k * lag] for k in range(dim)], 1)


def decorrelation_lag(series: ArrayLike) -> int:
    """Times after which the autocorrelation has first fallen below 1/e: a lag to embed with.

    Parameters
    ----------
    series : (T,) array
        Without gaps.

    Raises
    ------
    ValueError
        The series is constant or has gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.datasets.measured import decorrelation_lag
    >>> decorrelation_lag(np.sin(np.arange(1000) / 10))
    12
    """
    x = np.asarray(series, float)
    if x.ndim != 1 or not np.isfinite(x).all() or np.ptp(x) == 0:
        raise ValueError(f"a series of shape {x.shape}; (T,), without gaps and not constant, is accepted")
    level = x - x.mean()
    power = np.abs(np.fft.rfft(level, 2 * len(x))) ** 2
    correlation = np.fft.irfft(power)[: len(x)]
    # Over all lags it adds up to zero, so that it does fall.
    return int(np.argmax(correlation < correlation[0] / math.e))
