"""The smoke simulation keeps the laws that a smoke simulation has to keep."""

import numpy as np
import pytest

from learnsolve.problems import smoke
from learnsolve.problems.smoke import Box, SmokeSimulation, Source, Sphere
from learnsolve.problems.smoke_advection import Advection, confinement

SHAPES = [(24, 16), (20, 12, 14)]
SHAPE_IDS = ["2d", "3d"]


def middle(shape, height=0.8):
    return (height, *(0.5 * n / shape[-1] for n in shape[1:]))


def outflow(sim):
    total = sum(np.diff(u, axis=axis) for axis, u in enumerate(sim.velocity))
    return np.where(sim.cells == 0, total, 0.0)


def stir(sim, seed=1):
    random = np.random.default_rng(seed)
    for component in sim.velocity:
        component[...] = random.normal(size=component.shape) * 0.3


def height_of(density):
    level = np.arange(density.shape[0]).reshape(-1, *[1] * (density.ndim - 1))
    return float((density * level).sum() / density.sum())


@pytest.mark.parametrize("boundary", ["open", "closed"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_no_divergence_is_left(shape, boundary):
    sim = SmokeSimulation(shape, obstacles=[Sphere(middle(shape), 0.2)], boundary=boundary, rtol=1e-9)
    stir(sim)
    for _ in range(2):
        report = sim.step()
        before = sim.pressure_problem().b
        assert np.linalg.norm(before) > 0.1
        assert np.linalg.norm(outflow(sim)) <= 1.1e-9 * np.linalg.norm(before)
        assert report.relative_residual <= 1e-9
        assert report.divergence == pytest.approx(np.abs(outflow(sim)).max() / sim.spacing)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_pressure_problem_is_the_one_that_was_solved(shape):
    sim = SmokeSimulation(shape, obstacles=[Sphere(middle(shape), 0.2)], rtol=1e-8)
    sim.step()
    problem = sim.pressure_problem()
    residual = problem.b - np.asarray(problem.A @ sim.pressure)
    assert np.linalg.norm(residual) <= 1.1e-8 * np.linalg.norm(problem.b)
    assert (sim.pressure[sim.cells != 0] == 0).all()


@pytest.mark.parametrize("advection", ["maccormack", "semi-lagrangian"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_density_stays_between_nothing_and_the_source(shape, advection):
    source = Source(middle(shape, 0.15), 0.2, density=0.7, temperature=5.0)
    sim = SmokeSimulation(
        shape, obstacles=[Sphere(middle(shape), 0.2)], sources=[source], advection=advection, dt=0.08
    )
    for _ in range(12):
        sim.step()
        assert sim.density.min() >= 0.0
        assert sim.density.max() <= 0.7 + 1e-12
    assert (sim.density[sim.cells != 0] == 0).all()


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_mass_does_not_appear_and_hardly_vanishes(shape):
    sim = SmokeSimulation(shape, sources=(), boundary="closed")
    sim.density[4:9, 3:9] = 1.0
    sim.temperature[...] = sim.density
    masses = [sim.density.sum()]
    for _ in range(15):
        sim.step()
        masses.append(sim.density.sum())
    assert (np.diff(masses) <= 1e-9 * masses[0]).all()
    assert masses[-1] > 0.85 * masses[0]


@pytest.mark.parametrize("boundary", ["open", "closed"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_still_smoke_stays_still(shape, boundary):
    sim = SmokeSimulation(shape, obstacles=[Sphere(middle(shape), 0.2)], sources=(), boundary=boundary)
    random = np.random.default_rng(0)
    sim.density[...] = np.where(sim.cells == 0, random.random(shape), 0.0)
    before = sim.density.copy()
    for _ in range(3):
        report = sim.step()
    assert report.divergence == 0.0
    assert all((component == 0).all() for component in sim.velocity)
    np.testing.assert_array_equal(sim.density, before)


@pytest.mark.parametrize("advection", ["maccormack", "semi-lagrangian"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_mirrored_set_up_gives_mirrored_smoke(shape, advection):
    def run(side):
        def place(height, x):
            return (*middle(shape, height)[:-1], 0.5 + side * x)

        sim = SmokeSimulation(
            shape,
            obstacles=[Sphere(place(0.6, 0.13), 0.15)],
            sources=[Source(place(0.15, -0.11), 0.2, temperature=3.0)],
            advection=advection,
            dt=0.07,
            rtol=1e-12,
            seed=None,
        )
        for _ in range(8):
            sim.step()
        return sim

    right, left = run(1.0), run(-1.0)
    np.testing.assert_array_equal(right.cells, left.cells[..., ::-1])
    np.testing.assert_allclose(right.density, left.density[..., ::-1], atol=1e-7)
    for axis, (u, v) in enumerate(zip(right.velocity, left.velocity, strict=True)):
        sign = -1.0 if axis == len(shape) - 1 else 1.0
        np.testing.assert_allclose(u, sign * v[..., ::-1], atol=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_plume_rises(shape, dtype):
    sim = SmokeSimulation(shape, dt=0.06, dtype=dtype)
    heights = []
    for _ in range(20):
        report = sim.step()
        heights.append(height_of(sim.density))
    assert sim.density.dtype == sim.velocity[0].dtype == sim.pressure.dtype == np.dtype(dtype)
    assert report.relative_residual <= 1e-5
    assert report.time == pytest.approx(20 * 0.06)
    assert heights[-1] > heights[0] + 1.0
    assert (np.diff(heights[4:]) > 0).all()


def test_smoke_leaves_through_the_open_top():
    sim = SmokeSimulation((16, 16), dt=0.06, sources=[Source((0.3, 0.5), 0.2, temperature=4.0)])
    for _ in range(60):
        sim.step()
    assert (sim.cells[-1] == 2).all()
    assert (sim.density[-1] == 0).all()
    assert sim.velocity[0][-1].max() > 0.1


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_moving_ball_drags_the_fluid_along(shape):
    velocity = (*(0.0,) * (len(shape) - 1), 0.5)
    ball = Sphere((*middle(shape)[:-1], 0.3), 0.15, velocity=velocity)
    sim = SmokeSimulation(shape, obstacles=[ball], sources=(), dt=0.05, rtol=1e-8)
    for _ in range(4):
        report = sim.step()
    assert sim.obstacles[0].centre[-1] == pytest.approx(0.4)
    assert report.divergence < 1e-4
    sideways = sim.velocity[-1]
    solid = np.moveaxis(sim.cells == 1, -1, 0)
    inside = np.moveaxis(solid[1:] | solid[:-1], 0, -1)
    assert (sideways[..., 1:-1][inside] == 0.5).all()
    ahead = sideways[..., 1:-1][~inside]
    assert ahead.max() > 0.05
    assert ahead.min() < -0.01


def test_velocity_may_depend_on_time():
    ball = Sphere((0.8, 0.5), 0.15, velocity=lambda t: (0.0, np.cos(20 * t)))
    sim = SmokeSimulation((24, 16), obstacles=[ball], sources=(), dt=0.05)
    sim.step()
    assert sim.obstacles[0].centre[1] == pytest.approx(0.5 + 0.05 * np.cos(1.0))
    assert np.abs(sim.velocity[1]).max() == pytest.approx(abs(np.cos(1.0)))


@pytest.mark.parametrize("boundary", ["open", "closed"])
def test_sealed_room_keeps_its_smoke(boundary):
    walls = [
        Box((0.3, 0.3), (0.36, 0.7)),
        Box((0.74, 0.3), (0.8, 0.7)),
        Box((0.3, 0.3), (0.8, 0.36)),
        Box((0.3, 0.64), (0.8, 0.7)),
    ]
    sim = SmokeSimulation((40, 32), obstacles=walls, boundary=boundary, dt=0.06, rtol=1e-7)
    room = np.zeros((40, 32), bool)
    room[12:23, 12:20] = True
    sim.temperature[room & (sim.cells == 0)] = 1.0
    sim.density[room & (sim.cells == 0)] = 0.5
    inside = sim.density.sum()
    for _ in range(25):
        report = sim.step()
    assert report.relative_residual <= 1e-7
    assert sim.density[room].max() <= 0.5
    assert sim.density[room].sum() == pytest.approx(inside, rel=0.02)


def test_squeezed_fluid_without_an_opening_is_still_solved():
    piston = Box((-1.0, -0.1), (0.2, 1.1), velocity=(0.4, 0.0))
    sim = SmokeSimulation((24, 16), obstacles=[piston], sources=(), boundary="closed", rtol=1e-8, dt=0.04)
    for _ in range(4):
        report = sim.step()
    fluid = sim.cells == 0
    assert report.relative_residual <= 1e-8
    assert report.divergence < 1e-5
    np.testing.assert_allclose(outflow(sim)[fluid], outflow(sim)[fluid].mean(), atol=1e-6)


@pytest.mark.parametrize("velocity", [None, (0.1, 0.0)], ids=["static", "moving"])
def test_set_up_is_kept_while_obstacles_stand_still(velocity, monkeypatch):
    made = []
    original = smoke.learnsolve.prepare
    monkeypatch.setattr(smoke.learnsolve, "prepare", lambda *a, **k: made.append(a) or original(*a, **k))
    sim = SmokeSimulation((24, 16), obstacles=[Sphere((0.8, 0.5), 0.15, velocity)])
    for _ in range(3):
        sim.step()
    assert len(made) == (1 if velocity is None else 4)


def test_same_seed_same_smoke():
    first, second, other = (SmokeSimulation((24, 16), seed=seed) for seed in (3, 3, 4))
    for sim in (first, second, other):
        for _ in range(3):
            sim.step()
    np.testing.assert_allclose(first.temperature, second.temperature, atol=1e-9)
    assert np.abs(first.temperature - other.temperature).max() > 1e-3


def test_heavy_smoke_sinks_and_warmth_fades():
    sim = SmokeSimulation((24, 16), sources=(), buoyancy=0.0, weight=1.0, cooling=2.0, dt=0.05)
    sim.density[12:18, 5:11] = 1.0
    sim.temperature[...] = sim.density
    start, warmth = height_of(sim.density), sim.temperature.sum()
    for _ in range(10):
        sim.step()
    assert height_of(sim.density) < start - 0.3
    assert sim.temperature.sum() == pytest.approx(warmth * np.exp(-2.0 * 0.5), rel=0.1)


@pytest.mark.parametrize("corrected", [False, True])
def test_whole_cell_shift_is_exact(corrected):
    shape = (9, 8, 7)
    velocity = tuple(
        np.full([n + (a == axis) for a, n in enumerate(shape)], s) for axis, s in enumerate((1.0, -2.0, 1.0))
    )
    field = np.random.default_rng(0).random(shape)
    advection = Advection(shape, np.float64, corrected)
    advection.trace(velocity, 1.0)
    carried = advection.carry(field)
    np.testing.assert_allclose(carried[3:-3, 2:-4, 3:-3], field[2:-4, 4:-2, 2:-4], atol=1e-14)


def test_maccormack_is_the_sharper_one():
    size = 48
    centre = np.arange(size) + 0.5
    turn = 2 * np.pi / 60
    uz = np.broadcast_to(turn * (centre - size / 2), (size + 1, 1, size)).copy()
    ux = np.broadcast_to(-turn * (centre - size / 2)[:, None, None], (size, 1, size + 1)).copy()
    uy = np.zeros((size, 2, size))
    z, x = np.meshgrid(centre, centre, indexing="ij")
    start = np.exp(-((z - 24) ** 2 + (x - 34) ** 2) / 16)[:, None, :]
    error = {}
    for corrected in (False, True):
        advection = Advection(start.shape, np.float64, corrected)
        advection.trace((uz, uy, ux), 1.0)
        field = start
        for _ in range(60):
            field = advection.carry(field)
        error[corrected] = np.abs(field - start).max()
    assert error[True] < 0.3
    assert error[True] < 0.5 * error[False]


def test_confinement_speeds_a_vortex_up():
    size = 24
    centre = np.arange(size) + 0.5 - size / 2
    face = np.arange(size + 1.0) - size / 2
    uz = (centre * np.exp(-(face[:, None] ** 2 + centre**2) / 20))[:, None, :]
    ux = (-centre[:, None] * np.exp(-(centre[:, None] ** 2 + face**2) / 20))[:, None, :]
    velocity = (uz.copy(), np.zeros((size, 2, size)), ux.copy())
    force = confinement(velocity, np.ones((size, 1, size), bool), 1.0)
    at_centres = (0.5 * (uz[1:] + uz[:-1]), 0.5 * (ux[..., 1:] + ux[..., :-1]))
    assert (force[0] * at_centres[0] + force[2] * at_centres[1]).sum() > 0
    np.testing.assert_allclose(force[1], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("shape", "options", "word"),
    [
        ((16,), {}, "shape"),
        ((16, 2), {}, "shape"),
        ((8, 8, 8, 8), {}, "shape"),
        ((16, 16), {"dt": 0.0}, "dt"),
        ((16, 16), {"dt": float("nan")}, "dt"),
        ((16, 16), {"cooling": -1.0}, "cooling"),
        ((16, 16), {"advection": "upwind"}, "advection"),
        ((16, 16), {"boundary": "periodic"}, "boundary"),
        ((16, 16), {"dtype": "float16"}, "dtype"),
        ((16, 16), {"obstacles": [Sphere((0.5, 0.5, 0.5), 0.1)]}, "axes"),
        ((16, 16), {"sources": [Source((0.5,), 0.1)]}, "axes"),
        ((16, 16), {"obstacles": [Sphere((0.5, 0.5), 0.1, velocity=(1.0,))]}, "axes"),
        ((16, 16), {"obstacles": [Box((-1.0, -1.0), (2.0, 2.0))]}, "no fluid"),
    ],
)
def test_wrong_parameters_are_refused(shape, options, word):
    with pytest.raises(ValueError, match=word):
        SmokeSimulation(shape, **options)
