"""Acceleration of fixed-point iterations, by itself and of the sweeps of a completion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import learnsolve
from learnsolve.completion import AltMin
from learnsolve.completion.anderson import Anderson
from learnsolve.problems.low_rank import low_rank
from tests.completion_cases import error


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize(("condition", "bias"), [(1.0, False), (10.0, False), (1.0, True)])
def test_acceleration_saves_sweeps(condition, bias, solver):
    saved = []
    for seed in range(4):
        p = low_rank((300, 250), 4, oversampling=6, condition=condition, seed=seed)
        known, options = (p.rows, p.cols, p.values), {"shape": p.shape, "rtol": 1e-9, "bias": bias}
        plain = learnsolve.complete(known, 4, AltMin(solver, acceleration=0), **options)
        fast = learnsolve.complete(known, 4, AltMin(solver), **options)
        assert fast.success
        assert (np.diff(fast.residuals) <= 0).all()
        assert error(fast, p.U @ p.V.T) < 1e-6
        saved.append(1 - fast.iterations / plain.iterations)
    assert np.mean(saved) > 0.1


def test_a_point_that_does_not_help_is_forgotten():
    anderson = Anderson(2)
    x = np.array([1.0])
    assert anderson.helped(1.0)
    x = anderson.next(x, 0.5 * x, 1.0)
    assert anderson.helped(0.5)
    assert anderson.next(x, 0.5 * x, 0.5) == pytest.approx(0.0)
    assert not anderson.helped(0.7)
    assert (anderson.points, anderson.ahead) == ([], None)
    assert anderson.helped(0.9)


@given(st.integers(0, 10**6))
def test_acceleration_solves_linear_iterations_in_as_many_steps_as_there_are_unknowns(seed):
    rng = np.random.default_rng(seed)
    A, b = 0.4 * rng.standard_normal((3, 3)), rng.standard_normal(3)
    truth, x, anderson = np.linalg.solve(np.eye(3) - A, b), np.zeros(3), Anderson(3)
    for _ in range(6):
        x = anderson.next(x, A @ x + b, np.inf)
    assert x == pytest.approx(truth, rel=1e-4, abs=1e-4 * np.abs(truth).max())
