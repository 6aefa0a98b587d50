"""Acceleration of a fixed-point iteration from its last few steps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Anderson:
    r"""Anderson's acceleration of :math:`x \leftarrow g(x)`, which begins anew where it does not help.

    Of the last points and their steps :math:`f_i = g(x_i) - x_i` it takes the combination whose step is
    least: the next point is :math:`x + f - (\Delta X + \Delta F) \gamma` with the :math:`\gamma` that
    minimises :math:`|f - \Delta F \gamma|`.

    Parameters
    ----------
    depth : int
        How many differences are kept.

    Attributes
    ----------
    ahead : array or None
        Where to go on from, if that is not the last image.

    References
    ----------
    H. F. Walker and P. Ni, *Anderson acceleration for fixed-point iterations*, SIAM J. Numer. Anal. 49, 2011,
    section 2.

    Examples
    --------
    >>> fixed = Anderson(2)
    >>> A, x = np.array([[0.9, 0.1], [0.0, 0.5]]), np.zeros(2)
    >>> for _ in range(6):
    ...     x = fixed.next(x, A @ x + 1.0, np.inf)
    >>> x.round(6).tolist()
    [12.0, 2.0]
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.points: list[Array] = []
        self.steps: list[Array] = []
        self.least = np.inf
        self.ahead: Array | None = None

    def helped(self, error: float) -> bool:
        """Whether an error is no larger than the last; if a point found here made it so, forget all."""
        if error <= self.least or self.ahead is None:
            self.least = error
            return True
        self.points, self.steps, self.least, self.ahead = [], [], np.inf, None
        return False

    def next(self, x: Array, image: Array, error: float) -> Array:
        """Where to go on from: ``x`` was the last point, ``image`` is what the iteration made of it."""
        step = image - x
        self.points, self.steps = [*self.points, x][-self.depth - 1 :], [*self.steps, step][-self.depth - 1 :]
        self.ahead = None
        if len(self.points) == 1 or not error > 0:
            return image
        differences = [after - before for before, after in zip(self.steps, self.steps[1:], strict=False)]
        sizes = np.array([max(float(np.linalg.norm(d)), 1e-150) for d in differences])
        gram = np.array([[np.vdot(a, b) for b in differences] for a in differences]) / np.outer(sizes, sizes)
        right = np.array([np.vdot(a, step) for a in differences]) / sizes
        gamma = np.linalg.lstsq(gram, right, rcond=1e-12)[0] / sizes
        found = image.copy()
        moved = zip(self.points, self.points[1:], strict=False)
        for factor, d, (before, after) in zip(gamma, differences, moved, strict=True):
            found -= factor * (d + after - before)
        self.ahead = found
        return found

    def state(self) -> dict[str, Any]:
        """Arrays of all that `restore` needs."""
        ahead = np.empty(0) if self.ahead is None else self.ahead
        points, steps = np.array(self.points), np.array(self.steps)
        return {"points": points, "steps": steps, "least": self.least, "ahead": ahead}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.points, self.steps = list(state["points"]), list(state["steps"])
        self.least = float(state["least"])
        self.ahead = state["ahead"] if state["ahead"].size else None
