"""K-space of ellipses in closed form: nothing is drawn on a grid, so that no method can undo the drawing."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

from learnsolve.problems.phantoms import Phantom
from learnsolve.problems.receive_coils import chebyshev

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Ellipse = tuple[float, float, float, float, float]
# An ellipse, and what it adds.
Intensity = tuple[Ellipse, float]
# Waves by which sensitivities are written, each way, of periods from twice the field of view down.
WAVES = 6
# Places on each axis at which sensitivities are compared with their waves.
NODES = 40


def ellipse_transform(ellipse: Ellipse, v: Array, u: Array) -> Complex:
    r"""Fourier transform of an ellipse: :math:`a b J_1(2 \pi r) / r`, turned and shifted.

    Parameters
    ----------
    ellipse : x, y, a, b, angle
        Centre, semi-axes, and the angle by which it is turned.
    v, u : arrays
        Frequencies along y and x, in cycles for each unit of length; they broadcast.

    References
    ----------
    Koay, Sarlls and Oezarslan, *Three-dimensional analytical magnetic resonance imaging phantom in the
    Fourier domain*, Magnetic Resonance in Medicine 58, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> area = ellipse_transform((0.3, 0.0, 0.5, 0.2, 0.0), np.zeros(1), np.zeros(1))[0]
    >>> bool(np.isclose(area, np.pi * 0.5 * 0.2))
    True
    """
    x, y, a, b, angle = ellipse
    cos, sin = np.cos(angle), np.sin(angle)
    r = np.hypot(a * (cos * u + sin * v), b * (cos * v - sin * u))
    small = r < 1e-9
    size = a * b * np.where(small, np.pi, j1(2 * np.pi * r) / np.where(small, 1, r))
    found: Complex = size * np.exp(-2j * np.pi * (u * x + v * y))
    return found


def intensities(phantom: Phantom, signals: Array, z: float) -> list[Intensity]:
    """The ellipses of a plane and what each adds to the one beneath its centre."""
    found: list[Intensity] = []
    for number, body in enumerate(phantom.bodies):
        ellipse = body.ellipse(z)
        if ellipse is None:
            continue
        beneath = 0.0
        for other in phantom.bodies[:number]:
            x, y = (np.array([[place]]) for place in ellipse[:2])
            if other.ellipse(z) is not None and other.level(y, x, z).item() < 1:
                beneath = float(signals[other.tissue])
        found.append((ellipse, float(signals[body.tissue]) - beneath))
    return found


def analytic_kspace(
    ellipses: list[Intensity], shape: tuple[int, int], seen: Complex
) -> tuple[Complex, float]:
    """K-space of ellipses whose intensities add, as coils see them.

    Parameters
    ----------
    ellipses : list of (ellipse, intensity)
        In the square from -1 to 1, the field of view.
    shape : (height, width)
    seen : (coils, 40, 40) complex array
        Sensitivities, with a phase perhaps, at Chebyshev's points of the rows and columns (`nodes`).

    Returns
    -------
    kspace : (coils, height, width) array
        With its origin at ``n // 2``; of the orthonormal transform.
    error : float
        Of the sensitivities as sums of waves: root of mean squares, relative.

    References
    ----------
    Guerquin-Kern, Lejeune, Pruessmann and Unser, *Realistic analytical phantoms for parallel magnetic
    resonance imaging*, IEEE Transactions on Medical Imaging 31, 2012, section III.
    """
    height, width = shape
    orders = np.arange(-WAVES, WAVES + 1)
    places = nodes()
    waves = np.exp(0.5j * np.pi * np.outer(places, orders))
    # Twice the field of view is their period, so that no edge of it must match the other.
    inverse = np.linalg.pinv(waves, rcond=1e-7)
    weights = inverse @ seen @ inverse.T
    error = np.linalg.norm(waves @ weights @ waves.T - seen) / np.linalg.norm(seen)
    v, u = (np.arange(-2 * (n // 2) - WAVES, 2 * (n - n // 2) + WAVES) / 4 for n in shape)
    fine = np.zeros((len(v), len(u)), dtype=np.complex128)
    for ellipse, intensity in ellipses:
        fine += intensity * ellipse_transform(ellipse, v[:, None], u[None])
    kspace = np.zeros((len(seen), height, width), dtype=np.complex128)
    for row, j in enumerate(orders):
        for column, i in enumerate(orders):
            top, left = WAVES - j, WAVES - i
            part = fine[top : top + 2 * height : 2, left : left + 2 * width : 2]
            kspace += weights[:, row, column, None, None] * part
    return kspace * (np.sqrt(height * width) / 4), float(error)


def nodes() -> Array:
    """The coordinates at which `analytic_kspace` wants sensitivities."""
    return chebyshev(NODES)[0]
