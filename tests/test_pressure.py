"""Pressure equations of the smoke simulation, and the residuals on the way to their answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.datasets.samples import Samples, write_samples
from learnsolve.problems import poisson
from learnsolve.problems.pressure import pressure_systems, residuals
from learnsolve.problems.smoke import Sphere

SCENES = {
    "2d": ((20, 12), {"obstacles": [Sphere((0.8, 0.5), 0.15)]}),
    "moving": ((20, 12), {"obstacles": [Sphere((0.8, 0.5), 0.15, velocity=(0.0, 1.0))], "dt": 0.06}),
    "closed-3d": ((10, 8, 8), {"boundary": "closed", "dtype": "float32"}),
}


@pytest.mark.parametrize("name", SCENES)
def test_pressure_systems_are_consistent_and_differ(name):
    shape, scene = SCENES[name]
    problems = list(pressure_systems(shape, 4, seed=1, **scene))
    assert len(problems) == 4
    for problem in problems:
        assert problem.b.shape == problem.A.domain_shape == shape
        assert (problem.b[~problem.A.active.numpy()] == 0).all()
        single = problem.b.dtype == np.float32
        tolerance = 1e-4 if single else 1e-8
        assert learnsolve.solve(problem.A, problem.b, method="cg", rtol=tolerance, check=True)
        b = torch.from_numpy(problem.b)
        assert (b - problem.A.project(b)).abs().max() <= (1e-6 if single else 1e-13) * b.abs().max()
    for earlier, later in pairwise(problems):
        assert np.linalg.norm(earlier.b - later.b) > 1e-3 * np.linalg.norm(later.b)
    moved = (problems[0].A.cells != problems[-1].A.cells).any()
    assert bool(moved) is (name == "moving")


def test_pressure_systems_are_reproducible_and_thinned():
    every = [problem.b for problem in pressure_systems((16, 12), 6, seed=3)]
    for got, wanted in zip(pressure_systems((16, 12), 6, seed=3, every=2), every[1::2], strict=True):
        np.testing.assert_array_equal(got.b, wanted)
    (other,) = pressure_systems((16, 12), 1, seed=4)
    assert (other.b != every[0]).any()
    with pytest.raises(ValueError, match="every is 0"):
        next(pressure_systems((16, 12), 2, every=0))


def test_residuals_are_those_of_conjugate_gradients(tmp_path):
    *_, problem = pressure_systems((20, 12), 3)
    met = [problem.b]
    learnsolve.solve(
        problem.A,
        problem.b,
        method="cg",
        rtol=1e-6,
        callback=lambda p: met.append(problem.b - np.asarray(problem.A @ p.x)),
    )
    everything = list(residuals(problem, 10_000))
    for got, wanted in zip(everything, met, strict=False):
        np.testing.assert_allclose(got, wanted, atol=1e-9 * np.linalg.norm(problem.b))
    assert abs(len(everything) - len(met)) <= 1
    few = list(residuals(problem, 5, seed=2))
    assert len(few) == 5
    np.testing.assert_array_equal(few[0], problem.b)
    sizes = [np.linalg.norm(r) for r in few]
    assert all(any((r == wanted).all() for wanted in everything) for r in few)
    assert len(set(sizes)) == 5
    with Samples(write_samples(tmp_path / "a.h5", few)) as data:
        assert len(data) == 5


def test_wrong_input_to_residuals():
    problem = poisson.box((4, 4))
    with pytest.raises(ValueError, match="count is 0"):
        next(residuals(problem, 0))
    for b in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match="finite and not zero"):
            next(residuals(poisson.LinearProblem(problem.A, b), 2))
