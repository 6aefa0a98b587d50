"""Refined schedules: the closed form, what it is the least of, and what norms make of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from learnsolve.training import FitOptions, fit
from learnsolve.training.refinement import WEIGHTS, refined, refined_from
from learnsolve.training.schedules import linear, tabulated

POSITIVE = st.lists(st.floats(0.1, 10), min_size=2, max_size=60)


@pytest.mark.parametrize("optimizer", WEIGHTS)
@pytest.mark.parametrize("length", [2, 7, 100])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_constant_norms_are_linear_decay(optimizer, length, size):
    found = refined(np.full(length, size), optimizer)
    wanted = [linear(t / (length - 1)) for t in range(length)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(deadline=None)
@given(POSITIVE, st.sampled_from(list(WEIGHTS)))
def test_factors_are_those_of_the_formula(norms, optimizer):
    found = refined(norms, optimizer, filter_width=0, most=1e9)
    w = [norm ** WEIGHTS[optimizer][1] for norm in norms]
    eta = [w[t] * sum(w[t + 1 :]) for t in range(len(w))]
    np.testing.assert_allclose(found, np.array(eta) / max(eta), rtol=1e-9, atol=1e-12)
    assert found.max() == 1 and found[-1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_sgd_minimise_the_bound(seed):
    """The regret bound (D^2 + sum w^2 G^2) / (2 sum w), by a minimiser that knows no closed form."""
    rng = np.random.default_rng(seed)
    G, D = rng.uniform(0.5, 3, 12), rng.uniform(0.5, 2)

    def bound(logarithms):
        w = np.exp(logarithms)
        value = (D**2 + np.sum(w**2 * G**2)) / (2 * w.sum())
        slope = w * (2 * w * G**2 / (2 * w.sum()) - value / w.sum())
        return value, slope

    least = minimize(bound, np.zeros(12), jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-12})
    w = np.exp(least.x)
    eta = w * (w.sum() - np.cumsum(w))
    np.testing.assert_allclose(refined(G, "sgd", filter_width=0, most=1e9), eta / eta.max(), atol=1e-6)


def test_falling_norms_warm_up_and_growing_ones_fall_sooner():
    t = np.linspace(0, 1, 400)
    falling = refined(1 / (0.1 + 3 * np.minimum(t, 0.3)), "sgd")
    assert falling.argmax() > 40 and falling[0] < 0.5
    growing = refined(np.where(t < 0.8, 1.0, 1 + 20 * (t - 0.8)), "sgd")
    assert growing[360] < 0.3 * (1 - t[360])


def test_one_wild_norm_changes_little():
    norms = np.ones(200)
    norms[77] = 1e3
    np.testing.assert_allclose(refined(norms), refined(np.ones(200)), atol=1e-12)


def test_norms_that_vanish_do_not_rule():
    norms = np.concatenate([np.ones(150), np.full(50, 1e-9)])
    assert refined(norms, "sgd", most=10.0)[0] > 0.05
    assert refined(norms, "sgd", most=1e30)[0] < 1e-9


def trained(options, folder=None, callback=None):
    network = torch.nn.Linear(3, 1, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, 0.1)
    torch.nn.init.constant_(network.bias, 0.0)

    def batches(number, generator):
        x = torch.rand(8, 3, generator=generator, dtype=torch.float64)
        return x, x.sum(1, keepdim=True).sin()

    def loss(network, batch):
        return torch.nn.functional.mse_loss(network(batch[0]), batch[1])

    return network, fit(network, loss, batches, options, folder=folder, callback=callback)


def test_a_run_tells_its_norms_and_another_takes_them(tmp_path):
    options = FitOptions(30, 0.05, "linear", optimizer="sgd", clip=0.0, gradient_norms=True)
    _, first = trained(options)
    norms = first.gradient_norms
    assert norms.shape == (30, 2) and (norms[:, 1] >= norms[:, 0]).all() and (norms > 0).all()
    # The same, in two parts.
    trained(options, tmp_path, lambda now: now.step == 11)
    _, whole = trained(options, tmp_path)
    assert torch.equal(whole.gradient_norms, norms)
    assert torch.equal(trained(options, tmp_path)[1].gradient_norms, norms)
    factors = refined(norms[:, 0].numpy(), "sgd")
    seen = []
    again = FitOptions(60, 0.05, tuple(factors), optimizer="sgd", clip=0.0)
    assert trained(again, tmp_path / "again", lambda now: seen.append(now.learning_rate))[1].finished
    assert seen == [0.05 * tabulated(factors)(t / 60) for t in range(60)]
    assert trained(FitOptions(2, 0.05))[1].gradient_norms is None


def test_the_folder_of_a_run_gives_its_schedule(tmp_path):
    sgd = FitOptions(30, 0.05, optimizer="sgd", gradient_norms=True)
    norms = trained(sgd, tmp_path / "sgd")[1].gradient_norms.numpy()
    assert refined_from(tmp_path / "sgd") == tuple(refined(norms[:, 0], "sgd"))
    assert refined_from(tmp_path / "sgd", points=10) == tuple(refined(norms[:, 0], "sgd")[::3])
    norms = trained(FitOptions(30, 0.05, gradient_norms=True), tmp_path / "adam")[1].gradient_norms.numpy()
    assert refined_from(tmp_path / "adam") == tuple(refined(norms[:, 1], "adam"))
    trained(sgd, tmp_path / "stopped", lambda now: now.step == 3)
    trained(FitOptions(2, 0.05), tmp_path / "without")
    for folder, words in (
        ("none", "holds no run"),
        ("stopped", "3 of 30 steps"),
        ("without", "without gradient"),
    ):
        with pytest.raises(ValueError, match=words):
            refined_from(tmp_path / folder)


@pytest.mark.parametrize(
    ("norms", "options", "words"),
    [
        ([1.0], {}, "two or more"),
        ([[1.0, 2.0]], {}, "shape"),
        ([1.0, 0.0], {}, "positive"),
        ([1.0, np.nan], {}, "finite"),
        ([1.0, 2.0], {"optimizer": "lion"}, "sgd and adam"),
        ([1.0, 2.0], {"filter_width": 1.0}, "filter_width is 1.0"),
        ([1.0, 2.0], {"most": 0.5}, "most 0.5"),
    ],
)
def test_what_is_refused(norms, options, words):
    with pytest.raises(ValueError, match=words):
        refined(norms, **options)
