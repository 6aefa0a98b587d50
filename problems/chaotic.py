"""Chaotic systems with known exponents: Lorenz's two, Rössler's, Hénon's; noisy and partly observed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Spectrum(NamedTuple):
    """Lyapunov exponents, the largest first, for a unit of time, and the orbit that they belong to."""

    exponents: Array
    orbit: Array


@dataclass(frozen=True)
class QuadraticSystem:
    r"""A flow :math:`\dot x = f(x)` or a map :math:`x \mapsto f(x)` with quadratic f.

    .. math:: f_i(x) = c_i + \sum_a l_{ia} x_a + \sum_{a, b} q_{iab} x_a x_b

    Parameters
    ----------
    name : str
    start : sequence of N floats
        Near the attractor.
    constant : sequence of N floats
        c; zeros if left out.
    linear : sequence of (i, a, value)
    quadratic : sequence of (i, a, b, value)
    dt : float
        What lies between two rows of an orbit: time of a flow, zero for a map.
    step : float
        Length of a step of the Runge-Kutta method of order four, at most; of flows.

    Raises
    ------
    ValueError
        An index is not one of a variable, or a step is not positive.

    Examples
    --------
    >>> from learnsolve.problems.chaotic import QuadraticSystem
    >>> decay = QuadraticSystem("decay", [1.0], linear=[(0, 0, -1.0)], dt=1.0)
    >>> decay.orbit(2, transient=0).round(4).ravel().tolist()
    [0.3679, 0.1353]
    """

    name: str
    start: Sequence[float]
    constant: Sequence[float] = ()
    linear: Sequence[tuple[int, int, float]] = ()
    quadratic: Sequence[tuple[int, int, int, float]] = ()
    dt: float = 0.01
    step: float = 0.01
    _terms: tuple[NDArray, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = len(self.start)
        constant = np.asarray(self.constant if len(self.constant) else np.zeros(size), float)
        linear = np.array([term[:2] for term in self.linear], dtype=np.int64).reshape(-1, 2)
        quadratic = np.array([term[:3] for term in self.quadratic], dtype=np.int64).reshape(-1, 3)
        for given in (linear, quadratic):
            if given.size and not (given.min() >= 0 and given.max() < size):
                raise ValueError(f"indices are {given.tolist()}; those of {size} variables are accepted")
        if constant.shape != (size,) or self.dt < 0 or self.step <= 0:
            raise ValueError(
                f"constant has shape {constant.shape}, dt is {self.dt} and step {self.step}; ({size},), at "
                "least zero, and a positive number are accepted"
            )
        values = [np.array([term[-1] for term in terms], float) for terms in (self.linear, self.quadratic)]
        object.__setattr__(self, "_terms", (constant, linear, values[0], quadratic, values[1]))

    @property
    def dim(self) -> int:
        """Variables N."""
        return len(self.start)

    def orbit(self, length: int, *, transient: int = 1000, seed: int | None = None) -> Array:
        """Rows (length, N) of an orbit, ``dt`` apart, after ``transient`` rows that are left out.

        Parameters
        ----------
        length, transient : int
        seed : int, optional
            Moves the start at random by about a hundredth, for another orbit on the same attractor.

        Raises
        ------
        FloatingPointError
            The orbit flies away.
        """
        return self._followed(length, transient, 0, seed).orbit

    def lyapunov_spectrum(
        self,
        length: int = 100_000,
        *,
        transient: int = 1000,
        count: int | None = None,
        seed: int | None = None,
    ) -> Spectrum:
        """Exponents by orthogonal directions that are carried along, for a unit of time (of a map, a step).

        Parameters
        ----------
        length, transient : int
            Rows over which they are averaged, and rows before.
        count : int, optional
            How many; all N by default.
        seed : int, optional
            As of `orbit`.

        References
        ----------
        G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, *Lyapunov characteristic exponents for smooth
        dynamical systems and for Hamiltonian systems*, Meccanica 15, 1980.

        Examples
        --------
        >>> from learnsolve.problems.chaotic import henon
        >>> henon().lyapunov_spectrum(100_000).exponents.round(2).tolist()
        [0.42, -1.62]
        """
        return self._followed(length, transient, self.dim if count is None else count, seed)

    def _followed(self, length: int, transient: int, count: int, seed: int | None) -> Spectrum:
        from learnsolve.kernels import quadratic_numba

        if min(length, transient) < 0 or not 0 <= count <= self.dim:
            raise ValueError(
                f"length is {length}, transient {transient} and count {count}; numbers of at least 0, and a "
                f"count of at most {self.dim}, are accepted"
            )
        x = np.array(self.start, float)
        if seed is not None:
            x += 0.01 * np.random.default_rng(seed).normal(size=self.dim) * np.maximum(np.abs(x), 1)
        substeps = max(1, int(np.ceil(self.dt / self.step - 1e-9)))
        frame, orbit = np.eye(self.dim)[:count].copy(), np.empty((transient + length, self.dim))
        sums = np.zeros(count)
        follow: Any = quadratic_numba.follow
        for part in (orbit[:transient], orbit[transient:]):
            sums[:] = 0
            follow(x, frame, *self._terms, self.dt / substeps, substeps, part, sums)
        if not np.isfinite(x).all():
            raise FloatingPointError(f"the orbit of {self.name} flies away; begin nearer to its attractor")
        return Spectrum(sums / (max(length, 1) * (self.dt or 1)), orbit[transient:])


def lorenz63(
    *, sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3, dt: float = 0.01
) -> QuadraticSystem:
    """Lorenz's three equations of convection; the largest exponent is 0.906.

    References
    ----------
    E. N. Lorenz, *Deterministic nonperiodic flow*, Journal of the Atmospheric Sciences 20, 1963.

    Examples
    --------
    >>> from learnsolve.problems.chaotic import lorenz63
    >>> lorenz63().orbit(1000).shape
    (1000, 3)
    """
    linear = [(0, 0, -sigma), (0, 1, sigma), (1, 0, rho), (1, 1, -1.0), (2, 2, -beta)]
    quadratic = [(1, 0, 2, -1.0), (2, 0, 1, 1.0)]
    return QuadraticSystem("Lorenz-63", (1.0, 1.0, 20.0), linear=linear, quadratic=quadratic, dt=dt)


def lorenz96(dim: int = 20, *, forcing: float = 16.0, dt: float = 0.04) -> QuadraticSystem:
    """Lorenz's ring of variables.

    Parameters
    ----------
    dim : int
        At least 4.
    forcing : float
    dt : float

    Raises
    ------
    ValueError
        ``dim`` is less than 4.

    References
    ----------
    E. N. Lorenz, *Predictability: a problem partly solved*, ECMWF Seminar on Predictability, 1996.

    Examples
    --------
    >>> from learnsolve.problems.chaotic import lorenz96
    >>> lorenz96(5).orbit(10).shape
    (10, 5)
    """
    if dim < 4:
        raise ValueError(f"dim is {dim}; at least 4 is accepted")
    linear = [(i, i, -1.0) for i in range(dim)]
    ahead = [(i, (i - 1) % dim, (i + 1) % dim, 1.0) for i in range(dim)]
    behind = [(i, (i - 1) % dim, (i - 2) % dim, -1.0) for i in range(dim)]
    start = [forcing + 0.01 * (i + 1) / dim for i in range(dim)]
    return QuadraticSystem(
        "Lorenz-96", start, [forcing] * dim, linear=linear, quadratic=ahead + behind, dt=dt, step=0.01
    )


def rossler(*, a: float = 0.2, b: float = 0.2, c: float = 5.7, dt: float = 0.1) -> QuadraticSystem:
    """Rössler's band; the exponents are 0.0714, 0 and -5.394.

    References
    ----------
    O. E. Rössler, *An equation for continuous chaos*, Physics Letters A 57, 1976.

    Examples
    --------
    >>> from learnsolve.problems.chaotic import rossler
    >>> rossler().orbit(10).shape
    (10, 3)
    """
    linear = [(0, 1, -1.0), (0, 2, -1.0), (1, 0, 1.0), (1, 1, a), (2, 2, -c)]
    return QuadraticSystem(
        "Rössler", (1.0, 1.0, 0.0), (0.0, 0.0, b), linear=linear, quadratic=[(2, 0, 2, 1.0)], dt=dt
    )


def henon(*, a: float = 1.4, b: float = 0.3) -> QuadraticSystem:
    """Hénon's map; the exponents are 0.4192 and -1.6229, whose sum is the logarithm of ``b``.

    References
    ----------
    M. Hénon, *A two-dimensional mapping with a strange attractor*, Communications in Mathematical Physics 50,
    1976.

    Examples
    --------
    >>> from learnsolve.problems.chaotic import henon
    >>> henon().orbit(10).shape
    (10, 2)
    """
    return QuadraticSystem(
        "Hénon", (0.1, 0.1), (1.0, 0.0), linear=[(0, 1, 1.0), (1, 0, b)], quadratic=[(0, 0, 0, -a)], dt=0.0
    )


SYSTEMS = {"lorenz63": lorenz63, "lorenz96": lorenz96, "rossler": rossler, "henon": henon}


def observed(
    orbit: Array, *, noise: float = 0.0, variables: Sequence[int] | None = None, seed: int = 0
) -> Array:
    """What is measured of an orbit: some variables, with noise.

    Parameters
    ----------
    orbit : (T, N) array
    noise : float
        Deviation of normal noise, in deviations of each variable.
    variables : sequence of int, optional
        Which are seen; all by default.
    seed : int

    Returns
    -------
    (T, number of variables) float64 array

    Examples
    --------
    >>> from learnsolve.problems.chaotic import lorenz63, observed
    >>> observed(lorenz63().orbit(100), noise=0.05, variables=[0, 2]).shape
    (100, 2)
    """
    seen = np.asarray(orbit, float)
    seen = seen if variables is None else seen[:, list(variables)]
    return seen + noise * seen.std(0) * np.random.default_rng(seed).normal(size=seen.shape)
