"""Handwritten digits of 8 by 8 pixels, one pixel after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from learnsolve.problems.tasks import NOTHING, Array, Batch, Task

PIXELS = 8
# Every fifth image is judged by, and never learned from.
HELD_OUT = 5


@cache
def digits(part: Literal["learned", "judged"]) -> tuple[Tensor, Tensor]:
    """Images and their classes.

    Returns
    -------
    images : (n, 8, 8) float32 Tensor
        From -1 to 1.
    classes : (n,) int64 Tensor

    Raises
    ------
    ModuleNotFoundError
        scikit-learn, which carries the images, is not installed.

    References
    ----------
    Alpaydin and Kaynak, *Optical recognition of handwritten digits*, UCI machine learning repository, 1998.

    Examples
    --------
    >>> images, classes = digits("judged")
    >>> images.shape, classes.unique().tolist() == list(range(10))
    (torch.Size([360, 8, 8]), True)
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: pip install learnsolve[digits]"
        ) from None
    found = load_digits()
    judged = np.arange(len(found.target)) % HELD_OUT == 0
    kept = judged if part == "judged" else ~judged
    images = torch.from_numpy(found.images[kept] / 8 - 1).float()
    return images, torch.from_numpy(found.target[kept].astype(np.int64))


@dataclass(frozen=True)
class Digits(Task):
    """A digit of 64 pixels, asked for after the last one.

    Sequences are of vectors of one number, from -1 to 1, and always of length 64.

    Parameters
    ----------
    part : {"learned", "judged"}
        Of the images: four of five are learned from, the rest is what `judged` draws from.

    Raises
    ------
    ValueError
        There is no such part.

    References
    ----------
    Le, Jaitly and Hinton, *A simple way to initialize recurrent networks of rectified linear units*, 2015,
    section 4.2, on larger digits.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Digits
    >>> pixels, targets = Digits().batch(2, 64, seed=0)
    >>> pixels.shape, int((targets >= 0).sum())
    (torch.Size([2, 64, 1]), 2)
    """

    name: ClassVar[str] = "digits"
    shortest: ClassVar[int] = PIXELS * PIXELS
    features: ClassVar[int] = 1
    part: Literal["learned", "judged"] = "learned"

    def __post_init__(self) -> None:
        if self.part not in ("learned", "judged"):
            raise ValueError(f"part is {self.part!r}; learned and judged are accepted")

    @property
    def vocabulary(self) -> int:
        """None: there are no tokens."""
        return 0

    @property
    def classes(self) -> int:
        """Of answers."""
        return 10

    @property
    def judged(self) -> "Digits":
        """The images that are not learned from."""
        return replace(self, part="judged")

    def batch(self, count: int, length: int, seed: int | Sequence[int]) -> Batch:
        """Images in any order, none twice before each was there once.

        Raises
        ------
        ValueError
            A number is too small, or the length is not that of an image.
        """
        if length != self.shortest:
            raise ValueError(f"length is {length}; a digit has {self.shortest} pixels")
        return super().batch(count, length, seed)

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Any, Array]:
        images, classes = digits(self.part)
        rounds = -(-count // len(images))
        chosen = np.concatenate([rng.permutation(len(images)) for _ in range(rounds)])[:count]
        targets = np.full((count, length), NOTHING)
        targets[:, -1] = classes[chosen].numpy()
        return images[chosen].reshape(count, length, 1).numpy(), targets
