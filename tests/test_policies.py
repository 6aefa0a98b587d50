"""Policies by themselves: what they learn, what they make of bad costs, and their files."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from learnsolve.online import (
    POLICIES,
    ChebCB,
    Fixed,
    Policy,
    PolicyFileError,
    Switching,
    TsallisINF,
    Young,
    best_fixed,
    growth,
    instance_optimum,
    regret,
    replay,
)
from learnsolve.online.policies import tsallis_weights

CONTEXTUAL = {"chebcb", "young"}


def made(name, arms=5, seed=0):
    if name == "switching":
        return Switching(arms, inner=TsallisINF(arms, seed=seed), seed=seed)
    options = {"features": np.eye(arms)} if name == "linear-log-barrier" else {}
    return POLICIES[name](arms, seed=seed, **options)


def context_of(name, t):
    return 0.5 + 0.4 * np.sin(t) if name in CONTEXTUAL else None


def play(policy, rounds, cost, begin=0):
    actions = []
    for t in range(begin, begin + rounds):
        context = context_of(policy.name, t)
        action = policy.choose(context)
        policy.observe(action, cost(action, t), context)
        actions.append(action)
    return actions


def bowl(action, t):
    return 10.0 + 4 * (action - 3) ** 2 + np.cos(7 * t)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_probabilities_are_a_distribution(name):
    policy = made(name)
    play(policy, 60, bowl)
    p = policy.probabilities(context_of(name, 1))
    assert p.shape == (5,)
    assert np.all(p >= 0)
    assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"fixed", "young"}))
def test_learns_the_cheapest_action(name):
    policy = made(name)
    play(policy, 800, bowl)
    late = play(policy, 200, bowl, 800)
    assert late.count(3) > 120


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_goes_on_from_a_file_as_if_nothing_had_been(name, tmp_path):
    policy = made(name, seed=3)
    play(policy, 50, bowl)
    policy.save(tmp_path / "policy.json")
    loaded = Policy.load(tmp_path / "policy.json")
    assert type(loaded) is type(policy)
    assert play(loaded, 40, bowl, 50) == play(policy, 40, bowl, 50)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_bad_cost_counts_as_the_worst(name, bad):
    policy, other = made(name), made(name)
    for t, cost in enumerate([5.0, bad, 3.0, bad]):
        context = context_of(name, t)
        policy.observe(t % 5, cost, context)
        other.observe(t % 5, cost if cost > 0 and np.isfinite(cost) else 5.0, context)
    assert policy.rounds == 4
    np.testing.assert_array_equal(policy.probabilities(0.5), other.probabilities(0.5))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_bad_first_cost_is_passed_over(name):
    policy = made(name)
    policy.observe(1, np.nan, 0.5)
    assert policy.rounds == 0
    policy.observe(1, 2.0, 0.5)
    assert policy.rounds == 1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_one_arm(name):
    policy = made(name, arms=1)
    assert play(policy, 20, lambda action, t: 1.0) == [0] * 20


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_costs_of_zero(name):
    policy = made(name)
    play(policy, 30, lambda action, t: 0.0)
    assert np.isfinite(policy.probabilities(0.5)).all()


@pytest.mark.parametrize("name", sorted(CONTEXTUAL))
@pytest.mark.parametrize("context", [None, np.nan, np.inf])
def test_needs_a_context(name, context):
    policy = made(name)
    with pytest.raises(ValueError, match="needs a finite number"):
        policy.choose(context)
    with pytest.raises(ValueError, match="needs a finite number"):
        policy.observe(0, 1.0, context)


def test_bad_options_and_actions():
    with pytest.raises(ValueError, match="arms is 0"):
        TsallisINF(0)
    with pytest.raises(ValueError, match="estimator is 'x'"):
        TsallisINF(2, "x")
    with pytest.raises(ValueError, match="action is 2; 0 to 1"):
        TsallisINF(2).observe(2, 1.0)
    with pytest.raises(ValueError, match="rising numbers"):
        ChebCB(2, context_range=(1.0, 0.0))
    with pytest.raises(ValueError, match="must be positive"):
        ChebCB(2, degree=0)
    with pytest.raises(ValueError, match="forgetting 0"):
        ChebCB(2, forgetting=0.0)
    with pytest.raises(ValueError, match="action is 5"):
        Fixed(2, action=5)
    with pytest.raises(ValueError, match="inner has 3"):
        Switching(2, inner=Fixed(3))
    with pytest.raises(ValueError, match="every 0"):
        Switching(2, inner=Fixed(2), every=0)
    with pytest.raises(ValueError, match="rising numbers"):
        Young(2, low=1.5, high=1.0)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": "x"}', '{"format": "learnsolve-policy-1", "policy": "none", "fields": {}}'],
)
def test_damaged_files(text, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(PolicyFileError):
        Policy.load(path)


def test_a_file_with_another_shape_of_state(tmp_path):
    policy = TsallisINF(3)
    play(policy, 5, bowl)
    state = policy.state()
    state["fields"]["losses"] = 3.0
    (tmp_path / "policy.json").write_text(json.dumps(state))
    with pytest.raises(PolicyFileError, match="losses is not as policy"):
        Policy.load(tmp_path / "policy.json")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12),
    st.floats(1e-3, 10),
)
def test_tsallis_weights_against_bisection(losses, eta):
    losses = np.array(losses)
    p = tsallis_weights(losses, eta)
    low = losses.min() - 2 * np.sqrt(losses.size) / eta - 1e-9

    def excess(x):
        return (4 / (eta * (losses - x)) ** 2).sum() - 1

    x = brentq(excess, low, losses.min() - 2 / eta + 1e-12 * abs(losses.min()), xtol=1e-13, rtol=1e-15)
    np.testing.assert_allclose(p, 4 / (eta * (losses - x)) ** 2, atol=1e-6)


def test_the_papers_estimator_is_unbiased():
    p0 = np.array([0.2, 0.3, 0.5])
    costs = np.array([4.0, 9.0, 2.0])
    total = np.zeros(3)
    for action in range(3):
        policy = TsallisINF(3, "importance")
        policy.probabilities = lambda context=None: p0
        policy.rounds = 1
        policy.learn(action, costs[action], None)
        total += p0[action] * policy.losses
    np.testing.assert_allclose(total, costs - 1)


def test_widening_the_range_keeps_the_fit():
    rng = np.random.default_rng(0)
    grown, known = ChebCB(4, ridge=1e-9), ChebCB(4, context_range=(-2.0, 3.0), ridge=1e-9)
    contexts = np.concatenate([rng.uniform(0.5, 1, 100), rng.uniform(-2, 3, 300)])
    for c in contexts:
        action = int(rng.integers(4))
        cost = np.exp(0.3 * c * action - 0.1 * c**2)
        grown.observe(action, cost, c)
        known.observe(action, cost, c)
    for c in (-1.5, 0.0, 2.5):
        wanted = [0.3 * c * action - 0.1 * c**2 for action in range(4)]
        np.testing.assert_allclose(known.expected(c), wanted, atol=1e-4)
        np.testing.assert_allclose(grown.expected(c), wanted, atol=1e-4)


def test_contexts_beyond_a_given_range_are_its_ends():
    policy = ChebCB(3, context_range=(0.0, 1.0))
    play(policy, 50, bowl)
    np.testing.assert_array_equal(policy.expected(7.0), policy.expected(1.0))
    np.testing.assert_array_equal(policy.expected(-7.0), policy.expected(0.0))


def test_switching_recovers_from_a_change_and_does_not_begin_anew_without_one():
    rng = np.random.default_rng(0)
    before, after = np.full(12, 60.0), np.full(12, 90.0)
    before[3], after[9] = 30.0, 40.0
    costs = np.concatenate([np.tile(before, (800, 1)), np.tile(after, (600, 1))])
    costs *= rng.uniform(0.8, 1.2, (1400, 1))
    paid = {}
    for switching in (False, True):
        totals = []
        for seed in range(5):
            policy = TsallisINF(12, seed=seed)
            if switching:
                policy = Switching(12, inner=policy)
            totals.append(replay(policy, costs))
            if switching:
                assert policy.restarts == 1
        paid[switching] = np.median([run[1000:1100].sum() / costs[1000:1100, 9].sum() for run in totals])
    assert paid[True] < 1.1
    assert paid[True] < paid[False]


def test_measures():
    costs = np.array([[3.0, 1.0], [1.0, 2.0], [4.0, 2.0]])
    assert best_fixed(costs) == (1, 5.0)
    assert instance_optimum(costs) == 4.0
    np.testing.assert_array_equal(regret([3.0, 1.0, 4.0], costs), [2.0, 1.0, 3.0])
    assert growth(np.arange(1, 1001) ** 0.7, 10) == pytest.approx(0.7)
    assert np.isnan(growth(-np.arange(1.0, 50.0), 2))
    with pytest.raises(ValueError, match=r"\(rounds, 3\)"):
        replay(Fixed(3), costs)
    with pytest.raises(ValueError, match="2 contexts for 3"):
        replay(Fixed(2), costs, [1.0, 2.0])


def test_policies_in_threads_do_not_disturb_each_other():
    alone = [play(made("tsallis-inf", seed=seed), 200, bowl) for seed in range(4)]
    together = [None] * 4

    def work(seed):
        together[seed] = play(made("tsallis-inf", seed=seed), 200, bowl)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
