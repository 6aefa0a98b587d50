"""The log-barrier: its weights, what makes very negative estimates harmless, and the two bandits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from learnsolve.online.base import Policy
from learnsolve.online.log_barrier import LinearLogBarrier, LogBarrier, log_barrier_weights

LOSSES = st.lists(st.floats(-1e12, 1e6), min_size=1, max_size=9)
STEPS = st.floats(1e-6, 1e3)
X = np.linspace(-1, 1, 33)
CURVE = np.stack([X, X**2], axis=1)


def policy_of(name, **options):
    if name == "linear":
        return LinearLogBarrier(5, features=CURVE[::8], **options)
    return LogBarrier(5, **options)


def regret_of(policy, costs):
    """What a policy pays in expectation, more than the best fixed arm does."""
    paid = 0.0
    for row in costs:
        paid += policy.probabilities() @ row
        action = policy.choose()
        policy.observe(action, row[action])
    return paid - costs.sum(axis=0).min()


@given(LOSSES, STEPS)
def test_weights_are_a_distribution_and_fulfil_the_conditions_of_the_minimum(losses, eta):
    losses = np.array(losses)
    p = log_barrier_weights(losses, eta)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all()
    # The gradient, losses - 1 / (eta p), is the same for all arms.
    lam = 1 / p - eta * (losses - losses.min())
    assert lam == pytest.approx(1 / p.max(), rel=1e-9, abs=1e-9 * (1 / p).max())


@given(LOSSES, STEPS)
def test_weights_are_those_of_a_bracketed_root(losses, eta):
    y = eta * (np.array(losses) - min(losses))
    lam = brentq(lambda lam: (1 / (y + lam)).sum() - 1, 1 - 1e-12, len(y) + 1e-9, xtol=1e-14, rtol=1e-15)
    assert log_barrier_weights(losses, eta) == pytest.approx(1 / (y + lam), rel=1e-9)


def test_no_other_distribution_has_a_smaller_objective():
    rng = np.random.default_rng(0)
    losses = rng.normal(size=4) * 3

    def objective(p):
        return p @ losses - np.log(p).sum(axis=-1) / 0.7

    p = log_barrier_weights(losses, 0.7)
    others = rng.dirichlet(np.ones(4), size=2000)
    near = np.abs(p + 1e-3 * rng.normal(size=(2000, 4)))
    for trial in (others, near / near.sum(axis=1, keepdims=True)):
        assert objective(trial).min() >= objective(p)


def test_rows_are_solved_one_by_one():
    rng = np.random.default_rng(1)
    losses, eta = rng.normal(size=(3, 4, 5)) * 10.0 ** rng.integers(0, 6, size=(3, 4, 1)), rng.random((3, 4))
    p = log_barrier_weights(losses, eta)
    for i in np.ndindex(3, 4):
        assert p[i] == pytest.approx(log_barrier_weights(losses[i], eta[i]), rel=1e-12)


@pytest.mark.parametrize("losses", [[-1e308, 1e308, 0.0], [5.0] * 1000, [0.0]])
def test_extreme_losses_have_weights(losses):
    p = log_barrier_weights(losses, 1.0)
    assert p.sum() == pytest.approx(1)
    assert p.argmax() == 0


def stability_of(p, eta, losses):
    """``max <p - q, losses> - D(q, p) / eta``, with the ``q`` that attains it."""
    q = log_barrier_weights(losses + 1 / (eta * p), eta)
    ratio = q / p
    return (p - q) @ losses - (ratio - 1 - np.log(ratio)).sum() / eta


def steps_of(seed, count=3000):
    """Distributions, steps and losses, a third of which are very negative ones of an unlikely arm."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        arms = rng.integers(2, 8)
        p = rng.dirichlet(np.full(arms, 10.0 ** rng.uniform(-1, 1))) + 1e-7
        p /= p.sum()
        losses = rng.normal(size=arms) * 10.0 ** rng.uniform(-2, 4)
        if i % 3 == 0:
            losses = np.where(np.arange(arms) == p.argmin(), -rng.random() / p, 0.0)
        yield p, 10.0 ** rng.uniform(-4, 1), losses


def test_a_step_is_stable_however_negative_the_losses():
    ratios = [stability_of(p, eta, x) / (eta * (p @ x**2)) for p, eta, x in steps_of(0)]
    assert max(ratios) <= 1
    # The bound is not empty: there are steps within a factor of five.
    assert max(ratios) > 0.2


def test_the_smaller_bound_of_losses_that_are_not_negative_fails():
    ratios = [stability_of(p, eta, x) / (eta * (p**2 @ x**2)) for p, eta, x in steps_of(0)]
    assert max(ratios) > 100


@pytest.mark.parametrize("baseline", ["mean", "none"])
@pytest.mark.parametrize("name", ["arms", "linear"])
def test_estimates_have_no_bias(name, baseline):
    """In the mean over the action, what is added differs between arms as the losses do."""
    options = {"gamma": 1e-9} if name == "linear" else {}
    policy = policy_of(name, baseline=baseline, **options)
    costs = (
        3 + CURVE[::8] @ [0.5, 1.0] if baseline == "mean" or name == "arms" else 2 + 0 * X[::8] + X[::8] ** 2
    )
    if name == "linear" and baseline == "none":
        policy.features = np.stack([X[::8] ** 0, X[::8] ** 2], axis=1)
    for _ in range(40):
        action = policy.choose()
        policy.observe(action, costs[action])
    before, p, added = policy.losses.copy(), policy.probabilities(), np.zeros(5)
    assert p.max() / p.min() > 1.5
    for action in range(5):
        after = Policy.from_state(policy.state())
        after.observe(action, costs[action])
        added += p[action] * (after.losses - before)
    assert added - added[0] == pytest.approx(costs - costs[0], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["arms", "linear"])
