"""Chaotic systems and how alike attractors are, against what is known and against obvious forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.ndimage import gaussian_filter1d

from learnsolve.dynamics.measures import (
    agreement,
    prediction_error,
    spectrum_distance,
    state_space_divergence,
)
from learnsolve.problems.chaotic import (
    SYSTEMS,
    QuadraticSystem,
    henon,
    lorenz63,
    lorenz96,
    observed,
    rossler,
)


def side(system, x):
    """The right-hand side, as it is written."""
    if system.name == "Lorenz-63":
        return np.array([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])
    if system.name == "Lorenz-96":
        return (np.roll(x, -1) - np.roll(x, 2)) * np.roll(x, 1) - x + 16
    if system.name == "Rössler":
        return np.array([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - 5.7)])
    return np.array([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "rossler"])
def test_flows_follow_their_equations(name):
    system = SYSTEMS[name]()
    orbit = system.orbit(50, seed=3)
    true = solve_ivp(
        lambda _, x: side(system, x), (0, 10 * system.dt), orbit[0], rtol=1e-11, atol=1e-11,
        t_eval=np.arange(1, 11) * system.dt,
    )  # fmt: skip
    np.testing.assert_allclose(orbit[1:11], true.y.T, rtol=2e-4, atol=2e-3)


def test_the_map_follows_its_equation():
    orbit = henon().orbit(50, seed=3)
    np.testing.assert_allclose(orbit[1:], [side(henon(), x) for x in orbit[:-1]], rtol=1e-13)


@pytest.mark.parametrize(
    ("system", "length", "wanted", "within"),
    [
        (henon(), 400_000, [0.4192, -1.6229], 0.003),
        (lorenz63(), 200_000, [0.906, 0.0, -14.572], 0.018),
        (rossler(), 100_000, [0.0714, 0.0, -5.394], 0.004),
    ],
)
def test_exponents_are_those_that_are_known(system, length, wanted, within):
    found = system.lyapunov_spectrum(length)
    np.testing.assert_allclose(found.exponents, wanted, atol=within)
    assert found.orbit.shape == (length, system.dim)
    largest = system.lyapunov_spectrum(length // 10, count=1).exponents
    assert largest.shape == (1,) and largest[0] == pytest.approx(wanted[0], rel=0.15)


def test_sums_of_exponents_are_divergences():
    """Of Hénon's map ln b, of Lorenz's ring minus its variables."""
    assert henon().lyapunov_spectrum(1000).exponents.sum() == pytest.approx(math.log(0.3), abs=1e-12)
    assert lorenz96(7).lyapunov_spectrum(5000).exponents.sum() == pytest.approx(-7, abs=1e-3)


def test_orbits_from_elsewhere_are_others_on_the_same_attractor():
    one, same, other = (lorenz63().orbit(20_000, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.allclose(one[:100], other[:100])
    assert state_space_divergence(one, other) < 1


def test_observations_have_noise_of_the_size_that_was_asked_for():
    orbit = lorenz63().orbit(5000)
    seen = observed(orbit, noise=0.05, variables=[2, 0], seed=3)
    away = (seen - orbit[:, [2, 0]]).std(0) / orbit.std(0)[[2, 0]]
    np.testing.assert_allclose(away, 0.05, rtol=0.1)
    assert np.array_equal(observed(orbit), orbit)


def test_what_systems_refuse():
    for call, words in (
        (lambda: lorenz96(3), "at least 4"),
        (lambda: QuadraticSystem("x", [1.0], linear=[(0, 1, 1.0)]), "indices"),
        (lambda: QuadraticSystem("x", [1.0], [1.0, 2.0]), "constant"),
        (lambda: henon().lyapunov_spectrum(10, count=3), "count"),
        (lambda: henon().orbit(-1), "length"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(FloatingPointError, match="flies away"):
        QuadraticSystem("growth", [1.0], quadratic=[(0, 0, 0, 1.0)], dt=1.0).orbit(100)


def slow_divergence(true, other, bins):
    """A whole histogram."""
    low, high = true.min(0) - 0.1 * true.std(0), true.max(0) + 0.1 * true.std(0)
    edges = [np.linspace(a, b, bins + 1) for a, b in zip(low, high, strict=True)]
    p, q = (np.histogramdd(one, edges)[0] + 1e-5 for one in (true, other))
    p, q = p / (len(true) + 1e-5 * p.size), q / (len(other) + 1e-5 * q.size)
    return float((p * np.log(p / q)).sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 10**6), st.floats(0, 3))
def test_divergence_is_that_of_whole_histograms(variables, bins, seed, shift):
    rng = np.random.default_rng(seed)
    true, other = rng.normal(size=(80, variables)), rng.normal(size=(50, variables)) + shift
    found = state_space_divergence(true, other, bins=bins)
    assert found == pytest.approx(slow_divergence(true, other, bins), abs=1e-9)
    assert state_space_divergence(true, true, bins=bins) == pytest.approx(0, abs=1e-12)


def test_divergence_of_mixtures():
    """Of two normal distributions it is half of the square of their distance, over the larger variance."""
    rng = np.random.default_rng(0)
    true, other = rng.normal(size=(2, 4000, 6))
    assert abs(state_space_divergence(true, other)) < 0.05
    assert state_space_divergence(true, other + 1) == pytest.approx(6 / 2 / 2, rel=0.1)
    assert state_space_divergence(true, true, method="mixture") == 0


def test_spectra():
    t = np.arange(3000)[:, None]
    true, other = np.sin(t / [7.0, 11.0]), np.sin(t / [7.0, 13.0])
    apart = []
    for k in range(2):
        powers = []
        for one in (true[:, k], other[:, k]):
            power = np.abs(np.fft.rfft((one - one.mean()) / one.std())) ** 2
            smooth = gaussian_filter1d(power, 5)
            powers.append(smooth / smooth.sum())
        apart.append(np.sqrt(max(1 - np.sqrt(powers[0] * powers[1]).sum(), 0)))
    assert spectrum_distance(true, other, smoothing=5) == pytest.approx(np.mean(apart), abs=1e-7)
    assert spectrum_distance(true, 3 * true + 2, smoothing=5) < 1e-7
    assert 0 < spectrum_distance(true, np.zeros_like(true), smoothing=5) <= 1


def test_what_is_not_finite_is_as_far_as_can_be():
    true, other = np.random.default_rng(0).normal(size=(2, 50, 2))
    other[3] = np.nan
    assert state_space_divergence(true, other) == math.inf and spectrum_distance(true, other) == 1
    found = agreement(true, other, smoothing=3)
    assert found == (math.inf, 1.0, 30, 3, 50)
    with pytest.raises(ValueError, match="accepted"):
        state_space_divergence(true, other[:, :1])
    with pytest.raises(ValueError, match="accepted"):
        state_space_divergence(true, true, method="grid")
    with pytest.raises(ValueError, match="all its values"):
        spectrum_distance(np.full((3, 1), np.nan), np.ones((3, 1)))


def test_errors_some_steps_ahead():
    orbit = henon().orbit(200)

    def ahead(x, steps):
        rows = []
        for _ in range(steps):
            x = np.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], 1)
            rows.append(x)
        return np.stack(rows, 1)

    assert prediction_error(ahead, orbit, steps=3) < 1e-20
    assert prediction_error(lambda x, n: 0 * ahead(x, n), orbit, steps=3) == pytest.approx(
        (orbit[3:] ** 2).mean()
    )
    with pytest.raises(ValueError, match="accepted"):
        prediction_error(ahead, orbit, steps=200)
