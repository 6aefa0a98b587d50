"""Piecewise-linear maps: the compiled forms against plain torch, bounds that theory gives, and exponents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learnsolve.dynamics import ShallowPLRNN
from learnsolve.dynamics.fixed_points import fixed_points
from learnsolve.dynamics.observation import Affine, Identity
from learnsolve.dynamics.reconstruct import _Penalty
from learnsolve.dynamics.teacher_forcing import ESTIMATORS, Annealed, optimal_alpha
from learnsolve.kernels import shplrnn, shplrnn_reference
from tests.shplrnn_cases import DRAWN, draw, problem, weights_of

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4}


def network_of(dim, hidden, seed=0, dtype=torch.float64, **options):
    return ShallowPLRNN(dim, hidden, generator=torch.Generator().manual_seed(seed), **options).to(dtype)


@pytest.mark.parametrize("states", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize(
    ("clipped", "driven", "targeted"), [(True, True, True), (False, False, True), (True, True, False)]
)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_compiled_forms_are_the_reference(dtype, clipped, driven, targeted, drawn, states):
    weights = weights_of(states, 13, dtype)
    first, targets, drive, slopes = problem(3, 11, states, dtype, driven, targeted)
    exact = [one.double().requires_grad_() for one in (*weights, first, drive)]
    wanted = shplrnn_reference.orbit(exact[:5], exact[5], targets.double(), exact[6], *drawn, clipped, 11)
    gradients = torch.autograd.grad(wanted, exact, slopes.double(), allow_unused=True, materialize_grads=True)
    found = shplrnn.orbit(weights, first, targets, drive, drawn, clipped=clipped, length=11)
    back = shplrnn.orbit_adjoint(weights, first, targets, drive, drawn, found, slopes, clipped=clipped)
    for one, other in zip((found, *back[0], *back[1:]), (wanted, *gradients), strict=True):
        assert one.dtype == dtype
        error = torch.linalg.vector_norm(one.double() - other)
        assert error <= TOLERANCES[dtype] * (1 + torch.linalg.vector_norm(other))


@pytest.mark.parametrize("clipped", [True, False])
def test_gradients(clipped):
    network = network_of(3, 4, clipped=clipped, inputs=2)
    first, targets, _, _ = problem(2, 5, 3)
    inputs = draw(2, 5, 2, seed=10)
    names = [name for name, _ in network.named_parameters()]

    def states(first, inputs, *weights):
        given = (first, targets, inputs)
        return torch.func.functional_call(
            network, dict(zip(names, weights, strict=True)), given, {"alpha": 0.3}
        )

    given = [one.detach().requires_grad_() for one in (first, inputs, *network.parameters())]
    assert torch.autograd.gradcheck(states, given)


def test_several_threads_find_the_same():
    weights, many = weights_of(5, 40), problem(20, 30, 5)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            states = shplrnn.orbit(weights, *many[:3], DRAWN[0], clipped=True, length=30)
            back = shplrnn.orbit_adjoint(weights, *many[:3], DRAWN[0], states, many[3], clipped=True)
            norms = shplrnn.jacobian_norms(weights, many[0].repeat(40, 1), clipped=True)
            error, slopes = shplrnn.error(weights, *many[:2], DRAWN[0], clipped=True)
            found.append((states, *back[0], *back[1:], norms, error, *slopes))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_the_jacobian_is_that_of_a_step():
    for clipped in (True, False):
        network, z = network_of(4, 9, clipped=clipped), draw(6, 4)
        wanted = torch.func.vmap(torch.func.jacrev(lambda x, n=network: step_of(n, x)))(z)
        torch.testing.assert_close(network.jacobian(z), wanted)


def step_of(network, z):
    return shplrnn_reference.step(network.weights, z, network.clipped)


@pytest.mark.parametrize("batch", [1, 16, 17, 40])
def test_lanes_that_are_not_all_taken(batch):
    """Sequences go sixteen at a time."""
    weights = weights_of(3, 10)
    first, targets, drive, slopes = problem(batch, 6, 3)
    exact = [one.clone().requires_grad_() for one in (*weights, first, drive)]
    wanted = shplrnn_reference.orbit(exact[:5], exact[5], targets, exact[6], *DRAWN[0], True, 6)
    found = shplrnn.orbit(weights, first, targets, drive, DRAWN[0], clipped=True, length=6)
    back = shplrnn.orbit_adjoint(weights, first, targets, drive, DRAWN[0], found, slopes, clipped=True)
    gradients = torch.autograd.grad(wanted, exact, slopes)
    for one, other in zip((found, *back[0], *back[1:]), (wanted, *gradients), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 16, 19])
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_error_and_its_gradients_are_those_of_the_reference(dtype, clipped, drawn, batch):
    weights = weights_of(3, 13, dtype)
    first, targets, drive, _ = problem(batch, 11, 3, dtype, driven=False)
    exact = [one.double().requires_grad_() for one in weights]
    states = shplrnn_reference.orbit(
        exact, first.double(), targets.double(), drive.double(), *drawn, clipped, 11
    )
    known = targets.isfinite()
    wanted = (states[known] - targets[known].double()).square().mean()
    gradients = torch.autograd.grad(wanted, exact)
    found, slopes = shplrnn.error(weights, first, targets, drawn, clipped=clipped)
    for one, other in zip((found, *slopes), (wanted, *gradients), strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        error = torch.linalg.vector_norm(one.double() - other)
        assert error <= TOLERANCES[dtype] * (1 + torch.linalg.vector_norm(other))


def test_the_penalty_is_that_of_autograd():
    network = network_of(3, 7, inputs=2)
    A, *others = network.parameters()
    wanted = 0.3 * ((1 - A).square().sum() + sum(one.square().sum() for one in others))
    found = _Penalty.apply(0.3, *network.parameters())
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(2 * one, list(network.parameters())) for one in (found, wanted)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("states", [1, 2, 3, 6, 12])
def test_norms_of_jacobians(states, size, dtype):
    """Also of diagonal ones, and where two singular values are close."""
    weights, points = weights_of(states, 20, dtype), draw(200, states, dtype=dtype)
    weights = weights._replace(w1=size * weights.w1)
    found = shplrnn.jacobian_norms(weights, points, clipped=False)
    wanted = torch.linalg.matrix_norm(shplrnn_reference.jacobian(weights, points, False), ord=2)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10**6), st.floats(0.1, 30))
def test_clipped_maps_stay_bounded(dim, hidden, seed, size):
    """Where every |A| is less than one; hidden units give at most |h2|."""
    network = network_of(dim, hidden, seed)
    with torch.no_grad():
        network.A.copy_(0.99 * torch.tanh(network.A * 3))
        network.W1.mul_(size)
        network.W2.mul_(size)
        first = size * draw(2, dim, seed=seed)
        states = network(first, length=500)
    most = network.W1.abs() @ network.h2.abs() + network.h1.abs()
    bound = first.abs().amax(0) + most / (1 - network.A.abs())
    assert (states.abs() <= bound * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 10**6), st.floats(0.5, 20))
def test_products_of_jacobians_stay_bounded(dim, seed, size):
    """Where (1 - alpha) times each norm is at most one, what is far back counts for no more than the last."""
    network = network_of(dim, 20, seed)
    with torch.no_grad():
        network.W1.mul_(size)
        targets = draw(1, 60, dim, seed=seed)
        alpha = optimal_alpha(ESTIMATORS["upper-bound"](network, targets))
        states = network(targets[:, 0], targets, alpha=alpha)
        mixed = torch.lerp(states, targets, alpha)[0]
        product = torch.eye(dim, dtype=torch.float64)
        for z in mixed:
            product = (1 - alpha) * network.jacobian(z) @ product
            assert torch.linalg.matrix_norm(product, ord=2) <= 1 + 1e-9


def test_estimates_are_what_they_say():
    network, states = network_of(3, 10), draw(4, 30, 3, seed=3)
    states[0, :7] = torch.nan
    J = network.jacobian(states).detach()
    norms = torch.linalg.matrix_norm(J, ord=2)
    norms[states.isnan().any(-1)] = torch.nan
    rows = [J[0, 7:], *J[1:]]
    wanted = {
        "maximum": norms.nan_to_num().max(),
        "geometric-mean": norms.log().nanmean(1).exp().max(),
        "arithmetic-mean": max(torch.linalg.matrix_norm(row.mean(0), ord=2) for row in rows),
    }
    for name, value in wanted.items():
        assert ESTIMATORS[name](network, states) == pytest.approx(float(value), rel=1e-3), name
    assert ESTIMATORS["upper-bound"](network, states) >= float(norms.nan_to_num().max())
    # Of one Jacobian each mean is itself.
    alone = states[1:, :1]
    values = [ESTIMATORS[name](network, alone) for name in ESTIMATORS if name != "upper-bound"]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)


def test_strength_rises_at_once_and_falls_slowly():
    network, states = network_of(3, 10), draw(2, 10, 3)
    wanted = optimal_alpha(ESTIMATORS["maximum"](network, states))
    strength = Annealed("maximum", every=2, kept=0.9, start=0.0)
    assert strength(0, network, states) == wanted
    with torch.no_grad():
        network.W1.mul_(0)
        network.A.fill_(0.5)
    assert strength(1, network, states) == wanted
    assert strength(2, network, states) == pytest.approx(0.9 * wanted)
    for wrong in ({"estimator": "mean"}, {"every": 0}, {"kept": 2.0}):
        with pytest.raises(ValueError, match="accepted"):
            Annealed(**wrong)


def test_exponents_of_a_map():
    weights, z = weights_of(4, 30), draw(4, seed=1)
    frame = torch.eye(4, dtype=torch.float64)
    for count in (4, 2):
        given = z, frame[:count].contiguous()
        wanted = shplrnn_reference.exponents(weights, *given, 20, 200, False)
        found = shplrnn.exponents(weights, *given, transient=20, steps=200, clipped=False)
        torch.testing.assert_close(found, wanted)


def test_fixed_points_are_fixed():
    network = network_of(2, 6, seed=3, clipped=False)
    with torch.no_grad():
        network.W1.mul_(2)
    found = fixed_points(network, 3 * draw(300, 2))
    assert found
    for point in found:
        torch.testing.assert_close(step_of(network, point.state), point.state)
        values = torch.linalg.eigvals(network.jacobian(point.state)).abs().sort(descending=True).values
        torch.testing.assert_close(point.eigenvalues.abs(), values)
        assert point.stable == bool(values[0] < 1)
        near = point.state + 1e-6 * draw(2, seed=4)
        far = network(near[None], length=200)[0, -1] - point.state
        if values[0] < 0.9:
            assert far.norm() < 1e-7
        elif values[0] > 1.1:
            assert far.norm() > 1e-5


def test_observations():
    seen, x = Affine(3, 5, torch.Generator().manual_seed(0)).double(), draw(7, 5)
    with torch.no_grad():
        z = draw(7, 3)
        torch.testing.assert_close(seen.states(seen(z)), z)
        x[2, 1] = torch.nan
        assert seen.states(x)[2].isnan().all() and not seen.states(x)[3].isnan().any()
        values = torch.linalg.svdvals(seen.B)
        torch.testing.assert_close(seen.penalty(), (1 - values[0] / values[-1]).square())
    assert Identity(3, 2)(Identity(3, 2).states(x[:, :2])).shape == (7, 2)
    with pytest.raises(ValueError, match="at most"):
        Identity(2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n, x: n(x), "one length"),
        (lambda n, x: n(x[0], length=3), "first has shape"),
        (lambda n, x: n(x, x[:, None, :2]), "targets has shape"),
        (lambda n, x: n(x, inputs=x[:, None, :2]), "inputs has shape"),
        (lambda n, x: n(x, x[:, None], alpha=1.5), "alpha is 1.5"),
        (lambda n, x: ShallowPLRNN(0, 3), "positive numbers"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(network_of(3, 4), draw(2, 3))


def test_a_network_trains_by_torch():
    network = network_of(2, 8)
    assert isinstance(network, nn.Module)
    assert [name for name, _ in network.named_parameters()] == ["A", "W1", "W2", "h1", "h2"]
    assert sum(one.numel() for one in network_of(3, 50).parameters()) == 356
