"""The Deep Conjugate Direction Method: its iteration, its fallback, its weights and its training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import learnsolve
from learnsolve.loop import System
from learnsolve.methods import DCDM
from learnsolve.methods.dcdm_losses import RunningSolves, energy_loss, image, multiscale, residual_loss
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_training import (
    DCDMTraining,
    Source,
    iterations,
    train,
)
from learnsolve.methods.dcdm_weights import load, save
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import DCDMPreconditioner
from learnsolve.problems import poisson
from learnsolve.training import FitOptions, WeightsError

ARCHITECTURES = [
    NetworkOptions(dims=2, channels=4),
    NetworkOptions(dims=2, architecture="paper", channels=4),
    NetworkOptions(dims=3, channels=4, half=1),
    NetworkOptions(dims=3, architecture="paper", channels=4),
]


def network(options, spread=0.3, seed=0):
    """A network whose every weight is random."""
    generator = torch.Generator().manual_seed(seed)
    made = options.build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return made


def cube(dims, n=12):
    return (n,) * dims


class Same(nn.Module):
    """Proposes the residual itself."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, r):
        return self.one * r


class Exact(nn.Module):
    """Proposes the answer."""

    def __init__(self, A):
        super().__init__()
        self.A = A
        self.inverse = nn.Parameter(torch.linalg.inv(torch.from_numpy(A.to_scipy().toarray())))

    def forward(self, r):
        return self.A.enter(self.inverse @ r[0, 0][self.A.active])[None, None]


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("family", ["obstacles", "maze", "jump"])
def test_random_weights_give_the_right_answer(options, family):
    problem = getattr(poisson, family)(cube(options.dims), seed=2)
    res = learnsolve.solve(problem.A, problem.b, method=DCDM(network(options)), rtol=1e-8)
    assert res.success
    r = problem.b - problem.A @ res.x
    assert np.linalg.norm(r) <= 1e-8 * np.linalg.norm(problem.b)
    assert res.relative_residual == pytest.approx(np.linalg.norm(r) / np.linalg.norm(problem.b))
    assert res.extras["network_steps"] + res.extras["fallback_steps"] == res.iterations


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_weights_that_say_nothing_leave_conjugate_gradients(bad):
    problem = poisson.obstacles((20, 20), seed=1)
    made = network(NetworkOptions(dims=2, channels=4))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(bad)
    res = learnsolve.solve(problem.A, problem.b, method=DCDM(made), rtol=1e-8)
    cg = learnsolve.solve(problem.A, problem.b, method="cg", rtol=1e-8)
    assert res.success
    if bad != 0:
        assert res.extras["network_steps"] == 0
        assert abs(res.iterations - cg.iterations) <= 2


def test_proposing_the_residual_is_conjugate_gradients():
    problem = poisson.obstacles((24, 24), seed=0)
    res = learnsolve.solve(problem.A, problem.b, method=DCDM(Same(), patience=10_000), rtol=1e-6)
    cg = learnsolve.solve(problem.A, problem.b, method="cg", rtol=1e-6)
    assert res.extras["fallback_steps"] == 0
    assert abs(res.iterations - cg.iterations) <= 1
    np.testing.assert_allclose(res.residuals[:40], cg.residuals[:40], rtol=1e-6)


def test_without_conjugation_it_is_steepest_descent():
    problem = poisson.box((16, 16))
    with_memory = learnsolve.solve(problem.A, problem.b, method=DCDM(Same(), patience=10_000))
    without = learnsolve.solve(problem.A, problem.b, method=DCDM(Same(), memory=0, patience=10_000))
    assert without.success and without.iterations > 3 * with_memory.iterations


def test_an_exact_proposal_needs_one_step():
    problem = poisson.obstacles((12, 12), seed=0)
    res = learnsolve.solve(problem.A, problem.b, method=DCDM(Exact(problem.A)), rtol=1e-10)
    assert res.success and res.iterations == 1


def test_singular_systems_are_solved_to_minimum_norm():
    problem = poisson.box((12, 10), "solid")
    assert problem.A.singular
    res = learnsolve.solve(problem.A, problem.b, method=DCDM(network(ARCHITECTURES[0])), rtol=1e-8)
    reference = learnsolve.solve(problem.A, problem.b, method="cg", rtol=1e-12)
    assert res.success
    np.testing.assert_allclose(res.x, reference.x, atol=1e-6)


