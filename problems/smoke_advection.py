"""The smoke simulation's numba kernels: advection and vorticity on a staggered grid.

Every array has three axes ``(nz, ny, nx)``, a plane has ``ny = 1``. The velocity across axis ``a``
lives on the faces and has one more layer along ``a`` than the cells. Lengths are in cells.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads

from learnsolve.kernels.threads import start_pool, threads

_MATH = {"reassoc", "contract", "nsz", "arcp"}
_ON_A_SAMPLE = 1e-6


@njit(fastmath=_MATH, cache=True)
def _bracket(position, size):
    """The two indices around a position, kept inside the array, and the upper one's weight."""
    position = min(max(position, 0.0), size - 1.0)
    low = min(int(position), max(size - 2, 0))
    return low, min(low + 1, size - 1), position - low


@njit(fastmath=_MATH, cache=True)
def _sample(field, z, y, x):
    """Trilinear interpolation."""
    k, kk, c = _bracket(z, field.shape[0])
    j, jj, b = _bracket(y, field.shape[1])
    i, ii, a = _bracket(x, field.shape[2])
    near = (1 - b) * ((1 - a) * field[k, j, i] + a * field[k, j, ii]) + b * (
        (1 - a) * field[k, jj, i] + a * field[k, jj, ii]
    )
    far = (1 - b) * ((1 - a) * field[kk, j, i] + a * field[kk, j, ii]) + b * (
        (1 - a) * field[kk, jj, i] + a * field[kk, jj, ii]
    )
    return (1 - c) * near + c * far


@njit(fastmath=_MATH, cache=True)
def _value(field, blocked, own, k, j, i):
    """A sample, or the traced cell's own value where the sample lies in a solid."""
    if blocked is not None:
        if blocked[k, j, i]:
            return own
    return field[k, j, i]


@njit(fastmath=_MATH, cache=True)
def _extent(low, high, weight):
    """Leave out a sample that has no weight, so that mirrored flows have mirrored bounds."""
    if weight < _ON_A_SAMPLE:
        return low, low
    if weight > 1 - _ON_A_SAMPLE:
        return high, high
    return low, high


@njit(fastmath=_MATH, cache=True)
def _traced(field, blocked, own, z, y, x):
    """Trilinear interpolation past solids."""
    k, kk, c = _bracket(z, field.shape[0])
    j, jj, b = _bracket(y, field.shape[1])
    i, ii, a = _bracket(x, field.shape[2])
    near = (1 - b) * (
        (1 - a) * _value(field, blocked, own, k, j, i) + a * _value(field, blocked, own, k, j, ii)
    ) + b * ((1 - a) * _value(field, blocked, own, k, jj, i) + a * _value(field, blocked, own, k, jj, ii))
    far = (1 - b) * (
        (1 - a) * _value(field, blocked, own, kk, j, i) + a * _value(field, blocked, own, kk, j, ii)
    ) + b * ((1 - a) * _value(field, blocked, own, kk, jj, i) + a * _value(field, blocked, own, kk, jj, ii))
    return (1 - c) * near + c * far


@njit(fastmath=_MATH, cache=True)
def _bounds(field, blocked, own, z, y, x):
    """Least and largest of the samples that an interpolation uses."""
    k, kk, c = _bracket(z, field.shape[0])
    j, jj, b = _bracket(y, field.shape[1])
    i, ii, a = _bracket(x, field.shape[2])
    k, kk = _extent(k, kk, c)
    j, jj = _extent(j, jj, b)
    i, ii = _extent(i, ii, a)
    p, q = _value(field, blocked, own, k, j, i), _value(field, blocked, own, k, j, ii)
    r, s = _value(field, blocked, own, k, jj, i), _value(field, blocked, own, k, jj, ii)
    t, u = _value(field, blocked, own, kk, j, i), _value(field, blocked, own, kk, j, ii)
    v, w = _value(field, blocked, own, kk, jj, i), _value(field, blocked, own, kk, jj, ii)
    return (
        min(min(min(p, q), min(r, s)), min(min(t, u), min(v, w))),
        max(max(max(p, q), max(r, s)), max(max(t, u), max(v, w))),
    )


