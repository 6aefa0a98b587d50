"""Random objects for simulated scans: ellipsoids of tissues, folds and texture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learnsolve.problems.tissues import NAMES, TISSUES

Array = NDArray[np.float64]
SCALP, BONE, SPACE, BRAIN = "fat", "bone", "csf", "grey"


@dataclass(frozen=True)
class Waves:
    """A smooth random field in space: a sum of plane waves, of variance one.

    Attributes
    ----------
    vectors : (n, 3) array
        Wave numbers along x, y and z, in radians.
    phases : (n,) array
    """

    vectors: Array
    phases: Array

    @classmethod
    def random(cls, rng: np.random.Generator, shortest: float, longest: float, count: int = 40) -> "Waves":
        """Waves of random directions and lengths, in units of half the field of view."""
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
        return cls(2 * np.pi / lengths[:, None] * directions, rng.uniform(0, 2 * np.pi, count))

    def __call__(self, y: Array, x: Array, z: float) -> Array:
        """Values on the plane of rows y and columns x."""
        u, v, w = self.vectors.T
        rows = np.exp(1j * (np.outer(y, v) + self.phases + z * w)).astype(np.complex64)
        columns = np.exp(1j * np.outer(u, x)).astype(np.complex64)
        return ((rows @ columns).real * np.sqrt(2 / len(u))).astype(np.float64)


@dataclass(frozen=True)
class Ellipsoid:
    """A body of one tissue.

    Attributes
    ----------
    centre, axes : (3,) arrays
        Along x, y and z, in units of half the field of view.
    angle : float
        By which it is turned about z.
    tissue : int
        Index into the object's tissues.
    """

    centre: Array
    axes: Array
    angle: float
    tissue: int

    def ellipse(self, z: float) -> tuple[float, float, float, float, float] | None:
        """Centre x and y, semi-axes and angle of its cut by a plane."""
        rest = 1 - ((z - self.centre[2]) / self.axes[2]) ** 2
        if rest <= 0:
            return None
        wide, tall = self.axes[:2] * np.sqrt(rest)
        return float(self.centre[0]), float(self.centre[1]), float(wide), float(tall), self.angle

    def level(self, y: Array, x: Array, z: float) -> Array:
        """Squared radius, one on the surface."""
        u, v = x - self.centre[0], y - self.centre[1]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        along, across = (cos * u + sin * v) / self.axes[0], (cos * v - sin * u) / self.axes[1]
        return along**2 + across**2 + ((z - self.centre[2]) / self.axes[2]) ** 2


@dataclass(frozen=True)
class Phantom:
    """An object in space; where bodies overlap, the later one counts.

    Attributes
    ----------
    bodies : list of Ellipsoid
    tissues : (n, 4) array
        Proton density, T1, T2 and T2*; of index 0 the air.
    folds : Waves or None
        Of the brain, which is then the fourth body: white matter inside, grey and fluid towards its rim.
    bend : Waves, Waves
        By which places are shifted along y and x.
    bent : float
        How far.

    References
    ----------
    Shepp and Logan, *The Fourier reconstruction of a head section*, IEEE Transactions on Nuclear Science 21,
    1974; Gach, Tanase and Boada, *2D and 3D Shepp-Logan phantom standards for MRI*, ICSEng 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.phantoms import Phantom
    >>> axis = np.linspace(-1, 1, 32)
    >>> labels = Phantom.head(np.random.default_rng(0)).labels(axis, axis, 0.1)
    >>> labels.shape, int(labels[0, 0])
    ((32, 32), 0)
    """

    bodies: list[Ellipsoid]
    tissues: Array
    folds: Waves | None
    bend: tuple[Waves, Waves]
    bent: float

    def labels(self, y: Array, x: Array, z: float) -> NDArray[np.int64]:
        """Which tissue is where on a plane of rows y and columns x: indices into ``tissues``."""
        tall, wide = y[:, None], x[None]
        if self.bent:
            tall = tall + self.bent * self.bend[0](y, x, z)
            wide = wide + self.bent * self.bend[1](y, x, z)
        found = np.zeros((len(y), len(x)), dtype=np.int64)
        tall, wide = np.broadcast_arrays(tall, wide)
        for number, body in enumerate(self.bodies):
            if abs(z - body.centre[2]) >= body.axes[2]:
                continue
            if number != 3 or self.folds is None:
                # Waves of variance one are at most sqrt(2 n), which is 4.
                reach = body.axes[:2].max() + 4 * self.bent
                (top, bottom), (left, right) = (
                    np.searchsorted(axis, [middle - reach, middle + reach])
                    for axis, middle in ((y, body.centre[1]), (x, body.centre[0]))
                )
                part = np.s_[top:bottom, left:right]
                found[part][body.level(tall[part], wide[part], z) < 1] = body.tissue
            else:
                level = body.level(tall, wide, z)
                inside = level < 1
                found[inside] = body.tissue
                wave = self.folds(y, x, z)
                depth = 1 - np.sqrt(level)
                ribbon = np.clip(0.14 + 0.1 * wave, 0.05, 0.45)
                found[inside & (depth > ribbon)] = NAMES.index("white")
                furrow = (np.abs(wave) < 0.16 * (1 - depth / 0.4)) & (depth < 0.4)
                found[inside & furrow] = NAMES.index(SPACE)
        return found

    @classmethod
    def head(cls, rng: np.random.Generator) -> "Phantom":
        """A head: scalp, skull, fluid, folded brain with ventricles, kernels, lesions and vessels."""
        tissues = np.array(list(TISSUES.values()))
        tissues[1:] *= rng.uniform(0.85, 1.15, tissues[1:].shape)
        size = rng.uniform(0.68, 0.92) * np.array([rng.uniform(0.78, 0.95), 1, rng.uniform(0.9, 1.1)])
        centre, angle = rng.uniform(-0.06, 0.06, 3), rng.uniform(-0.3, 0.3)
        bodies = []
        for name, shrink in zip(
            (SCALP, BONE, SPACE, BRAIN), np.cumsum([0, *rng.uniform([0.03, 0.03, 0.01], [0.09, 0.07, 0.03])]),
            strict=True,
        ):  # fmt: skip
            bodies.append(Ellipsoid(centre, size - shrink, angle, NAMES.index(name)))
        inner = bodies[-1].axes
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

        def put(name: str, place: Array, axes: Array, tilt: float) -> None:
            there = centre + turn @ (inner * place)
            bodies.append(Ellipsoid(there, inner * axes, angle + tilt, NAMES.index(name)))

        for side in (-1, 1):
            lean = side * rng.uniform(0.1, 0.4)
            place = np.array([side * rng.uniform(0.12, 0.2), rng.uniform(-0.1, 0.1), 0.05])
            put("csf", place, np.array([rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.4), 0.4]), lean)
            place = np.array([side * rng.uniform(0.26, 0.36), rng.uniform(-0.1, 0.15), 0.0])
            put("grey", place, rng.uniform([0.07, 0.12, 0.2], [0.13, 0.22, 0.35]), -lean)
        for _ in range(rng.integers(0, 9)):
            radius = 0.75 * np.sqrt(rng.random())
            turned = rng.uniform(0, 2 * np.pi)
            place = np.array([radius * np.cos(turned), radius * np.sin(turned), rng.uniform(-0.5, 0.6)])
            name = str(rng.choice(["lesion", "vessel", "csf", "fat", "bone", "muscle"]))
            put(name, place, rng.uniform(0.015, 0.14) * rng.uniform(0.5, 1.5, 3), rng.uniform(0, np.pi))
        bend = Waves.random(rng, 0.5, 2.0, 8), Waves.random(rng, 0.5, 2.0, 8)
        folds = Waves.random(rng, 0.12, 0.45)
        return cls(bodies, tissues, folds, bend, rng.uniform(0, 0.03))

    @classmethod
    def bodies_of(cls, rng: np.random.Generator) -> "Phantom":
        """Something else: a body that holds few others or many, of any size and tissue."""
        count = round(np.exp(rng.uniform(np.log(3), np.log(200))))
        tissues = np.zeros((count + 1, 4))
        tissues[0] = TISSUES["air"]
        tissues[1:, 0] = rng.uniform(0.1, 1, count)
        tissues[1:, 1] = np.exp(rng.uniform(np.log(200), np.log(4000), count))
        tissues[1:, 2] = np.minimum(np.exp(rng.uniform(np.log(25), np.log(1500), count)), tissues[1:, 1])
        tissues[1:, 3] = tissues[1:, 2] * rng.uniform(0.3, 0.9, count)
        outer = rng.uniform(0.5, 0.95, 3)
        bodies = [Ellipsoid(rng.uniform(-0.05, 0.05, 3), outer, rng.uniform(0, np.pi), 1)]
        for tissue in range(2, count + 1):
            axes = np.exp(rng.uniform(np.log(0.02), np.log(0.5), 3))
            centre = 0.85 * outer * rng.uniform(-1, 1, 3)
            bodies.append(Ellipsoid(centre, axes, rng.uniform(0, np.pi), tissue))
        bend = Waves.random(rng, 0.4, 2.0, 8), Waves.random(rng, 0.4, 2.0, 8)
        return cls(bodies, tissues, None, bend, float(rng.choice([0, 0.02, 0.05])))
