"""What a network learns from: slices undersampled on the way, their maps, and where the descent begins."""

import itertools
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from learnsolve.mri.classical import cg_sense, total_variation
from learnsolve.mri.coils import acs_region, images_of, low_resolution_maps, rss
from learnsolve.mri.espirit import espirit
from learnsolve.mri.frame import Frame
from learnsolve.mri.masks import Kind, Sampling
from learnsolve.mri.rows import separable
from learnsolve.result import without_convergence_warnings
from learnsolve.training.seeding import seed_of
from learnsolve.workers import pool

# Of the share of positions that the acceleration allows, the middle takes this at most.
MIDDLE = 0.75
# Of what is sampled outside of the middle, so much is kept aside where there is no reference.
ASIDE = 0.4
# Of total variation, before the descent begins: lines need fewer, since their rows are solved exactly.
STEPS_OF_LINES, STEPS_OF_POINTS = 20, 30
# Batches that each process is asked for before they are needed.
AHEAD = 4
POINTS = ("gaussian_2d", "poisson", "radial", "spiral")


@dataclass(frozen=True)
class Full:
    """A slice to learn from.

    Attributes
    ----------
    kspace : (coils, height, width) complex Tensor
        Sampled everywhere, or where ``sampled`` says.
    reference : (height, width) real Tensor or None
        What the image shall be; by default the root of squares of k-space's images.
    sampled : (height, width) bool Tensor or None
        Where less than all is sampled: then some of it is kept aside to learn by.
    centred : bool
        The origin is at ``n // 2``, otherwise at 0.
    """

    kspace: Tensor
    reference: Tensor | None = None
    sampled: Tensor | None = None
    centred: bool = True


# The slice of a number, always the same one.
Source = Callable[[int], Full]


@dataclass(frozen=True)
class Masking:
    """Which masks are drawn: of each a kind, an acceleration, a share of the middle and an axis.

    Parameters
    ----------
    kinds : tuple of str
        Of `Sampling`; one that is named twice is drawn twice as often.
    acceleration, centre : (float, float)
        Least and most. Of points, the middle is a square of that share of the shorter side.
    axes : tuple of int
        -1, -2 or both.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.mri.examples import Masking
    >>> Masking(kinds=("random",)).draw((64, 48), np.random.default_rng(0)).shape
    torch.Size([64, 48])
    """

    kinds: tuple[str, ...] = ("random", "random", "equispaced_fraction", "poisson")
    acceleration: tuple[float, float] = (2.5, 6.0)
    centre: tuple[float, float] = (0.12, 0.2)
    axes: tuple[int, ...] = (-1, -2)

    def __post_init__(self) -> None:
        for kind in self.kinds or ("",):
            if kind not in get_args(Kind):
                raise ValueError(f"kinds holds {kind!r}; {', '.join(get_args(Kind))} are accepted")
        if not 1 <= self.acceleration[0] <= self.acceleration[1] < math.inf:
            raise ValueError(f"acceleration is {self.acceleration}; two numbers from 1 on are accepted")
        if not 0 < self.centre[0] <= self.centre[1] < 1:
            raise ValueError(f"centre is {self.centre}; two shares between 0 and 1 are accepted")
        if not self.axes or not set(self.axes) <= {-1, -2}:
            raise ValueError(f"axes are {self.axes}; -1 and -2 are accepted")

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """A mask for k-space with its origin at ``n // 2``."""
        kind: Any = rng.choice(self.kinds)
        acceleration = float(rng.uniform(*self.acceleration))
        most = MIDDLE / acceleration
        share = min(float(rng.uniform(*self.centre)), most**0.5 if kind in POINTS else most)
        axis = int(rng.choice(self.axes))
        size = min(shape) if kind in POINTS else shape[axis]
        centre, seed = max(1, math.floor(size * share)), int(rng.integers(2**31))
        return Sampling(kind, acceleration, centre=centre, axis=axis, seed=seed).mask(shape)


@dataclass(frozen=True)
class Example:
    """What a network sees of a slice, and what it shall make of it.

    Attributes
    ----------
    kspace : (coils, height, width) complex Tensor
    sampled : (height, width) bool Tensor
        What is seen.
    maps : (coils, height, width) complex Tensor
    start : (height, width) complex Tensor
        An image by a few iterations of total variation.
    reference : (height, width) real Tensor or None
    aside : (height, width) bool Tensor or None
        Where there is no reference, what k-space is compared at.
    centred : bool
    """

    kspace: Tensor
    sampled: Tensor
    maps: Tensor
    start: Tensor
    reference: Tensor | None = None
    aside: Tensor | None = None
    centred: bool = True

    def to(self, device: torch.device) -> "Example":
        """On a device."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {
            name: one.to(device) for name, one in held.items() if isinstance(one, Tensor)
        }
        return replace(self, **moved)


def prepared(kspace: Tensor, sampled: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """Maps, and the image that the descent begins with."""
    shown = sampled if centred else torch.fft.fftshift(sampled, (-2, -1))
    region = acs_region(shown)
    if min(region) > 6:
        maps = espirit(kspace, centred=centred, acs=region).maps[..., 0, :, :, :]
    elif kspace.shape[-3] == 1:
        maps = torch.ones_like(kspace)
    else:
        maps = low_resolution_maps(kspace, centred=centred, acs=region)
    return maps, started(kspace, sampled, maps, centred)


def started(kspace: Tensor, sampled: Tensor, maps: Tensor, centred: bool) -> Tensor:
    """The image that a network's descent begins with: a few iterations of total variation."""
    exact = separable(Frame(sampled, centred), maps)
    steps = STEPS_OF_LINES if exact else STEPS_OF_POINTS
    with without_convergence_warnings():
        first = cg_sense(kspace, sampled, maps, centred=centred).x
        return total_variation(kspace, sampled, maps, x0=first, maxiter=steps, centred=centred).x


