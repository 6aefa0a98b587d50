"""Estimates of losses and bonuses in linear processes, against all paths and recursions."""

import itertools
import math

import numpy as np
import pytest

from learnsolve.online.mdp_estimates import (
    correction_of,
    dilated_bonuses,
    exponential_weights,
    inverse_moments,
    magnitude_reduced_estimate,
    norms,
    plain_estimate,
    visits,
)
from learnsolve.problems.linear_mdp import linear_mdp
from tests.mdp_cases import paths, policy_of, small


@pytest.mark.parametrize("gamma", [1e-9, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_both_estimates_have_the_mean_that_they_should(seed, gamma):
    mdp = small(seed)
    policy, losses = policy_of(mdp, seed), mdp.losses(0)
    H, S, A, d = mdp.features.shape
    flat, weights = mdp.features.reshape(H, S * A, d), visits(mdp.start, mdp.transitions, policy)
    inverse = inverse_moments(flat, weights.reshape(H, -1), gamma)
    most = np.array([2.0, 1.0])
    correction = correction_of(mdp.features, inverse, flat, weights.reshape(H, -1), most)
    plain, reduced = np.zeros((2, H, S, A))
    for p, states, actions in paths(mdp, policy):
        paid = losses[np.arange(H), states, actions][::-1].cumsum()[::-1]
        z = np.einsum("hsad,hde,he->hsa", mdp.features, inverse, mdp.features[np.arange(H), states, actions])
        plain += p * plain_estimate(z, paid)
        reduced += p * magnitude_reduced_estimate(z, paid, most, correction)
    assert reduced == pytest.approx(plain, abs=1e-9)
    # What regularisation changes is at most sqrt(gamma) |theta| |f|, and |theta| at most R sqrt(d).
    bias = np.abs(plain - mdp.loss_to_go(losses, policy))
    assert (bias <= np.sqrt(gamma * d * norms(mdp.features, inverse)) * most[:, None, None] + 1e-9).all()
    if gamma == 1e-9:
        assert bias.max() < 1e-4


def test_the_reduced_estimate_has_a_floor_that_the_plain_one_breaks():
    gamma, lowest = 1e-3, {"plain": 0.0, "reduced": 0.0}
    for seed in range(20):
        mdp = linear_mdp(seed=seed, episodes=1)
        policy = policy_of(mdp, seed, concentration=0.05)
        H, S, A, d = mdp.features.shape
        flat, weights = mdp.features.reshape(H, S * A, d), visits(mdp.start, mdp.transitions, policy)
        inverse = inverse_moments(flat, weights.reshape(H, -1), gamma)
        most = np.array([3.0, 2.0, 1.0])
        correction = correction_of(mdp.features, inverse, flat, weights.reshape(H, -1), most)
        floor = -most[:, None, None] * np.sqrt(norms(mdp.features, inverse))
        for i, share in itertools.product(range(S * A), (0.0, 1.0)):
            z = (flat @ inverse @ flat[:, i, :, None])[..., 0].reshape(H, S, A)
            reduced = magnitude_reduced_estimate(z, share * most, most, correction)
            assert (reduced >= floor - 1e-9).all()
            lowest["reduced"] = min(lowest["reduced"], (reduced / most[:, None, None]).min())
            plain = plain_estimate(z, share * most)
            lowest["plain"] = min(lowest["plain"], (plain / most[:, None, None]).min())
    assert lowest["reduced"] >= -1 / math.sqrt(gamma)
    assert lowest["plain"] < -1 / math.sqrt(gamma)
    assert lowest["plain"] >= -1 / gamma


def test_bonuses_follow_their_recursion():
    mdp = linear_mdp(seed=5, episodes=1)
    policy, bonus = policy_of(mdp, 5), np.random.default_rng(5).random((3, 6, 4))
    P = mdp.transitions

    def total(h, s, a):
        if h == 2:
            return bonus[h, s, a]
        ahead = sum(
            P[h, s, a, t] * policy[h + 1, t, b] * total(h + 1, t, b) for t in range(6) for b in range(4)
        )
        return bonus[h, s, a] + (1 + 1 / 3) * ahead

    found = dilated_bonuses(bonus, policy, P)
    for h, s, a in ((0, 0, 0), (0, 5, 3), (1, 2, 1), (2, 3, 2)):
        assert found[h, s, a] == pytest.approx(total(h, s, a))


def test_bonuses_of_drawn_states_have_the_same_mean():
    mdp = small(6)
    policy, bonus, rng = (
        policy_of(mdp, 6),
        np.random.default_rng(6).random((2, 3, 2)),
        np.random.default_rng(7),
    )
    states, actions = (i.ravel() for i in np.indices((3, 2)))
    mean = np.zeros((2, 3, 2))
    for _ in range(4000):
        mean += dilated_bonuses(bonus, policy, mdp.sample(0, states, actions, rng).reshape(1, 3, 2)) / 4000
    assert mean == pytest.approx(dilated_bonuses(bonus, policy, mdp.transitions), abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_a_baseline_changes_no_mean(seed):
    mdp = small(seed)
    policy, losses = policy_of(mdp, seed), mdp.losses(0)
    H, S, A, d = mdp.features.shape
    flat, weights = mdp.features.reshape(H, S * A, d), visits(mdp.start, mdp.transitions, policy)
    inverse = inverse_moments(flat, weights.reshape(H, -1), 1e-9)
    theta = np.random.default_rng(seed).standard_normal((H, d))
    expected, mean = np.einsum("hsad,hd->hsa", mdp.features, theta), np.zeros((H, S, A))
    for p, states, actions in paths(mdp, policy):
        paid = losses[np.arange(H), states, actions][::-1].cumsum()[::-1]
        seen = mdp.features[np.arange(H), states, actions]
        z = np.einsum("hsad,hde,he->hsa", mdp.features, inverse, seen)
        mean += p * (expected + plain_estimate(z, paid - (seen * theta).sum(axis=1)))
    assert mean == pytest.approx(mdp.loss_to_go(losses, policy), abs=1e-4)


def test_exponential_weights():
    assert exponential_weights([1.0, 2.0, -1e300], 1.0) == pytest.approx([0, 0, 1])
    p = exponential_weights([[0.0, 1.0], [1.0, 0.0]], np.array([2.0, 3.0]))
    assert p[:, 1] / p[:, 0] == pytest.approx(np.exp([-2.0, 3.0]))