@njit(fastmath=_MATH, cache=True)
def _origin(shift, axis, k, j, i):
    """Index-space position after the shift of a cell (axis -1) or of a face (mean of its two cells)."""
    kk = max(k - 1, 0) if axis == 0 else k
    jj = max(j - 1, 0) if axis == 1 else j
    ii = max(i - 1, 0) if axis == 2 else i
    k_own, j_own, i_own = min(k, shift.shape[1] - 1), min(j, shift.shape[2] - 1), min(i, shift.shape[3] - 1)
    return (
        k + 0.5 * (shift[0, k_own, j_own, i_own] + shift[0, kk, jj, ii]),
        j + 0.5 * (shift[1, k_own, j_own, i_own] + shift[1, kk, jj, ii]),
        i + 0.5 * (shift[2, k_own, j_own, i_own] + shift[2, kk, jj, ii]),
    )


@njit(fastmath=_MATH, parallel=True, cache=True)
def _trace(uz, uy, ux, step, shift):
    for slab in prange(shift.shape[1]):
        k = np.int64(slab)
        for j in range(shift.shape[2]):
            for i in range(shift.shape[3]):
                z = k + 0.25 * step * (uz[k, j, i] + uz[k + 1, j, i])
                y = j + 0.25 * step * (uy[k, j, i] + uy[k, j + 1, i])
                x = i + 0.25 * step * (ux[k, j, i] + ux[k, j, i + 1])
                shift[0, k, j, i] = step * _sample(uz, z + 0.5, y, x)
                shift[1, k, j, i] = step * _sample(uy, z, y + 0.5, x)
                shift[2, k, j, i] = step * _sample(ux, z, y, x + 0.5)


@njit(fastmath=_MATH, parallel=True, cache=True)
def _carry(field, blocked, back, axis, out):
    for slab in prange(field.shape[0]):
        k = np.int64(slab)
        for j in range(field.shape[1]):
            for i in range(field.shape[2]):
                z, y, x = _origin(back, axis, k, j, i)
                out[k, j, i] = _traced(field, blocked, field[k, j, i], z, y, x)


@njit(fastmath=_MATH, parallel=True, cache=True)
def _correct(field, carried, blocked, back, forth, axis, out):
    for slab in prange(field.shape[0]):
        k = np.int64(slab)
        for j in range(field.shape[1]):
            for i in range(field.shape[2]):
                own, moved = field[k, j, i], carried[k, j, i]
                z, y, x = _origin(forth, axis, k, j, i)
                value = moved + 0.5 * (own - _traced(carried, blocked, moved, z, y, x))
                z, y, x = _origin(back, axis, k, j, i)
                least, largest = _bounds(field, blocked, own, z, y, x)
                out[k, j, i] = min(max(value, least), largest)


@njit(fastmath=_MATH, parallel=True, cache=True)
def _curl(uz, uy, ux, fluid, out):
    nz, ny, nx = fluid.shape
    for slab in prange(nz):
        k = np.int64(slab)
        kp, km = min(k + 1, nz - 1), max(k - 1, 0)
        for j in range(ny):
            jp, jm = min(j + 1, ny - 1), max(j - 1, 0)
            for i in range(nx):
                ip, im = min(i + 1, nx - 1), max(i - 1, 0)
                z_along_y = uz[k, jp, i] + uz[k + 1, jp, i] - uz[k, jm, i] - uz[k + 1, jm, i]
                z_along_x = uz[k, j, ip] + uz[k + 1, j, ip] - uz[k, j, im] - uz[k + 1, j, im]
                y_along_z = uy[kp, j, i] + uy[kp, j + 1, i] - uy[km, j, i] - uy[km, j + 1, i]
                y_along_x = uy[k, j, ip] + uy[k, j + 1, ip] - uy[k, j, im] - uy[k, j + 1, im]
                x_along_z = ux[kp, j, i] + ux[kp, j, i + 1] - ux[km, j, i] - ux[km, j, i + 1]
                x_along_y = ux[k, jp, i] + ux[k, jp, i + 1] - ux[k, jm, i] - ux[k, jm, i + 1]
                scale = 0.25 * fluid[k, j, i]
                out[0, k, j, i] = scale * (y_along_x - x_along_y)
                out[1, k, j, i] = scale * (x_along_z - z_along_x)
                out[2, k, j, i] = scale * (z_along_y - y_along_z)


@njit(fastmath=_MATH, cache=True)
def _strength(curl, k, j, i):
    return math.sqrt(curl[0, k, j, i] ** 2 + curl[1, k, j, i] ** 2 + curl[2, k, j, i] ** 2)


