"""Shallow piecewise-linear maps: orbits drawn to data, their gradients, norms of Jacobians, exponents.

Each call goes to the form that suits the device: numba's on the CPU, Triton's on a GPU, in single and double
precision. Nothing is recorded for differentiation.

Weights are ``a`` (M,), ``w1`` (M, H), ``w2`` (H, M), ``h1`` (M,) and ``h2`` (H,). ``first`` (B, M) are the
states before the first time; ``targets`` (B, T, M) what states are drawn to, NaN where there is nothing, and
``drive`` (B, T, M) what is added to the states: both may be of no times, for none.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from learnsolve.kernels import forms, shplrnn_reference
from learnsolve.kernels.memory import inputs, scalar, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64)


class Weights(NamedTuple):
    """Of a map with M states and H hidden units."""

    a: Tensor
    w1: Tensor
    w2: Tensor
    h1: Tensor
    h2: Tensor


class Drawn(NamedTuple):
    """How states are drawn to their targets.

    Attributes
    ----------
    alpha : float
        ``(1 - alpha) z + alpha target`` goes on.
    every : int
        At every so many times.
    """

    alpha: float = 0.0
    every: int = 1


def orbit(
    weights: Weights,
    first: Tensor,
    targets: Tensor,
    drive: Tensor,
    drawn: Drawn,
    *,
    clipped: bool,
    length: int,
) -> Tensor:
    """States (B, length, M), each before it is drawn to its target.

    Examples
    --------
    >>> one, none = torch.ones(1), torch.zeros(1, 0, 1)
    >>> half = Weights(one / 2, torch.zeros(1, 1), torch.zeros(1, 1), 0 * one, one)
    >>> orbit(half, torch.ones(1, 1), none, none, Drawn(), clipped=True, length=3).flatten().tolist()
    [0.5, 0.25, 0.125]
    """
    if forms.by_triton(first) and _in_registers(weights):
        from learnsolve.kernels import shplrnn_triton

        return shplrnn_triton.orbit(weights, first, targets, drive, drawn, clipped, length)
    if not forms.by_numba(first, _NUMBA):
        with torch.no_grad():
            return shplrnn_reference.orbit(weights, first, targets, drive, *drawn, clipped, length)
    from learnsolve.kernels import shplrnn_numba

    out = torch.empty(len(first), length, first.shape[1], dtype=first.dtype)
    given = inputs(*weights, first[:, None], targets, drive)
    alpha, work = scalar(drawn.alpha, first), out.numel() * len(weights.h2)
    shplrnn_numba.orbit(*given, alpha, drawn.every, clipped, *views(out), threads(work))
    return out


def orbit_adjoint(
    weights: Weights,
    first: Tensor,
    targets: Tensor,
    drive: Tensor,
    drawn: Drawn,
    states: Tensor,
    slopes: Tensor,
    *,
    clipped: bool,
) -> tuple[Weights, Tensor, Tensor]:
    """Gradients by the weights, ``first`` and ``drive``, where ``states`` are what `orbit` returned.

    Examples
    --------
    >>> one, none = torch.ones(1), torch.zeros(1, 0, 1)
    >>> half, first = Weights(one / 2, torch.zeros(1, 1), torch.zeros(1, 1), 0 * one, one), torch.ones(1, 1)
    >>> states = orbit(half, first, none, none, Drawn(), clipped=True, length=2)
    >>> slopes = torch.tensor([[[0.0], [1.0]]])
    >>> found, dfirst, _ = orbit_adjoint(half, first, none, none, Drawn(), states, slopes, clipped=True)
    >>> found.a.item(), dfirst.item()
    (1.0, 0.25)
    """
    if forms.by_triton(first) and _in_registers(weights):
        from learnsolve.kernels import shplrnn_triton

        return shplrnn_triton.orbit_adjoint(weights, first, targets, drive, drawn, states, slopes, clipped)
    if not forms.by_numba(first, _NUMBA):
        return _by_autograd(weights, first, targets, drive, drawn, slopes, clipped)
    from learnsolve.kernels import shplrnn_numba
    from learnsolve.kernels.lanes import LANES

    a, w1, w2, _, h2 = weights
    sizes = [one.numel() for one in weights]
    shares = torch.empty(-(-len(first) // LANES), sum(sizes), dtype=first.dtype)
    dfirst, ddrive = torch.empty_like(first), torch.empty_like(drive)
    given = inputs(a, w1, w2, h2, first[:, None], targets)
    alpha, work = scalar(drawn.alpha, first), states.numel() * len(h2)
    shplrnn_numba.orbit_adjoint(
        *given, alpha, drawn.every, clipped, *inputs(states, slopes), *views(shares, dfirst[:, None], ddrive),
        threads(work),
    )  # fmt: skip
    found = shares.sum(0).split(sizes)
    return Weights(*(one.view_as(to) for one, to in zip(found, weights, strict=True))), dfirst, ddrive


def error(
    weights: Weights, first: Tensor, targets: Tensor, drawn: Drawn, *, clipped: bool
) -> tuple[Tensor, Weights]:
    """Mean squared error of states, before they are drawn, against known targets; and its gradients.

    Examples
    --------
    >>> one, none = torch.ones(1), torch.zeros(1, 0, 1)
    >>> half = Weights(one / 2, torch.zeros(1, 1), torch.zeros(1, 1), 0 * one, one)
    >>> found, slopes = error(half, torch.ones(1, 1), torch.ones(1, 1, 1), Drawn(), clipped=True)
    >>> found.item(), slopes.a.item()
    (0.25, -1.0)
    """
    if not forms.by_numba(first, _NUMBA):
        none = targets[:, :0]
        length = targets.shape[1]
        states = orbit(weights, first, targets, none, drawn, clipped=clipped, length=length)
        wrong = (states - targets).nan_to_num(0)
        count = targets.isnan().logical_not().sum()
        found, _, _ = orbit_adjoint(
            weights, first, targets, none, drawn, states, 2 / count * wrong, clipped=clipped
        )
        return wrong.square().sum() / count, found
    from learnsolve.kernels import shplrnn_numba
    from learnsolve.kernels.lanes import LANES

    sizes = [one.numel() for one in weights]
    shares = torch.empty(-(-len(first) // LANES), sum(sizes) + 2, dtype=first.dtype)
    given, work = inputs(*weights, first[:, None], targets), targets.numel() * len(weights.h2)
    alpha = scalar(drawn.alpha, first)
    shplrnn_numba.error(*given, alpha, drawn.every, clipped, *views(shares), threads(work))
    sums = shares.sum(0)
    sums /= sums[-1].clone()
    parts = (2 * sums[:-2]).split(sizes)
    return sums[-2], Weights(*(one.view_as(to) for one, to in zip(parts, weights, strict=True)))


def jacobian_norms(weights: Weights, points: Tensor, *, clipped: bool) -> Tensor:
    """Spectral norms of the Jacobians at points (n, M); on the CPU by power iteration, to about 1e-3.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> plain = Weights(one / 2, torch.ones(1, 1), torch.ones(1, 1), 0 * one, one)
    >>> jacobian_norms(plain, torch.tensor([[1.0], [-2.0]]), clipped=False).tolist()
    [1.5, 0.5]
    """
    if not forms.by_numba(points, _NUMBA):
        with torch.no_grad():
            J = shplrnn_reference.jacobian(weights, points, clipped)
            return torch.linalg.matrix_norm(J, ord=2)
    from learnsolve.kernels import shplrnn_norms_numba

    out = torch.empty(len(points), dtype=points.dtype)
    a, w1, w2, _, h2 = weights
    given, work = inputs(a, w1, w2, h2, points[:, None]), points.numel() * w1.numel()
    shplrnn_norms_numba.jacobian_norms(*given, clipped, *views(out), threads(work))
    return out


def exponents(
    weights: Weights, first: Tensor, frame: Tensor, *, transient: int, steps: int, clipped: bool
) -> Tensor:
    """Sums over ``steps`` times of the logarithms of what orthogonal directions are stretched by.

    One orbit has nothing to do at once: it is followed on the CPU, wherever the weights lie.

    Parameters
    ----------
    first : (M,) Tensor
    frame : (count, M) Tensor
        Directions at first, as rows.

    Examples
    --------
    >>> none = torch.zeros(2, 2)
    >>> map = Weights(torch.tensor([2.0, 0.5]), none, none, torch.zeros(2), torch.zeros(2))
    >>> exponents(map, torch.zeros(2), torch.eye(2), transient=0, steps=10, clipped=True) / 10
    tensor([ 0.6931, -0.6931])
    """
    from learnsolve.kernels import shplrnn_exponents_numba

    sums = torch.zeros(len(frame), dtype=torch.float64)
    given = inputs(*(one.cpu() for one in (*weights, first)))
    directions = views(frame.detach().to("cpu", copy=True))
    add_up: Any = shplrnn_exponents_numba.exponents
    add_up(*given, *directions, transient, steps, clipped, *views(sums))
    return sums.to(first)


def _in_registers(weights: Weights) -> bool:
    from learnsolve.kernels import shplrnn_triton

    return shplrnn_triton.fits(weights)


def _by_autograd(
    weights: Weights,
    first: Tensor,
    targets: Tensor,
    drive: Tensor,
    drawn: Drawn,
    slopes: Tensor,
    clipped: bool,
) -> tuple[Weights, Tensor, Tensor]:
    with torch.enable_grad():
        given = [one.detach().requires_grad_() for one in (*weights, first, drive)]
        out = shplrnn_reference.orbit(
            Weights(*given[:5]), given[5], targets, given[6], *drawn, clipped, slopes.shape[1]
        )
        *found, dfirst, ddrive = torch.autograd.grad(
            out, given, slopes, allow_unused=True, materialize_grads=True
        )
    return Weights(*found), dfirst, ddrive
