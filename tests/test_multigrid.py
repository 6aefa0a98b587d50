"""The multigrid: symmetric, definite, exact where it should be, and fast on every kind of domain."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve.kernels import graph as graph_kernels
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import Multigrid
from learnsolve.preconditioners.multigrid_levels import GraphLevel, dense_inverse
from learnsolve.problems import poisson
from tests.grid_cases import dense

PROBLEMS = {
    "box": lambda shape, **o: poisson.box(shape, **o),
    "obstacles": poisson.obstacles,
    "free_surface": poisson.free_surface,
    "maze": poisson.maze,
    "maze-9": lambda shape, **o: poisson.maze(shape, period=9, **o),
    "jump": poisson.jump,
}
# At 32 cells an axis, relative residual 1e-6, right-hand side of ones (noise needs fewer).
BOUNDS = {"box": 7, "obstacles": 9, "free_surface": 9, "maze": 11, "maze-9": 15, "jump": 11}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("shape", [(32, 32, 32), (96, 96), (37, 22, 29)], ids=str)
@pytest.mark.parametrize("rhs", ["noise", "ones"])
def test_iterations(name, shape, rhs):
    problem = PROBLEMS[name](shape, rhs=rhs)
    res = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-6)
    assert res.success
    assert res.iterations <= BOUNDS[name] + (4 if len(shape) == 2 else 0)


@pytest.mark.parametrize("cycle", ["V", "W", "F"])
@pytest.mark.parametrize("smoother", ["red_black", "chebyshev"])
@pytest.mark.parametrize("name", ["obstacles", "jump"])
def test_symmetric_and_positive_definite(name, cycle, smoother):
    A = PROBLEMS[name]((14, 13)).A
    spec = Multigrid(cycle=cycle, smoother=smoother, precision="double", coarsest=8)
    M = spec.build(A)
    matrix = dense(A, M)
    if cycle != "F":
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] > 0


def test_f_cycles_take_no_more_iterations_than_v():
    problem = poisson.maze((64, 64), rhs="ones")
    counts = {}
    for cycle in ("V", "F", "W"):
        res = learnsolve.solve(problem.A, problem.b, method="cg", M=Multigrid(cycle=cycle), rtol=1e-8)
        assert res.success
        counts[cycle] = res.iterations
    assert counts["W"] <= counts["F"] <= counts["V"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("omega", [1.0, 1.3])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_sweeps_and_transfers_on_a_graph(reverse, fresh, omega, threads, monkeypatch):
    monkeypatch.setattr(graph_kernels, "threads", lambda size: threads)
    # In two dimensions half of these unknowns suffice for a parallel colour.
    shape = (400, 400) if threads == 2 else (32, 32)
    levels = Multigrid(coarsest=20, precision="double").build(poisson.jump(shape).A).levels
    place = next(place for place, level in enumerate(levels) if isinstance(level, GraphLevel))
    level, coarse = levels[place], levels[place + 1].x.numel()
    g = level.graph
    W = scipy.sparse.csr_array((g.weights.numpy(), g.indices.numpy(), g.indptr.numpy()))
    A = (scipy.sparse.diags_array(g.diagonal.numpy()) - W).tocsr()
    generator = torch.Generator().manual_seed(0)
    b, x = (torch.randn(W.shape[0], generator=generator, dtype=torch.float64) for _ in range(2))
    up, down = torch.randn(coarse, generator=generator, dtype=torch.float64), torch.ones(coarse).double()
    known = level.aggregate.numpy() >= 0
    parents = level.aggregate.numpy()[known]
    expected = np.zeros_like(x) if fresh else x.numpy().copy()
    transfer = {"coarse_b": down}
    if reverse:
        transfer = {"coarse_x": up}
        expected[known] += up.numpy()[parents]
    steps = 2 * [slice(lo, hi) for lo, hi in pairwise(g.colours)]
    for rows in reversed(steps) if reverse else steps:
        expected[rows] += omega / g.diagonal.numpy()[rows] * (b.numpy()[rows] - A[rows] @ expected)
    graph_kernels.smooth(
        g, b, x, omega=omega, sweeps=2, reverse=reverse, fresh=fresh, aggregate=level.aggregate, **transfer
    )
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-10, atol=1e-12)
    if not reverse:
        wanted = np.bincount(parents, (b.numpy() - A @ expected)[known], coarse)
        np.testing.assert_allclose(down.numpy(), wanted, rtol=1e-10, atol=1e-10)


def test_colours_of_a_graph_are_not_coupled():
    level = Multigrid(coarsest=20).build(poisson.maze((33, 31), period=9).A).levels[2]
    assert isinstance(level, GraphLevel)
    g = level.graph
    colour = np.repeat(np.arange(g.colours.size - 1), np.diff(g.colours))
    rows = np.repeat(np.arange(colour.size), np.diff(g.indptr.numpy()))
    assert (colour[rows] != colour[g.indices.numpy()]).all()
    sizes = np.diff(g.colours)
    assert sizes[0] == sizes.max()
    assert sizes[-1] == sizes[1:].max()


def test_few_unknowns_are_solved_exactly():
    problem = poisson.obstacles((12, 12))
    M = Multigrid(precision="double", coarsest=200).build(problem.A)
    x = M._apply(torch.from_numpy(problem.b)).numpy()
    np.testing.assert_allclose(problem.A @ x, problem.b, atol=1e-10)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_the_cycle_approximates_the_inverse_whatever_the_units(factor):
    cells = np.zeros((24, 24), int)
    A = GridPoisson(cells, coefficients=factor, boundary="dirichlet")
    x = torch.randn(cells.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = Multigrid(coarsest=20, precision="double").build(A)._apply(A._apply(x))
    assert float((found - x).norm() / x.norm()) < 0.2


def test_walls_and_jumps_make_graphs_and_boxes_stay_grids():
    def kinds(problem):
        return {type(level) for level in Multigrid(coarsest=20).build(problem.A).levels}

    assert GraphLevel not in kinds(poisson.box((32, 32)))
    assert GraphLevel in kinds(poisson.jump((32, 32)))
    assert GraphLevel in kinds(poisson.maze((40, 40), period=9))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 20.0), (0.05, 1.0, 1.0)], ids=str)
def test_anisotropic_cells(spacing):
    problem = poisson.box((24, 24, 24), spacing=spacing, rhs="ones")
    res = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-6)
    assert res.iterations <= 12


@pytest.mark.parametrize("absorption", [1e-3, 1.0, 1e3])
def test_absorption(absorption):
    problem = poisson.box((40, 40), boundary="solid", absorption=absorption, rhs="bump")
    assert not problem.A.singular
    res = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-8)
    assert res.iterations <= 12


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(scale):
    problem = poisson.obstacles((24, 24, 24), spacing=float(scale**-0.5), rhs="ones")
    plain = poisson.obstacles((24, 24, 24), rhs="ones")
    res = learnsolve.solve(problem.A, problem.b * 1e-20, method="cg", M="multigrid", rtol=1e-6)
    ref = learnsolve.solve(plain.A, plain.b, method="cg", M="multigrid", rtol=1e-6)
    assert res.success and abs(res.iterations - ref.iterations) <= 1


def test_complex_vectors():
    problem = poisson.obstacles((24, 24))
    A = GridPoisson(problem.A.cells, dtype=np.complex128)
    b = problem.b * (1 + 2j)
    res = learnsolve.solve(A, b, method="cg", M="multigrid", rtol=1e-10)
    real = learnsolve.solve(problem.A, problem.b, rtol=1e-10)
    assert res.success
    np.testing.assert_allclose(res.x, real.x * (1 + 2j), atol=1e-6 * np.abs(real.x).max())


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 14), min_size=2, max_size=3).map(tuple),
    seed=st.integers(0, 10_000),
    closed=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_any_domain_is_solved(shape, seed, closed, spread):
    rng = np.random.default_rng(seed)
    cells = rng.choice([0, 0, 0, 0, 1, 2], shape)
    cells.flat[0] = 0
    k = 10 ** (spread * rng.random(shape)) if spread else None
    A = GridPoisson(cells, coefficients=k, boundary="solid" if closed else "dirichlet")
    b = A.project(torch.from_numpy(rng.standard_normal(shape) * (cells == 0))).numpy()
    M = Multigrid(coarsest=6)
    res = learnsolve.solve(A, b, method="cg", M=M, rtol=1e-8)
    assert res.success and res.iterations <= 60
    np.testing.assert_allclose(A @ res.x, b, atol=1e-6 * max(np.abs(b).max(), 1e-300))


def test_dense_inverse_leaves_the_null_space_out():
    import scipy.sparse as sp

    W = sp.csr_array(np.array([[0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    inverse = dense_inverse(W, np.array([1.0, 1.0, 2.0, 0.0]))
    np.testing.assert_allclose(inverse[:2, :2], [[0.25, -0.25], [-0.25, 0.25]])
    np.testing.assert_allclose(inverse[2:, 2:], [[0.5, 0.0], [0.0, 0.0]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"), [("box", 8), ("obstacles", 10), ("free_surface", 12), ("maze", 14), ("jump", 14)]
)
@pytest.mark.parametrize("rhs", ["noise", "ones", "bump"])
def test_iterations_at_full_size(name, bound, rhs):
    n = 64 if name == "jump" else 128
    problem = PROBLEMS[name]((n, n, n), rhs=rhs)
    res = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-6)
    assert res.success and res.iterations <= bound
