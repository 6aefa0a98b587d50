"""Poisson problems on grids: a box, obstacles, a free surface, a maze, and jumping coefficients."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from learnsolve.operators import GridPoisson, Operator
from learnsolve.operators.grid_stencil import AIR, FLUID, SOLID


@dataclass(frozen=True)
class LinearProblem:
    """A linear system, and its answer where that is known.

    Attributes
    ----------
    A : Operator
        The matrix.
    b : array
        Right-hand side.
    x : array, optional
        The answer.
    """

    A: Operator
    b: Any
    x: Any = None


Rhs = Literal["noise", "ones", "bump"]


def right_hand_side(cells: NDArray[np.integer], kind: Rhs, seed: int) -> NDArray[np.float64]:
    """A right-hand side on the fluid cells.

    Parameters
    ----------
    cells : integer array
        0 is fluid.
    kind : {"noise", "ones", "bump"}
        White noise, which flatters multigrid; ones, the smoothest; or a Gaussian of width 0.13 in a corner
        of the unit cube.
    seed : int
        Of the noise.
    """
    fluid = cells == FLUID
    if kind == "noise":
        return np.random.default_rng(seed).standard_normal(cells.shape) * fluid
    if kind == "ones":
        return fluid.astype(np.float64)
    if kind == "bump":
        squares = [(x - 0.3) ** 2 for x in _centres(cells.shape)]
        return np.exp(-30 * _outer_sum(squares)) * fluid
    raise ValueError(f"rhs is {kind!r}; 'noise', 'ones' and 'bump' are accepted")


def _centres(shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Cell centres along each axis, the longest axis being of length one."""
    return [(np.arange(n) + 0.5) / max(shape) for n in shape]


