"""What stands in a smoke simulation: obstacles, sources, and the grid that they are drawn on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

FLUID, SOLID, AIR = 0, 1, 2
Boundary = Literal["open", "closed"]
Velocity = Sequence[float] | Callable[[float], Sequence[float]] | None


@dataclass(frozen=True)
class Sphere:
    """A solid ball (a disc in two dimensions).

    Parameters
    ----------
    centre : sequence of float
        Axis 0 points up; lengths are in widths of the domain (its extent along the last axis).
    radius : float
    velocity : sequence of float, or callable, optional
        Widths a unit of time; a callable gets the time. None: the obstacle stands still.
    """

    centre: Sequence[float]
    radius: float
    velocity: Velocity = None

    def covers(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Which of the points of an open mesh lie inside."""
        squares = [(p - c) ** 2 for p, c in zip(points, self.centre, strict=True)]
        return sum(squares[1:], squares[0]) <= self.radius**2

    def moved(self, offset: Sequence[float]) -> "Sphere":
        """Return the same ball somewhere else."""
        return replace(self, centre=tuple(c + o for c, o in zip(self.centre, offset, strict=True)))


@dataclass(frozen=True)
class Box:
    """A solid box along the axes (a rectangle in two dimensions).

    Parameters
    ----------
    lower, upper : sequence of float
        Two opposite corners, in widths of the domain.
    velocity : sequence of float, or callable, optional
        Widths a unit of time; a callable gets the time. None: the obstacle stands still.
    """

    lower: Sequence[float]
    upper: Sequence[float]
    velocity: Velocity = None

    def covers(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Which of the points of an open mesh lie inside."""
        sides = [(p >= a) & (p <= b) for p, a, b in zip(points, self.lower, self.upper, strict=True)]
        return np.logical_and.reduce(np.broadcast_arrays(*sides))

    def moved(self, offset: Sequence[float]) -> "Box":
        """Return the same box somewhere else."""
        lower, upper = (
            tuple(c + o for c, o in zip(corner, offset, strict=True)) for corner in (self.lower, self.upper)
        )
        return replace(self, lower=lower, upper=upper)


@dataclass(frozen=True)
class Source:
    """A ball that holds its smoke and its warmth.

    Parameters
    ----------
    centre : sequence of float
        In widths of the domain.
    radius : float
    density, temperature : float
        What the ball holds; neither falls below this in it. Temperature is the excess over the air's.
    """

    centre: Sequence[float]
    radius: float
    density: float = 1.0
    temperature: float = 1.0

    def coverage(self, points: Sequence[np.ndarray], spacing: float) -> np.ndarray:
        """Return how much of each cell is in the ball, 0 to 1 (smooth at its edge)."""
        squares = [(p - c) ** 2 for p, c in zip(points, self.centre, strict=True)]
        distance = np.sqrt(sum(squares[1:], squares[0]))
        return np.clip((self.radius - distance) / spacing + 0.5, 0.0, 1.0)


class Scene:
    """Obstacles drawn on the grid at one time.

    Parameters
    ----------
    shape : tuple of 3 int
    points : sequence of arrays
        Open mesh of the cells' centres along the axes of the domain.
    obstacles : sequence of Sphere or Box
    speeds : sequence of 3-tuples
        Of each obstacle, across z, y and x.
    boundary : "open" or "closed"

    Attributes
    ----------
    cells : (nz, ny, nx) int8 array
        0 fluid, 1 solid, 2 air.
    fluid, solid : (nz, ny, nx) bool arrays
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        points: Sequence[np.ndarray],
        obstacles: Sequence[Sphere | Box],
        speeds: Sequence[Sequence[float]],
        boundary: Boundary,
    ) -> None:
        owner = np.zeros(shape, np.int32)
        for number, obstacle in enumerate(obstacles, start=1):
            owner[obstacle.covers(points).reshape(shape)] = number
        self.solid = owner > 0
        self.cells = self.solid.astype(np.int8)
        if boundary == "open":
            self.cells[-1][~self.solid[-1]] = AIR
        self.fluid = self.cells == FLUID
        table = np.array([(0.0, 0.0, 0.0), *speeds])
        self._faces = [self._blocked(owner, axis, table[:, axis], boundary) for axis in range(3)]
        self._pockets = self._closed_regions()

    def _blocked(
        self, owner: np.ndarray, axis: int, speed: np.ndarray, boundary: Boundary
    ) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices of the faces that touch a solid, and the velocities that it gives them."""
        after_end = boundary == "closed" or axis > 0
        rim = [(0, 0)] * 3
        rim[axis] = (1, 1)
        solid, owner = np.pad(self.solid, rim), np.pad(owner, rim)
        along = np.moveaxis(solid, axis, 0)
        along[0], along[-1] = True, after_end
        before, after = _pairs(solid, axis)
        index = np.flatnonzero(before | after)
        weights = [side.ravel()[index].astype(float) for side in (before, after)]
        speeds = [speed[side.ravel()[index]] for side in _pairs(owner, axis)]
        value = (weights[0] * speeds[0] + weights[1] * speeds[1]) / (weights[0] + weights[1])
        return index, value

    def _closed_regions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Number the regions of fluid that no air touches (0: everything else), and count their cells."""
        label, count = ndimage.label(self.fluid)
        near_air = ndimage.binary_dilation(self.cells == AIR)
        keep = np.ones(count + 1, bool)
        keep[label[near_air]] = False
        keep[0] = False
        if not keep.any():
            return None
        label = np.where(keep, np.cumsum(keep), 0)[label]
        return label, np.bincount(label.ravel())

    def impose(self, velocity: Sequence[np.ndarray]) -> None:
        """Give the faces of solids the velocity of their solid, in place."""
        for component, (index, value) in zip(velocity, self._faces, strict=True):
            np.put(component, index, value)

    def consistent(self, right: np.ndarray) -> np.ndarray:
        """Take the mean out of a right-hand side wherever fluid is enclosed, in place."""
        if self._pockets is not None:
            label, size = self._pockets
            mean = np.bincount(label.ravel(), right.ravel()) / np.maximum(size, 1)
            mean[0] = 0.0
            right -= mean.astype(right.dtype)[label]
        return right


def _pairs(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """All but the last layer, and all but the first."""
    along = np.moveaxis(array, axis, 0)
    return np.moveaxis(along[:-1], 0, axis), np.moveaxis(along[1:], 0, axis)
