"""From cells, coefficients and boundaries to the stencil of a grid operator, all checked."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from learnsolve import arrays
from learnsolve.kernels.stencil import FaceStencil, UnitStencil

if TYPE_CHECKING:
    from learnsolve.operators.grid import GridPoisson

FLUID, SOLID, AIR = 0, 1, 2
_OUTSIDE = {"solid": SOLID, "neumann": SOLID, "dirichlet": AIR}


def real_part(x: Tensor) -> Tensor:
    """The real part of a complex tensor; a real one itself."""
    return x.real if x.is_complex() else x


def is_real(x: Tensor) -> bool:
    """Whether no imaginary part is other than zero."""
    return not x.is_complex() or bool((x.imag == 0).all())


def checked_cells(cells: Any, device: Any) -> Tensor:
    """The cells as contiguous int8, after a look at their dtype, shape and values."""
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


def per_axis(spacing: Any, dims: int) -> tuple[float, ...]:
    """A positive length for each axis."""
    values = tuple(float(h) for h in np.broadcast_to(np.asarray(spacing, float), dims))
    if not all(np.isfinite(h) and h > 0 for h in values):
        raise ValueError(f"spacing is {spacing}; positive numbers are accepted")
    return values


def checked_boundary(boundary: Any, dims: int) -> tuple[tuple[int, int], ...]:
    """What lies outside, as a pair of cell kinds for each axis."""
    pairs = ((boundary, boundary),) * dims if isinstance(boundary, str) else tuple(map(tuple, boundary))
    words = [word for pair in pairs for word in pair]
    if len(pairs) != dims or any(len(pair) != 2 for pair in pairs) or any(w not in _OUTSIDE for w in words):
        raise ValueError(
            f"boundary is {boundary!r}; accepted are {', '.join(map(repr, _OUTSIDE))} "
            f"or {dims} pairs (before, after) of them"
        )
    return tuple((_OUTSIDE[before], _OUTSIDE[after]) for before, after in pairs)


def as_field(values: Any, operator: "GridPoisson", name: str) -> Tensor:
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


def unit_stencil(
    padded: Tensor, spacing: tuple[float, ...], sink: Tensor | None, dtype: torch.dtype
) -> UnitStencil:
    """The stencil of constant coefficients; ``padded`` are the cells with one layer around them."""
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


def _face_coefficients(coefficients: Any, axis: int, operator: "GridPoisson") -> Tensor:
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
        if not bool((torch.isfinite(field.detach()) & (real_part(field.detach()) >= 0)).all()):
            raise ValueError(f"coefficients[{axis}] must be finite and not negative")
        return field
    field = as_field(1.0 if coefficients is None else coefficients, operator, "coefficients")
    if bool((real_part(field.detach()) <= 0).any()):
        raise ValueError("coefficients of cells must be positive; give faces where some are zero")
    field = field.expand(operator.cells.shape)
    before = torch.cat([field.narrow(axis, 0, 1), field], axis)
    after = torch.cat([field, field.narrow(axis, -1, 1)], axis)
    solid = torch.cat([operator.cells.narrow(axis, 0, 1), operator.cells], axis)
    ahead = torch.cat([operator.cells, operator.cells.narrow(axis, -1, 1)], axis)
    mean = 2 * before * after / (before + after)
    return torch.where(solid == AIR, after, torch.where(ahead == AIR, before, mean))


def face_stencil(
    padded: Tensor,
    active: Tensor,
    coefficients: Any,
    spacing: tuple[float, ...],
    sink: Tensor | None,
    operator: "GridPoisson",
) -> FaceStencil:
    """The stencil of variable coefficients, by operations that autograd can follow."""
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
