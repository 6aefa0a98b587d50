"""Small linear processes, with their policies and paths, for the tests of what learns in them."""

import itertools

import numpy as np

from learnsolve.problems.linear_mdp import linear_mdp


def policy_of(mdp, seed, concentration=1.0):
    shape = mdp.features.shape[:3]
    return np.random.default_rng(seed).dirichlet(np.full(shape[2], concentration), size=shape[:2])


def small(seed=0, **options):
    return linear_mdp(
        **({"horizon": 2, "states": 3, "actions": 2, "dimension": 3, "episodes": 1} | options), seed=seed
    )


def paths(mdp, policy):
    """All paths of two layers, and how likely each is."""
    _, S, A, _ = mdp.features.shape
    transitions = mdp.transitions
    for s, a, t, b in itertools.product(range(S), range(A), range(S), range(A)):
        p = mdp.start[s] * policy[0, s, a] * transitions[0, s, a, t] * policy[1, t, b]
        yield p, np.array([s, t]), np.array([a, b])
