"""Peers of the reconstruction of dynamical systems: a reservoir, and sparse regression by pysindy.

Each takes a standardised series to learn from, one to begin a free run at, the time between rows and a seed,
and gives a free run as long as the second one, or None where its package is missing.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

Array = Any
# Settings of the reservoir among which its own validation chooses: spectral radius, leak, size of the input.
SETTINGS = ((0.9, 1.0, 0.3), (1.2, 1.0, 0.1), (0.6, 0.5, 0.5), (1.0, 0.3, 0.3))
# Below which share of the derivatives' deviation SINDy leaves coefficients out.
SHARE = 0.05
UNITS, WASHOUT, RIDGE = 300, 500, 1e-5


def reservoir(learned: Array, judged: Array, dt: float, seed: int) -> Array:
    """An echo state network that feeds on its own output; of four settings the one that follows longest.

    The setting is chosen on the last tenth of what is learned from, by how long its free runs stay near.

    References
    ----------
    H. Jaeger, H. Haas, *Harnessing nonlinearity*, Science 304, 2004.
    """
    learned = learned[:30_000]
    cut = len(learned) * 9 // 10
    best, longest = None, -1.0
    for number, setting in enumerate(SETTINGS):
        network = EchoState(learned.shape[1], setting, seed * len(SETTINGS) + number)
        network.fit(learned[:cut])
        near = []
        for start in np.linspace(cut, len(learned) - 300, 10).astype(int):
            run = network.run(learned[max(start - WASHOUT, 0) : start], 200)
            wrong = np.abs(run - learned[start : start + 200]).mean(1) > 0.5
            near.append(int(np.argmax(wrong)) if wrong.any() else 200)
        if np.mean(near) > longest:
            best, longest = network, float(np.mean(near))
    assert best is not None
    more = len(judged) // 4
    return best.run(judged[:WASHOUT], len(judged) + more)[more:]


class EchoState:
    """Fixed random units, and a readout by ridge regression."""

    def __init__(self, variables: int, setting: tuple[float, float, float], seed: int) -> None:
        rng = np.random.default_rng(seed)
        radius, self.leak, size = setting
        W = rng.normal(size=(UNITS, UNITS)) * (rng.random((UNITS, UNITS)) < 0.05)
        self.W = W * (radius / np.abs(np.linalg.eigvals(W)).max())
        self.enter = size * rng.uniform(-1, 1, (UNITS, variables))
        self.shift = 0.1 * rng.uniform(-1, 1, UNITS)
        self.leave = np.zeros((2 * UNITS + 1, variables))

    def step(self, h: Array, x: Array) -> Array:
        new = np.tanh(self.W @ h + self.enter @ x + self.shift)
        return (1 - self.leak) * h + self.leak * new

    @staticmethod
    def features(h: Array) -> Array:
        """Units and their squares, which a symmetric system needs."""
        return np.concatenate([h, h**2, [1.0]])

    def fit(self, series: Array) -> None:
        h, rows = np.zeros(UNITS), np.empty((len(series) - 1, 2 * UNITS + 1))
        for t, x in enumerate(series[:-1]):
            h = self.step(h, x)
            rows[t] = self.features(h)
        rows, wanted = rows[WASHOUT:], series[1 + WASHOUT :]
        gram = rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1])
        self.leave = np.linalg.solve(gram, rows.T @ wanted)

    def run(self, before: Array, length: int) -> Array:
        h = np.zeros(UNITS)
        for x in before:
            h = self.step(h, x)
        out = np.empty((length, before.shape[1]))
        for t in range(length):
            out[t] = self.features(h) @ self.leave
            h = self.step(h, out[t])
        return out


def sparse_regression(degree: int, learned: Array, judged: Array, dt: float, seed: int) -> Array:
    """SINDy with monomials up to a degree and smoothed differences, integrated adaptively.

    References
    ----------
    S. Brunton, J. Proctor, J. N. Kutz, *Discovering governing equations from data by sparse identification of
    nonlinear dynamical systems*, PNAS 113, 2016.
    """
    if find_spec("pysindy") is None:
        return None
    import pysindy

    learned = learned[:30_000]
    deviation = float(np.diff(learned, axis=0).std()) / dt
    model = pysindy.SINDy(
        optimizer=pysindy.STLSQ(threshold=SHARE * deviation),
        feature_library=pysindy.PolynomialLibrary(degree=degree),
        differentiation_method=pysindy.SINDyDerivative(
            kind="savitzky_golay", left=10 * dt, right=10 * dt, order=3
        ),
    )
    model.fit(learned, t=dt)
    more = len(judged) // 4
    return _integrated(model, judged[0], dt, len(judged) + more)[more:]


def _integrated(model: Any, first: Array, dt: float, length: int) -> Array:
    """States from the first one on, as far as they stay finite."""
    from scipy.integrate import solve_ivp

    def away(_: float, x: Array) -> float:
        return 1e3 - float(np.abs(x).max())

    away.terminal = True
    # The model's own prediction does the same in a hundred times the time.
    powers, coefficients = model.feature_library.powers_, model.coefficients()
    times = dt * np.arange(length)
    found = solve_ivp(
        lambda _, x: coefficients @ np.prod(x**powers, axis=1),
        (0, times[-1]), first, t_eval=times, events=away, rtol=1e-6,
    )  # fmt: skip
    return found.y.T


PEERS: dict[str, Callable[[Array, Array, float, int], Array]] = {
    "reservoir": reservoir,
    "SINDy, quadratic": partial(sparse_regression, 2),
    "SINDy, cubic": partial(sparse_regression, 3),
}
# Those that do not depend on a seed.
DETERMINISTIC = {"SINDy, quadratic", "SINDy, cubic"}
