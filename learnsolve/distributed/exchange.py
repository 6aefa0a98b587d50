"""How processes see each other's cells: PETSc's grids and vectors as arrays of boxes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learnsolve.distributed.tiles import Box, Partition


def petsc() -> Any:
    """The module of petsc4py.

    Raises
    ------
    ImportError
        It is not installed, or was built for another numpy.
    """
    try:
        from petsc4py import PETSc
    except (ImportError, ValueError) as error:
        raise ImportError(
            f"PETSc is needed and petsc4py does not load: {error}; install learnsolve[distributed] "
            "(Debian's python3-petsc4py-real asks for numpy < 2)"
        ) from error
    if np.dtype(PETSc.ScalarType) != np.float64:
        raise ImportError(f"this PETSc computes with {np.dtype(PETSc.ScalarType)}; a float64 one is accepted")
    return PETSc


def grid(sizes: tuple[int, ...], comm: Any, width: int, like: Any = None) -> Any:
    """A DMDA of cells, which other processes see ``width`` cells far; cut as that of ``like``."""
    module = petsc()
    options: dict[str, Any] = {}
    if like is not None:
        ranges = [np.asarray(counts, module.IntType) for counts in like.getOwnershipRanges()]
        options = {"proc_sizes": like.getProcSizes(), "ownership_ranges": ranges}
    return module.DMDA().create(
        sizes=sizes[::-1],
        dof=1,
        stencil_width=width,
        stencil_type=module.DMDA.StencilType.BOX,
        boundary_type=(module.DMDA.BoundaryType.NONE,) * len(sizes),
        comm=comm,
        setup=True,
        **options,
    )


def partition(da: Any) -> Partition:
    """Who owns what of a DMDA; the arrays' first axis is PETSc's last."""
    counts = [[int(n) for n in row] for row in da.getOwnershipRanges()]
    return Partition.of_ranges(counts[::-1], da.comm.rank)


class Halo:
    """From vectors of a DMDA to arrays on a box around a process's own cells.

    ``tile`` may reach as far as the DMDA's processes see.
    """

    def __init__(self, da: Any, tile: Box) -> None:
        starts, counts = (tuple(reversed(v)) for v in da.getGhostCorners())
        self.da, self.local = da, da.createLocalVec()
        self.seen = Box(starts, tuple(a + n for a, n in zip(starts, counts, strict=True)))
        self.tile = tile
        self.vector = da.createGlobalVec()

    def around(self, x: Any) -> Tensor:
        """The values of a vector on the tile."""
        self.da.globalToLocal(x, self.local)
        seen = torch.from_numpy(self.local.getArray().reshape(self.seen.shape))
        return seen[self.tile.inside(self.seen)].clone(memory_format=torch.contiguous_format)

    def around_own(self, x: Tensor) -> Tensor:
        """The tile of which each process gives its own cells."""
        self.vector.setArray(x.reshape(-1).double().numpy())
        return self.around(self.vector).to(x.dtype)


class Gather:
    """Vectors of which each process has a part, whole on every one, in the order of the ranks."""

    def __init__(self, count: int, comm: Any) -> None:
        module = petsc()
        self.vector = module.Vec().createMPI((count, None), comm=comm)
        self.scatter, self.whole = module.Scatter.toAll(self.vector)

    def __call__(self, part: Tensor) -> Tensor:
        """The whole."""
        self.vector.setArray(part.double().numpy())
        self.scatter.scatter(self.vector, self.whole, mode=petsc().ScatterMode.FORWARD)
        return torch.from_numpy(self.whole.getArray(readonly=True).copy()).to(part.dtype)


def gathered(da: Any, x: Any) -> NDArray[np.float64]:
    """A vector of a DMDA in the grid's shape, whole on every process."""
    cut = partition(da)
    parts = Gather(x.getLocalSize(), da.comm)(torch.from_numpy(x.getArray(readonly=True).copy()))
    whole = np.empty(cut.sizes)
    for box, part in zip(cut.boxes, parts.split([int(np.prod(b.shape)) for b in cut.boxes]), strict=True):
        whole[box.slices] = part.reshape(box.shape).numpy()
    return whole
