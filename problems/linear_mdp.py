"""Markov decision processes of few layers whose losses change from episode to episode, linear in features."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Sequence = Literal["stochastic", "drifting", "switching", "mixed"]


@dataclass(frozen=True)
class LinearMDP:
    """A linear Markov decision process of ``H`` layers and ``K`` episodes.

    ``P(s' | s, a) = <features(s, a), mixtures(s')>`` and ``loss_k(s, a) = <features(s, a), theta_k>`` in
    each layer, and all features are distributions, so what any policy has yet to pay is linear in the
    features, for all losses.

    Attributes
    ----------
    features : array, ``(H, S, A, d)``
        Distributions over ``d`` kinds of what an action does.
    mixtures : array, ``(H - 1, d, S)``
        Where each kind leads to.
    start : array, ``(S,)``
        How likely each state is to be the first.
    theta : array, ``(K, H, d)``
        What each kind costs in an episode, in [0, 1].

    References
    ----------
    Jin, Yang, Wang, Jordan, *Provably Efficient Reinforcement Learning with Linear Function Approximation*,
    COLT 2020, example 2.2 (features in a simplex).

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.linear_mdp import linear_mdp
    >>> mdp = linear_mdp(episodes=10, seed=0)
    >>> states, actions, losses = mdp.play(0, mdp.uniform(), np.random.default_rng(0))
    >>> states.shape, bool((losses >= 0).all() and (losses <= 1).all())
    ((3,), True)
    """

    features: NDArray[np.float64]
    mixtures: NDArray[np.float64]
    start: NDArray[np.float64]
    theta: NDArray[np.float64]

    @property
    def horizon(self) -> int:
        """``H``."""
        return self.features.shape[0]

    @property
    def episodes(self) -> int:
        """``K``."""
        return self.theta.shape[0]

    @property
    def transitions(self) -> NDArray[np.float64]:
        """``P(s' | s, a)``, of shape ``(H - 1, S, A, S)``."""
        return np.einsum("hsad,hdt->hsat", self.features[:-1], self.mixtures)

    def uniform(self) -> NDArray[np.float64]:
        """The policy ``(H, S, A)`` that takes all actions equally often."""
        shape = self.features.shape[:3]
        return np.full(shape, 1 / shape[2])

    def sample(
        self, layer: int, states: NDArray[np.integer], actions: NDArray[np.integer], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Next states, one for each pair of a state and an action of a layer: the simulator."""
        return draw(self.features[layer, states, actions] @ self.mixtures[layer], rng)

    def losses(self, episode: int | slice) -> NDArray[np.float64]:
        """What each action costs in an episode, ``(H, S, A)``, or in each of several."""
        return np.einsum("hsad,...hd->...hsa", self.features, self.theta[episode])

    def play(
        self, episode: int, policy: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """An episode: the state of each layer, the action there and what it cost.

        Parameters
        ----------
        episode : int
            Its number, from zero.
        policy : array, ``(H, S, A)``
            How likely each action is.
        rng : numpy.random.Generator
            Of the states and the actions.
        """
        states, actions = np.empty((2, self.horizon), dtype=np.int64)
        state = draw(self.start[None], rng)
        for h in range(self.horizon):
            action = draw(policy[h, state], rng)
            states[h], actions[h] = state[0], action[0]
            if h + 1 < self.horizon:
                state = self.sample(h, state, action, rng)
        layers = np.arange(self.horizon)
        paid = (self.features[layers, states, actions] * self.theta[episode]).sum(axis=1)
        return states, actions, paid

    def loss_to_go(
        self, losses: NDArray[np.float64], policy: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """What is to be paid from an action on, ``(..., H, S, A)``, by dynamic programming.

        Parameters
        ----------
        losses : array, ``(..., H, S, A)``
            What each action costs.
        policy : array, ``(..., H, S, A)``, optional
            Which is followed after the action; without it, the best for these losses.
        """
        q = losses.copy()
        for h in range(self.horizon - 2, -1, -1):
            ahead = q[..., h + 1, :, :]
            v = ahead.min(axis=-1) if policy is None else (policy[..., h + 1, :, :] * ahead).sum(axis=-1)
            q[..., h, :, :] += np.einsum("sad,...d->...sa", self.features[h], v @ self.mixtures[h].T)
        return q

    def value(self, policy: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a policy pays in expectation, exactly; both ``(..., H, S, A)``."""
        q = self.loss_to_go(losses, policy)
        return (policy[..., 0, :, :] * q[..., 0, :, :]).sum(axis=-1) @ self.start

    def regret(self, policies: NDArray[np.float64]) -> float:
        """What policies pay in expectation more than the best one; one for each episode, ``(K, H, S, A)``."""
        return float(self.value(policies, self.losses(slice(None))).sum()) - self.best()[1]

    def best(self) -> tuple[NDArray[np.float64], float]:
        """The policy that pays the least over all episodes, and what it pays.

        The way is the same in all episodes, so that policy is the best one for the sum of the losses.
        """
        total = np.einsum("hsad,hd->hsa", self.features, self.theta.sum(axis=0))
        q = self.loss_to_go(total)
        policy = np.eye(q.shape[2])[q.argmin(axis=2)]
        return policy, float(self.start @ q[0].min(axis=1))


def draw(p: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One index for each row of probabilities ``(n, m)``."""
    edges = p.cumsum(axis=1)
    return (edges < rng.random((len(p), 1)) * edges[:, -1:]).sum(axis=1)


def linear_mdp(
    horizon: int = 3,
    states: int = 6,
    actions: int = 4,
    dimension: int = 5,
    episodes: int = 1000,
    kind: Sequence = "mixed",
    noise: float = 0.2,
    seed: int = 0,
) -> LinearMDP:
    """A random linear Markov decision process.

    Two vectors of costs are drawn for each layer, ``early`` and ``late``. The mean costs are ``early``
    throughout (``"stochastic"``); go evenly from ``early`` to ``late`` (``"drifting"``); are ``early`` up to
    two fifths of the episodes and ``late`` then (``"switching"``), so that the policy that is best so far
    need not be the one that is best in the end; or are the mean of the latter two (``"mixed"``). Normal
    noise is added for each episode, and the sum is clipped to [0, 1]. The mean costs depend on the share of
    the episodes that is over, so that the regrets of different numbers of episodes can be compared.

    Parameters
    ----------
    horizon, states, actions, dimension, episodes : int
        ``H``, ``S`` in each layer, ``A``, ``d`` and ``K``.
    kind : {"stochastic", "drifting", "switching", "mixed"}
        How the losses change.
    noise : float
        Standard deviation.
    seed : int
        Of everything. The process and both vectors are the same for all kinds and numbers of episodes.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.linear_mdp import linear_mdp
    >>> mdp = linear_mdp(states=8, episodes=100, seed=1)
    >>> mdp.features.shape, mdp.theta.shape
    ((3, 8, 4, 5), (100, 3, 5))
    >>> uniform = np.broadcast_to(mdp.uniform(), (100, 3, 8, 4))
    >>> round(mdp.regret(uniform), 1)
    20.0
    """
    if min(horizon, states, actions, dimension, episodes) < 1:
        raise ValueError("horizon, states, actions, dimension and episodes must be positive")
    if kind not in get_args(Sequence):
        raise ValueError(f"kind is {kind!r}; {', '.join(map(repr, get_args(Sequence)))} are accepted")
    rng = np.random.default_rng(seed)
    features = rng.dirichlet(np.full(dimension, 0.3), size=(horizon, states, actions))
    mixtures = rng.dirichlet(np.full(states, 0.3), size=(horizon - 1, dimension))
    start = rng.dirichlet(np.ones(states))
    early, late = rng.uniform(size=(2, horizon, dimension))
    share = np.arange(episodes) / episodes
    weight = {
        "stochastic": np.zeros(episodes),
        "drifting": share,
        "switching": (share >= 0.4).astype(np.float64),
        "mixed": (share + (share >= 0.4)) / 2,
    }[kind][:, None, None]
    theta = (1 - weight) * early + weight * late + noise * rng.standard_normal((episodes, horizon, dimension))
    return LinearMDP(features, mixtures, start, theta.clip(0, 1))
