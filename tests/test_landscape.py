"""The surface of a mountainside with a ridge, by itself and fitted to losses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learnsolve.training.connectivity import averaged, barrier, barrier_estimate, judged
from learnsolve.training.landscape import (
    Mountainside,
    Plane,
    fit_mountainside,
    measure_plane,
    plot_barriers,
    plot_mountainside,
)
from tests.digit_classifiers import classifier, held_out, trained


class Point(nn.Module):
    """Where on a surface."""

    def __init__(self, u, v):
        super().__init__()
        self.u = nn.Parameter(torch.tensor(u, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))


def linear(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(3, 2).double()


def ones(network):
    return network(torch.ones(3, dtype=torch.float64)).square().sum()


surfaces = st.builds(
    Mountainside,
    **dict.fromkeys(["height", "slope", "bend", "tilt", "curvature", "change"], st.floats(-3, 3)),
    quartic=st.floats(0, 3),
)
points = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


@settings(deadline=None)
@given(surfaces, points, points)
def test_barrier_of_the_surface_against_many_points(surface, p, q):
    at = np.linspace(0, 1, 2001)
    curve = surface(*((1 - at) * a + at * b for a, b in zip(p, q, strict=True)))
    found = (curve - (1 - at) * curve[0] - at * curve[-1]).max()
    assert surface.barrier(p, q) == pytest.approx(found, abs=1e-3) and surface.barrier(p, q) >= found - 1e-9


@settings(deadline=None)
@given(surfaces)
def test_the_fit_finds_the_surface(surface):
    u, v = np.linspace(-1, 1, 7), np.linspace(0, 1, 5)
    found, explained = fit_mountainside(Plane(u, v, surface(u, v[:, None])))
    np.testing.assert_allclose(found(0.3, 0.6), surface(0.3, 0.6), atol=1e-9)
    assert found.barrier((-1, 1), (1, 1)) == pytest.approx(surface.barrier((-1, 1), (1, 1)), abs=1e-9)
    assert explained == pytest.approx(1, abs=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.5, 3), st.floats(0.5, 3))
def test_between_valleys_the_estimate_is_twice_the_barrier(steep, quartic):
    surface = Mountainside(1, 0, 1, 0, -steep, 0, quartic)
    bottom = math.sqrt(steep / quartic)
    ends = Point(-bottom, 0.0), Point(bottom, 0.0)

    def loss(network):
        return surface(network.u, network.v)

    assert barrier(*ends, loss).height == pytest.approx(surface.ridge(0.0))
    assert barrier_estimate(*ends, loss) == pytest.approx(2 * surface.ridge(0.0))
    plane = measure_plane(Point(0.0, -1.0), *ends, loss)
    assert fit_mountainside(plane)[0].barrier((-1, 1), (1, 1)) == pytest.approx(surface.ridge(0.0))


def test_runs_stay_together_or_part():
    valley = Mountainside(2, -1, 1, 0, curvature=1, change=0, quartic=4)
    ridge = Mountainside(2, -1, 1, 0, curvature=1, change=-2, quartic=4)
    assert (valley.fork, ridge.fork) == (math.inf, 0.5)
    for surface, height in ((valley, 0), (ridge, ridge.ridge(1.5))):
        left, right, near = (surface.descend((u, 0), steps=4000)[-1] for u in (-0.1, 0.1, 0.2))
        assert surface.barrier(left, right) == pytest.approx(height, abs=1e-6)
        assert surface.barrier(near, right) == pytest.approx(0, abs=1e-6)
    assert ridge.ridge(1.5) == 0.25
    assert Mountainside(0, 0, 0, 0, -1, 0, 0).ridge(0) == math.inf


def test_descent_is_that_of_automatic_derivatives():
    surface = Mountainside(2, -1, 1, 0.3, 1, -2, 4)
    network = Point(0.4, 0.1)
    path = surface.descend((0.4, 0.1), steps=20, rate=0.05)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        surface(network.u, network.v).backward()
        optimizer.step()
    np.testing.assert_allclose(path[-1], [network.u.item(), network.v.item()], rtol=1e-12)


def test_corners_of_a_plane():
    start, a, b = linear(0), linear(1), linear(2)
    plane = measure_plane(start, a, b, ones)
    assert plane.losses[-1, 0] == pytest.approx(judged(a, ones))
    assert plane.losses[-1, -1] == pytest.approx(judged(b, ones))
    assert plane.losses[0, 4] == pytest.approx(judged(start, ones))
    np.testing.assert_allclose(plane.losses[-1], barrier(a, b, ones, points=9).curve)


def test_pictures():
    surface = Mountainside(2, -1, 1, 0, 1, -2, 4)
    u, v = np.linspace(-1, 1, 7), np.linspace(0, 1, 5)
    run = surface.descend((0.1, 0), steps=50)
    ax = plot_mountainside(surface, plane=Plane(u, v, surface(u, v[:, None])), runs=[run])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), run)
    found = barrier(Point(1.0, 1.0), Point(-1.0, -1.0), lambda n: (n.u * n.v - 1).square(), points=5)
    drawn = plot_barriers({"product": found}, plot_barriers({"again": found}))
    assert len(drawn.lines) == 2 and drawn.lines[0].get_ydata().tolist() == found.curve.tolist()
    assert drawn.get_legend().get_texts()[0].get_text() == "again: 1"
    for picture in (ax, drawn):
        picture.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Mountainside(0, 0, 0, 0, 0, 0, -1), ValueError, "quartic at least 0"),
        (lambda: Mountainside(math.nan, 0, 0, 0, 0, 0, 1), ValueError, "must be finite"),
        (
            lambda: Mountainside(0, 0, -1, 0, 0, 0, 1).descend((0, 1), steps=3000),
            ValueError,
            "leaves for infinity",
        ),
        (lambda: measure_plane(linear(0), linear(1), linear(2), ones, down=2), ValueError, "9 .* and 2 down"),
        (
            lambda: fit_mountainside(Plane(np.arange(5.0), np.arange(3.0), np.ones((5, 3)))),
            ValueError,
            r"shape \(5, 3\) are given for 3 v and 5 u",
        ),
        (
            lambda: fit_mountainside(Plane(np.arange(5.0), np.arange(3.0), np.full((3, 5), np.inf))),
            ValueError,
            "finite ones",
        ),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_ridge_between_runs_that_began_apart_and_none_between_those_that_did_not():
    """The surface is fitted to all but the line between the runs, and orders the barriers there."""
    middle = averaged([classifier(0), classifier(1)], [0.5, 0.5])
    apart = middle, trained(0, 0), trained(1, 1)
    together = classifier(0), trained(0, 0), trained(0, 7)
    measured, predicted = [], []
    for start, a, b in (apart, together):
        plane = measure_plane(start, a, b, held_out, across=7)
        surface, explained = fit_mountainside(Plane(plane.u, plane.v[:-1], plane.losses[:-1]))
        assert explained > 0.9
        measured.append(barrier(a, b, held_out, points=7).height)
        predicted.append(surface.barrier((-1, 1), (1, 1)))
    assert measured[0] > 0.3 and predicted[0] > 0.3
    assert max(measured[1], predicted[1]) < 0.01