def _outer_sum(vectors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = np.zeros(())
    for axis, vector in enumerate(vectors):
        shape = [1] * len(vectors)
        shape[axis] = -1
        total = total + vector.reshape(shape)
    return total


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape is {shape}; 2 or 3 positive lengths are accepted")
    return shape


def _ball(shape: tuple[int, ...], centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    squares = [(x - c) ** 2 for x, c in zip(_centres(shape), centre, strict=True)]
    return _outer_sum(squares) < radius**2


def _rotated_box(
    shape: tuple[int, ...], centre: NDArray[np.float64], half: NDArray[np.float64], frame: NDArray[np.float64]
) -> NDArray[np.bool_]:
    inside = np.ones((), bool)
    for direction, length in zip(frame, half, strict=True):
        along = [(x - c) * d for x, c, d in zip(_centres(shape), centre, direction, strict=True)]
        inside = inside & (np.abs(_outer_sum(along)) < length)
    return inside


def _bodies(
    shape: tuple[int, ...], count: int, sizes: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The union of balls and rotated boxes at random places."""
    extent = np.array(shape) / max(shape)
    union = np.zeros(shape, bool)
    for _ in range(count):
        centre, size = rng.uniform(0.1, 0.9, len(shape)) * extent, rng.uniform(*sizes)
        if rng.random() < 0.5:
            union |= _ball(shape, centre, size)
        else:
            frame = np.linalg.qr(rng.standard_normal((len(shape),) * 2))[0]
            union |= _rotated_box(shape, centre, size * rng.uniform(0.4, 1.0, len(shape)), frame)
    return union


def box(
    shape: tuple[int, ...], boundary: Any = "dirichlet", *, rhs: Rhs = "noise", seed: int = 0, **options: Any
) -> LinearProblem:
    """A box full of fluid.

    Parameters
    ----------
    shape : tuple of int
        Cells along 2 or 3 axes.
    boundary : str or pairs of str
        As in `GridPoisson`. With solid walls all around the system is singular, and ``b`` is made consistent.
    rhs : {"noise", "ones", "bump"}
        See `right_hand_side`.
    seed : int
        Of the noise.
    **options
        Go to `GridPoisson`.

    Returns
    -------
    LinearProblem

    Examples
    --------
    >>> box((4, 4)).A
    <GridPoisson 4x4, 16 unknowns, float64, unit coefficients, positive definite>
    """
    return _problem(np.zeros(_shape(shape), np.int8), rhs, seed, boundary=boundary, **options)


def obstacles(
    shape: tuple[int, ...], seed: int = 0, *, count: int = 12, rhs: Rhs = "noise", **options: Any
) -> LinearProblem:
    """A room with closed walls and an open top, in which solid balls and rotated boxes float.

    Parameters
    ----------
    shape : tuple of int
        Cells; axis 0 is up, its two last layers are air.
    seed : int
        Of the bodies and the noise.
    count : int
        How many bodies.
    rhs, **options
        As in `box`.

    Returns
    -------
    LinearProblem

    Examples
    --------
    >>> bool((obstacles((16, 16)).A.cells == 1).any())
    True
    """
    shape = _shape(shape)
    rng = np.random.default_rng(seed)
    cells = np.where(_bodies(shape, count, (0.05, 0.15), rng), SOLID, FLUID).astype(np.int8)
    cells[-2:] = np.where(cells[-2:] == SOLID, SOLID, AIR)
    return _problem(cells, rhs, seed, **options)


def free_surface(
    shape: tuple[int, ...], seed: int = 0, *, rhs: Rhs = "noise", **options: Any
) -> LinearProblem:
    """A tank of liquid under a wavy surface, with solid bodies and bubbles of air.

    Parameters
    ----------
    shape : tuple of int
        Cells; axis 0 is up.
    seed : int
        Of the surface, the bodies, the bubbles and the noise.
    rhs, **options
        As in `box`.

    Returns
    -------
    LinearProblem

    Examples
    --------
    >>> bool((free_surface((16, 16)).A.cells == 2).any())
    True
    """
    shape = _shape(shape)
    rng = np.random.default_rng(seed)
    height, *plane = _centres(shape)
    level = np.full(shape[1:], 0.6 * shape[0] / max(shape))
    for _ in range(6):
        waves = rng.integers(-4, 5, len(plane))
        phase = _outer_sum([2 * np.pi * k * x for k, x in zip(waves, plane, strict=True)])
        level = level + 0.03 * np.cos(phase + rng.uniform(0, 2 * np.pi))
    above = height.reshape(-1, *[1] * len(plane)) > level
    cells = np.where(above | _bodies(shape, 10, (0.03, 0.08), rng), AIR, FLUID).astype(np.int8)
    cells[_bodies(shape, 8, (0.05, 0.15), rng)] = SOLID
    cells[-1] = np.where(cells[-1] == SOLID, SOLID, AIR)
    return _problem(cells, rhs, seed, **options)


def maze(
    shape: tuple[int, ...], seed: int = 0, *, period: int = 8, rhs: Rhs = "noise", **options: Any
) -> LinearProblem:
    """Rooms between walls of one cell, with a door of two cells each way in every wall, and an open top.

    Parameters
    ----------
    shape : tuple of int
        Cells; axis 0 is up, its two last layers are air.
    seed : int
        Of the doors and the noise.
    period : int
        From wall to wall. Where it is a power of two, walls fall together with the blocks of a multigrid;
        9 or 7 are harder.
    rhs, **options
        As in `box`.

    Returns
    -------
    LinearProblem

    Examples
    --------
    >>> int(maze((16, 16)).A.cells.max())
    2
    """
    shape = _shape(shape)
    if period < 4:
        raise ValueError(f"period is {period}; at least 4 cells are accepted")
    rng = np.random.default_rng(seed)
    cells = np.zeros(shape, np.int8)
    for axis in range(len(shape)):
        np.moveaxis(cells, axis, 0)[period - 1 :: period] = SOLID
    for axis in range(len(shape)):
        walls = np.moveaxis(cells, axis, 0)
        for k in range(period - 1, shape[axis], period):
            for corner in np.ndindex(*(-(-n // period) for n in walls.shape[1:])):
                door: list[slice] = []
                for c, n in zip(corner, walls.shape[1:], strict=True):
                    first, last = c * period, min((c + 1) * period - 1, n)
                    start = int(rng.integers(first, max(last - 1, first + 1)))
                    door.append(slice(start, min(start + 2, last)))
                walls[k][tuple(door)] = FLUID
    cells[-2:] = AIR
    return _problem(cells, rhs, seed, **options)


def jump(
    shape: tuple[int, ...],
    contrast: float = 1e4,
    seed: int = 0,
    *,
    count: int = 20,
    rhs: Rhs = "noise",
    boundary: Any = "dirichlet",
    **options: Any,
) -> LinearProblem:
    """A box in which balls conduct ``contrast`` times as well; faces take the harmonic mean.

    Parameters
    ----------
    shape : tuple of int
        Cells.
    contrast : float
        Coefficient in the balls, one elsewhere; positive.
    seed : int
        Of the balls and the noise.
    count : int
        How many balls.
    rhs, boundary, **options
        As in `box`.

    Returns
    -------
    LinearProblem

    Examples
    --------
    >>> jump((8, 8)).A
    <GridPoisson 8x8, 64 unknowns, float64, variable coefficients, positive definite>
    """
    shape = _shape(shape)
    rng = np.random.default_rng(seed)
    extent = np.array(shape) / max(shape)
    coefficients = np.ones(shape)
    for _ in range(count):
        centre = rng.uniform(0.1, 0.9, len(shape)) * extent
        coefficients[_ball(shape, centre, rng.uniform(0.05, 0.15))] = contrast
    return _problem(
        np.zeros(shape, np.int8), rhs, seed, coefficients=coefficients, boundary=boundary, **options
    )


def _problem(cells: NDArray[np.int8], rhs: Rhs, seed: int, **options: Any) -> LinearProblem:
    A = GridPoisson(cells, **options)
    b = right_hand_side(cells, rhs, seed + 1)
    if A.singular:
        import torch

        b = A.project(torch.from_numpy(b)).numpy()
    return LinearProblem(A, b.astype(str(A.dtype).removeprefix("torch.")))
