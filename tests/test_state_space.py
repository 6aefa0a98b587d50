"""State spaces: three views of one system, the orders of its discretisations, gradients, bad input."""

import numpy as np
import pytest
import scipy.signal
import torch

from learnsolve.sequence import state_space
from learnsolve.sequence.layers import LSSL
from learnsolve.sequence.state_space import discretized, hippo, krylov

METHODS = ("bilinear", "euler", "backward", "zoh", 0.3)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def system(channels=3, n=4, own=False):
    A, B = hippo(n, torch.float64)
    if own:
        A, B = A + 0.1 * draw(channels, n, n), B + 0.1 * draw(channels, n, seed=1)
    return A, B, draw(channels, n, seed=2), draw(channels, seed=3), 0.05 + 0.1 * draw(channels, seed=4).abs()


@pytest.mark.parametrize("method", METHODS)
def test_discretisations_are_scipys(method):
    A, B = hippo(5, torch.float64)
    kind = {"method": "gbt", "alpha": method} if isinstance(method, float) else {"method": method}
    kind = {"method": "backward_diff"} if method == "backward" else kind
    a, b, *_ = scipy.signal.cont2discrete(
        (A.numpy(), B.numpy()[:, None], np.eye(5), np.zeros((5, 1))), 0.1, **kind
    )
    ours = discretized(A, B, torch.tensor(0.1), method)
    np.testing.assert_allclose(ours[0], a, atol=1e-12)
    np.testing.assert_allclose(ours[1], b[:, 0], atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("backward", 1), ("bilinear", 2)])
def test_orders_of_accuracy_are_the_textbooks(method, order):
    """Of a smooth input, against scipy's solution with a far smaller step."""
    A, B = hippo(3, torch.float64)
    C = torch.ones(1, 3, dtype=torch.float64)
    fine = np.linspace(0, 1, 20001)
    exact = scipy.signal.lsim((A.numpy(), B.numpy()[:, None], C.numpy(), [[0.0]]), np.sin(3 * fine), fine)[1][
        -1
    ]
    errors = []
    for count in (100, 200, 400):
        times = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        u = torch.sin(3 * times)
        # Each rule takes the input where it takes the state.
        alpha = {"euler": 0.0, "backward": 1.0, "bilinear": 0.5}[method]
        mixed = alpha * u[1:] + (1 - alpha) * u[:-1]
        y, _ = state_space(mixed[None, :, None], A, B, C, dt=1 / count, discretization=method)
        errors.append(abs(y[0, -1, 0].item() - exact))
    found = np.log2(errors[0] / errors[1]), np.log2(errors[1] / errors[2])
    np.testing.assert_allclose(found, order, atol=0.1)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_three_views_of_one_system(own, length, method):
    A, B, C, D, dt = system(own=own)
    u, before = draw(2, length, 3, seed=5), draw(2, 3, 4, seed=6)
    options = {"discretization": method, "initial_state": before}
    y, last = state_space(u, A, B, C, D, dt, **options)
    scanned, end = state_space(u, A, B, C, D, dt, method="scan", **options)
    torch.testing.assert_close(y, scanned, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(last, end, rtol=1e-9, atol=1e-9)
    state, rows = before, []
    for t in range(length):
        one, state = state_space(
            u[:, t : t + 1], A, B, C, D, dt, discretization=method, initial_state=state, method="scan"
        )
        rows.append(one)
    torch.testing.assert_close(torch.cat(rows, 1), scanned)
    for dtype, tolerance in ((torch.float32, 1e-5),):
        given = (one.to(dtype) for one in (u, A, B, C, D, dt))
        low, _ = state_space(*given, discretization=method, initial_state=before.to(dtype))
        assert (low.double() - y).norm() < tolerance * y.norm()


def test_it_is_scipys_filter():
    A, B, C, D, _ = system(1)
    u = draw(1, 50, 1, seed=5)
    a, b = discretized(A, B, torch.tensor(0.1, dtype=torch.float64))
    # Our state has seen the present input already.
    y = scipy.signal.dlsim(
        (a.numpy(), b.numpy()[:, None], (C @ a).numpy(), [[float(C @ b + D)]], 1.0), u[0].numpy()
    )[1]
    np.testing.assert_allclose(state_space(u, A, B, C, D, 0.1)[0][0], y, atol=1e-10)


@pytest.mark.parametrize("method", ["convolution", "scan"])
def test_gradients(method):
    given = [
        one.clone().requires_grad_() for one in (draw(1, 5, 3, seed=5), *system(), draw(1, 3, 4, seed=6))
    ]

    def task(u, A, B, C, D, dt, before):
        return state_space(u, A, B, C, D, dt, initial_state=before, method=method)

    assert torch.autograd.gradcheck(task, given)


def test_krylov_is_powers():
    A, b = draw(2, 4, 4), draw(2, 4, seed=1)
    found = krylov(A, b, 11)
    for t in range(11):
        torch.testing.assert_close(found[..., t], b)
        b = torch.einsum("hmn,hn->hm", A, b)


def test_hippo_remembers():
    """The state of a slow ramp are its coefficients: what LegS projects onto is what came before."""
    A, B = hippo(6, torch.float64)
    assert (torch.linalg.eigvals(A).real < 0).all()
    u = torch.ones(1, 4000, 1, dtype=torch.float64)
    _, state = state_space(u, A, B, torch.ones(1, 6, dtype=torch.float64), dt=0.01)
    np.testing.assert_allclose(state[0, 0], [1, 0, 0, 0, 0, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"u": torch.zeros(3, 4)}, "u has shape"),
        ({"A": torch.zeros(4, 3)}, r"\(N, N\)"),
        ({"B": torch.zeros(3)}, "B has shape"),
        ({"C": torch.zeros(4)}, "C has shape"),
        ({"D": torch.zeros(4)}, "D has shape"),
        ({"initial_state": torch.zeros(1, 3, 5)}, "initial_state"),
        ({"dt": 0.0}, "dt is down to 0"),
        ({"discretization": "foh"}, "'foh'"),
        ({"discretization": 1.5}, "1.5"),
        ({"method": "slow"}, "'slow'"),
    ],
)
def test_what_is_refused(change, words):
    given = dict(
        zip("u A B C D dt".split(), (torch.zeros(1, 5, 3), *(one.float() for one in system())), strict=True)
    )
    given |= change
    with pytest.raises(ValueError, match=words):
        state_space(given.pop("u"), given.pop("A"), given.pop("B"), given.pop("C"), **given)


def test_a_layer_of_nothing_is_refused():
    with pytest.raises(ValueError, match="state 0"):
        LSSL(8, 0)