def example(full: Full, masks: Masking, rng: np.random.Generator) -> Example:
    """Undersample a slice.

    Of a slice that is sampled in part alone, some lines or points outside of the middle are kept aside.

    References
    ----------
    Yaman and others, *Self-supervised learning of physics-guided reconstruction neural networks without
    fully sampled reference data*, Magnetic Resonance in Medicine 84, 2020.
    """
    k, reference, aside = full.kspace, full.reference, None
    if full.sampled is None:
        sampled = masks.draw((k.shape[-2], k.shape[-1]), rng)
        sampled = sampled if full.centred else torch.fft.ifftshift(sampled, (-2, -1))
        reference = rss(images_of(k, centred=full.centred)) if reference is None else reference
    else:
        sampled, aside = split(full.sampled, full.centred, rng)
        reference = None
    seen = torch.where(sampled, k, 0)
    maps, start = prepared(seen, sampled, full.centred)
    return Example(k, sampled, maps, start, reference, aside, full.centred)


def split(
    sampled: Tensor, centred: bool, rng: np.random.Generator, share: float = ASIDE
) -> tuple[Tensor, Tensor]:
    """What is seen of a mask, and what is kept aside of it: whole lines, where it has whole lines.

    Raises
    ------
    ValueError
        Nothing is sampled outside of the middle.

    Examples
    --------
    >>> import numpy as np, torch
    >>> lines = torch.zeros(4, 16, dtype=torch.bool)
    >>> lines[:, ::2] = True
    >>> seen, aside = split(lines, True, np.random.default_rng(0))
    >>> int(aside[0].sum()), bool((seen ^ aside == lines).all())
    (3, True)
    """
    shown = sampled if centred else torch.fft.fftshift(sampled, (-2, -1))
    height, width = shown.shape
    tall, wide = acs_region(shown)
    outside = shown.clone()
    y, x = height // 2 - tall // 2, width // 2 - wide // 2
    outside[y : y + tall, x : x + wide] = False
    if not outside.any():
        raise ValueError(
            "nothing outside of the middle of k-space is sampled: there is nothing to keep aside"
        )
    aside = torch.zeros_like(shown)
    for axis in (0, 1):
        if bool((shown == shown.select(axis, 0).unsqueeze(axis)).all()):
            lines = outside.any(axis).nonzero()[:, 0]
            taken = lines[torch.from_numpy(rng.permutation(len(lines))[: max(1, round(share * len(lines)))])]
            aside.index_fill_(1 - axis, taken, True)
            break
    else:
        places = outside.flatten().nonzero()[:, 0]
        taken = places[torch.from_numpy(rng.permutation(len(places))[: max(1, round(share * len(places)))])]
        aside.view(-1)[taken] = True
    aside &= outside
    if not centred:
        aside = torch.fft.ifftshift(aside, (-2, -1))
    return sampled & ~aside, aside


class Batches:
    """Batches by their number, made in other processes ahead of time if any are given.

    Parameters
    ----------
    source : callable
    masks : Masking
    batch : int
    seed : int
    workers : int
        Processes; zero for none.
    stride : int
        From a number to the one that is asked for next.
    """

    def __init__(
        self, source: Source, masks: Masking, batch: int, seed: int, workers: int = 0, stride: int = 1
    ) -> None:
        self.source, self.masks, self.batch, self.seed = source, masks, batch, seed
        self.workers, self.stride = workers, stride
        self.next = -1
        self.iterator: Iterator[list[Example]] = iter(())

    def __getitem__(self, number: int) -> list[Example]:
        rng = np.random.default_rng(seed_of(self.seed, "masks", number))
        numbers = range(number * self.batch, (number + 1) * self.batch)
        return [example(self.source(one), self.masks, rng) for one in numbers]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"iterator": None}

    def __call__(self, number: int, generator: torch.Generator) -> list[Example]:
        """The batch of a number."""
        if self.workers == 0:
            return self[number]
        if number != self.next:
            self.iterator = self._ahead(number)
        self.next = number + self.stride
        return next(self.iterator)

    def _ahead(self, first: int) -> Iterator[list[Example]]:
        numbers = itertools.count(first, self.stride)
        processes = pool(self.workers, beside=True)
        try:
            coming = deque(
                processes.submit(_packed, self, next(numbers)) for _ in range(AHEAD * self.workers)
            )
            while True:
                packed = coming.popleft().result()
                coming.append(processes.submit(_packed, self, next(numbers)))
                yield pickle.loads(packed)
        finally:
            processes.shutdown(cancel_futures=True)


def _packed(batches: Batches, number: int) -> bytes:
    """In a worker: a batch as bytes, which share no memory with a process that may be gone."""
    return pickle.dumps(batches[number])
