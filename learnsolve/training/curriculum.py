"""Curricula: which problem sizes to train on now, and when to go on to the next."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# Whether the sizes that were passed stay: none of them, all, as many as a window holds; or nothing advances.
CURRICULA = ("single", "cumulative", "sliding", "none")


class Curriculum:
    """Problem sizes that grow by one whenever those so far are mastered.

    What a size is, is said by who trains: a number of bits, or the power of two that a grid has cells.

    Parameters
    ----------
    kind : {"single", "cumulative", "sliding", "none"}
        Train on the newest size alone; on all from the first to the newest; on the newest ``width`` of them;
        or on ``width`` sizes from the first on, always.
    first : int
        Smallest size.
    threshold : float
        What accuracies must exceed, their mean and that of the newest size: or any other figure that grows
        with success.
    width : int, optional
        Of "sliding", which needs it, and of "none", where it is one by default.

    Attributes
    ----------
    state : (1,) int64 Tensor
        The newest size, changed in place: ``fit(..., carried={"curriculum": curriculum.state})`` keeps it
        in checkpoints.

    Raises
    ------
    ValueError
        There is no such kind, a number is not accepted, or ``width`` is missing or of no use.

    References
    ----------
    Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius and Levina, *Emergent mechanisms for long
    timescales depend on training curriculum and affect performance in memory tasks*, ICLR 2024.

    Examples
    --------
    >>> from learnsolve.training.curriculum import Curriculum
    >>> curriculum = Curriculum("cumulative")
    >>> curriculum.sizes, curriculum.update({2: 0.99}), curriculum.sizes
    ((2,), True, (2, 3))
    >>> curriculum.update({2: 1.0, 3: 0.8})
    False
    """

    def __init__(self, kind: str, first: int = 2, threshold: float = 0.98, width: int | None = None) -> None:
        if kind not in CURRICULA:
            raise ValueError(f"there is no curriculum {kind!r}; there are {', '.join(CURRICULA)}")
        if first < 1 or not math.isfinite(threshold):
            raise ValueError(
                f"first is {first} and threshold {threshold}; at least 1, and a finite number, are accepted"
            )
        if (width is None and kind == "sliding") or (width is not None and kind in ("single", "cumulative")):
            raise ValueError(
                f"the curriculum {kind!r} is given width {width}; 'sliding' needs one, 'none' takes one, and "
                "no other does"
            )
        if width is not None and width < 1:
            raise ValueError(f"width is {width}; at least 1 is accepted")
        self.kind, self.first, self.threshold, self.width = kind, first, threshold, width
        self.state = torch.tensor([first + (width or 1) - 1 if kind == "none" else first])

    @property
    def newest(self) -> int:
        """The largest size of those to train on."""
        return int(self.state)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those to train on now, the newest last."""
        begin = self.first
        if self.kind == "single":
            begin = self.newest
        elif self.kind == "sliding" and self.width is not None:
            begin = max(self.first, self.newest - self.width + 1)
        return tuple(range(begin, self.newest + 1))

    def update(self, accuracies: Mapping[int, float]) -> bool:
        """Go on to the next size if all so far are mastered; whether it did.

        Parameters
        ----------
        accuracies : mapping of int to float
            For each of `sizes`; others are ignored. NaN is not above any threshold.

        Raises
        ------
        ValueError
            A size is missing.
        """
        sizes = self.sizes
        missing = [size for size in sizes if size not in accuracies]
        if missing:
            raise ValueError(
                f"there are accuracies of sizes {sorted(accuracies)}; {missing} are missing of those that "
                "are trained on"
            )
        mean = sum(accuracies[size] for size in sizes) / len(sizes)
        advances = self.kind != "none" and mean > self.threshold and accuracies[sizes[-1]] > self.threshold
        if advances:
            self.state += 1
        return advances

    def restore(self, state: Tensor) -> None:
        """Take over the `state` of a curriculum that was made alike.

        Raises
        ------
        ValueError
            It is no such state.
        """
        least = Curriculum(self.kind, self.first, self.threshold, self.width).newest
        fits = state.shape == (1,) and state.dtype == torch.int64 and int(state) >= least
        if not fits or (self.kind == "none" and int(state) != least):
            raise ValueError(
                f"state is {state.tolist()} of {state.dtype}; one int64 number, a newest size of the "
                f"curriculum {self.kind!r} that begins with {least}, is accepted"
            )
        self.state.copy_(state)
