"""Boxes of cells: what each process owns of a grid, and what it sees of it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from learnsolve.kernels.stencil import FaceStencil, Stencil, UnitStencil


@dataclass(frozen=True)
class Box:
    """Cells from ``start`` up to ``stop``, for each axis.

    Examples
    --------
    >>> Box((0, 3), (4, 8)).grown(2, (9, 9))
    Box(start=(0, 0), stop=(6, 9))
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box in an array of the whole grid."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def inside(self, other: "Box") -> tuple[slice, ...]:
        """The box in an array of another that holds it."""
        return tuple(
            slice(a - base, b - base) for a, b, base in zip(self.start, self.stop, other.start, strict=True)
        )

    def grown(self, width: int, sizes: tuple[int, ...]) -> "Box":
        """With so many cells around it, and to even cells, as far as the grid goes."""
        start = tuple(max(a - width, 0) & ~1 for a in self.start)
        stop = tuple(min(b + width + (b + width) % 2, n) for b, n in zip(self.stop, sizes, strict=True))
        return Box(start, stop)

    def coarse(self, halved: tuple[bool, ...]) -> "Box":
        """The blocks of two cells along the halved axes whose first cell is in the box."""
        start = tuple((a + 1) // 2 if h else a for a, h in zip(self.start, halved, strict=True))
        stop = tuple((b + 1) // 2 if h else b for b, h in zip(self.stop, halved, strict=True))
        return Box(start, stop)

    def fine(self, halved: tuple[bool, ...], sizes: tuple[int, ...]) -> "Box":
        """The cells of blocks."""
        start = tuple(2 * a if h else a for a, h in zip(self.start, halved, strict=True))
        stop = tuple(min(2 * b, n) if h else b for b, h, n in zip(self.stop, halved, sizes, strict=True))
        return Box(start, stop)


@dataclass(frozen=True)
class Partition:
    """A grid cut into a box for each process.

    Attributes
    ----------
    sizes : tuple of int
        Cells of the grid along each axis.
    boxes : tuple of Box
        By rank.
    rank : int
        The process's own.
    """

    sizes: tuple[int, ...]
    boxes: tuple[Box, ...]
    rank: int

    @classmethod
    def of_ranges(cls, counts: list[list[int]], rank: int) -> "Partition":
        """From how many cells each process has along each axis; ranks count the last axis first.

        Examples
        --------
        >>> Partition.of_ranges([[2, 2], [5]], 1).owned
        Box(start=(2, 0), stop=(4, 5))
        """
        ends = [[sum(row[: i + 1]) for i in range(len(row))] for row in counts]
        boxes = tuple(
            Box(
                tuple(ends[axis][i] - counts[axis][i] for axis, i in enumerate(at)),
                tuple(ends[axis][i] for axis, i in enumerate(at)),
            )
            for at in product(*(range(len(row)) for row in counts))
        )
        return cls(tuple(row[-1] for row in ends), boxes, rank)

    @cached_property
    def owned(self) -> Box:
        """The process's own box."""
        return self.boxes[self.rank]


def cut_stencil(stencil: Stencil, box: Box) -> Stencil:
    """A stencil's part on a box; what its outer faces couple to is not seen from inside.

    Near the edge, within as many cells as a computation reaches, values of the part are not those of the
    whole. ``box`` has three axes.
    """
    if isinstance(stencil, UnitStencil):
        return UnitStencil(stencil.code[box.slices].contiguous(), stencil.weights, stencil.shift)
    fields = [stencil.diagonal[box.slices].contiguous()]
    for axis, field in enumerate((stencil.wz, stencil.wy, stencil.wx)):
        if field.shape != stencil.diagonal.shape:
            fields.append(field)
            continue
        part = field[box.slices].clone(memory_format=torch.contiguous_format)
        part.select(axis, 0).zero_()
        fields.append(part)
    return FaceStencil(*fields)


def lifted(box: Box) -> Box:
    """A box with three axes."""
    missing = 3 - len(box.start)
    return Box((0,) * missing + box.start, (1,) * missing + box.stop)


def cut(array: Tensor, box: Box) -> Tensor:
    """A copy of an array's part."""
    return array[box.slices].clone(memory_format=torch.contiguous_format)