def test_the_best_arm_is_found_under_a_large_offset(name):
    rng = np.random.default_rng(2)
    means = 100 + (X[::8] - 0.5) ** 2
    costs = means + 0.1 * rng.standard_normal((1500, 5))
    policy = policy_of(name, seed=3)
    regret, uniform = regret_of(policy, costs), (means.mean() - means.min()) * 1500
    assert policy.probabilities().argmax() == means.argmin() == 3
    assert regret < 0.2 * uniform


def test_the_baseline_pays():
    costs = 100 + np.random.default_rng(3).random((1000, 5)) + [0, 0.5, 0.5, 0.5, 0.5]
    with_mean = [regret_of(LogBarrier(5, seed=s), costs) for s in range(2)]
    without = [regret_of(LogBarrier(5, seed=s, baseline="none"), costs) for s in range(2)]
    assert 3 * max(with_mean) < min(without)


def test_an_arm_that_becomes_the_best_later_is_found():
    """Arm 0 is the best for two fifths of the rounds, arm 1 over all of them."""
    late = np.arange(2500)[:, None] >= 1000
    costs = np.where(late, [0.9, 0.1, 0.5], [0.1, 0.5, 0.5])
    costs = costs + 0.1 * np.random.default_rng(4).standard_normal(costs.shape)
    policy = LogBarrier(3)
    regret = regret_of(policy, costs)
    uniform = costs.mean(axis=1).sum() - costs.sum(axis=0).min()
    assert policy.probabilities().argmax() == 1
    assert regret < 0.5 * uniform


def test_estimates_from_features_have_the_spread_of_the_dimension():
    """``E[sum(p_b estimate_b^2)]`` is ``A`` times the squared surprise, and ``d`` times with features."""
    spread = {}
    for name, policy in (
        ("arms", LogBarrier(33)),
        ("linear", LinearLogBarrier(33, features=CURVE, gamma=1e-9)),
    ):
        policy.observe(16, 1.0)
        p, before, spread[name] = policy.probabilities(), policy.losses.copy(), 0.0
        for action in range(33):
            after = Policy.from_state(policy.state())
            after.observe(action, 2.0)
            spread[name] += p[action] * (p @ (after.losses - before) ** 2)
    assert spread == pytest.approx({"arms": 33, "linear": 3}, rel=1e-4)


def test_features_find_the_best_of_many_arms():
    costs = 1 + (X - 0.4) ** 2 + 0.1 * np.random.default_rng(5).standard_normal((1000, 33))
    regret = regret_of(LinearLogBarrier(33, features=CURVE), costs)
    assert regret < 0.25 * (costs.mean(axis=1).sum() - costs.sum(axis=0).min())


@pytest.mark.parametrize("name", ["arms", "linear"])
def test_the_unit_of_the_losses_does_not_matter(name):
    one, other = policy_of(name), policy_of(name)
    for row in 2 + np.random.default_rng(6).random((200, 5)):
        action = one.choose()
        assert other.choose() == action
        one.observe(action, row[action])
        other.observe(action, 1024 * row[action])
    assert other.probabilities() == pytest.approx(one.probabilities(), rel=1e-9)


@pytest.mark.parametrize("name", ["arms", "linear"])
def test_equal_costs_move_nothing(name):
    policy = policy_of(name)
    for action in range(5):
        policy.observe(action, 7.0)
    assert policy.probabilities() == pytest.approx(np.full(5, 0.2))


@pytest.mark.parametrize("name", ["arms", "linear"])
def test_a_loaded_policy_goes_on_as_the_saved_one(name, tmp_path):
    costs = 1 + np.random.default_rng(7).random((100, 5))
    policy = policy_of(name, seed=8, scale=2.0)
    regret_of(policy, costs)
    policy.save(tmp_path / "policy.json")
    loaded = Policy.load(tmp_path / "policy.json")
    assert type(loaded) is type(policy)
    for row in costs:
        action = policy.choose()
        assert loaded.choose() == action
        policy.observe(action, row[action])
        loaded.observe(action, row[action])
    assert (loaded.probabilities() == policy.probabilities()).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogBarrier(3, baseline="median"), "baseline"),
        (lambda: LogBarrier(3, scale=0.0), "scale"),
        (lambda: LogBarrier(0), "arms"),
        (lambda: LinearLogBarrier(3, features=np.ones((2, 2))), "features"),
        (lambda: LinearLogBarrier(2, features=np.array([[1.0], [np.nan]])), "features"),
        (lambda: LinearLogBarrier(2, features=np.zeros((2, 2))), "features"),
        (lambda: LinearLogBarrier(2, features=np.eye(2), gamma=-1.0), "gamma"),
    ],
)
def test_bad_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
