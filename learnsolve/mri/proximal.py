"""Proximal gradients: penalties by their proximal maps, momentum, and when an image rests."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnsolve.mri.coils import norm
from learnsolve.mri.model import Model
from learnsolve.mri.rows import row_inverses
from learnsolve.operators import Operator, Wavelet
from learnsolve.result import ConvergenceWarning, Result, Status

LEVELS = 4
# Of the squared norm of the model, what couples the two images of alternating directions.
COUPLING = 0.01
# Iterations over which the image must rest.
WINDOW = 5


def accelerated(
    arranged: Model,
    near: Callable[[Tensor, float], Tensor],
    x0: Tensor | None,
    momentum: float = float("inf"),
) -> Iterator[tuple[Tensor, float]]:
    """Proximal gradients with momentum: images, and the residuals where their gradients were taken.

    ``near`` minimises half the squared distance from an image and a step's share of the penalty; ``momentum``
    is for how many iterations there is one, after which the images are means of all that follow.
    """
    E = arranged.operator
    # The gradient's constant: no image gains more than the largest sum of squares of the maps.
    step = 1 / _largest(E)
    x = E._adjoint(arranged.samples) if x0 is None else arranged.frame.origin(x0).to(E.dtype)
    z, t, count = x, 1.0, 0
    while True:
        left = E._apply(z) - arranged.samples
        new = near(z - step * E._adjoint(left), step)
        count += 1
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        if count < momentum:
            z = new + (before - 1) / t * (new - x)
            x = new
        else:
            z = new
            x = x + (new - x) / (count - momentum + 1)
        yield x, norm(left)


def alternating(
    arranged: Model, near: Callable[[Tensor, float], Tensor], x0: Tensor | None
) -> Iterator[tuple[Tensor, float]]:
    """Alternating directions: images, and the residuals of their data; of whole lines alone.

    Along such lines each row of the image is a system of its own, small enough to be solved exactly.

    References
    ----------
    Boyd, Parikh, Chu, Peleato and Eckstein, *Distributed optimization and statistical learning via the
    alternating direction method of multipliers*, Foundations and Trends in Machine Learning 3, 2011.
    """
    E = arranged.operator
    step = 1 / (COUPLING * _largest(E))
    lines = arranged.frame.lines
    assert lines is not None
    solved = row_inverses(E.parameters()[0], lines, 1 / step)
    b = E._adjoint(arranged.samples)
    z = b if x0 is None else arranged.frame.origin(x0).to(E.dtype)
    u = torch.zeros_like(z)
    while True:
        x = (solved @ (b + (z - u) / step).unsqueeze(-1))[..., 0]
        z = near(x + u, step)
        u = u + x - z
        yield z, norm(E._apply(z) - arranged.samples)


def shrinking(E: Operator, weight: float, seed: int) -> Callable[[Tensor, float], Tensor]:
    """Thresholds of wavelet coefficients, at a random shift of their grid each time."""
    height, width = E.domain_shape[-2:]
    levels = max(0, min(LEVELS, min(height, width).bit_length() - 3))
    block = 1 << levels
    padded = (*E.domain_shape[:-2], *(-(-n // block) * block for n in (height, width)))
    W = Wavelet(padded, levels, dtype=E.dtype, device=E.device)
    coarse = (..., slice(padded[-2] >> levels), slice(padded[-1] >> levels))
    generator = torch.Generator().manual_seed(seed)

    def near(s: Tensor, step: float) -> Tensor:
        shift = torch.randint(0, block, (2,), generator=generator).tolist()
        s = torch.nn.functional.pad(s, (0, padded[-1] - width, 0, padded[-2] - height))
        c = W._apply(s.roll(shift, (-2, -1)))
        found = _shrunk(c, step * weight)
        found[coarse] = c[coarse]
        return W._adjoint(found).roll([-n for n in shift], (-2, -1))[..., :height, :width]

    return near


def smoothing(E: Operator, weight: float, inner: int = 5) -> Callable[[Tensor, float], Tensor]:
    """The proximal map of total variation by its dual, which goes on from the last time's."""
    u = torch.zeros(2, *E.domain_shape, dtype=E.dtype, device=E.device)

    def near(s: Tensor, step: float) -> Tensor:
        nonlocal u
        bound = max(step * weight, torch.finfo(s.real.dtype).tiny)
        x = s - _divergence(u)
        for _ in range(inner):
            # The squared norm of the differences is at most 8.
            u = u + torch.stack([x.roll(-1, -1) - x, x.roll(-1, -2) - x]) / 8
            u = u * (bound / u.abs().square().sum(0).sqrt().clamp_min(bound))
            x = s - _divergence(u)
        return x

    return near


def _divergence(u: Tensor) -> Tensor:
    """The adjoint of the differences to the next pixels."""
    return u[0].roll(1, -1) - u[0] + u[1].roll(1, -2) - u[1]


def _largest(E: Operator) -> float:
    """A bound of the model's squared norm: of the largest sum of squares of the sensitivities."""
    maps = E.parameters()[0]
    return max(float(maps.abs().square().sum(-3).max()), torch.finfo(maps.real.dtype).tiny)


def _shrunk(c: Tensor, threshold: float) -> Tensor:
    size = c.abs()
    return c * ((size - threshold).clamp_min(0) / size.clamp_min(torch.finfo(size.dtype).tiny))


def iterated(
    arranged: Model,
    steps: Iterator[tuple[Tensor, float]],
    rtol: float,
    maxiter: int,
    callback: Callable[[int, float], Any] | None,
    began: float,
    method: str,
    extras: dict[str, Any],
) -> Result:
    """Step until the image rests."""
    E, y = arranged.operator, arranged.samples
    residuals: list[float] = []
    status, change = Status.MAXITER, float("nan")
    x = torch.zeros(E.domain_shape, dtype=E.dtype, device=E.device)
    trail: deque[Tensor] = deque(maxlen=WINDOW)
    for number in range(1, maxiter + 1):
        x, left = next(steps)
        residuals.append(left)
        size = norm(x)
        if not np.isfinite(size):
            status = Status.NONFINITE
            break
        if len(trail) == WINDOW:
            change = norm(x - trail[0]) / (WINDOW * max(size, 1e-300))
        trail.append(x)
        if callback is not None and callback(number, left):
            status = Status.STOPPED
            break
        if change <= rtol:
            status = Status.CONVERGED
            break
    residuals.append(norm(E._apply(x) - y))
    relative = residuals[-1] / norm(y)
    result = Result(
        arranged.frame.seen(x), status, len(residuals) - 1, np.array(residuals), relative,
        time.perf_counter() - began, method, {**extras, "change": change},
    )  # fmt: skip
    if not result.success:
        warnings.warn(f"{result!r}: {status.value}", ConvergenceWarning, stacklevel=3)
    return result
