"""Families of elliptic problems on a square, for networks that meet one family after the other."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from learnsolve.operators import GridPoisson
from learnsolve.operators.grid_stencil import AIR, FLUID

# In each square so many discs, whose radii are between these shares of its side.
DISCS = 4
SMALLEST, LARGEST = 0.05, 0.15


@dataclass(frozen=True)
class EllipticFamily:
    r"""Random operators of one kind on a square, with the value zero around it.

    .. math:: - \partial_x (k_x \partial_x u) - \partial_y (k_y \partial_y u) + a u

    on cells of side one. In the square are discs at random places.

    Parameters
    ----------
    name : str
    along_x, along_y : float
        ``k_x`` and ``k_y`` outside the discs.
    contrast : float, optional
        In the discs ``k_x`` and ``k_y`` are so many times as large. By default the discs are holes, in which
        the value is zero.
    absorption : float
        ``a``, not negative.

    Raises
    ------
    ValueError
        A number is not accepted.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.problems.elliptic_families import EllipticFamily
    >>> family = EllipticFamily("layers of rock", along_y=0.1, contrast=100.0)
    >>> family.draw(2, 8, torch.Generator().manual_seed(0)).diagonal().shape
    torch.Size([2, 8, 8])
    """

    name: str
    along_x: float = 1.0
    along_y: float = 1.0
    contrast: float | None = None
    absorption: float = 0.0

    def __post_init__(self) -> None:
        for name in ("along_x", "along_y", "contrast"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; a positive number is accepted")
        if not 0 <= self.absorption < math.inf:
            raise ValueError(f"absorption is {self.absorption}; a number of at least 0 is accepted")

    def draw(
        self, count: int, cells: int, generator: torch.Generator, *, dtype: torch.dtype = torch.float32
    ) -> GridPoisson:
        """Operators on squares of ``cells`` by ``cells``, all in one.

        Each is a layer of a grid in space, and nothing flows between layers: the matrix is block diagonal.

        Parameters
        ----------
        count : int
            B.
        cells : int
            n, at least 4.
        generator : torch.Generator
            On the CPU. The discs are the same in every dtype.
        dtype : torch.dtype
            float32 or float64.

        Returns
        -------
        GridPoisson
            From (B, n, n) to (B, n, n), symmetric and positive definite; axes are y and x.

        Raises
        ------
        ValueError
            A number is too small.
        TypeError
            There is no such dtype.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
        >>> A = ELLIPTIC_FAMILIES["along-x"].draw(3, 8, torch.Generator().manual_seed(0))
        >>> A
        <GridPoisson 3x8x8, 168 unknowns, float32, variable coefficients, positive definite>
        >>> A.diagonal().max()
        tensor(2.0400)
        """
        if count < 1 or cells < 4:
            raise ValueError(f"count is {count} and cells {cells}; at least 1, and at least 4, are accepted")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype is {dtype}; torch.float32 and torch.float64 are accepted")
        inside = _discs(count, cells, generator)
        holes = inside if self.contrast is None else torch.zeros_like(inside)
        k = torch.ones(inside.shape, dtype=torch.float64)
        if self.contrast is not None:
            k[inside] = self.contrast
        between_layers = torch.zeros(count + 1, cells, cells, dtype=torch.float64)
        closed, zero = ("solid", "solid"), ("dirichlet", "dirichlet")
        return GridPoisson(
            torch.where(holes, AIR, FLUID),
            coefficients=(between_layers, self.along_y * _faces(k, 1), self.along_x * _faces(k, 2)),
            absorption=self.absorption,
            boundary=(closed, zero, zero),
            dtype=dtype,
        )


# The families, by their names, in the order of a stream in which neighbours are unlike.
ELLIPTIC_FAMILIES = {
    family.name: family
    for family in (
        EllipticFamily("discs"),
        EllipticFamily("along-x", along_y=0.02),
        EllipticFamily("inclusions", contrast=10.0),
        EllipticFamily("along-y", along_x=0.02),
        EllipticFamily("screened", absorption=1.0),
    )
}


def _discs(count: int, cells: int, generator: torch.Generator) -> Tensor:
    """Which cells of each square have their centre in a disc."""
    middles = torch.rand(count, DISCS, 2, 1, generator=generator, dtype=torch.float64)
    shares = torch.rand(count, DISCS, 1, 1, generator=generator, dtype=torch.float64)
    radii = SMALLEST + (LARGEST - SMALLEST) * shares
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    y, x = (centres - middles).square().unbind(2)
    return (y[..., :, None] + x[..., None, :] < radii.square()).any(1)


def _faces(k: Tensor, axis: int) -> Tensor:
    """Harmonic means of the two cells of each face across an axis; of the outermost faces the cell's own."""
    before = torch.cat([k.narrow(axis, 0, 1), k], axis)
    after = torch.cat([k, k.narrow(axis, -1, 1)], axis)
    return 2 * before * after / (before + after)
