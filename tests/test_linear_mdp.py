"""Linear processes with changing losses, and what learns in them."""

import itertools

import numpy as np
import pytest

from learnsolve.online.linear_mdp import AdversarialMDP, step_sizes
from learnsolve.online.log_barrier import log_barrier_weights
from learnsolve.online.mdp_estimates import exponential_weights, visits
from learnsolve.problems.linear_mdp import linear_mdp
from tests.mdp_cases import paths, policy_of, small

ALGORITHMS = ("log-barrier", "magnitude-reduced", "dilated-bonus")
NEW = ALGORITHMS[:2]


def regrets(algorithm, kind, episodes, seeds):
    found = []
    for seed in seeds:
        mdp = linear_mdp(episodes=episodes, kind=kind, seed=seed)
        learner = AdversarialMDP(mdp, episodes, algorithm)
        found.append(mdp.regret(learner.run(mdp, np.random.default_rng(seed))))
    return np.array(found)


def uniform_regret(kind, episodes, seed):
    mdp = linear_mdp(episodes=episodes, kind=kind, seed=seed)
    return mdp.regret(np.broadcast_to(mdp.uniform(), (episodes, *mdp.features.shape[:3])))


# The processes.


@pytest.mark.parametrize("kind", ["stochastic", "drifting", "switching", "mixed"])
def test_a_process_is_one(kind):
    mdp = linear_mdp(kind=kind, episodes=50, seed=1)
    assert mdp.transitions.sum(axis=-1) == pytest.approx(1)
    assert mdp.transitions.min() >= 0
    losses = mdp.losses(slice(None))
    assert losses.shape == (50, 3, 6, 4)
    assert losses.min() >= 0
    assert losses.max() <= 1
    assert (losses[7] == mdp.losses(7)).all()


def test_what_is_yet_to_be_paid_is_linear_for_any_policy():
    mdp = linear_mdp(seed=2, episodes=5, states=8)
    for k in range(5):
        q = mdp.loss_to_go(mdp.losses(k), policy_of(mdp, k))
        for features, values in zip(mdp.features.reshape(3, -1, 5), q.reshape(3, -1), strict=True):
            theta = np.linalg.lstsq(features, values)[0]
            assert features @ theta == pytest.approx(values, abs=1e-10)


def test_the_value_is_the_mean_over_all_paths():
    mdp = small(3)
    policy, losses = policy_of(mdp, 3), mdp.losses(0)
    layers = np.arange(2)
    mean = sum(p * losses[layers, states, actions].sum() for p, states, actions in paths(mdp, policy))
    assert mdp.value(policy, losses) == pytest.approx(mean)
    assert (visits(mdp.start, mdp.transitions, policy) * losses).sum() == pytest.approx(mean)


def test_values_of_several_episodes_come_at_once():
    mdp = linear_mdp(episodes=4)
    policies = np.stack([policy_of(mdp, k) for k in range(4)])
    together = mdp.value(policies, mdp.losses(slice(None)))
    assert together == pytest.approx([mdp.value(policies[k], mdp.losses(k)) for k in range(4)])
    assert mdp.regret(policies) == pytest.approx(together.sum() - mdp.best()[1])


@pytest.mark.parametrize("seed", range(3))
def test_no_fixed_policy_is_better_than_the_best(seed):
    mdp = small(seed, episodes=20)
    losses = mdp.losses(slice(None))
    policy, paid = mdp.best()
    assert mdp.value(policy, losses).sum() == pytest.approx(paid)
    paid_by_each = []
    for choice in itertools.product(range(2), repeat=6):
        paid_by_each.append(mdp.value(np.eye(2)[np.reshape(choice, (2, 3))], losses).sum())
    assert paid == pytest.approx(min(paid_by_each))


def test_the_simulator_and_the_play_follow_the_model():
    mdp, n = small(4), 20000
    rng = np.random.default_rng(0)
    drawn = mdp.sample(0, np.full(n, 1), np.full(n, 1), rng)
    assert np.bincount(drawn, minlength=3) / n == pytest.approx(mdp.transitions[0, 1, 1], abs=0.015)
    policy, counts = policy_of(mdp, 4), np.zeros((2, 3, 2))
    for _ in range(3000):
        states, actions, paid = mdp.play(0, policy, rng)
        counts[[0, 1], states, actions] += 1
        assert paid == pytest.approx(mdp.losses(0)[[0, 1], states, actions])
    assert counts / 3000 == pytest.approx(visits(mdp.start, mdp.transitions, policy), abs=0.04)


