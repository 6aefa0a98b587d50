"""Measured trajectories: what is accepted, their units, and windows to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# By how much times may differ from regular ones, in steps.
JITTER = 0.01


@dataclass(frozen=True)
class Trajectories:
    """Measurements at regular times, of one run or several.

    Attributes
    ----------
    values : list of (T, N) float64 arrays
        NaN where nothing was measured.
    inputs : list of (T, K) float64 arrays
        Of the same times; K may be zero.
    """

    values: list[NDArray[np.float64]]
    inputs: list[NDArray[np.float64]]

    @property
    def observed(self) -> int:
        """Variables N."""
        return self.values[0].shape[1]

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each variable over all that was measured."""
        every = np.concatenate(self.values)
        return np.nanmean(every, 0), np.nanstd(every, 0)

    def cut(self, held_out: float) -> tuple["Trajectories", "Trajectories"]:
        """The beginning of each trajectory, and a share at its end."""
        ends = [len(one) - round(held_out * len(one)) for one in self.values]
        parts = []
        for part in (lambda end: slice(None, end), lambda end: slice(end, None)):
            parts.append(
                Trajectories(
                    [one[part(end)] for one, end in zip(self.values, ends, strict=True)],
                    [one[part(end)] for one, end in zip(self.inputs, ends, strict=True)],
                )
            )
        return parts[0], parts[1]


def trajectories(
    series: Any, *, inputs: Any = None, times: ArrayLike | None = None, dt: float = 1.0
) -> tuple[Trajectories, float]:
    """Check what was measured.

    Parameters
    ----------
    series : (T,) or (T, N) array, or a sequence of (T_i, N) arrays
        NaN where nothing was measured.
    inputs : (T, K) array, or a sequence of (T_i, K) arrays, optional
    times : (T,) array, optional
        Of one trajectory; they must be regular, and then say ``dt``.
    dt : float
        Time from one measurement to the next.

    Returns
    -------
    Trajectories
    dt : float

    Raises
    ------
    ValueError
        There are fewer than two times, a variable is constant or never measured, shapes do not fit, a number
        is infinite, or times are not regular.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.dynamics.trajectories import trajectories
    >>> given, dt = trajectories(np.arange(4.0), times=[0.0, 0.5, 1.0, 1.5])
    >>> given.values[0].shape, dt
    ((4, 1), 0.5)
    """
    values = _arrays("series", series)
    if len({one.shape[1] for one in values}) > 1:
        raise ValueError(
            f"trajectories have {[one.shape[1] for one in values]} variables; one number is accepted"
        )
    for number, one in enumerate(values):
        if len(one) < 2:
            raise ValueError(f"trajectory {number} has {len(one)} times; at least 2 are accepted")
    every = np.concatenate(values)
    for variable in range(every.shape[1]):
        known = every[~np.isnan(every[:, variable]), variable]
        if not len(known) or known.max() == known.min():
            what = "was never measured" if not len(known) else f"is constant ({known[0]:g})"
            raise ValueError(f"variable {variable} {what}: leave it out")
    driven = [one[:, :0] for one in values] if inputs is None else _arrays("inputs", inputs)
    if [len(one) for one in driven] != [len(one) for one in values] or len(
        {one.shape[1] for one in driven}
    ) > 1:
        shapes = [one.shape for one in driven], [one.shape for one in values]
        raise ValueError(
            f"inputs have shapes {shapes[0]}, the series {shapes[1]}; as many times, and one number "
            "of inputs, are accepted"
        )
    if any(np.isnan(one).any() for one in driven):
        raise ValueError("inputs have gaps; numbers at all times are accepted")
    if times is not None:
        dt = _interval(np.asarray(times, float), values)
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"dt is {dt}; a positive number is accepted")
    return Trajectories(values, driven), float(dt)


def _arrays(name: str, given: Any) -> list[NDArray[np.float64]]:
    several = isinstance(given, Sequence) and len(given) > 0 and np.ndim(given[0]) > 1
    arrays = []
    for one in given if several else [given]:
        array = np.asarray(one.detach().cpu() if torch.is_tensor(one) else one)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} are of {array.dtype}; real numbers are accepted")
        array = array.astype(np.float64)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{name} have shape {array.shape}; (T,) or (T, N), not empty, are accepted")
        if np.isinf(array).any():
            raise ValueError(f"{name} hold infinite numbers; finite ones, and NaN for gaps, are accepted")
        arrays.append(array)
    return arrays


def _interval(times: NDArray[np.float64], values: list[NDArray[np.float64]]) -> float:
    if len(values) != 1 or times.shape != (len(values[0]),):
        raise ValueError(f"times have shape {times.shape}; one for each of one trajectory is accepted")
    steps = np.diff(times)
    dt = float(np.median(steps))
    if not (np.isfinite(steps).all() and dt > 0) or np.abs(steps - dt).max() > JITTER * dt:
        raise ValueError(
            f"times go on by {np.nanmin(steps):g} to {np.nanmax(steps):g}; equal steps are accepted: "
            "resample the series, with NaN at times at which nothing was measured"
        )
    return dt


class Windows:
    """Windows of some length, each of which begins where all is known.

    Parameters
    ----------
    given : Trajectories
        Standardised.
    length : int
        Times of a window, its first one not counted.
    dtype : torch.dtype
    device : torch.device

    Raises
    ------
    ValueError
        No trajectory is that long, or none has a whole time to begin at.
    """

    def __init__(self, given: Trajectories, length: int, dtype: torch.dtype, device: torch.device) -> None:
        longest = max(len(one) for one in given.values)
        if length < 1 or length >= longest:
            raise ValueError(
                f"windows have {length} times; at least 1, and less than the longest trajectory, which has "
                f"{longest} to learn from, are accepted"
            )
        starts, at = [], 0
        for one in given.values:
            whole = np.isfinite(one[: max(len(one) - length, 0)]).all(1)
            starts.append(at + np.flatnonzero(whole))
            at += len(one)
        self.starts = torch.tensor(np.concatenate(starts), device=device)
        if not len(self.starts):
            raise ValueError(
                f"no window of {length} times begins with a whole measurement: shorten length, or fill gaps"
            )
        self.values, self.inputs = (
            torch.tensor(np.concatenate(parts), dtype=dtype, device=device)
            for parts in (given.values, given.inputs)
        )
        self.gaps = bool(self.values.isnan().any())
        self.places = torch.arange(length + 1, device=device)

    def __len__(self) -> int:
        return len(self.starts)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Values (count, length + 1, N) and inputs (count, length + 1, K) of windows at random."""
        chosen = torch.randint(len(self.starts), (count,), generator=generator).to(self.starts.device)
        rows = self.starts[chosen][:, None] + self.places
        none = self.inputs.new_empty(*rows.shape, 0)
        return self.values[rows], self.inputs[rows] if self.inputs.shape[1] else none
