"""Lanczos' process and the Ritz vectors it gives, with a basis that may be larger than memory."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.operators import Operator

BLOCK = 1 << 28
GIB = 1 << 30
INVARIANT = 1e-12
NEGLIGIBLE = 1e-8

Progress = Callable[[int, int], Any]


class Basis:
    """Rows in double precision, in memory or in a scratch file, worked through block by block.

    ``np.asarray(Q)`` reads all of it. The scratch file has no name: it goes when the object goes, and
    when the process is killed.

    Parameters
    ----------
    rows : int
        How many there may be.
    shape : tuple of int
        Of one row.
    device : torch.device
        Where the computations are done, and where rows in memory lie.
    memory : int
        Bytes; a basis that may become larger goes to the scratch file.
    folder : str or os.PathLike, optional
        Of the scratch file; by default that of `tempfile`.

    Examples
    --------
    >>> Q = Basis(2, (3,), torch.device("cpu"))
    >>> Q.append(torch.tensor([0.0, 1.0, 0.0]))
    >>> Q.combine(torch.tensor([[2.0], [3.0]]))
    tensor([[0., 2., 0.],
            [0., 3., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        rows: int,
        shape: tuple[int, ...],
        device: torch.device,
        memory: int = 2 * GIB,
        folder: str | os.PathLike | None = None,
    ) -> None:
        self._row, self._width, self._device = tuple(shape), prod(shape), device
        self._count = 0
        self._rows: Tensor | None = None
        self._file: Any = None
        if 8 * rows * self._width <= memory:
            self._rows = torch.empty((rows, self._width), dtype=torch.float64, device=device)
        else:
            self._file = tempfile.TemporaryFile(dir=None if folder is None else str(folder))
            weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the shape of each."""
        return (self._count, *self._row)

    def append(self, v: Tensor) -> None:
        """Add a row."""
        flat = v.reshape(-1).to(self._device, torch.float64)
        if self._rows is not None:
            self._rows[self._count] = flat
        else:
            self._file.seek(0, os.SEEK_END)
            flat.cpu().numpy().tofile(self._file)
        self._count += 1

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and the rows, flat; at most `BLOCK` bytes at a time."""
        step = max(BLOCK // (8 * self._width), 1)
        for start in range(0, self._count, step):
            part = slice(start, min(start + step, self._count))
            if self._rows is not None:
                yield part, self._rows[part]
            else:
                self._file.seek(8 * self._width * start)
                count = self._width * (part.stop - start)
                block = np.fromfile(self._file, np.float64, count).reshape(-1, self._width)
                yield part, torch.from_numpy(block).to(self._device)

    def combine(self, c: Tensor) -> Tensor:
        """``c Q``, shape ``(B, *row)``, for coefficients ``(B, m)``."""
        c = c.to(self._device, torch.float64)
        out = c.new_zeros(len(c), self._width)
        for part, block in self.blocks():
            out.addmm_(c[:, part], block)
        return out.reshape(len(c), *self._row)

    def remove(self, v: Tensor) -> None:
        """``v -= Q^T Q v`` in place, each block seeing what those before it left."""
        flat = v.view(-1)
        for _, block in self.blocks():
            flat.addmv_(block.T, block @ flat, alpha=-1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the basis can't be had without a copy")
        out = np.empty((self._count, self._width), np.float64)
        for part, block in self.blocks():
            out[part] = block.cpu().numpy()
        return out.reshape(self.shape).astype(dtype or np.float64, copy=False)


def lanczos(
    A: Operator,
    steps: int,
    *,
    seed: int = 0,
    start: Any = None,
    memory: int = 2 * GIB,
    folder: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Basis]:
    r"""Lanczos' process with full re-orthogonalisation, in double precision.

    .. math:: A q_k = \beta_{k-1} q_{k-1} + \alpha_k q_k + \beta_k q_{k+1}

    A step sweeps through the basis once, and again where the first sweep took away more than rounding.

    Parameters
    ----------
    A : Operator
        Real, symmetric, positive (semi-)definite; the work is done on its device.
    steps : int
        At most so many; fewer if the basis spans an invariant subspace before.
    seed : int
        Of the start.
    start : array of A's domain, optional
        By default ``A @ noise``, which has no part in the null space of a singular ``A``.
    memory : int
        Bytes; a basis that may become larger lies in a scratch file and is read block by block.
    folder : str or os.PathLike, optional
        Of the scratch file.
    progress : callable, optional
        Called with the steps done and ``steps`` after each.

    Returns
    -------
    alpha : (m,) float64 array
    beta : (m - 1,) float64 array
        Diagonal and off-diagonal of ``Q A Q^T``.
    Q : Basis of shape ``(m, *domain_shape)``
        With orthonormal rows.

    Raises
    ------
    ValueError
        If ``A`` is not real, square, symmetric and finite, ``steps`` is not positive, or the start is zero
        or not finite.
    OSError
        If the scratch file cannot be written.

    References
    ----------
    B. N. Parlett, *The Symmetric Eigenvalue Problem*, 1980, chapters 6 and 13.

    Examples
    --------
    >>> from learnsolve.operators import Diagonal
    >>> A = Diagonal(torch.tensor([1.0, 2.0, 3.0, 3.0]))
    >>> alpha, beta, Q = lanczos(A, 10)
    >>> Q.shape, round(float(alpha.sum()), 10)
    ((3, 4), 6.0)
    """
    if A.dtype.is_complex or A.domain_shape != A.range_shape or A.hermitian is False:
        raise ValueError(f"{A!r} is not real and symmetric")
    if steps < 1:
        raise ValueError(f"steps is {steps}; a positive number is accepted")
    A, most = A.to(dtype=torch.float64), min(steps, A.shape[0])
    with torch.no_grad():
        q = _start(A, seed, start)
        Q = Basis(most, A.domain_shape, A.device, memory, folder)
        Q.append(q)
        alpha: list[float] = []
        beta: list[float] = []
        before, scale = torch.zeros_like(q), 0.0
        while True:
            w = A.project(A._apply(q))
            alpha.append(float((q * w).sum()))
            w = w - alpha[-1] * q - (beta[-1] if beta else 0.0) * before
            size = _norm(w)
            Q.remove(w)
            left = _norm(w)
            if left < 0.7 * size:
                Q.remove(w)
                left = _norm(w)
            if not np.isfinite(left):
                raise ValueError(f"{A!r} gives values that are not finite")
            if progress is not None:
                progress(len(alpha), steps)
            scale = max(scale, abs(alpha[-1]) + left)
            if len(alpha) == most or left <= INVARIANT * scale:
                return np.array(alpha), np.array(beta), Q
            beta.append(left)
            before, q = q, w / left
            Q.append(q)


def ritz(A: Operator, steps: int, **options: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], Basis]:
    """Ritz values and vectors of Lanczos' process; the vectors as ``W.T @ Q``, never multiplied out.

    Parameters
    ----------
    A, steps, **options
        As in `lanczos`.

    Returns
    -------
    values : (k,) float64 array
        Ascending; those below 1e-8 of the largest are dropped.
    W : (m, k) float64 array
        Eigenvectors of the tridiagonal matrix.
    Q : Basis of shape ``(m, *domain_shape)``
        Lanczos' vectors.

    Raises
    ------
    ValueError
        As in `lanczos`; if ``A`` is not positive semi-definite.

    Examples
    --------
    >>> from learnsolve.operators import Diagonal
    >>> values, W, Q = ritz(Diagonal(torch.tensor([0.0, 2.0, 3.0])), 3)
    >>> values.round(10).tolist(), W.shape
    ([2.0, 3.0], (2, 2))
    """
    alpha, beta, Q = lanczos(A, steps, **options)
    values, W = scipy.linalg.eigh_tridiagonal(alpha, beta)
    largest = float(values[-1])
    if values[0] < -NEGLIGIBLE * abs(largest) or largest <= 0:
        raise ValueError(f"{A!r} is not positive semi-definite: it has the Ritz value {values[0]:.3g}")
    first = int(np.searchsorted(values, NEGLIGIBLE * largest))
    return values[first:], W[:, first:], Q


def _start(A: Operator, seed: int, start: Any) -> Tensor:
    if start is None:
        noise = torch.from_numpy(np.random.default_rng([seed, 0]).standard_normal(A.domain_shape))
        q = A._apply(A.enter(noise.to(A.device)))
    else:
        given = start if isinstance(start, Tensor) else torch.from_numpy(np.array(start, np.float64))
        q = A.enter(given.to(A.device, torch.float64), "start")
    q = A.project(q)
    size = _norm(q)
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"the start of Lanczos' process has norm {size}; it must be finite and not zero")
    return q / size


def _norm(v: Tensor) -> float:
    return float(torch.linalg.vector_norm(v))
