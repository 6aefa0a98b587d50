"""The grid kernels' dispatcher: torch tensors in, the form for their device is run.

Vectors have three axes and are zero on inactive cells. On the CPU the numba form works on the tensors'
memory; on a GPU the Triton form; the reference form serves what Triton has no type for.
"""

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels.stencil import Stencil
from learnsolve.kernels.threads import threads


def as_numpy(stencil: Stencil) -> Stencil:
    """The same stencil as numpy views."""
    return type(stencil)(*(field.detach().numpy() for field in stencil))


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _gpu(x: Tensor):
    """The module for a tensor that is not on the CPU."""
    if x.device.type == "cuda" and not x.is_complex():
        from learnsolve.kernels import grid_triton

        return grid_triton
    return None


def apply(stencil: Stencil, x: Tensor) -> Tensor:
    """``A x``."""
    if _on_cpu(x):
        from learnsolve.kernels import grid_numba

        y = torch.empty_like(x)
        grid_numba.apply(as_numpy(stencil), x.detach().numpy(), y.numpy(), threads(x.numel()))
        return y
    triton = _gpu(x)
    if triton is not None:
        y = torch.empty_like(x)
        triton.apply(stencil, x, y)
        return y
    from learnsolve.kernels import grid_reference

    return grid_reference.apply(stencil, x)


def residual(stencil: Stencil, b: Tensor, x: Tensor) -> Tensor:
    """``b - A x``."""
    if _on_cpu(x):
        from learnsolve.kernels import grid_numba

        r = torch.empty_like(x)
        grid_numba.residual(
            as_numpy(stencil), b.detach().numpy(), x.detach().numpy(), r.numpy(), threads(x.numel())
        )
        return r
    triton = _gpu(x)
    if triton is not None:
        r = torch.empty_like(x)
        triton.residual(stencil, b, x, r)
        return r
    from learnsolve.kernels import grid_reference

    return grid_reference.residual(stencil, b, x)


def jacobi(stencil: Stencil, b: Tensor, x: Tensor, omega: float) -> Tensor:
    """``x + omega D^-1 (b - A x)``."""
    if _on_cpu(x):
        from learnsolve.kernels import grid_numba

        out = torch.empty_like(x)
        weight = x.numpy().dtype.type(omega)
        grid_numba.jacobi(as_numpy(stencil), b.numpy(), x.numpy(), out.numpy(), weight, threads(x.numel()))
        return out
    triton = _gpu(x)
    if triton is not None:
        out = torch.empty_like(x)
        triton.jacobi(stencil, b, x, out, omega)
        return out
    from learnsolve.kernels import grid_reference

    return grid_reference.jacobi(stencil, b, x, omega)


def gauss_seidel(stencil: Stencil, b: Tensor, x: Tensor, omega: float, reverse: bool) -> None:
    """One lexicographic sweep of over-relaxation in place; serial, so on the CPU only."""
    if not _on_cpu(x):
        raise NotImplementedError(
            f"lexicographic sweeps are serial and run on the CPU, not on {x.device}; use order='multicolor'"
        )
    from learnsolve.kernels import grid_numba

    grid_numba.gauss_seidel(as_numpy(stencil), b.numpy(), x.numpy(), x.numpy().dtype.type(omega), reverse)


def smooth(
    stencil: Stencil,
    b: Tensor,
    x: Tensor,
    *,
    omega: float = 1.0,
    halves: int,
    first: int,
    fresh: bool = False,
    coarse_x: Tensor | None = None,
    coarse_b: Tensor | None = None,
    aggregate: Tensor | None = None,
    relaxation: Tensor | None = None,
) -> None:
    """Prolong ``coarse_x`` into ``x``, do half-sweeps, restrict the residual to ``coarse_b``: one fused pass.

    Parameters
    ----------
    stencil : Stencil
        The operator.
    b, x : (nz, ny, nx) Tensor
        Right-hand side, and the iterate, changed in place.
    omega : float
        Over-relaxation.
    halves : int
        How many half-sweeps of alternating colour.
    first : int
        Colour of the first.
    fresh : bool
        The old ``x`` counts as zero.
    coarse_x : Tensor, optional
        Added to ``x`` by piecewise constant interpolation before the sweeps.
    coarse_b : Tensor, optional
        Set to the aggregates' sums of the residual after the sweeps.
    aggregate : (nz, ny, nx) int32 Tensor, optional
        Each cell's coarse unknown (coarse vectors then have shape ``(1, 1, n)``); -1 for none.
    relaxation : (sweeps, nz, ny, nx) int16 Tensor, optional
        Each cell's over-relaxation in place of ``omega``, over `RELAXATION_UNIT`. A sweep is two
        half-sweeps, and with ``first = 1`` they are counted from the last.
    """
    if _on_cpu(x):
        from learnsolve.kernels import grid_numba

        values = x.numpy()
        empty = np.empty((0, 0, 0), values.dtype)
        grid_numba.smooth(
            as_numpy(stencil),
            b.numpy(),
            values,
            empty if coarse_x is None else coarse_x.numpy(),
            empty if coarse_b is None else coarse_b.numpy(),
            np.empty((0, 0, 0), np.int32) if aggregate is None else aggregate.numpy(),
            np.empty((0, 0, 0, 0), np.int16) if relaxation is None else relaxation.numpy(),
            values.dtype.type(omega),
            int(coarse_x is not None),
            halves,
            first,
            fresh,
            int(coarse_b is not None),
            threads(x.numel()),
        )
        return
    from learnsolve.kernels import grid_reference

    form = (_gpu(x) if relaxation is None else None) or grid_reference
    if coarse_x is not None and aggregate is not None:
        known = aggregate >= 0
        x[known] += coarse_x.reshape(-1)[aggregate[known].long()]
    plain = aggregate is None
    form.smooth(
        stencil,
        b,
        x,
        coarse_x if plain and coarse_x is not None else x,
        coarse_b if plain and coarse_b is not None else x,
        omega,
        int(plain and coarse_x is not None),
        halves,
        first,
        fresh,
        int(plain and coarse_b is not None),
        **({} if relaxation is None else {"relaxation": relaxation}),
    )
    if coarse_b is not None and aggregate is not None:
        known = aggregate >= 0
        r = residual(stencil, b, x)
        coarse_b.zero_()
        coarse_b.view(-1).index_add_(0, aggregate[known].long(), r[known])
