"""`GridPoisson`: the 5-point (plane) and 7-point (space) operator on a masked grid, matrix-free."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.sparse
import torch
from torch import Tensor

from learnsolve import arrays
from learnsolve.kernels import grid as kernels
from learnsolve.kernels.stencil import FaceStencil, Stencil, UnitStencil
from learnsolve.operators.base import Operator
from learnsolve.operators.grid_stencil import (
    FLUID,
    SOLID,
    as_field,
    checked_boundary,
    checked_cells,
    face_stencil,
    is_real,
    per_axis,
    real_part,
    unit_stencil,
)


class GridPoisson(Operator):
    r"""The negative divergence of a scaled gradient on the fluid cells of a grid.

    .. math:: (A x)_i = a_i x_i + \sum_{f = (i, j)} w_f (x_i - x_j), \qquad w_f = k_f / h_f^2

    where the sum runs over the faces of cell :math:`i` towards fluid cells and towards air
    (:math:`x_j = 0`); nothing flows through a face to a solid. Vectors have the shape of the grid and
    are zero off the fluid; ``(A.shape[0],)`` vectors over the fluid cells in C order are taken too.

    Parameters
    ----------
    cells : (ny, nx) or (nz, ny, nx) integer array
        0 fluid (unknown), 1 solid (no flux), 2 air (value zero). Numpy, torch or cupy.
    coefficients : array or tuple of arrays, optional
        ``k`` of the cells in the grid's shape (a face takes the harmonic mean of its two cells, and the
        fluid cell's own towards air), or one array of faces for each axis, which is one longer along that
        axis and whose face ``i`` lies before cell ``i``. Positive for cells, not negative for faces.
        A torch tensor that requires grad makes solves differentiable in it.
    spacing : float or sequence of float
        Cell size ``h``, in general one for each axis.
    absorption : float or array, optional
        ``a``, not negative, added to the diagonal.
    boundary : {"solid", "neumann", "dirichlet"} or sequence of pairs
        What lies outside the array: solid (``"neumann"`` is another word for it) or cells of value zero;
        in general one pair ``(before, after)`` for each axis.
    dtype : dtype
        float32, float64, complex64 or complex128.
    device : device, optional
        Where the data lie; by default where ``cells`` lie.

    Attributes
    ----------
    active : Tensor of bool
        The fluid cells.
    stencil : Stencil
        What the kernels read.

    Raises
    ------
    TypeError
        ``cells`` is not of an integer dtype, or ``dtype`` is not supported.
    ValueError
        A shape, value, coefficient, spacing or boundary is not one of those above.

    Examples
    --------
    >>> import numpy as np
    >>> A = GridPoisson(np.zeros((2, 3), int), boundary="dirichlet")
    >>> A
    <GridPoisson 2x3, 6 unknowns, float64, unit coefficients, positive definite>
    >>> (A @ np.ones((2, 3))).tolist()
    [[2.0, 1.0, 2.0], [2.0, 1.0, 2.0]]
    """

    stencil: Stencil

    def __init__(
        self,
        cells: Any,
        *,
        coefficients: Any = None,
        spacing: float | Sequence[float] = 1.0,
        absorption: Any = None,
        boundary: Any = "solid",
        dtype: Any = torch.float64,
        device: Any = None,
    ) -> None:
        kind = arrays.torch_dtype(dtype, "dtype")
        grid = checked_cells(cells, device)
        super().__init__(grid.shape, grid.shape, kind, grid.device, hermitian=not kind.is_complex or None)
        dims = grid.ndim
        self.cells = grid
        self.active = grid == FLUID
        self.spacing = per_axis(spacing, dims)
        self.boundary = checked_boundary(boundary, dims)
        padded = torch.full([n + 2 for n in grid.shape], SOLID, dtype=torch.int8, device=grid.device)
        for axis, (before, after) in enumerate(self.boundary):
            padded.select(axis, 0).fill_(before)
            padded.select(axis, -1).fill_(after)
        padded[(slice(1, -1),) * dims] = grid
        sink = None if absorption is None else as_field(absorption, self, "absorption")
        if sink is not None and bool((real_part(sink) < 0).any()):
            raise ValueError("absorption must not be negative")
        constant = sink is None or sink.ndim == 0
        if coefficients is None and constant and not (sink is not None and sink.requires_grad):
            self.stencil = unit_stencil(padded, self.spacing, sink, kind)
        else:
            self.stencil = face_stencil(padded, self.active, coefficients, self.spacing, sink, self)
        self.absorption = sink
        if self.hermitian is None:
            self.hermitian = bool(all(is_real(part) for part in self.stencil))
        self.positive_definite = self.hermitian

    @cached_property
    def unknowns(self) -> int:
        """How many fluid cells there are."""
        return int(self.active.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Fluid cells, twice."""
        return self.unknowns, self.unknowns

    @cached_property
    def closed_regions(self) -> Tensor | None:
        """Labels 1, 2, ... of the regions where ``A`` maps constants to zero, 0 elsewhere; None if none."""
        if self.absorption is not None and bool((real_part(self.absorption) > 0).all()):
            return None
        labels = _connected(self)
        count = int(labels.max())
        if count == 0:
            return None
        excess = self._open_cells().cpu().numpy()
        opened = np.zeros(count + 1, bool)
        opened[labels[excess]] = True
        opened[0] = True
        if opened.all():
            return None
        names = np.where(opened, 0, np.cumsum(~opened)).astype(np.int64)
        return torch.from_numpy(names[labels]).to(self.device)

    @property
    def singular(self) -> bool:  # type: ignore[override]
        """Whether some region of fluid touches no air and has no absorption."""
        return self.closed_regions is not None

    def _open_cells(self) -> Tensor:
        """Cells whose row sums to more than zero: coupled to a zero value, or absorbing."""
        stencil = self.stencil
        if isinstance(stencil, FaceStencil):
            lifted = self.active.reshape(stencil.diagonal.shape)
            ones = lifted.to(self.dtype)
            row_sum = kernels.apply(FaceStencil(*(f.detach() for f in stencil)), ones)
            return ((real_part(row_sum) > 1e-10 * real_part(stencil.diagonal.detach())) & lifted).reshape(
                self.cells.shape
            )
        ones = self.active.to(self.dtype)
        row_sum = real_part(self._apply(ones))
        return (row_sum > 1e-10 * real_part(stencil.weights).sum()) & self.active

    def project(self, x: Tensor) -> Tensor:
        """Take its mean from each closed region."""
        labels = self.closed_regions
        if labels is None:
            return x
        flat, where = x.reshape(-1), labels.reshape(-1)
        count = int(labels.max()) + 1
        sums = torch.zeros(count, dtype=x.dtype, device=x.device).index_add(0, where, flat)
        sizes = torch.bincount(where, minlength=count).clamp(min=1)
        means = sums / sizes
        means = torch.cat([torch.zeros_like(means[:1]), means[1:]])
        return x - means[where].reshape(x.shape)

    def _lift(self, x: Tensor) -> Tensor:
        return x.contiguous().reshape((1,) * (3 - x.ndim) + tuple(x.shape))

    def _apply(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.stencil)):
            from learnsolve.kernels import grid_reference

            return grid_reference.apply(self.stencil, self._lift(x)).reshape(x.shape)
        return kernels.apply(self.stencil, self._lift(x)).reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (
            self._apply(y) if self.hermitian else self._apply(y.conj().resolve_conj()).conj().resolve_conj()
        )

    def diagonal(self) -> Tensor:
        """The diagonal in the grid's shape, zero off the fluid."""
        if isinstance(self.stencil, FaceStencil):
            return self.stencil.diagonal.reshape(self.cells.shape)
        code, weights = self.stencil.code.long(), self.stencil.weights
        counts = [(code >> shift) & 3 for shift in (0, 2, 4)]
        values = (
            sum(count * weight for count, weight in zip(counts, weights, strict=True)) + self.stencil.shift
        )
        return (values * (code >> 6)).reshape(self.cells.shape)

    def parameters(self) -> tuple[Tensor, ...]:
        return tuple(self.stencil) if isinstance(self.stencil, FaceStencil) else ()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        clone = object.__new__(GridPoisson)
        clone.__dict__.update(self.__dict__)
        if parameters:
            clone.stencil = FaceStencil(*parameters)
        return clone

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.stencil, FaceStencil):
            return ()
        x, y = self._lift(x).conj(), self._lift(y)
        found = [y * x]
        for axis, weights in enumerate(self.stencil[1:]):
            if weights.shape != x.shape:
                found.append(torch.zeros_like(weights))
                continue
            count = x.shape[axis] - 1
            x0, x1, y0, y1 = (v.narrow(axis, start, count) for v in (x, y) for start in (0, 1))
            first = torch.zeros_like(y.narrow(axis, 0, 1))
            found.append(torch.cat([first, -(y1 * x0 + y0 * x1)], axis))
        return tuple(found)

    def enter(self, x: Tensor, name: str = "x") -> Tensor:
        """Into the grid's shape, zero off the fluid."""
        if x.shape == self.domain_shape:
            return torch.where(self.active, x, torch.zeros((), dtype=x.dtype, device=x.device))
        if x.shape == (self.unknowns,):
            full = torch.zeros(self.domain_shape, dtype=x.dtype, device=x.device)
            return full.masked_scatter(self.active, x)
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; {self!r} takes the grid's shape {self.domain_shape} "
            f"or one value for each fluid cell, ({self.unknowns},)"
        )

    def leave(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x if tuple(shape) == self.domain_shape else x[self.active]

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "GridPoisson":
        clone = object.__new__(GridPoisson)
        clone.__dict__.update(self.__dict__)
        clone.dtype, clone.device = dtype, device
        clone.cells, clone.active = self.cells.to(device), self.active.to(device)
        clone.__dict__.pop("closed_regions", None)
        moved = [f.to(device, f.dtype if f.dtype == torch.uint8 else dtype) for f in self.stencil]
        clone.stencil = type(self.stencil)(*moved)
        if self.absorption is not None:
            clone.absorption = self.absorption.to(device, dtype)
        return clone

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The matrix over the fluid cells in C order."""
        active = self.active.cpu().numpy()
        number = np.full(active.shape, -1, np.int64)
        number[active] = np.arange(self.unknowns)
        diagonal = self.diagonal().detach().cpu().numpy()[active]
        rows, columns = [np.arange(self.unknowns)], [np.arange(self.unknowns)]
        values = [diagonal]
        for axis in range(active.ndim):
            weight = self.faces(axis).detach().cpu().numpy()
            cut = [slice(None)] * active.ndim
            cut[axis] = slice(1, None)
            here = tuple(cut)
            cut[axis] = slice(None, -1)
            before = tuple(cut)
            open_face = (number[here] >= 0) & (number[before] >= 0) & (weight[here] != 0)
            i, j, w = number[here][open_face], number[before][open_face], weight[here][open_face]
            rows += [i, j]
            columns += [j, i]
            values += [-w, -w]
        place = (np.concatenate(rows), np.concatenate(columns))
        return scipy.sparse.coo_array((np.concatenate(values), place), shape=self.shape).tocsr()

    def faces(self, axis: int) -> Tensor:
        """Coefficients of the faces between each cell and the one before it along ``axis``."""
        if isinstance(self.stencil, FaceStencil):
            lifted = self.stencil[1 + 3 - self.cells.ndim + axis]
            return lifted.reshape(self.cells.shape)
        both = self.active & self.active.roll(1, axis)
        both.select(axis, 0).fill_(False)
        return both * self.stencil.weights[3 - self.cells.ndim + axis]

    def __repr__(self) -> str:
        size = "x".join(map(str, self.cells.shape))
        kind = "unit" if isinstance(self.stencil, UnitStencil) else "variable"
        promise = ", positive definite" if self.positive_definite else ""
        name = str(self.dtype).removeprefix("torch.")
        return f"<GridPoisson {size}, {self.unknowns} unknowns, {name}, {kind} coefficients{promise}>"


def _connected(operator: GridPoisson) -> np.ndarray:
    """Labels of the regions of cells joined by faces with a coefficient, 0 off the fluid."""
    active = operator.active.cpu().numpy()
    if isinstance(operator.stencil, UnitStencil):
        return scipy.ndimage.label(active)[0]
    matrix = operator.with_parameters(tuple(p.detach() for p in operator.stencil)).to_scipy()
    _, labels = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    full = np.zeros(active.shape, labels.dtype)
    full[active] = labels + 1
    return full
