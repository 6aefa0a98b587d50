"""The file from which an interrupted completion goes on."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from learnsolve.files import replacing

NAMES = {"U", "V", "mean", "row_bias", "col_bias", "observed", "held_out"}


class Checkpoint:
    """Arrays by their names, written so seldom that it takes a twentieth of the time.

    Parameters
    ----------
    path : str or os.PathLike

    Examples
    --------
    >>> import tempfile
    >>> held = Checkpoint(Path(tempfile.mkdtemp()) / "run.npz")
    >>> held.load("this run") is None
    True
    >>> held.save("this run", **dict.fromkeys(NAMES, 1.0))
    >>> float(held.load("this run")["mean"])
    1.0
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._ended, self._took = time.perf_counter(), 0.0

    def save(self, described: str, **arrays: Any) -> None:
        """Write the arrays and what they are of, unless that was done not long ago."""
        began = time.perf_counter()
        if began - self._ended < 20 * self._took:
            return
        with replacing(self.path) as part, open(part, "wb") as stream:
            np.savez(stream, described=described, **arrays)
        self._ended = time.perf_counter()
        self._took = self._ended - began

    def load(self, described: str) -> dict[str, Any] | None:
        """The arrays; None if there is no file.

        Raises
        ------
        ValueError
            The file is not one of these, or of another run.
        """
        if not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            if not NAMES <= found.keys():
                raise KeyError
            held = str(found.pop("described"))
        except Exception as error:
            # What a damaged archive raises is of many kinds.
            raise ValueError(f"{self.path} is no checkpoint of a completion") from error
        if held != described:
            raise ValueError(f"{self.path} is of another run: {held}, and this is {described}")
        return found