def test_the_best_policy_changes_on_the_way():
    mdp = linear_mdp(kind="switching", episodes=100)
    total, early = (
        np.einsum("hsad,hd->hsa", mdp.features, theta.sum(axis=0)) for theta in (mdp.theta, mdp.theta[:40])
    )
    assert (mdp.loss_to_go(total).argmin(axis=2) != mdp.loss_to_go(early).argmin(axis=2)).any()


def test_bad_processes_are_refused():
    with pytest.raises(ValueError, match="kind"):
        linear_mdp(kind="kind")
    with pytest.raises(ValueError, match="positive"):
        linear_mdp(states=0)


# The algorithms.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_episode_changes_what_the_formulas_say(algorithm):
    """One update written out with loops."""
    mdp = small(8)
    learner = AdversarialMDP(mdp, 100, algorithm, exploration=0.5, baseline=False)
    policy = learner.policy.copy()
    states, actions, losses = mdp.play(0, policy, np.random.default_rng(8))
    learner.observe(states, actions, losses)
    steps, met = learner.steps, visits(mdp.start, mdp.transitions, policy)
    f, cells = mdp.features, list(itertools.product(range(3), range(2)))
    ahead = np.zeros(3)
    for h in (1, 0):
        R, paid, seen = 2.0 - h, losses[h:].sum(), f[h, states[h], actions[h]]
        moments = sum(met[h, s, a] * np.outer(f[h, s, a], f[h, s, a]) for s, a in cells)
        M = np.linalg.inv(moments + steps.gamma[h] * np.eye(3))
        total = np.empty((3, 2))
        for s, a in cells:
            z = f[h, s, a] @ M @ seen
            estimate = z * paid
            if algorithm == "magnitude-reduced":
                mean = sum(met[h, t, b] * min(f[h, s, a] @ M @ f[h, t, b], 0) for t, b in cells)
                estimate += R * (mean - min(z, 0))
            size = f[h, s, a] @ M @ f[h, s, a] + sum(
                policy[h, s, b] * f[h, s, b] @ M @ f[h, s, b] for b in range(2)
            )
            total[s, a] = steps.beta[h] * size
            if h == 0:
                total[s, a] += 1.5 * mdp.transitions[0, s, a] @ ahead
            assert learner.losses[h, s, a] == pytest.approx(estimate - total[s, a])
        ahead = (policy[h] * total).sum(axis=1)
    weigh = log_barrier_weights if algorithm == "log-barrier" else exponential_weights
    assert learner.policy[0, 2] == pytest.approx(weigh(learner.losses[0, 2], steps.eta[0]))


def test_a_baseline_calms_the_estimates():
    """Of losses that never change, after some episodes."""
    spread = {}
    for baseline in (True, False):
        mdp = linear_mdp(seed=11, episodes=1)
        learner, rng = AdversarialMDP(mdp, 1000, baseline=baseline), np.random.default_rng(11)
        uniform, seen = learner.policy.copy(), []
        for _ in range(300):
            learner.policy, before = uniform, learner.losses.copy()
            learner.observe(*mdp.play(0, uniform, rng))
            seen.append(learner.losses - before)
        spread[baseline] = np.std(seen[100:], axis=0).mean()
    assert spread[True] < 0.5 * spread[False]


