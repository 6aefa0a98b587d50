"""A linear system of one or two Matrix Market files."""

import math
import os

import numpy as np
import scipy.sparse as sp

from learnsolve.datasets.matrix_market import read

LARGEST = 1 << 30


def read_system(
    matrix: str | os.PathLike, right_hand_side: str | os.PathLike | None = None
) -> tuple[sp.csr_array | np.ndarray, np.ndarray]:
    """Matrix and right-hand side, as `learnsolve.solve` takes them.

    Parameters
    ----------
    matrix : str or os.PathLike
        A file of `learnsolve.datasets.matrix_market.read`; integers become float64.
    right_hand_side : str or os.PathLike, optional
        Another, of one or several columns; all ones by default.

    Returns
    -------
    A : (m, n) scipy.sparse.csr_array or numpy.ndarray
    b : (m,) or (m, k) numpy.ndarray

    Raises
    ------
    DataError
        As of `learnsolve.datasets.matrix_market.read`.
    ValueError
        A sparse right-hand side would be too large as a dense one.
    OSError
        If there is no such file or it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.datasets import matrix_market
    >>> from learnsolve.datasets.matrix_market_system import read_system
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "A.mtx"
    >>> matrix_market.write(path, [[2, 0], [0, 4]])
    >>> A, b = read_system(path)
    >>> A.dtype, b.tolist()
    (dtype('float64'), [1.0, 1.0])
    """
    A = _floating(read(matrix))
    if right_hand_side is None:
        return A, np.ones(A.shape[0])
    b = _floating(read(right_hand_side))
    if not isinstance(b, np.ndarray):
        if math.prod(b.shape) > LARGEST:
            raise ValueError(
                f"{right_hand_side}: a right-hand side of shape {b.shape} is too large to be made dense"
            )
        b = b.toarray()
    return A, b[:, 0] if b.shape[1] == 1 else b


def _floating(held: sp.csr_array | np.ndarray) -> sp.csr_array | np.ndarray:
    return held.astype(float) if held.dtype.kind == "i" else held
