"""What loops of wire around an object see of it: Biot and Savart's law."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
# Places on each axis at which fields are computed, from which they are interpolated.
NODES = 22
# Straight pieces of a loop.
PIECES = 20
# Of the wire, so that fields are smooth where an image's corner comes near.
THICK = 0.25


def loop_fields(centres: Array, normals: Array, radii: Array, places: Array) -> Array:
    """Magnetic fields of circular loops of unit current, up to a constant.

    Parameters
    ----------
    centres, normals : (loops, 3) arrays
    radii : (loops,) array
    places : (n, 3) array

    Returns
    -------
    (loops, n, 3) array

    Examples
    --------
    >>> import numpy as np
    >>> on_axis = np.array([[0, 0, 0.0], [0, 0, 1.0]])
    >>> field = loop_fields(np.zeros((1, 3)), np.array([[0, 0, 1.0]]), np.ones(1), on_axis)[0, :, 2]
    >>> float(round(field[1] / field[0], 2))  # 2^(-3/2)
    0.37
    """
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    # Any vector that is not along the normal spans the loop's plane with it.
    least = np.eye(3)[np.abs(normals).argmin(1)]
    first = np.cross(normals, least)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    angles = 2 * np.pi * np.arange(PIECES) / PIECES
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    wires = centres + radii[:, None] * (cos * first + sin * second)
    along = radii[:, None] * (cos * second - sin * first)
    field = np.zeros((3, len(centres), len(places)))
    for wire, piece in zip(wires, along, strict=True):
        u, v, w = (places[:, axis] - wire[:, axis, None] for axis in range(3))
        a, b, c = (piece[:, axis, None] for axis in range(3))
        squares = u * u + v * v + w * w + THICK**2
        far = 1 / (squares * np.sqrt(squares))
        field += far * np.stack([b * w - c * v, c * u - a * w, a * v - b * u])
    field = np.moveaxis(field, 0, -1)
    return field * (2 * np.pi / PIECES)


def chebyshev(count: int) -> tuple[Array, Array]:
    """Chebyshev's points of the first kind in [-1, 1], and their barycentric weights."""
    angles = np.pi * (np.arange(count) + 0.5) / count
    return np.cos(angles), np.sin(angles) * (-1.0) ** np.arange(count)


def interpolation(nodes: Array, weights: Array, places: Array) -> Array:
    """The matrix from values at nodes to values at places, by barycentric interpolation.

    References
    ----------
    Berrut and Trefethen, *Barycentric Lagrange interpolation*, SIAM Review 46, 2004.
    """
    away = places[:, None] - nodes[None]
    exact = np.abs(away) < 1e-14
    terms = weights / np.where(exact, 1, away)
    matrix = terms / terms.sum(1, keepdims=True)
    hit = exact.any(1)
    matrix[hit] = exact[hit]
    return matrix


def receive_coils(
    count: int, y: Array, x: Array, z: float, rng: np.random.Generator, about: float | None = None
) -> Complex:
    r"""Sensitivities :math:`B_x - i B_y` of random loops around a plane of the object.

    Loops sit on an elliptic cylinder around the square from -1 to 1, in one ring or two, and look inwards:
    radius, tilt, place, gain and phase of each are random.

    Parameters
    ----------
    count : int
    y, x : arrays
        Coordinates of rows and columns, in [-1, 1].
    z : float
        Of the plane.
    rng : numpy.random.Generator
    about : float, optional
        Where along z the rings are; by default around the plane.

    Returns
    -------
    (count, len(y), len(x)) complex array
        Of root of squares one in the middle of the plane.

    References
    ----------
    Roemer, Edelstein, Hayes, Souza and Mueller, *The NMR phased array*, Magnetic Resonance in Medicine 16,
    1990.

    Examples
    --------
    >>> import numpy as np
    >>> axis = np.linspace(-1, 1, 16)
    >>> receive_coils(8, axis, axis, 0.0, np.random.default_rng(0)).shape
    (8, 16, 16)
    """
    rings = 2 if count >= 8 and rng.random() < 0.6 else 1
    angles = 2 * np.pi * (np.arange(count) // rings + 0.3 * rng.standard_normal(count)) * rings / count
    angles += rng.uniform(0, 2 * np.pi)
    semi = rng.uniform(1.2, 1.7, 2)
    height = (z if about is None else about) + (np.arange(count) % rings - (rings - 1) / 2) * rng.uniform(
        0.5, 1.0
    )
    height = height + rng.uniform(-0.2, 0.2, count)
    centres = np.stack([semi[0] * np.cos(angles), semi[1] * np.sin(angles), height], 1)
    normals = -np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], 1)
    normals += rng.uniform(0, 0.3) * rng.standard_normal((count, 3))
    radii = rng.uniform(0.35, 0.8) * rng.uniform(0.8, 1.2, count)
    nodes, weights = chebyshev(NODES)
    grid = np.stack(np.broadcast_arrays(nodes[None, :], nodes[:, None], np.full((1, 1), z)), -1).reshape(
        -1, 3
    )
    field = loop_fields(centres, normals, radii, grid)
    coarse = (field[..., 0] - 1j * field[..., 1]).reshape(count, NODES, NODES)
    gains = rng.uniform(0.7, 1.3, count) * np.exp(2j * np.pi * rng.random(count))
    coarse *= gains[:, None, None]
    middle = slice(NODES // 2 - 1, NODES // 2 + 1)
    coarse /= np.sqrt((np.abs(coarse[:, middle, middle]) ** 2).sum(0).mean())
    rows, columns = (interpolation(nodes, weights, axis) for axis in (y, x))
    found = rows.astype(np.complex128) @ coarse @ columns.T
    return found
