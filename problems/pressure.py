"""Linear systems and residuals as the smoke simulation meets them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from learnsolve import arrays
from learnsolve.kernels.vector import combine, dot, norm
from learnsolve.problems.poisson import LinearProblem
from learnsolve.problems.smoke import SmokeSimulation


def pressure_systems(
    shape: Sequence[int], steps: int, *, every: int = 1, **scene: Any
) -> Iterator[LinearProblem]:
    """Run the smoke simulation and hand out its pressure equations.

    Parameters
    ----------
    shape : tuple of 2 or 3 int
        Cells along each axis; axis 0 points up.
    steps : int
        Steps to run.
    every : int
        Only the equation of every so many steps is handed out.
    **scene
        Go to `SmokeSimulation`: ``obstacles``, ``sources``, ``seed`` and all else.

    Yields
    ------
    LinearProblem
        As `SmokeSimulation.pressure_problem`: ``A`` over the cells, ``b`` an array of the grid's shape.

    Raises
    ------
    ValueError
        If ``every`` is not positive; as `SmokeSimulation`.

    Examples
    --------
    >>> for problem in pressure_systems((12, 8), 4, every=2):
    ...     print(problem.A, problem.b.shape)
    <GridPoisson 12x8, 88 unknowns, float64, unit coefficients, positive definite> (12, 8)
    <GridPoisson 12x8, 88 unknowns, float64, unit coefficients, positive definite> (12, 8)
    """
    if every < 1:
        raise ValueError(f"every is {every}; a positive number of steps is accepted")
    simulation = SmokeSimulation(shape, **scene)
    for step in range(1, steps + 1):
        simulation.step()
        if step % every == 0:
            yield simulation.pressure_problem()


def residuals(
    problem: LinearProblem, count: int, seed: int = 0, *, rtol: float = 1e-6
) -> Iterator[np.ndarray]:
    """Hand out residuals that plain conjugate gradients meet on the way from zero to the answer.

    Parameters
    ----------
    problem : LinearProblem
        With a symmetric, positive (semi-)definite ``A`` and a ``b`` in its range.
    count : int
        How many: ``b`` first, then those after iterations drawn at random, in their order. Where there
        are fewer iterations, all.
    seed : int
        Of the draw.
    rtol : float
        Where the iteration ends, relative to the norm of ``b``.

    Yields
    ------
    array of the shape of ``A``'s domain

    Raises
    ------
    ValueError
        If ``count`` is not positive, or ``b`` is zero or not finite.

    Examples
    --------
    >>> from learnsolve.problems.poisson import box
    >>> [round(float(np.linalg.norm(r)), 1) for r in residuals(box((8, 8), rhs="ones"), 3)]
    [8.0, 1.0, 0.3]
    """
    if count < 1:
        raise ValueError(f"count is {count}; a positive number is accepted")
    iterations = sum(1 for _ in _conjugate_gradients(problem, rtol)) - 1
    drawn = np.random.default_rng(seed).permutation(iterations)[: count - 1]
    chosen = {0, *(int(k) + 1 for k in drawn)}
    for iteration, r in enumerate(_conjugate_gradients(problem, rtol)):
        if iteration in chosen:
            yield r.cpu().numpy().copy()


def _conjugate_gradients(problem: LinearProblem, rtol: float) -> Iterator[Tensor]:
    """The residual before the first and after each iteration, always in the same memory."""
    A = problem.A
    r = A.enter(arrays.as_tensor(problem.b, "b").to(A.device, A.dtype), "b").clone()
    size = norm(r)
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"b has norm {size}; it must be finite and not zero")
    p, rr = r.clone(), size**2
    yield r
    for _ in range(r.numel()):
        Ap = A._apply(p)
        curvature = dot(p, Ap).real
        if not curvature > 0:
            return
        combine(-rr / curvature, Ap, 1.0, r)
        old, rr = rr, norm(r) ** 2
        if not rr > (rtol * size) ** 2:
            return
        yield r
        combine(1.0, r, rr / old, p)