@pytest.mark.parametrize("exploration", [1.0, 0.01])
def test_step_sizes_have_the_orders_of_the_analysis_and_keep_its_conditions(exploration):
    R = np.array([3.0, 2.0, 1.0])
    for algorithm, power in zip(ALGORITHMS, (1 / 2, 1 / 2, 2 / 3), strict=True):
        few, many = (step_sizes(algorithm, 3, 4, 5, K, exploration) for K in (10**3, 10**6))
        # The log-barrier's price has a logarithm, which doubles.
        log = 2**0.5 if algorithm == "log-barrier" else 1
        assert few.eta / many.eta * log == pytest.approx(np.full(3, 1000**power))
        for steps in (few, many):
            if algorithm == "magnitude-reduced":
                assert (steps.eta * R / np.sqrt(steps.gamma) <= 1 + 1e-12).all()
            if algorithm == "dilated-bonus":
                assert (steps.eta * R / steps.gamma <= 0.5 + 1e-12).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_rollouts_do_what_the_model_does(algorithm):
    """All but the bonuses ahead, of one draw each, come close: the last layer has none."""
    mdp = linear_mdp(seed=9, episodes=1)
    exact = AdversarialMDP(mdp, 100, algorithm)
    drawn = AdversarialMDP(mdp, 100, algorithm, rollouts=100_000)
    episode = mdp.play(0, exact.policy, np.random.default_rng(9))
    exact.observe(*episode)
    drawn.observe(*episode)
    assert drawn.losses[-1] == pytest.approx(exact.losses[-1], rel=0.05, abs=0.05 * np.ptp(exact.losses[-1]))


class WithoutModel:
    """What a simulator shows of a process."""

    def __init__(self, mdp):
        self.features, self.start, self.sample, self.play = mdp.features, mdp.start, mdp.sample, mdp.play

    @property
    def transitions(self):
        raise AssertionError("the model was looked at")


@pytest.mark.parametrize("algorithm", NEW)
def test_a_simulator_without_a_model_is_enough(algorithm):
    mdp = linear_mdp(episodes=800, kind="stochastic", seed=10)
    world = WithoutModel(mdp)
    learner = AdversarialMDP(world, 800, algorithm, rollouts=100)
    regret = mdp.regret(learner.run(world, np.random.default_rng(10)))
    assert regret < 0.7 * uniform_regret("stochastic", 800, 10)


def test_runs_can_be_repeated():
    mdp = linear_mdp(episodes=30)
    one, other = (
        AdversarialMDP(mdp, 30, "magnitude-reduced", rollouts=20, seed=3).run(mdp, np.random.default_rng(1))
        for _ in range(2)
    )
    assert (one == other).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": "sarsa"}, "algorithm"),
        ({"episodes": 0}, "episodes"),
        ({"rollouts": -1}, "rollouts"),
        ({"exploration": float("nan")}, "exploration"),
        ({"algorithm": "magnitude-reduced", "baseline": True}, "baseline"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        AdversarialMDP(small(), **({"episodes": 10} | options))


def test_one_action_leaves_nothing_to_learn():
    with pytest.raises(ValueError, match="only one action"):
        AdversarialMDP(small(actions=1), 10)


# The regrets. The constant of the step sizes was chosen on the processes of seeds 100 to 102.


@pytest.mark.parametrize("kind", ["stochastic", "mixed"])
def test_both_algorithms_have_less_regret_than_the_one_before(kind):
    seeds = range(2)
    found = {a: regrets(a, kind, 1000, seeds) for a in ALGORITHMS}
    uniform = np.mean([uniform_regret(kind, 1000, seed) for seed in seeds])
    for algorithm in NEW:
        assert (found[algorithm] < found["dilated-bonus"]).all()
        assert np.mean(found[algorithm]) < 0.6 * uniform


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stochastic", "mixed"])
def test_the_regret_grows_as_the_analysis_says(kind):
    """Slopes of the median regret from 1000 to 8000 episodes.

    With losses that drift, policies that follow them may have no regret at all.
    """
    ladder, slopes, last = (1000, 2000, 4000, 8000), {}, {}
    for algorithm in ALGORITHMS:
        medians = [np.median(regrets(algorithm, kind, K, range(5))) for K in ladder]
        slopes[algorithm], last[algorithm] = np.polyfit(np.log(ladder), np.log(medians), 1)[0], medians[-1]
        print(kind, algorithm, np.round(medians, 1), round(slopes[algorithm], 3))
    assert max(slopes[a] for a in NEW) <= 0.6
    assert max(slopes[a] for a in NEW) < slopes["dilated-bonus"]
    assert max(last[a] for a in NEW) < last["dilated-bonus"]