@pytest.mark.parametrize("method", ["cg", "fcg", "gmres"])
def test_as_a_nonlinear_preconditioner(method):
    problem = poisson.obstacles((16, 16), seed=3)
    M = DCDMPreconditioner(network(ARCHITECTURES[0], 0.1))
    assert not M.build(problem.A).linear
    res = learnsolve.solve(problem.A, problem.b, method=method, M=M, rtol=1e-8)
    assert res.success


def test_what_it_is_not_for():
    made = network(ARCHITECTURES[0])
    grid = poisson.box((8, 8))
    matrix = grid.A.to_scipy()
    with pytest.raises(TypeError, match="grids of two or three dimensions"):
        learnsolve.solve(matrix, np.ones(64), method=DCDM(made))
    with pytest.raises(TypeError, match="real operators"):
        learnsolve.solve(grid.A.to(dtype=torch.complex128), grid.b + 0j, method=DCDM(made))
    with pytest.raises(TypeError, match="for 2 dimensions"):
        learnsolve.solve(poisson.box((4, 4, 4)).A, np.ones((4, 4, 4)), method=DCDM(made))
    for options in ({"memory": -1}, {"patience": 0}, {"recompute": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            DCDM(made, **options)
    with pytest.raises(ValueError, match="accepted"):
        NetworkOptions(dims=4)
    with pytest.raises(ValueError, match="accepted"):
        NetworkOptions(architecture="deep")


def test_the_papers_networks_have_its_parameters():
    for size, count in ((64, 97_457), (128, 152_881)):
        made = NetworkOptions.paper(3, size).build()
        gain = made.gain.numel()
        assert sum(p.numel() for p in made.parameters()) - gain == count


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 3), st.data())
def test_networks_take_any_shape(dims, data):
    shape = data.draw(st.tuples(*[st.integers(1, 11)] * dims))
    for options in ARCHITECTURES:
        if options.dims == dims:
            assert options.build()(torch.ones(2, 1, *shape)).shape == (2, 1, *shape)


