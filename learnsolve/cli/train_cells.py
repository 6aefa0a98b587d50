"""Files of cells to train on."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 27
SMALLEST = 4


def read_cells(path: str | Path) -> NDArray[np.int8]:
    """The cells of a ``.npy`` file: integers, 0 fluid, 1 solid, 2 air.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no ``.npy`` file, or holds something else than such cells; the message says what.
    """
    try:
        # Mapped, so that a look at the header alone decides whether it is read.
        cells = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (ValueError, EOFError):
        raise ValueError(f"{path} is no .npy file of integers") from None
    if not isinstance(cells, np.ndarray) or cells.dtype.kind not in "iu":
        kind = getattr(cells, "dtype", type(cells).__name__)
        raise ValueError(f"{path} holds {kind}; cells are integers: 0 fluid, 1 solid, 2 air")
    if cells.ndim not in (2, 3) or min(cells.shape) < SMALLEST or cells.size > LARGEST:
        raise ValueError(
            f"{path} holds an array of shape {cells.shape}; 2 or 3 axes of at least {SMALLEST} cells "
            f"are accepted, and {LARGEST:,} cells in all"
        )
    low, high = int(cells.min()), int(cells.max())
    if low < 0 or high > 2:
        raise ValueError(
            f"{path} holds {low if low < 0 else high}; 0 (fluid), 1 (solid) and 2 (air) are accepted"
        )
    if low > 0:
        raise ValueError(f"{path} holds no fluid cell (0)")
    return np.asarray(cells, np.int8)


def digest(cells: NDArray[np.int8]) -> str:
    """Some letters that tell an array of cells from any other of its shape."""
    return hashlib.sha256(np.ascontiguousarray(cells).tobytes()).hexdigest()[:12]
