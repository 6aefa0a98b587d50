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

FLUID, SOLID, AIR = 0, 1, 2
_OUTSIDE = {"solid": SOLID, "neumann": SOLID, "dirichlet": AIR}


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
        grid = _checked_cells(cells, device)
        super().__init__(grid.shape, grid.shape, kind, grid.device, hermitian=not kind.is_complex or None)
        dims = grid.ndim
        self.cells = grid
        self.active = grid == FLUID
        self.spacing = _per_axis(spacing, dims)
        self.boundary = _checked_boundary(boundary, dims)
        padded = torch.full([n + 2 for n in grid.shape], SOLID, dtype=torch.int8, device=grid.device)
        for axis, (before, after) in enumerate(self.boundary):
            padded.select(axis, 0).fill_(before)
            padded.select(axis, -1).fill_(after)
        padded[(slice(1, -1),) * dims] = grid
        sink = None if absorption is None else _field(absorption, self, "absorption")
        if sink is not None and bool((_real(sink) < 0).any()):
            raise ValueError("absorption must not be negative")
        constant = sink is None or sink.ndim == 0
        if coefficients is None and constant and not (sink is not None and sink.requires_grad):
            self.stencil = _unit_stencil(padded, self.spacing, sink, kind)
        else:
            self.stencil = _face_stencil(padded, self.active, coefficients, self.spacing, sink, self)
        self.absorption = sink
        if self.hermitian is None:
            self.hermitian = bool(all(_is_real(field) for field in self.stencil))
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
        if self.absorption is not None and bool((_real(self.absorption) > 0).all()):
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
            return ((_real(row_sum) > 1e-10 * _real(stencil.diagonal.detach())) & lifted).reshape(
                self.cells.shape
            )
        ones = self.active.to(self.dtype)
        row_sum = _real(self._apply(ones))
        return (row_sum > 1e-10 * _real(stencil.weights).sum()) & self.active

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


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _is_real(x: Tensor) -> bool:
    return not x.is_complex() or bool((x.imag == 0).all())


def _checked_cells(cells: Any, device: Any) -> Tensor:
    if not isinstance(cells, Tensor):
        cells = torch.from_dlpack(cells) if arrays.is_cupy(cells) else torch.from_numpy(np.array(cells))
    if cells.is_floating_point() or cells.is_complex() or cells.dtype == torch.bool:
        raise TypeError(
            f"cells has dtype {cells.dtype}; an integer dtype with 0 fluid, 1 solid, 2 air is accepted"
        )
    if cells.ndim not in (2, 3):
        raise ValueError(f"cells has shape {tuple(cells.shape)}; 2 or 3 axes are accepted")
    if cells.numel() == 0:
        raise ValueError(f"cells has shape {tuple(cells.shape)}: there is no cell")
    low, high = (int(v) for v in torch.aminmax(cells))
    if low < FLUID or high > AIR:
        raise ValueError(f"cells holds values from {low} to {high}; 0 fluid, 1 solid and 2 air are accepted")
    grid = cells.to(dtype=torch.int8, device=device).contiguous()
    if not bool((grid == FLUID).any()):
        raise ValueError("cells has no fluid cell (0), so there is no unknown")
    return grid


def _per_axis(spacing: Any, dims: int) -> tuple[float, ...]:
    values = tuple(float(h) for h in np.broadcast_to(np.asarray(spacing, float), dims))
    if not all(np.isfinite(h) and h > 0 for h in values):
        raise ValueError(f"spacing is {spacing}; positive numbers are accepted")
    return values


def _checked_boundary(boundary: Any, dims: int) -> tuple[tuple[int, int], ...]:
    pairs = ((boundary, boundary),) * dims if isinstance(boundary, str) else tuple(map(tuple, boundary))
    words = [word for pair in pairs for word in pair]
    if len(pairs) != dims or any(len(pair) != 2 for pair in pairs) or any(w not in _OUTSIDE for w in words):
        raise ValueError(
            f"boundary is {boundary!r}; accepted are {', '.join(map(repr, _OUTSIDE))} "
            f"or {dims} pairs (before, after) of them"
        )
    return tuple((_OUTSIDE[before], _OUTSIDE[after]) for before, after in pairs)


def _field(values: Any, operator: GridPoisson, name: str) -> Tensor:
    """A scalar or an array of the grid's shape, checked for finite values."""
    if isinstance(values, int | float | complex):
        field = torch.tensor(values, dtype=operator.dtype, device=operator.device)
    else:
        field = arrays.as_tensor(values, name).to(operator.device, operator.dtype)
        if field.shape != operator.cells.shape and field.ndim != 0:
            raise ValueError(f"{name} has shape {tuple(field.shape)}, the grid {tuple(operator.cells.shape)}")
    if not bool(torch.isfinite(field.detach()).all()):
        raise ValueError(f"{name} holds NaN or infinity")
    return field