@pytest.mark.parametrize("family", ["box", "obstacles", "free_surface", "maze", "jump"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_batched_product_is_the_operators(family, dims):
    A = getattr(poisson, family)(cube(dims)).A
    x = torch.randn(3, *A.domain_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.where(A.active, x, torch.zeros((), dtype=x.dtype))
    expected = torch.stack([A._apply(v) for v in x])
    torch.testing.assert_close(image(A, x), expected)
    small = getattr(poisson, family)(cube(dims, 4)).A
    y = torch.rand(1, *small.domain_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: image(small, v), (y,))


def running(A, answers, depth=100):
    """Solves towards given answers."""
    solves = RunningSolves(A, len(answers), depth)
    solves.tensors["e"].copy_(answers)
    return solves


def answers(A, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([multiscale(A, generator) for _ in range(count)])


def test_the_losses_are_what_the_method_reaches():
    A = poisson.obstacles((12, 12), seed=0).A
    made = network(ARCHITECTURES[0]).double()
    x = answers(A, 2)
    factors = []
    for answer in x:
        b = A._apply(answer)
        energies = [float((answer * b).sum())]

        def follow(progress, answer=answer, energies=energies):
            e = answer - torch.as_tensor(progress.x)
            energies.append(float((e * A._apply(e)).sum()))

        method = DCDM(made, patience=10_000)
        with pytest.warns(learnsolve.ConvergenceWarning):
            learnsolve.solve(A, b, method=method, maxiter=5, rtol=1e-12, callback=follow)
        factors.append(np.log(energies[-1] / energies[0]) / 10)
    solves = running(A, x)
    losses = [float(energy_loss(made, solves).detach()) for _ in range(5)]
    assert np.mean(losses) == pytest.approx(np.mean(factors), rel=1e-6)

    after = []
    for v in x:
        system = System(A, v, None, made)
        after.append(method.step(system, method.start(system, torch.zeros_like(v), v.clone())))
    assert float(residual_loss(made, A, x).detach()) == pytest.approx(np.mean(np.square(after)), rel=1e-6)


class Fixed(nn.Module):
    """Proposes the same direction for every residual."""

    def __init__(self, shape):
        super().__init__()
        self.direction = nn.Parameter(torch.rand(shape))

    def forward(self, r):
        return self.direction.expand_as(r)


def test_the_loss_stays_finite_where_a_direction_comes_again():
    A = poisson.obstacles((12, 12), seed=0).A
    repeats = Fixed((12, 12))
    solves = running(A, answers(A, 2))
    for _ in range(4):
        energy_loss(repeats, solves).backward()
    assert torch.isfinite(repeats.direction.grad).all()


@pytest.mark.parametrize("boundary", ["dirichlet", "solid"])
def test_right_hand_sides_on_every_scale(boundary):
    A = poisson.box((20, 16), boundary).A
    first, again, other = (multiscale(A, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.norm()) == pytest.approx(1)
    torch.testing.assert_close(A.project(first), first)
    among = poisson.obstacles((20, 16), seed=0).A
    assert not multiscale(among, torch.Generator().manual_seed(0))[~among.active].any()


def test_solves_that_have_ended_begin_anew():
    A = poisson.obstacles((12, 12), seed=0).A
    made = network(ARCHITECTURES[0], 0.1)
    solves = RunningSolves(A, 5, depth=3)
    ages = []
    for number in range(7):
        solves.refill(torch.Generator().manual_seed(number))
        ages.append(solves.tensors["step"].tolist())
        assert (solves.tensors["e"].flatten(1).norm(dim=1) > 0).all()
        assert torch.isfinite(energy_loss(made, solves))
    assert ages[:2] == [[0, 1, 2, 0, 1], [1, 2, 0, 1, 2]]
    # An answer that is reached, or lost in NaN, is given up.
    solves.tensors["e"][0], solves.tensors["e"][1] = 0, torch.nan
    solves.refill(torch.Generator().manual_seed(0))
    assert (solves.tensors["e"].flatten(1).norm(dim=1) > 0).all()
    assert solves.tensors["Ap"].isfinite().all()


def room(shape):
    cells = np.zeros(shape, np.int8)
    cells[-2:] = 2
    return GridPoisson(cells)


def test_training_on_an_empty_room_helps_among_obstacles(tmp_path):
    config = DCDMTraining(
        NetworkOptions(dims=2, channels=8),
        FitOptions(steps=120, learning_rate=4e-3, warmup=10, checkpoint_every=50),
        depth=8,
        cells=4096,
    )
    held_out = [
        (problem.A, torch.from_numpy(problem.b))
        for problem in (poisson.obstacles((40, 40), seed=s) for s in (5, 6))
    ]
    fresh = config.network.build()
    before = np.mean([iterations(fresh, A, b, 1e-4, 500) for A, b in held_out])
    made, result = train(config, [Source(room((24, 24)))], held_out, folder=tmp_path, maxiter=500)
    assert result.finished
    assert result.metrics["iterations"] < 0.5 * before
    again = load(tmp_path / "network.safetensors")
    for mine, read in zip(made.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, read)


def test_training_needs_something_to_train_on():
    with pytest.raises(ValueError, match="sources is empty"):
        train(DCDMTraining(), [])
    with pytest.raises(ValueError, match="vectors and indices"):
        train(DCDMTraining(loss="residual"), [Source(room((8, 8)))])
    with pytest.raises(ValueError, match="'energy' and 'residual'"):
        DCDMTraining(loss="mean")
    with pytest.raises(ValueError, match="must be positive"):
        DCDMTraining(depth=0)


def test_files_of_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    made = network(ARCHITECTURES[2])
    save(path, made, note="test")
    read = DCDM.load(path).network
    assert read.options == made.options
    r = torch.randn(1, 1, 5, 6, 7)
    torch.testing.assert_close(read(r), made(r))
    (tmp_path / "short.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="safetensors"):
        load(tmp_path / "short.safetensors")
    from learnsolve.training import save_weights

    save_weights(tmp_path / "other.safetensors", nn.Linear(2, 2), {"kind": "else"})
    with pytest.raises(WeightsError, match="expected 'dcdm'"):
        load(tmp_path / "other.safetensors")
    save_weights(tmp_path / "odd.safetensors", nn.Linear(2, 2), {"kind": "dcdm", "network": {"dims": 7}})
    with pytest.raises(WeightsError, match="describes no network of kind dcdm"):
        load(tmp_path / "odd.safetensors")
    with pytest.raises(FileNotFoundError, match="there are no dcdm weights 'nowhere'"):
        load("nowhere")
