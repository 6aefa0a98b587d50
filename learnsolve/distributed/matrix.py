"""Grid operators as PETSc matrices, and back."""

from typing import Any

import numpy as np
import scipy.sparse
import torch

from learnsolve.distributed.exchange import Halo, gathered, partition, petsc
from learnsolve.distributed.tiles import cut_stencil, lifted
from learnsolve.kernels import grid as kernels
from learnsolve.operators import GridPoisson
from learnsolve.operators.grid_matrix import couplings, grid_from_couplings


class GridShell:
    """A `GridPoisson` as a MATPYTHON: each process applies the kernel to its own cells and those around.

    Cells that are no unknowns have rows of the unit matrix.
    """

    def __init__(self, A: GridPoisson, da: Any) -> None:
        self.A, self.da = A, da
        cut = partition(da)
        self.own = cut.owned
        self.halo = Halo(da, cut.owned.grown(1, cut.sizes))
        tile = self.halo.tile
        self.stencil = cut_stencil(A.stencil, lifted(tile))
        self.inside = cut.owned.inside(tile)
        self.off = ~A.active[self.own.slices].numpy().reshape(-1)
        self.active = A.active[tile.slices]

    def mult(self, mat: Any, x: Any, y: Any) -> None:
        """``y = A x``."""
        around = self.halo.around(x) * self.active
        image = kernels.apply(self.stencil, around.reshape(lifted(self.halo.tile).shape))
        found = image.reshape(around.shape)[self.inside].reshape(-1).numpy()
        y.setArray(np.where(self.off, x.getArray(readonly=True), found))

    def multTranspose(self, mat: Any, x: Any, y: Any) -> None:
        """The same: a grid operator is symmetric."""
        self.mult(mat, x, y)

    def getDiagonal(self, mat: Any, d: Any) -> None:
        """The diagonal."""
        found = self.A.diagonal()[self.own.slices].reshape(-1).numpy()
        d.setArray(np.where(self.off, 1.0, found))


def in_double(A: GridPoisson) -> GridPoisson:
    """The operator in PETSc's precision, on the CPU."""
    moved = A.to(device=torch.device("cpu"), dtype=torch.float64)
    assert isinstance(moved, GridPoisson)
    return moved


def grid_matrix(A: GridPoisson, da: Any, assembled: bool) -> Any:
    """A PETSc matrix of a grid operator on a DMDA two cells wide, with its null space.

    ``assembled`` as PETSc's own preconditioners need it; otherwise a MATPYTHON.
    """
    module = petsc()
    if assembled:
        matrix = da.createMat()
        _fill(matrix, A, da)
    else:
        count = int(np.prod(partition(da).owned.shape))
        matrix = module.Mat().createPython(((count, None), (count, None)), comm=da.comm)
        matrix.setPythonContext(GridShell(A, da))
        matrix.setUp()
    matrix.setOption(module.Mat.Option.SYMMETRIC, True)
    matrix.setOption(module.Mat.Option.SPD, not A.singular)
    labels = A.closed_regions
    if labels is not None:
        own = labels[partition(da).owned.slices].reshape(-1).numpy()
        constants = []
        for label, cells in enumerate(torch.bincount(labels.reshape(-1))[1:].tolist(), start=1):
            vector = da.createGlobalVec()
            vector.setArray((own == label) / cells**0.5)
            constants.append(vector)
        matrix.setNullSpace(module.NullSpace().create(constant=False, vectors=constants, comm=da.comm))
    return matrix


def _fill(matrix: Any, A: GridPoisson, da: Any) -> None:
    """The rows of the process's own cells, in PETSc's numbering."""
    module = petsc()
    cut = partition(da)
    ordering = da.getAO()
    numbers = np.arange(int(np.prod(cut.sizes))).reshape(cut.sizes)
    own = cut.owned.slices
    rows, columns = [numbers[own].reshape(-1)], [numbers[own].reshape(-1)]
    active = A.active.numpy()
    values = [np.where(active[own], A.diagonal().numpy()[own], 1.0).reshape(-1)]
    for axis in range(active.ndim):
        weights = A.faces(axis).numpy()
        for side in (-1, 1):
            mine, theirs = list(own), list(own)
            low, high = own[axis].start, own[axis].stop
            if side < 0:
                low = max(low, 1)
            else:
                high = min(high, cut.sizes[axis] - 1)
            mine[axis], theirs[axis] = slice(low, high), slice(low + side, high + side)
            face = weights[tuple(mine if side < 0 else theirs)].reshape(-1)
            found = face != 0
            rows.append(numbers[tuple(mine)].reshape(-1)[found])
            columns.append(numbers[tuple(theirs)].reshape(-1)[found])
            values.append(-face[found])
    begin, end = matrix.getOwnershipRange()
    i = ordering.app2petsc(np.concatenate(rows).astype(module.IntType))
    j = ordering.app2petsc(np.concatenate(columns).astype(module.IntType))
    local = scipy.sparse.coo_array(
        (np.concatenate(values).astype(np.float64), (i - begin, j)), shape=(end - begin, numbers.size)
    ).tocsr()
    matrix.setOption(module.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    matrix.setValuesCSR(local.indptr.astype(module.IntType), local.indices.astype(module.IntType), local.data)
    matrix.assemble()


def grid_operator(matrix: Any, da: Any) -> GridPoisson:
    """The grid operator of an assembled PETSc matrix on a DMDA, whole on every process.

    Raises
    ------
    TypeError, ValueError
        As `learnsolve.operators.grid_from_matrix`; or the DMDA has several unknowns a cell or is periodic.
    """
    module = petsc()
    if da.getDof() != 1:
        raise ValueError(f"the DMDA has {da.getDof()} unknowns a cell; one is accepted")
    if any(
        kind not in (module.DMDA.BoundaryType.NONE, module.DMDA.BoundaryType.GHOSTED) for kind in _kinds(da)
    ):
        raise ValueError("the DMDA is periodic; an open grid is accepted")
    cut = partition(da)
    begin, end = matrix.getOwnershipRange()
    indptr, columns, values = matrix.getValuesCSR()
    rows = np.repeat(np.arange(begin, end), np.diff(indptr)).astype(module.IntType)
    ordering = da.getAO()
    places = ordering.petsc2app(rows.copy()), ordering.petsc2app(columns.copy())
    fields = couplings(places[0].astype(np.int64), places[1].astype(np.int64), values, cut.sizes)
    own = cut.owned.slices
    whole = []
    vector = da.createGlobalVec()
    for field in (fields[0], *fields[1], *fields[2]):
        vector.setArray(field[own].reshape(-1))
        whole.append(gathered(da, vector))
    dims = len(cut.sizes)
    return grid_from_couplings(whole[0], np.stack(whole[1 : 1 + dims]), np.stack(whole[1 + dims :]))


def _kinds(da: Any) -> tuple[Any, ...]:
    found = da.getBoundaryType()
    return found if isinstance(found, tuple) else (found,) * da.getDim()
