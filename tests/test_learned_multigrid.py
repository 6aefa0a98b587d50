"""The learned multigrid: its kernels, its definiteness whatever the weights, its training and its files."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_weights import save as save_directions
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import LearnedMultigrid, Multigrid
from learnsolve.preconditioners.coupling_network import CouplingOptions
from learnsolve.preconditioners.learned_multigrid import KIND, load
from learnsolve.preconditioners.learned_multigrid_training import (
    MultigridTraining,
    iterations,
    right_hand_sides,
    train,
)
from learnsolve.preconditioners.unrolled_multigrid import UnrolledMultigrid
from learnsolve.problems import poisson
from learnsolve.problems.smoke import Box, SmokeSimulation
from learnsolve.training import FitOptions, WeightsError
from learnsolve.training.shipped import save_network
from tests.grid_cases import dense

DOMAINS = {
    "obstacles-3d": lambda: poisson.obstacles((12, 13, 14), seed=1).A,
    "jump-3d": lambda: poisson.jump((12, 12, 12), 1e4, seed=2).A,
    "maze-3d": lambda: poisson.maze((16, 16, 16), seed=1).A,
    "anisotropic-3d": lambda: GridPoisson(
        np.zeros((6, 12, 12), int), spacing=(4, 1, 1), boundary="dirichlet"
    ),
    "obstacles-2d": lambda: poisson.obstacles((32, 30), seed=1).A,
    "absorbing-2d": lambda: GridPoisson(np.zeros((20, 17), int), absorption=0.3),
    "closed-2d": lambda: poisson.box((20, 21), "solid").A,
}


def network(spread, seed=0, options=None):
    """A network whose every weight is random."""
    generator = torch.Generator().manual_seed(seed)
    made = (options or CouplingOptions()).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_do_what_the_unrolled_cycle_does(name, threads, monkeypatch):
    for module in ("learned_multigrid", "multigrid_setup"):
        monkeypatch.setattr(f"learnsolve.preconditioners.{module}.threads", lambda size: threads)
    A, weights = DOMAINS[name](), network(0.2)
    M = LearnedMultigrid(weights, precision="double", coarsest=20).cycle_on(A, graphs=True)
    unrolled = UnrolledMultigrid(A, M)
    with torch.no_grad():
        levels = unrolled.set_up(weights)
        b = torch.randn(2, unrolled.levels[0].n, dtype=torch.float64)
        if A.singular:
            b -= b.mean(1, keepdim=True)
        expected = unrolled.scale * unrolled.cycle(levels, b)
    for row, answer in zip(b, expected, strict=True):
        grid = torch.zeros(A.domain_shape, dtype=torch.float64)
        grid[A.active] = row
        # The network itself runs in single precision.
        torch.testing.assert_close(M._apply(grid)[A.active], answer, rtol=0, atol=1e-3 * float(answer.norm()))


@pytest.mark.parametrize("name", DOMAINS)
def test_an_untrained_network_changes_nothing(name):
    A = DOMAINS[name]()
    b = A.project(torch.randn(A.domain_shape, dtype=torch.float64) * A.active)
    counts = [
        learnsolve.solve(A, b, method="cg", M=M, rtol=1e-8).iterations
        for M in (LearnedMultigrid(CouplingOptions().build(), coarsest=20), Multigrid(coarsest=20))
    ]
    # The classical levels of a box stay grids, whose smoother has other colours.
    assert abs(counts[0] - counts[1]) <= 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 0.5, 3.0]),
    shape=st.sampled_from([(9, 8), (6, 5, 4), (12, 3), (1, 20)]),
    cycle=st.sampled_from(["V", "W"]),
    solid=st.floats(0, 0.6),
    boundary=st.sampled_from(["solid", "dirichlet"]),
)
def test_symmetric_and_definite_whatever_the_weights(seed, spread, shape, cycle, solid, boundary):
    rng = np.random.default_rng(seed)
    cells = rng.choice(3, shape, p=[1 - solid, 0.8 * solid, 0.2 * solid])
    cells.flat[0] = 0
    coefficients = 10.0 ** rng.uniform(-2, 2, shape)
    A = GridPoisson(cells, coefficients=coefficients, boundary=boundary)
    M = LearnedMultigrid(network(spread, seed), cycle=cycle, precision="double", coarsest=3).build(A)
    matrix = dense(A, M)
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-9 * np.abs(matrix).max())
    # On what the matrix can be solved for; a cell without neighbours on a closed domain is not.
    P = A.to_scipy().toarray()
    size, vectors = np.linalg.eigh(P)
    kept = vectors[:, size > 1e-9 * size[-1]]
    if kept.shape[1]:
        assert np.linalg.eigvalsh(kept.T @ (matrix + matrix.T) @ kept)[0] > 0


@pytest.mark.parametrize("name", ["jump-3d", "maze-3d", "obstacles-2d"])
def test_below_the_first_coarse_level_no_coupling_is_lowered(name):
    """Then a coarse operator has at least half the energy of the exact one: why W-cycles are definite."""
    made = network(0.5)
    steps = LearnedMultigrid(made, precision="double", coarsest=8).cycle_on(DOMAINS[name](), graphs=True)
    steps = steps.coarsenings
    assert len(steps) > 1
    assert steps[0].tuned
    for above, step in pairwise(steps):
        size, fine, coarse = above.graph.excess.size, above.graph, step.graph
        known = np.flatnonzero(step.aggregate >= 0)
        ones = (np.ones(known.size), (step.aggregate[known], known))
        R = scipy.sparse.coo_array(ones, shape=(coarse.excess.size, size)).tocsr()
        W = scipy.sparse.csr_array((fine.weights, fine.indices, fine.indptr), shape=(size, size))
        least = 0.5 * (R @ W @ R.T).toarray()
        np.fill_diagonal(least, 0)
        shape = (coarse.excess.size,) * 2
        found = scipy.sparse.csr_array((coarse.weights, coarse.indices, coarse.indptr), shape=shape)
        assert (found.toarray() >= least * (1 - 1e-6)).all()
        assert (coarse.excess >= 0.5 * (R @ fine.excess) * (1 - 1e-6)).all()


@pytest.mark.parametrize("spread", [0.3, 10.0, np.nan])
@pytest.mark.parametrize("name", DOMAINS)
def test_wrong_weights_give_right_answers(name, spread):
    A = DOMAINS[name]()
    rng = np.random.default_rng(0)
    b = A @ (rng.standard_normal(A.domain_shape) * A.active.numpy())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        res = learnsolve.solve(A, b, method="cg", M=LearnedMultigrid(network(spread)), rtol=1e-6)
    assert [w.category for w in caught] == ([RuntimeWarning] if np.isnan(spread) else [])
    assert res.success
    assert np.linalg.norm(b - A @ res.x) <= 1.01e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("name", ["obstacles-2d", "jump-3d"])
def test_gradients_pass_through_the_set_up(name):
    A = poisson.obstacles((6, 6), seed=1).A if name == "obstacles-2d" else poisson.jump((4, 4, 4), 10.0).A
    made = network(0.2, options=CouplingOptions(rounds=1)).double()
    M = LearnedMultigrid(made, precision="double", coarsest=6).cycle_on(A, graphs=True)
    unrolled = UnrolledMultigrid(A, M)
    b = torch.randn(1, unrolled.levels[0].n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in made.named_parameters()]

    def answer(*values):
        found = dict(zip(names, values, strict=True))
        for key, value in found.items():
            delattr(made, key)
            setattr(made, key, value)
        return unrolled.cycle(unrolled.set_up(made), b)

    inputs = tuple(p.detach().clone().requires_grad_() for p in made.parameters())
    assert torch.autograd.gradcheck(answer, inputs, fast_mode=True, atol=1e-5)


def test_gradients_reach_the_coefficients():
    cells = np.zeros((6, 6), int)
    start = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    made = network(0.2).double()

    def answer(coefficients):
        A = GridPoisson(cells, coefficients=coefficients, boundary="dirichlet")
        M = LearnedMultigrid(made, precision="double", coarsest=6).cycle_on(A, graphs=True)
        M.scale = 1.0
        unrolled = UnrolledMultigrid(A, M)
        return unrolled.image(0, unrolled.fine(), torch.ones(1, 36, dtype=torch.float64))

    assert torch.autograd.gradcheck(answer, start.requires_grad_())


def test_right_hand_sides_can_be_solved_for():
    for name in ("closed-2d", "maze-3d"):
        A = DOMAINS[name]()
        rows = right_hand_sides(A, torch.Generator().manual_seed(0))
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4, dtype=torch.float64))
        if A.singular:
            torch.testing.assert_close(rows.sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)


def matrices(seeds):
    return [poisson.jump((12, 12, 12), 1e4, seed=seed).A for seed in seeds]


def test_training_lowers_held_out_iterations(tmp_path):
    held_out = [(A, torch.randn(A.domain_shape, dtype=torch.float64)) for A in matrices((90, 91))]
    config = MultigridTraining(fit=FitOptions(steps=60, learning_rate=6e-3, warmup=5), coarsest=30)
    made, result = train(config, matrices(range(4)), held_out, folder=tmp_path)
    assert result.finished
    before = [iterations(config.network.build(), A, b, 1e-6, 60) for A, b in held_out]
    after = [iterations(made, A, b, 1e-6, 60) for A, b in held_out]
    assert sum(after) < sum(before)
    again = load(tmp_path / "network.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), made.parameters(), strict=True))


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path):
    config = MultigridTraining(fit=FitOptions(steps=6, learning_rate=6e-3, checkpoint_every=1), coarsest=30)
    whole, _ = train(config, matrices((0, 1)))
    _, result = train(config, matrices((0, 1)), folder=tmp_path, callback=lambda now: now.step == 3)
    assert result.status == "stopped"
    resumed, _ = train(config, matrices((0, 1)), folder=tmp_path)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="nothing to train on"):
        train(MultigridTraining(), [])
    with pytest.raises(ValueError, match="has no coarse level"):
        train(MultigridTraining(), [poisson.box((4, 4)).A])
    with pytest.raises(ValueError, match="unroll is 0"):
        MultigridTraining(unroll=0)
    with pytest.raises(ValueError, match="rounds is 0"):
        CouplingOptions(rounds=0)
    with pytest.raises(ValueError, match="bound is 9"):
        CouplingOptions(bound=9)


def test_wrong_options_and_matrices_are_refused():
    with pytest.raises(ValueError, match="cycle is 'F'"):
        LearnedMultigrid(cycle="F")
    with pytest.raises(TypeError, match="CouplingNetwork"):
        LearnedMultigrid(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="takes a GridPoisson"):
        learnsolve.solve(np.eye(3), np.ones(3), method="cg", M=LearnedMultigrid(network(0.1)))


def test_files_of_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_network(path, KIND, network(0.1))
    assert LearnedMultigrid.load(path).network.options == CouplingOptions()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        LearnedMultigrid.load(path)
    save_directions(path, NetworkOptions(dims=2, channels=4).build())
    with pytest.raises(WeightsError, match="kind 'dcdm', expected 'multigrid'"):
        LearnedMultigrid.load(path)
    made = network(0.1)
    made.own = torch.nn.Parameter(torch.zeros(3, 3))
    save_network(path, KIND, made)
    with pytest.raises(WeightsError, match="own has shape"):
        LearnedMultigrid.load(path)
    with pytest.raises(FileNotFoundError, match="there are no multigrid weights 'mars'"):
        LearnedMultigrid.load("mars")


@pytest.mark.parametrize("shape", [(40, 40, 40), (192, 192)], ids=str)
def test_shipped_weights_take_fewer_iterations_than_the_classical_cycle(shape):
    classical, learned = [], []
    for family in (poisson.obstacles, poisson.free_surface, poisson.maze, poisson.jump):
        for rhs in ("noise", "ones", "bump"):
            problem = family(shape, seed=77, rhs=rhs)
            for counts, M in ((classical, "multigrid"), (learned, "learned-multigrid")):
                res = learnsolve.solve(problem.A, problem.b, method="cg", M=M, rtol=1e-6)
                assert res.success
                counts.append(res.iterations)
    assert all(few <= many for few, many in zip(learned, classical, strict=True)), (learned, classical)
    assert sum(learned) < 0.85 * sum(classical)


def test_a_smoke_simulation_prepares_it_anew_as_obstacles_move():
    paddle = Box((0.6, 0.3), (0.7, 0.6), velocity=lambda t: (0.0, 0.8))
    counts = {}
    for M in ("multigrid", "learned-multigrid"):
        sim = SmokeSimulation((48, 32), obstacles=[paddle], M=M, method="cg")
        counts[M] = [sim.step().iterations for _ in range(4)]
    assert sum(counts["learned-multigrid"]) <= sum(counts["multigrid"])
