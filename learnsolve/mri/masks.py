"""Which positions of k-space are sampled."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kind = Literal[
    "random",
    "equispaced",
    "equispaced_fraction",
    "magic",
    "gaussian_1d",
    "gaussian_2d",
    "poisson",
    "radial",
    "spiral",
]
Bools = NDArray[np.bool_]
# A golden angle between spokes: any number of them is spread evenly.
GOLDEN = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class Sampling:
    """A rule to sample k-space by.

    Parameters
    ----------
    kind : str
        ``"random"`` lines, ``"equispaced"`` lines (every R-th, and those of the middle beside, so that fewer
        than R-fold is skipped), ``"equispaced_fraction"`` (apart so far that the factor is met), ``"magic"``
        (equispaced lines whose offset makes use of conjugate symmetry), ``"gaussian_1d"`` lines; points by
        ``"gaussian_2d"`` or ``"poisson"`` (variable-density Poisson disk); ``"radial"`` spokes and
        ``"spiral"`` arms on the grid.
    acceleration : float
        Positions for each that is sampled. It is met to one position, but by ``"equispaced"`` and
        ``"magic"``, whose achieved factor `factor` tells.
    centre : int or float, optional
        Lines (or width and height of a square of points) in the middle that are all sampled; a number below
        one is a share of the axis. By default 0.32 over the acceleration, fastMRI's.
    axis : int
        -1 or -2: the one that the lines are counted along.
    seed : int or str
        A string is a file's name: fastMRI's rule, by which a volume always gets the same mask.

    Raises
    ------
    ValueError
        For what is not described above.

    References
    ----------
    Zbontar and others, *fastMRI*, arXiv:1811.08839, section 4.9; Bridson, *Fast Poisson disk sampling in
    arbitrary dimensions*, SIGGRAPH 2007.

    Examples
    --------
    >>> from learnsolve.mri import Sampling, factor
    >>> sampled = Sampling("random", 4, centre=20).mask((128, 128))
    >>> sampled.shape, factor(sampled)
    (torch.Size([128, 128]), 4.0)
    """

    kind: Kind = "random"
    acceleration: float = 4.0
    centre: float | None = None
    axis: int = -1
    seed: int | str = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}; {', '.join(get_args(Kind))} are accepted")
        if not (np.isfinite(self.acceleration) and self.acceleration >= 1):
            raise ValueError(f"acceleration is {self.acceleration}; a number from 1 on is accepted")
        if self.centre is not None and not (np.isfinite(self.centre) and self.centre >= 0):
            raise ValueError(f"centre is {self.centre}; a number that is not negative is accepted")
        if self.axis not in (-1, -2):
            raise ValueError(f"axis is {self.axis}; -1 and -2 are accepted")

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """Where k-space of a shape is sampled.

        Parameters
        ----------
        shape : tuple of int
            The last two are height and width; k-space has its origin at ``n // 2``.

        Returns
        -------
        (height, width) bool Tensor

        Raises
        ------
        ValueError
            The middle alone has more positions than the acceleration allows.
        """
        height, width = shape[-2:]
        if min(height, width) < 1:
            raise ValueError(f"shape is {shape}; positive numbers are accepted")
        rng = _generator(self.seed)
        if self.kind in ("gaussian_2d", "poisson", "radial", "spiral"):
            return torch.from_numpy(self._points(height, width, rng))
        lines = torch.from_numpy(self._lines((height, width)[self.axis], rng))
        lines = lines if self.axis == -1 else lines[:, None]
        return lines.expand(height, width).clone()

    def _middle(self, size: int) -> int:
        centre = 0.32 / self.acceleration if self.centre is None else self.centre
        return min(size, round(size * centre) if 0 < centre < 1 else round(centre))

    def _lines(self, size: int, rng: np.random.RandomState) -> Bools:
        low = self._middle(size)
        wanted = self._wanted(size, low)
        begin = (size - low + 1) // 2
        middle = np.zeros(size, bool)
        middle[begin : begin + low] = True
        if self.kind == "random":
            # The lines that fastMRI's rule takes are those of the smallest numbers.
            return _most(middle, -rng.uniform(size=size), wanted)
        if self.kind == "gaussian_1d":
            away = (np.arange(size) - size // 2) / (size / 6)
            return _most(middle, _weighted(np.exp(-0.5 * away**2), rng), wanted)
        apart = self.acceleration
        if self.kind == "equispaced":
            step = max(1, round(apart))
            middle[rng.randint(0, step) :: step] = True
            return middle
        if self.kind == "magic":
            return middle | _magic(size, max(1, round(apart)), rng)
        return self._apart(middle, wanted, rng)

    @staticmethod
    def _apart(middle: Bools, wanted: int, rng: np.random.RandomState) -> Bools:
        """So many lines outside of the middle, as far apart as there is room."""
        outside = np.flatnonzero(~middle)
        count = wanted - int(middle.sum())
        if count > 0:
            step = len(outside) / count
            middle[outside[((rng.uniform() + np.arange(count)) * step).astype(int)]] = True
        return middle

    def _wanted(self, size: int, low: int) -> int:
        wanted = max(1, round(size / self.acceleration))
        if low > wanted and self.kind not in ("equispaced", "magic"):
            raise ValueError(
                f"{low} positions of the middle are more than the {wanted} of {size} that acceleration "
                f"{self.acceleration:g} allows"
            )
        return wanted

    def _points(self, height: int, width: int, rng: np.random.RandomState) -> Bools:
        low = self._middle(min(height, width))
        begin = (height - low + 1) // 2, (width - low + 1) // 2
        middle = np.zeros((height, width), bool)
        middle[begin[0] : begin[0] + low, begin[1] : begin[1] + low] = True
        wanted = self._wanted(height * width, int(middle.sum()))
        y, x = np.indices((height, width))
        v, u = (y - height // 2) / (height / 2), (x - width // 2) / (width / 2)
        away = np.hypot(v, u)
        if self.kind == "gaussian_2d":
            return _most(middle, _weighted(np.exp(-4.5 * away**2), rng), wanted)
        if self.kind == "poisson":
            return _poisson(middle, away, wanted, 8 * self.acceleration**0.5, rng)
        turned = rng.uniform(0, 2 * np.pi)
        path = _spokes if self.kind == "radial" else _arms
        return _traced(middle, path, wanted, turned, -away + 1e-3 * rng.uniform(size=away.shape))


def _generator(seed: int | str) -> np.random.RandomState:
    return np.random.RandomState(tuple(map(ord, seed)) if isinstance(seed, str) else seed)


def _weighted(weights: NDArray, rng: np.random.RandomState) -> NDArray:
    """Numbers of which the largest are a draw without replacement by weights (Efraimidis and Spirakis)."""
    return np.log(rng.uniform(size=weights.shape)) / weights


def _most(middle: Bools, keys: NDArray, wanted: int) -> Bools:
    """The middle, and of the rest those of the largest keys."""
    keys = np.where(middle, np.inf, keys).ravel()
    taken = np.zeros(keys.size, bool)
    taken[np.argsort(-keys, kind="stable")[:wanted]] = True
    return taken.reshape(middle.shape)


def _magic(size: int, step: int, rng: np.random.RandomState) -> Bools:
    """Lines of both halves, offset so that their mirror images fall between each other."""
    offset = rng.randint(0, step)
    positive, negative = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    ahead, behind = np.zeros((size + 1) // 2, bool), np.zeros(size // 2, bool)
    ahead[positive::step] = True
    behind[negative::step] = True
    return np.fft.fftshift(np.concatenate([ahead, behind[::-1]]))


def _poisson(middle: Bools, away: NDArray, wanted: int, high: float, rng: np.random.RandomState) -> Bools:
    from learnsolve.kernels.poisson_disk_numba import poisson_disk

    order = rng.permutation(middle.size)
    low, best = 0.0, middle
    # More distance, fewer points: so many halvings are exact to a few positions.
    for _ in range(16):
        scale = (low + high) / 2
        taken = middle.copy()
        poisson_disk(order, 1 + scale * away, taken)
        if taken.sum() >= wanted:
            low, best = scale, taken
        else:
            high = scale
    if best.sum() < wanted:
        return _most(best, rng.uniform(size=best.shape), wanted)
    # What is too much goes, of the outer ones first drawn, but never the middle.
    keys = np.where(middle, np.inf, np.where(best, rng.uniform(size=best.shape), -np.inf))
    return _most(middle, keys, wanted)


def _spokes(number: int, turned: float, height: int, width: int) -> NDArray:
    t = np.linspace(-1, 1, 2 * max(height, width))
    return t * np.exp(1j * (turned + number * GOLDEN))


def _arms(number: int, turned: float, height: int, width: int) -> NDArray:
    t = np.sqrt(np.linspace(0, 1, 16 * max(height, width)))
    return t * np.exp(1j * (turned + number * GOLDEN + 8 * np.pi * t))


def _traced(middle: Bools, path, wanted: int, turned: float, keys: NDArray) -> Bools:
    """Curves one after the other until there is enough; what is too much of the last goes from its ends."""
    height, width = middle.shape
    taken = middle.copy()
    # As many curves as could be needed, and no more.
    for number in range(4 * (height + width)):
        if taken.sum() >= wanted:
            break
        z = path(number, turned, height, width)
        y = np.clip(np.rint(height // 2 + z.imag * (height / 2 - 0.5)), 0, height - 1).astype(int)
        x = np.clip(np.rint(width // 2 + z.real * (width / 2 - 0.5)), 0, width - 1).astype(int)
        before = taken.copy()
        taken[y, x] = True
        if taken.sum() > wanted:
            return _most(before, np.where(taken, keys, -np.inf), wanted)
    return taken if taken.sum() >= wanted else _most(taken, keys, wanted)


def factor(sampled: Tensor) -> float:
    """Positions for each that is sampled.

    Examples
    --------
    >>> import torch
    >>> factor(torch.tensor([True, False, False, True]))
    2.0
    """
    count = int(sampled.sum())
    return sampled.numel() / count if count else float("inf")


def sampled_of(kspace: Tensor) -> Tensor:
    """Where k-space is not zero in every coil and slice.

    Parameters
    ----------
    kspace : (..., coils, height, width) Tensor

    Returns
    -------
    (height, width) bool Tensor

    Examples
    --------
    >>> import torch
    >>> sampled_of(torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))
    tensor([[False,  True]])
    """
    return (kspace != 0).flatten(0, -3).any(0)