def _shifted(padded: Tensor, axis: int, step: int) -> Tensor:
    """The neighbours' values along an axis of an array with one layer around it."""
    cut = [slice(1, -1)] * padded.ndim
    cut[axis] = slice(1 + step, padded.shape[axis] - 1 + step)
    return padded[tuple(cut)]


def _unit_stencil(
    padded: Tensor, spacing: tuple[float, ...], sink: Tensor | None, dtype: torch.dtype
) -> UnitStencil:
    dims = padded.ndim
    code = torch.zeros([n - 2 for n in padded.shape], dtype=torch.uint8, device=padded.device)
    passable = (padded != SOLID).to(torch.uint8)
    for axis in range(dims):
        code += (_shifted(passable, axis, -1) + _shifted(passable, axis, 1)) << (2 * (3 - dims + axis))
    fluid = _shifted(padded, 0, 0) == FLUID
    code = torch.where(fluid, code + 64, torch.zeros_like(code))
    weights = [0.0] * (3 - dims) + [1.0 / h**2 for h in spacing]
    shift = torch.zeros(1, dtype=dtype, device=padded.device)
    if sink is not None:
        shift = shift + sink
    lifted = code.reshape((1,) * (3 - dims) + tuple(code.shape)).contiguous()
    return UnitStencil(lifted, torch.tensor(weights, dtype=dtype, device=padded.device), shift)


def _face_coefficients(coefficients: Any, axis: int, operator: GridPoisson) -> Tensor:
    """``k`` on all faces across an axis, one more than there are cells along it."""
    if isinstance(coefficients, tuple | list):
        dims = operator.cells.ndim
        if len(coefficients) != dims:
            raise ValueError(
                f"coefficients holds {len(coefficients)} arrays of faces; the grid has {dims} axes"
            )
        field = arrays.as_tensor(coefficients[axis], f"coefficients[{axis}]")
        field = field.to(operator.device, operator.dtype)
        wanted = list(operator.cells.shape)
        wanted[axis] += 1
        if list(field.shape) != wanted:
            raise ValueError(
                f"coefficients[{axis}] has shape {tuple(field.shape)}; {tuple(wanted)} is accepted"
            )
        if not bool((torch.isfinite(field.detach()) & (_real(field.detach()) >= 0)).all()):
            raise ValueError(f"coefficients[{axis}] must be finite and not negative")
        return field
    field = _field(1.0 if coefficients is None else coefficients, operator, "coefficients")
    if bool((_real(field.detach()) <= 0).any()):
        raise ValueError("coefficients of cells must be positive; give faces where some are zero")
    field = field.expand(operator.cells.shape)
    before = torch.cat([field.narrow(axis, 0, 1), field], axis)
    after = torch.cat([field, field.narrow(axis, -1, 1)], axis)
    solid = torch.cat([operator.cells.narrow(axis, 0, 1), operator.cells], axis)
    ahead = torch.cat([operator.cells, operator.cells.narrow(axis, -1, 1)], axis)
    mean = 2 * before * after / (before + after)
    return torch.where(solid == AIR, after, torch.where(ahead == AIR, before, mean))


def _face_stencil(
    padded: Tensor,
    active: Tensor,
    coefficients: Any,
    spacing: tuple[float, ...],
    sink: Tensor | None,
    operator: Any,
) -> FaceStencil:
    dims = padded.ndim
    zero = torch.zeros((), dtype=operator.dtype, device=operator.device)
    diagonal = zero if sink is None else sink
    weights = []
    for axis in range(dims):
        faces = _face_coefficients(coefficients, axis, operator) / spacing[axis] ** 2
        count = active.shape[axis]
        for start, step in ((0, -1), (1, 1)):
            passable = _shifted(padded, axis, step) != SOLID
            diagonal = diagonal + torch.where(passable, faces.narrow(axis, start, count), zero)
        inner = active & (_shifted(padded, axis, -1) == FLUID)
        inner.select(axis, 0).fill_(False)
        weights.append(torch.where(inner, faces.narrow(axis, 0, count), zero))
    fields = [torch.where(active, diagonal, zero), *weights]
    lifted = [field.reshape((1,) * (3 - dims) + tuple(field.shape)).contiguous() for field in fields]
    if dims == 2:
        lifted.insert(1, zero.reshape(1, 1, 1))
    return FaceStencil(*lifted)


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
