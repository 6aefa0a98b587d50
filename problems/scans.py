"""Simulated scans of random objects by random coils, as many as one likes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from learnsolve.problems.analytic import analytic_kspace, intensities, nodes
from learnsolve.problems.phantoms import Phantom, Waves
from learnsolve.problems.receive_coils import receive_coils
from learnsolve.problems.tissues import NAMES, Contrast

Complex64 = NDArray[np.complex64]
# Objects are drawn on a grid so many times finer than the image, each way.
FINER = 2
# Of a slice, in units of half the field of view; and in how many planes it is drawn.
THICKEST, LAYERS = 0.08, 3


@dataclass(frozen=True)
class Scan:
    """A slice, fully sampled.

    Attributes
    ----------
    kspace : (coils, height, width) complex64 array
        With its noise, and its origin at ``n // 2``; the transform is orthonormal.
    clean : (coils, height, width) complex64 array
        Without noise.
    maps : (coils, height, width) complex64 array
        What the coils see at the pixels, of root of squares one.
    covariance : (coils, coils) complex64 array
        Of the noise of a sample.
    contrast : Contrast
    """

    kspace: Complex64
    clean: Complex64
    maps: Complex64
    covariance: Complex64
    contrast: Contrast = field(repr=False)


@dataclass(frozen=True)
class Scans:
    """A stream of scans: number and seed say which.

    Parameters
    ----------
    sizes : tuple of int
        Of which height and width are drawn, each by itself.
    coils : (int, int)
        Fewest and most.
    noise : (float, float)
        Least and most energy of all coils' noise over that of the signal.
    heads : float
        Share of heads among the objects.
    seed : int
    analytic : bool
        K-space in closed form, of ellipses whose intensities add: no folds, no bends, no texture.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> from learnsolve.problems.scans import Scans
    >>> stream = Scans(sizes=(32,), coils=(4, 4))
    >>> stream[0].kspace.shape, bool((stream[0].kspace == stream[0].kspace).all())
    ((4, 32, 32), True)
    """

    sizes: tuple[int, ...] = (128,)
    coils: tuple[int, int] = (6, 16)
    noise: tuple[float, float] = (3e-4, 6e-2)
    heads: float = 0.5
    seed: int = 0
    analytic: bool = False

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 8:
            raise ValueError(f"sizes are {self.sizes}; numbers of at least 8 are accepted")
        if not 1 <= self.coils[0] <= self.coils[1]:
            raise ValueError(f"coils are {self.coils}; a least of 1 or more, and a most, are accepted")
        if not 0 <= self.noise[0] <= self.noise[1] < np.inf or (self.noise[0] == 0 < self.noise[1]):
            raise ValueError(f"noise is {self.noise}; two positive numbers, or two zeros, are accepted")
        if not 0 <= self.heads <= 1:
            raise ValueError(f"heads is {self.heads}; a share from 0 to 1 is accepted")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    def __getitem__(self, number: int) -> Scan:
        rng = np.random.default_rng((self.seed, number))
        height, width = (int(n) for n in rng.choice(self.sizes, 2))
        coils = int(rng.integers(self.coils[0], self.coils[1] + 1))
        phantom = Phantom.head(rng) if rng.random() < self.heads else Phantom.bodies_of(rng)
        z = rng.uniform(-0.45, 0.55)
        contrast = Contrast.random(rng)
        if self.analytic:
            return exact(phantom, contrast, coils, (height, width), z, self.noise, rng)
        y, x = (_axis(FINER * n) for n in (height, width))
        image = painted(phantom, contrast, y, x, z, rng)
        fine = receive_coils(coils, y, x, z, rng).astype(np.complex64)
        return scanned(image, fine, (height, width), self.noise, contrast, rng)


def _axis(count: int) -> NDArray[np.float64]:
    """Coordinates of pixels, of which that at ``n // 2`` is zero."""
    return np.arange(-(count // 2), count - count // 2, dtype=np.float64) * (2.0 / count)


def exact(
    phantom: Phantom,
    contrast: Contrast,
    coils: int,
    shape: tuple[int, int],
    z: float,
    noise: tuple[float, float],
    rng: np.random.Generator,
) -> Scan:
    """A scan whose k-space is that of ellipses in closed form."""
    seed = int(rng.integers(2**62))
    turns, phase = rng.uniform(0.1, 0.6), Waves.random(rng, 1.5, 4.0, 6)
    places = nodes()

    def seen(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex128]:
        return receive_coils(coils, y, x, z, np.random.default_rng(seed))

    turned = seen(places, places) * np.exp(1j * turns * phase(places, places, z))
    signals = contrast.signal(phantom.tissues)
    clean, _ = analytic_kspace(intensities(phantom, signals, z), shape, turned)
    return measured(clean, seen(*(_axis(n) for n in shape)), noise, contrast, rng)


def painted(
    phantom: Phantom,
    contrast: Contrast,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    z: float,
    rng: np.random.Generator,
) -> Complex64:
    """The complex image of a plane: signal, texture and phase."""
    signals = contrast.signal(phantom.tissues)
    labels = phantom.labels(y, x, z)
    # Edges that lean are blurred by the slice's thickness.
    away = THICKEST * rng.uniform(0, 0.5) * np.linspace(-1, 1, LAYERS)
    image = np.mean([signals[phantom.labels(y, x, z + one) if one else labels] for one in away], axis=0)
    if not image.any():
        image = image + (np.hypot(y[:, None], x[None]) < 0.6)
    rough, smooth = rng.uniform(0, 0.12), rng.uniform(0, 0.15)
    image = image * (1 + rough * Waves.random(rng, 0.04, 0.3, 60)(y, x, z))
    image = image * (1 + smooth * Waves.random(rng, 0.8, 4.0, 8)(y, x, z))
    # The field is off by more, the longer the echo; in a gradient echo nothing turns it back.
    turns = rng.uniform(0.1, 0.6)
    if contrast.sequence == "gradient-echo":
        turns += 0.04 * contrast.echo * rng.random()
    phase = turns * Waves.random(rng, 0.7, 4.0, 6)(y, x, z) + disturbance(y, x, z, rng)
    if phantom.folds is not None and contrast.sequence == "gradient-echo":
        # Fat's protons turn more slowly, by 3.4 parts in a million.
        phase = phase - 2 * np.pi * 0.434 * contrast.echo * (labels == NAMES.index("fat"))
    found: Complex64 = (image * np.exp(1j * phase)).astype(np.complex64)
    return found


def disturbance(
    y: NDArray[np.float64], x: NDArray[np.float64], z: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Phase as air cavities and echoes off their centre cause it: bumps of several turns, and ramps."""
    found = np.full((len(y), len(x)), rng.uniform(0, 2 * np.pi))
    # K-space that is shifted by so many samples.
    down, right = rng.uniform(-1.5, 1.5, 2)
    found += np.pi * (down * y[:, None] + right * x)
    for _ in range(int(rng.integers(0, 4))):
        place, width = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.08, 0.35, 3)
        away = ((y[:, None] - place[0]) / width[0]) ** 2 + ((x - place[1]) / width[1]) ** 2
        found += 3 * rng.standard_normal() * np.exp(-0.5 * (away + ((z - place[2]) / (3 * width[2])) ** 2))
    return found


def scanned(
    image: Complex64,
    fine: Complex64,
    shape: tuple[int, int],
    noise: tuple[float, float],
    contrast: Contrast,
    rng: np.random.Generator,
    unit: float | None = None,
) -> Scan:
    """The scan of a finely drawn image by coils: k-space as far as the pixels reach, and noise.

    K-space is divided by a unit, by default such that the mean energy of a pixel is one.
    """
    height, width = shape
    tall, wide = image.shape
    whole = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(fine * image, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
    )
    top, left = tall // 2 - height // 2, wide // 2 - width // 2
    # An image of fewer pixels has k-space of its own unit.
    clean = whole[:, top : top + height, left : left + width] * np.sqrt(height * width / (tall * wide))
    return measured(clean, fine[:, :: tall // height, :: wide // width], noise, contrast, rng, unit)


def measured(
    clean: NDArray[np.complexfloating],
    maps: NDArray[np.complexfloating],
    noise: tuple[float, float],
    contrast: Contrast,
    rng: np.random.Generator,
    unit: float | None = None,
) -> Scan:
    """K-space over its unit, with noise of random covariance and energy."""
    coils = len(clean)
    unit = size_of(clean) if unit is None else unit
    clean = (clean / max(unit, 1e-30)).astype(np.complex64)
    maps = maps / np.sqrt(np.square(np.abs(maps)).sum(0)).clip(1e-12)
    mixed = rng.standard_normal((coils, coils, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    shared = rng.uniform(0, 0.4)
    covariance = (1 - shared) * np.eye(coils) + shared * mixed @ mixed.conj().T / coils
    energy = np.exp(rng.uniform(*np.log(noise))) if noise[0] > 0 else 0.0
    covariance *= energy / np.trace(covariance).real
    drawn = rng.standard_normal((2, coils, clean[0].size), dtype=np.float32)
    root = np.linalg.cholesky(covariance).astype(np.complex64) if energy > 0 else np.zeros_like(mixed)
    added = (root @ (drawn[0] + 1j * drawn[1]) / np.sqrt(2)).reshape(clean.shape)
    kspace = (clean + added).astype(np.complex64)
    return Scan(kspace, clean, maps.astype(np.complex64), covariance.astype(np.complex64), contrast)


def size_of(kspace: NDArray[np.complexfloating]) -> float:
    """Root of the mean energy of a pixel."""
    return float(np.sqrt(np.square(np.abs(kspace)).sum() / (kspace.shape[-2] * kspace.shape[-1])))


class Volume:
    """Slices of one object by coils that stay where they are: ``volume[i]``.

    Parameters
    ----------
    shape : (height, width)
    coils, slices : int
    noise : float
        Energy of all coils' noise over that of the signal in the middle slice.
    seed : int

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> from learnsolve.problems.scans import Volume
    >>> scan = Volume((32, 24), coils=4, slices=3, noise=0.01, seed=1)
    >>> len(scan), scan[2].kspace.shape
    (3, (4, 32, 24))
    """

    def __init__(
        self, shape: tuple[int, int], *, coils: int = 8, slices: int = 8, noise: float = 0.01, seed: int = 0
    ) -> None:
        if min(shape) < 8 or coils < 1 or slices < 1:
            raise ValueError(
                f"shape is {shape}, coils {coils}, slices {slices}; at least 8 pixels each way, and a "
                "positive number of coils and slices, are accepted"
            )
        if not 0 <= noise < np.inf or seed < 0:
            raise ValueError(f"noise is {noise} and seed {seed}; numbers that are not negative are accepted")
        rng = np.random.default_rng((seed, 0))
        self.shape, self.coils, self.slices, self.noise, self.seed = shape, coils, slices, noise, seed
        self.phantom = Phantom.head(rng)
        self.contrast = Contrast.random(rng)
        self.unit = size_of(self._scan(slices // 2, 1.0).clean)

    def __len__(self) -> int:
        return self.slices

    def __getitem__(self, index: int) -> Scan:
        if not 0 <= index < self.slices:
            raise IndexError(f"slice {index} of {self.slices}")
        return self._scan(index, self.unit)

    def _scan(self, index: int, unit: float) -> Scan:
        height, width = self.shape
        z = 0.9 * ((index + 0.5) / self.slices - 0.5)
        y, x = _axis(FINER * height), _axis(FINER * width)
        # The same numbers for each slice: fields, phases and loops are those of one object.
        image = painted(self.phantom, self.contrast, y, x, z, np.random.default_rng((self.seed, 1)))
        fine = receive_coils(self.coils, y, x, z, np.random.default_rng((self.seed, 2)), about=0.0)
        noisy = np.random.default_rng((self.seed, 3, index))
        level = (self.noise, self.noise)
        return scanned(image, fine.astype(np.complex64), self.shape, level, self.contrast, noisy, unit)
