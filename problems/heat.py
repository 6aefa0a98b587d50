"""Sequences of related systems: the heat equation with a varying coefficient, and shifted matrices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from learnsolve.operators import CSR, GridPoisson
from learnsolve.problems.poisson import LinearProblem


@dataclass(frozen=True)
class Step(LinearProblem):
    """A system of a sequence.

    Attributes
    ----------
    A, b, x
        As in `LinearProblem`.
    context : float
        What a contextual policy is told: the diffusion coefficient, or the shift.
    """

    context: float = 0.0


def diffusion(t: float) -> float:
    """The coefficient of the paper's experiment at a time: 0.1 and 10 times a sine in turn.

    Examples
    --------
    >>> [round(diffusion(t), 6) for t in (0.25, 0.75)]
    [0.1, 10.0]
    """
    wave = np.sin(2 * np.pi * t)
    return float(max(0.1 * wave, -10 * wave))


@dataclass
class Heat:
    r"""The heat equation in the unit square with a varying coefficient, by the Crank-Nicolson scheme.

    .. math:: \partial_t u = \kappa(t) \Delta u + f(t), \qquad u = 0 \text{ on the boundary}

    Each step solves :math:`(I + \tfrac{\tau}{2} \kappa_{n+1} L) u_{n+1} = (I - \tfrac{\tau}{2} \kappa_n L)
    u_n + \tfrac{\tau}{2} (f_n + f_{n+1})` with :math:`L` the negative five-point Laplacian. The forcing is
    a bump of radius 0.125 that moves once around a circle of radius 0.25 in a unit of time; the first state
    is one of radius 0.25 in the middle.

    Parameters
    ----------
    shape : tuple of 2 int, or int
        Unknowns along each axis; one number is meant for both.
    dt : float
        Length of a step.

    Attributes
    ----------
    u : array of ``shape``
        The temperature.
    t : float
        The time.

    Raises
    ------
    ValueError
        A shape or step that is not positive.

    References
    ----------
    Khodak, Chow, Balcan and Talwalkar, *Learning to relax: setting solver parameters across a sequence of
    linear system instances*, ICLR 2024, section 4.

    Examples
    --------
    >>> import learnsolve
    >>> heat = Heat(16)
    >>> problem = heat.problem()
    >>> heat.accept(learnsolve.solve(problem.A, problem.b, method="cg", x0=heat.u).x)
    >>> round(heat.t, 3)
    0.001
    """

    shape: Sequence[int] | int = 50
    dt: float = 1e-3
    t: float = field(default=0.0, init=False)
    u: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (self.shape,) * 2 if isinstance(self.shape, int) else tuple(int(n) for n in self.shape)
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"shape is {self.shape}; one or two positive numbers are accepted")
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"dt is {self.dt}; a positive number is accepted")
        self.shape = shape
        self._centres = [np.arange(1, n + 1) / (n + 1) for n in shape]
        self._cells = np.zeros(shape, np.int8)
        self._laplacian = self._operator(1.0, 0.0)
        self.u = self._bump((0.5, 0.5), 0.25)

    def _operator(self, coefficient: float, absorption: float) -> GridPoisson:
        """``absorption I + coefficient L``."""
        spacing = [1 / ((n + 1) * np.sqrt(coefficient)) for n in self._cells.shape]
        return GridPoisson(self._cells, boundary="dirichlet", spacing=spacing, absorption=absorption)

    def _bump(self, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
        """``exp(-1 / (1 - d^2))`` with ``d`` the distance over the radius; zero beyond."""
        y, x = self._centres
        squares = ((y[:, None] - centre[0]) ** 2 + (x[None, :] - centre[1]) ** 2) / radius**2
        inside = squares < 1
        return np.where(inside, np.exp(-1 / np.where(inside, 1 - squares, 1.0)), 0.0)

    def _forcing(self, t: float) -> NDArray[np.float64]:
        angle = 2 * np.pi * t
        return 32 * self._bump((0.5 + 0.25 * np.sin(angle), 0.5 + 0.25 * np.cos(angle)), 0.125)

    def problem(self) -> Step:
        """The system of the next step; its answer goes to `accept`."""
        now, then = self.t, self.t + self.dt
        half, kappa = 0.5 * self.dt, diffusion(then)
        b = self.u - half * diffusion(now) * (self._laplacian @ self.u)
        b = b + half * (self._forcing(now) + self._forcing(then))
        # Where nothing diffuses the system is the identity, nearly: a spacing must be finite.
        return Step(self._operator(max(half * kappa, 1e-12), 1.0), b, context=kappa)

    def accept(self, u: NDArray[np.float64]) -> None:
        """Take a system's answer for the new temperature."""
        self.u = u
        self.t += self.dt


def shifted(
    steps: int,
    kind: Literal["high", "low", "drift", "switch"] = "high",
    *,
    shape: tuple[int, int] = (10, 10),
    seed: int = 0,
) -> Iterator[Step]:
    """Systems ``(L + c I) x = b`` with the five-point matrix ``L`` and shifts ``c`` from -0.15 to 0.45.

    Parameters
    ----------
    steps : int
        How many.
    kind : {"high", "low", "drift", "switch"}
        The shift: drawn with ``0.6 Beta(1/2, 3/2)`` above -0.15 or with ``0.6 Beta(2, 6)`` (the paper's
        settings of high and low variance); a slow wave through the whole range; or drawn in its upper third
        and, after half the systems, in its lowest sixth.
    shape : tuple of 2 int
        Unknowns along each axis; more than 11 make the matrix indefinite for the smallest shifts.
    seed : int
        Of shifts and right-hand sides; the latter are normal, cut off at three standard deviations.

    Yields
    ------
    Step

    Raises
    ------
    ValueError
        ``kind`` is not one of these, ``steps`` is negative, or the matrix would be indefinite.

    Examples
    --------
    >>> [round(step.context, 2) for step in shifted(3, "low", seed=1)]
    [-0.0, 0.15, -0.09]
    """
    if kind not in ("high", "low", "drift", "switch"):
        raise ValueError(f"kind is {kind!r}; 'high', 'low', 'drift' and 'switch' are accepted")
    if steps < 0:
        raise ValueError(f"steps is {steps}; a number that is not negative is accepted")
    if sum(2 - 2 * np.cos(np.pi / (n + 1)) for n in shape) <= 0.15:
        raise ValueError(f"shape is {shape}; the least shift, -0.15, would make the matrix indefinite")
    rng = np.random.default_rng(seed)
    lines = [scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)) for n in shape]
    L = scipy.sparse.kronsum(lines[1], lines[0], format="csr")
    identity = scipy.sparse.eye_array(L.shape[0], format="csr")
    for step in range(steps):
        if kind == "high":
            c = 0.6 * rng.beta(0.5, 1.5)
        elif kind == "low":
            c = 0.6 * rng.beta(2, 6)
        elif kind == "drift":
            c = 0.3 + 0.28 * np.sin(4 * np.pi * step / max(steps, 1)) + 0.02 * rng.uniform(-1, 1)
        else:
            c = rng.uniform(0.4, 0.6) if 2 * step < steps else rng.uniform(0.0, 0.1)
        shift = float(c) - 0.15
        b = np.clip(rng.standard_normal(L.shape[0]), -3, 3)
        A = CSR.from_scipy(L + shift * identity)
        yield Step(A, b, context=shift)