@njit(fastmath=_MATH, parallel=True, cache=True)
def _confine(curl, scale, out):
    nz, ny, nx = curl.shape[1:]
    for slab in prange(nz):
        k = np.int64(slab)
        kp, km = min(k + 1, nz - 1), max(k - 1, 0)
        for j in range(ny):
            jp, jm = min(j + 1, ny - 1), max(j - 1, 0)
            for i in range(nx):
                ip, im = min(i + 1, nx - 1), max(i - 1, 0)
                z = _strength(curl, kp, j, i) - _strength(curl, km, j, i)
                y = _strength(curl, k, jp, i) - _strength(curl, k, jm, i)
                x = _strength(curl, k, j, ip) - _strength(curl, k, j, im)
                factor = scale / (math.sqrt(z * z + y * y + x * x) + 1e-9)
                cz, cy, cx = curl[0, k, j, i], curl[1, k, j, i], curl[2, k, j, i]
                out[0, k, j, i] = factor * (x * cy - y * cx)
                out[1, k, j, i] = factor * (z * cx - x * cz)
                out[2, k, j, i] = factor * (y * cz - z * cy)


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """Let the kernels take no more threads than pay for a grid of so many cells."""
    start_pool()
    before = get_num_threads()
    set_num_threads(min(before, threads(size)))
    try:
        yield
    finally:
        set_num_threads(before)


class Advection:
    """Carries fields along a velocity, and keeps the memory that this takes.

    Parameters
    ----------
    shape : tuple of 3 int
        Cells along ``z``, ``y`` and ``x``.
    dtype : numpy dtype
        Of every field.
    corrected : bool
        MacCormack with a clamping limiter instead of plain semi-Lagrangian.

    References
    ----------
    A. Selle, R. Fedkiw, B. Kim, Y. Liu, J. Rossignac, "An unconditionally stable MacCormack method",
    Journal of Scientific Computing 35 (2008).
    """

    def __init__(self, shape: tuple[int, int, int], dtype: Any, corrected: bool) -> None:
        self.corrected = corrected
        self._back = np.zeros((3, *shape), dtype)
        self._forth = np.zeros((3, *shape), dtype) if corrected else self._back
        self._work: dict[tuple[int, ...], np.ndarray] = {}

    def trace(self, velocity: tuple[np.ndarray, np.ndarray, np.ndarray], step: float) -> None:
        """Follow every cell's centre back through the velocity (midpoint rule).

        Parameters
        ----------
        velocity : 3 arrays, on the faces across z, y and x
        step : float
            Time step in units in which a velocity times the step is in cells.
        """
        _trace(*velocity, -step, self._back)
        if self.corrected:
            _trace(*velocity, step, self._forth)

    def carry(self, field: np.ndarray, axis: int = -1, blocked: np.ndarray | None = None) -> np.ndarray:
        """Return the field carried along the traced paths.

        Parameters
        ----------
        field : (nz, ny, nx) array, with one more layer along ``axis`` if that is not -1
        axis : int
            Which faces the field lives on; -1: the cells.
        blocked : (nz, ny, nx) bool array, optional
            Cells whose values must not be used.
        """
        out = np.empty_like(field)
        if not self.corrected:
            _carry(field, blocked, self._back, axis, out)
            return out
        carried = self._work.setdefault(field.shape, np.empty_like(field))
        _carry(field, blocked, self._back, axis, carried)
        _correct(field, carried, blocked, self._back, self._forth, axis, out)
        return out


def confinement(
    velocity: tuple[np.ndarray, np.ndarray, np.ndarray], fluid: np.ndarray, strength: float
) -> np.ndarray:
    """Acceleration that feeds the small vortices which the grid damps.

    Parameters
    ----------
    velocity : 3 arrays, on the faces across z, y and x
    fluid : (nz, ny, nx) bool array
    strength : float

    Returns
    -------
    (3, nz, ny, nx) array
        At the cells' centres.

    References
    ----------
    R. Fedkiw, J. Stam, H. W. Jensen, "Visual simulation of smoke", SIGGRAPH 2001.
    """
    curl = np.empty((3, *fluid.shape), velocity[0].dtype)
    _curl(*velocity, fluid, curl)
    force = np.empty_like(curl)
    _confine(curl, strength, force)
    return force
