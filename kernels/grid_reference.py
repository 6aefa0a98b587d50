"""Grid kernels in plain torch: short, slow, and the truth against which the other forms are tested.

They run on every device in float32, float64, complex64 and complex128. ``apply``, ``residual``,
``jacobi``, ``restrict`` and ``to_face`` make new tensors and can be differentiated any number of
times, in the vectors and in the stencil's coefficients. ``relax``, ``gauss_seidel``,
``prolong_add`` and ``smooth`` write into their arguments.

Where the diagonal is zero (cells that are no unknowns) the operator, the residual and the result
of ``jacobi`` are zero.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from learnsolve.kernels.stencil import RELAXATION_UNIT, FaceStencil, Stencil, UnitStencil


def _layer(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x.narrow(axis, 0, 1))


def diagonal(stencil: Stencil) -> Tensor:
    """Diagonal of the operator as a grid, zero on cells that are no unknowns.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator, of torch tensors.

    Returns
    -------
    (nz, ny, nx) tensor

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.tensor([[[0b1010000, 0b1100000]]], dtype=torch.uint8)
    >>> diagonal(UnitStencil(code, torch.ones(3), torch.zeros(1)))
    tensor([[[1., 2.]]])
    """
    if isinstance(stencil, FaceStencil):
        return stencil.diagonal
    code = stencil.code.to(torch.int32)
    cz, cy, cx = stencil.weights
    faces = (code & 3) * cz + ((code >> 2) & 3) * cy + ((code >> 4) & 3) * cx
    return (faces + stencil.shift[0]) * (code >> 6)


def neighbours(stencil: Stencil, x: Tensor) -> Tensor:
    """Weighted sum over the neighbours of each cell, ``sum_f w_f x_f``.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    x : (nz, ny, nx) tensor
        Zero on cells that are no unknowns.

    Returns
    -------
    (nz, ny, nx) tensor

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> neighbours(UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.tensor([[[1.0, 2.0, 4.0]]]))
    tensor([[[2., 5., 2.]]])
    """
    total = torch.zeros_like(x)
    for axis in range(3):
        inner = x.shape[axis] - 1
        if inner == 0:
            continue
        if isinstance(stencil, FaceStencil):
            weight = stencil[1 + axis].narrow(axis, 1, inner)
        else:
            weight = stencil.weights[axis]
        after = weight * x.narrow(axis, 1, inner)
        before = weight * x.narrow(axis, 0, inner)
        total = total + torch.cat([after, _layer(x, axis)], axis) + torch.cat([_layer(x, axis), before], axis)
    return total


def _inverse(d: Tensor) -> Tensor:
    unknown = d != 0
    return torch.where(unknown, 1 / torch.where(unknown, d, 1), 0)


def apply(stencil: Stencil, x: Tensor) -> Tensor:
    """Apply the operator: ``A x``.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    x : (nz, ny, nx) tensor
        Zero on cells that are no unknowns.

    Returns
    -------
    (nz, ny, nx) tensor

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> apply(UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.tensor([[[1.0, 2.0, 4.0]]]))
    tensor([[[ 0., -1.,  6.]]])
    """
    d = diagonal(stencil)
    return torch.where(d != 0, d * x - neighbours(stencil, x), 0)


def residual(stencil: Stencil, b: Tensor, x: Tensor) -> Tensor:
    """Residual ``b - A x``, zero where the diagonal is.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x : (nz, ny, nx) tensors
        Right-hand side and iterate.

    Returns
    -------
    (nz, ny, nx) tensor

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> stencil = UnitStencil(torch.tensor([[[0b1100000]]], dtype=torch.uint8), torch.ones(3), torch.zeros(1))
    >>> residual(stencil, torch.tensor([[[5.0]]]), torch.tensor([[[2.0]]]))
    tensor([[[1.]]])
    """
    d = diagonal(stencil)
    return torch.where(d != 0, b - d * x + neighbours(stencil, x), 0)


def jacobi(stencil: Stencil, b: Tensor, x: Tensor, omega: complex) -> Tensor:
    """One damped Jacobi step, ``x + omega D^-1 (b - A x)``, zero where the diagonal is.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b, x : (nz, ny, nx) tensors
        Right-hand side and iterate.
    omega : number
        Damping.

    Returns
    -------
    (nz, ny, nx) tensor

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> stencil = UnitStencil(torch.tensor([[[0b1100000]]], dtype=torch.uint8), torch.ones(3), torch.zeros(1))
    >>> jacobi(stencil, torch.tensor([[[5.0]]]), torch.tensor([[[2.0]]]), 1.0)
    tensor([[[2.5000]]])
    """
    d = diagonal(stencil)
    return torch.where(d != 0, x + omega * residual(stencil, b, x) * _inverse(d), 0)


def _colour(x: Tensor, colour: int) -> Tensor:
    k, j, i = (torch.arange(n, device=x.device) for n in x.shape)
    return (k[:, None, None] + j[:, None] + i) % 2 == colour


def relax(stencil: Stencil, b: Tensor, x: Tensor, omega: complex | Tensor, colour: int) -> None:
    """Half a red-black sweep, in place: over-relax the cells with ``(k + j + i) % 2 == colour``.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b : (nz, ny, nx) tensor
        Right-hand side.
    x : (nz, ny, nx) tensor
        Iterate, overwritten.
    omega : number or (nz, ny, nx) tensor
        Over-relaxation.
    colour : {0, 1}
        Which half.

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> x = torch.zeros(1, 1, 3)
    >>> relax(UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.ones(1, 1, 3), x, 1.0, 1)
    >>> x
    tensor([[[0.0000, 0.5000, 0.0000]]])
    """
    step = (b + neighbours(stencil, x)) * _inverse(diagonal(stencil)) - x
    x.copy_(torch.where(_colour(x, colour), x + omega * step, x))


def gauss_seidel(stencil: Stencil, b: Tensor, x: Tensor, omega: complex, reverse: bool) -> None:
    """One sweep in the cells' storage order, or against it, in place.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b : (nz, ny, nx) tensor
        Right-hand side.
    x : (nz, ny, nx) tensor
        Iterate, overwritten.
    omega : number
        Over-relaxation.
    reverse : bool
        Start at the last cell.

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> x = torch.zeros(1, 1, 3)
    >>> gauss_seidel(UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.ones(1, 1, 3), x, 1.0, False)
    >>> x
    tensor([[[0.5000, 0.7500, 0.8750]]])
    """
    d, *weights = to_face(stencil)
    inverse = _inverse(d)
    cells = [tuple(cell) for cell in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist()]
    for cell in reversed(cells) if reverse else cells:
        total = b[cell]
        for axis, weight in enumerate(weights):
            before = (*cell[:axis], cell[axis] - 1, *cell[axis + 1 :])
            after = (*cell[:axis], cell[axis] + 1, *cell[axis + 1 :])
            if cell[axis] > 0:
                total = total + weight[cell] * x[before]
            if cell[axis] + 1 < x.shape[axis]:
                total = total + weight[after] * x[after]
        x[cell] += omega * (total * inverse[cell] - x[cell])


def _factors(fine: Sequence[int], coarse: Sequence[int]) -> list[int]:
    return [-(-n // m) for n, m in zip(fine, coarse, strict=True)]


def prolong_add(stencil: Stencil, coarse_x: Tensor, x: Tensor) -> None:
    """Add to every unknown the value of the coarse cell that it lies in, in place.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The fine operator: cells of zero diagonal are left as they are.
    coarse_x : (cz, cy, cx) tensor
        Along each axis as many cells as ``x`` has, or half of them rounded up.
    x : (nz, ny, nx) tensor
        Overwritten.

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> x = torch.zeros(1, 1, 3)
    >>> prolong_add(UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.tensor([[[1.0, 2.0]]]), x)
    >>> x
    tensor([[[1., 1., 2.]]])
    """
    for axis, factor in enumerate(_factors(x.shape, coarse_x.shape)):
        coarse_x = coarse_x.repeat_interleave(factor, axis).narrow(axis, 0, x.shape[axis])
    x.copy_(torch.where(diagonal(stencil) != 0, x + coarse_x, x))


def restrict(residual: Tensor, coarse_shape: Sequence[int]) -> Tensor:
    """Sum over the fine cells of each coarse cell: the transpose of the prolongation.

    Parameters
    ----------
    residual : (nz, ny, nx) tensor
        A fine vector.
    coarse_shape : three ints
        Along each axis as many cells as the fine grid has, or half of them rounded up.

    Returns
    -------
    tensor of the coarse shape

    Examples
    --------
    >>> restrict(torch.tensor([[[1.0, 2.0, 4.0]]]), (1, 1, 2))
    tensor([[[3., 4.]]])
    """
    for axis, factor in enumerate(_factors(residual.shape, coarse_shape)):
        missing = coarse_shape[axis] * factor - residual.shape[axis]
        padding = [_layer(residual, axis)] * missing
        residual = torch.cat([residual, *padding], axis).unflatten(axis, (-1, factor)).sum(axis + 1)
    return residual


def smooth(
    stencil: Stencil,
    b: Tensor,
    x: Tensor,
    coarse_x: Tensor,
    coarse_b: Tensor,
    omega: complex,
    prolongs: int,
    halves: int,
    first: int,
    fresh: bool,
    restricts: int,
    relaxation: Tensor | None = None,
) -> None:
    """Add the coarse correction, relax, and restrict the residual, in place.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator.
    b : (nz, ny, nx) tensor
        Right-hand side.
    x : (nz, ny, nx) tensor
        Iterate, overwritten.
    coarse_x : (cz, cy, cx) tensor
        Correction to add first; not read unless `prolongs`.
    coarse_b : (cz, cy, cx) tensor
        Overwritten by the restricted residual if `restricts`.
    omega : number
        Over-relaxation.
    prolongs : {0, 1}
        Whether to begin with the prolongation.
    halves : int
        How many half sweeps, of alternating colour.
    first : {0, 1}
        Colour of the first half sweep.
    fresh : bool
        Let the first half sweep start from zero, whatever `x` holds.
    restricts : {0, 1}
        Whether to end with the restriction of the residual.
    relaxation : (sweeps, nz, ny, nx) int16 tensor, optional
        Replaces ``omega``; see `learnsolve.kernels.grid.smooth`.

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> stencil, b = UnitStencil(code, torch.ones(3), torch.zeros(1)), torch.ones(1, 1, 3)
    >>> x, coarse_b = torch.empty(1, 1, 3), torch.empty(1, 1, 2)
    >>> smooth(stencil, b, x, coarse_b, coarse_b, 1.0, 0, 2, 0, True, 1)
    >>> x, coarse_b
    (tensor([[[0.5000, 1.0000, 0.5000]]]), tensor([[[1., 1.]]]))
    """
    for _ in range(prolongs):
        prolong_add(stencil, coarse_x, x)
    for half in range(halves):
        if fresh and half == 0:
            x.zero_()
        colour = (first + half) % 2
        if relaxation is None:
            relax(stencil, b, x, omega, colour)
        else:
            own = RELAXATION_UNIT * relaxation[(halves - 1 - half if first else half) // 2].to(x.dtype)
            relax(stencil, b, x, own, colour)
    if restricts:
        coarse_b.copy_(restrict(residual(stencil, b, x), coarse_b.shape))


def to_face(stencil: Stencil) -> FaceStencil:
    """Write constant coefficients out, one a face.

    Parameters
    ----------
    stencil : UnitStencil or FaceStencil
        The operator; a `FaceStencil` is returned as it is.

    Returns
    -------
    FaceStencil
        The same operator on vectors that are zero off the unknowns.

    Examples
    --------
    >>> from learnsolve.kernels.stencil import UnitStencil
    >>> code = torch.full((1, 1, 3), 0b1100000, dtype=torch.uint8)
    >>> to_face(UnitStencil(code, torch.ones(3), torch.zeros(1))).wx
    tensor([[[0., 1., 1.]]])
    """
    if isinstance(stencil, FaceStencil):
        return stencil
    assert isinstance(stencil, UnitStencil)
    unknown = (stencil.code >> 6) & 1
    d = diagonal(stencil)
    weights = []
    for axis in range(3):
        inner = d.shape[axis] - 1
        both = unknown.narrow(axis, 1, inner) * unknown.narrow(axis, 0, inner)
        weights.append(torch.cat([_layer(d, axis), both * stencil.weights[axis]], axis))
    return FaceStencil(d, *weights)
