"""Markov decision processes with changing losses and a simulator, where what is yet to be paid is linear."""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.online.log_barrier import log_barrier_weights
from learnsolve.online.mdp_estimates import (
    Array,
    Baseline,
    correction_of,
    dilated_bonuses,
    exponential_weights,
    inverse_moments,
    magnitude_reduced_estimate,
    norms,
    plain_estimate,
    visits,
)

Algorithm = Literal["log-barrier", "magnitude-reduced", "dilated-bonus"]


class Simulator(Protocol):
    """What an algorithm knows of a process: all but its losses.

    Attributes
    ----------
    features : array, ``(H, S, A, d)``
        Of length at most one; what is yet to be paid is linear in them for any policy and any losses.
    start : array, ``(S,)``
        How likely each state is to be the first.
    transitions : array, ``(H - 1, S, A, S)``
        The model, which is looked at only without rollouts.
    """

    @property
    def features(self) -> Array: ...

    @property
    def start(self) -> Array: ...

    @property
    def transitions(self) -> Array: ...

    def sample(
        self, layer: int, states: NDArray[np.integer], actions: NDArray[np.integer], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Next states, one for each pair of a state and an action of a layer."""
        ...


class Environment(Simulator, Protocol):
    """A process that can be played."""

    def play(
        self, episode: int, policy: Array, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """States, actions and losses of an episode, ``(H,)`` each."""
        ...


@dataclass(frozen=True)
class StepSizes:
    """Of each layer, ``(H,)``: the step size, the factor of the bonuses and the regularisation."""

    eta: Array
    beta: Array
    gamma: Array


def step_sizes(
    algorithm: Algorithm, horizon: int, actions: int, dimension: int, episodes: int, exploration: float
) -> StepSizes:
    r"""Step sizes, bonuses and regularisation that the analysis asks for, up to one constant.

    In layer ``h`` the loss to go is at most ``R = H - h``. The regret splits into one of each state, where
    a leader is followed on ``Q^ - B``:

    * The price of the regulariser is ``D / eta``, ``D = A log K`` for the log-barrier and ``log A`` for
      exponential weights.
    * The stability is ``eta E[sum(p Q^^2)] <= eta R^2 E|f|^2``, with ``|f|^2 = f' M f``, whose mean is at
      most ``d``: twice that for the magnitude-reduced estimate, whose two parts have opposite signs.
    * Regularisation makes a bias of ``sqrt(gamma) |theta| |f| <= beta |f|^2 / 2 + gamma d R^2 / (2 beta)``.
    * A bonus ``beta (|f(s, a)|^2 + E|f(s, a')|^2)`` pays for both if ``beta`` is of the order ``eta R^2``,
      and its dilated sum is what the regret then has in their place, ``beta d`` for each episode.

    For the log-barrier there is no more to be asked of the estimate. With ``beta = c eta R^2``, ``D / eta
    + beta d K`` is least at ``eta = sqrt(D / (c d K)) / R``. Bonuses reach ``beta R / gamma``, and they must
    not pass ``1 / eta`` by more than a constant: ``gamma = eta beta R^2 = D R^2 / (d K)``. The bias is then
    ``eta d R^4`` for each episode, and all of it is of the order ``sqrt(K)``.

    Exponential weights need ``eta Q^ >= -1`` besides. The magnitude-reduced estimate is at least
    ``-R / sqrt(gamma)``, so ``gamma >= (eta R)^2``, again of the order ``1 / K``: ``sqrt(K)`` without ``A``.

    The plain estimate is only known to be at least ``-R / gamma``, so for ``"dilated-bonus"`` ``gamma = 2
    eta R``, of the order of ``eta`` and not of its square. The bias is then the larger: ``beta d + gamma d
    R^2 / beta`` is least at ``beta`` of the order ``sqrt(gamma) R``, and ``D / eta + c sqrt(2 eta R) R d K``
    at ``eta = (D / (sqrt(2) c d K R^1.5))^(2/3)`` up to a factor: ``K^(2/3)``.

    Numbers such as 4 and 3e on the way are left out. ``c`` is ``exploration``, the one constant that is not
    from the analysis.

    Parameters
    ----------
    algorithm : {"log-barrier", "magnitude-reduced", "dilated-bonus"}
        See `AdversarialMDP`.
    horizon, actions, dimension, episodes : int
        ``H``, ``A``, ``d`` and ``K``.
    exploration : float
        ``c``.

    Examples
    --------
    >>> from learnsolve.online.linear_mdp import step_sizes
    >>> few, many = (step_sizes("magnitude-reduced", 3, 4, 5, K, 1.0) for K in (1000, 4000))
    >>> (few.eta / many.eta).round(3), (few.gamma / many.gamma).round(3)
    (array([2., 2., 2.]), array([4., 4., 4.]))
    """
    R = np.arange(horizon, 0, -1.0)
    spread = exploration * dimension * episodes
    if algorithm == "dilated-bonus":
        eta = (math.log(actions) / (math.sqrt(2) * spread * R**1.5)) ** (2 / 3)
        gamma = 2 * eta * R
        return StepSizes(eta, exploration * np.sqrt(gamma) * R, gamma)
    barrier = algorithm == "log-barrier"
    price = actions * math.log(max(episodes, 2)) if barrier else math.log(actions)
    eta = math.sqrt(price / spread) / R
    beta = exploration * eta * R**2
    gamma = eta * beta * R**2
    return StepSizes(eta, beta, gamma if barrier else np.maximum(gamma, np.square(eta * R)))


EXPLORATION: dict[str, float] = {"log-barrier": 0.001, "magnitude-reduced": 0.01, "dilated-bonus": 0.03}


@dataclass
class AdversarialMDP:
    """Learns to act in a process of ``H`` layers whose losses change arbitrarily between episodes.

    ``policy`` is what to follow in the next episode. After each, `observe` takes the losses of the path, no
    others: it estimates what is yet to be paid from every state and action, subtracts a bonus for what is
    seldom visited, and follows the regularised leader in every state. The regrets are
    against the best fixed policy, for losses that were chosen beforehand, up to logarithms.

    ============================ ===================================== =============== ==============
    Algorithm                    Estimate                              Weights         Regret
    ============================ ===================================== =============== ==============
    ``"log-barrier"``            plain, less a baseline                log-barrier     ``K^(1/2)``
    ``"magnitude-reduced"``      lifted where very negative            exponential     ``K^(1/2)``
    ``"dilated-bonus"``          plain, regularised until it is small  exponential     ``K^(2/3)``
    ============================ ===================================== =============== ==============

    Measured on `learnsolve.problems.linear_mdp` of five seeds, the median regret grew from 1000 to 8000
    episodes like ``K^0.22``, ``K^0.24`` and ``K^0.72`` for losses that drift and switch, and like ``K^0.46``,
    ``K^0.57`` and ``K^0.74`` for losses of a fixed mean. The baseline makes the log-barrier's regret smaller
    by a factor of two to four.

    Parameters
    ----------
    simulator : Simulator
        The process without its losses.
    episodes : int
        ``K``, for the step sizes; more may be played.
    algorithm : {"log-barrier", "magnitude-reduced", "dilated-bonus"}
        The first two are of Dai et al., the last is what Luo et al. had before.
    exploration : float, optional
        The constant of `step_sizes`, positive. One is the order of the analysis. The default is 0.001, 0.01
        and 0.03 for the three: for each the best of 1, 0.1, 0.03, 0.01, 0.003, ... at 4000 episodes, on
        processes that the tests do not use.
    rollouts : int
        Zero takes the moments of the features, the corrections and the bonuses from the model, exactly.
        Otherwise that many paths are simulated for each of moments and corrections after each episode, and
        one next state of each state and action for the bonuses.
    seed : int
        Of the rollouts.
    baseline : bool, optional
        Whether plain estimates have the control variate of `learnsolve.online.mdp_estimates.Baseline`, which
        is not in the papers. By default only the log-barrier's have: the others ask for a floor of their
        estimates that is derived without it.

    Attributes
    ----------
    policy : array, ``(H, S, A)``
        How likely each action is.
    losses : array, ``(H, S, A)``
        Sum of the estimates less bonuses.
    steps : StepSizes
        Of `step_sizes`.

    Raises
    ------
    ValueError
        An option is out of range.

    References
    ----------
    Dai, Luo, Wei, Zimmert, *Refined Regret for Adversarial MDPs with Linear Function Approximation*,
    ICML 2023, arXiv 2301.12942. Luo, Wei, Lee, *Policy Optimization in Adversarial MDPs: Improved
    Exploration via Dilated Bonuses*, NeurIPS 2021, arXiv 2107.08346.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.linear_mdp import AdversarialMDP
    >>> from learnsolve.problems.linear_mdp import linear_mdp
    >>> mdp = linear_mdp(episodes=1000, kind="stochastic")
    >>> learner = AdversarialMDP(mdp, mdp.episodes)
    >>> policies = learner.run(mdp, np.random.default_rng(0))
    >>> uniform = np.broadcast_to(mdp.uniform(), policies.shape)
    >>> mdp.regret(policies) < 0.7 * mdp.regret(uniform)
    True
    """

    simulator: Simulator
    episodes: int
    algorithm: Algorithm = "log-barrier"
    exploration: float | None = None
    rollouts: int = 0
    seed: int = 0
    baseline: bool | None = None
    policy: Array = field(init=False)
    losses: Array = field(init=False)
    steps: StepSizes = field(init=False)

    def __post_init__(self) -> None:
        if self.algorithm not in get_args(Algorithm):
            known = ", ".join(map(repr, get_args(Algorithm)))
            raise ValueError(f"algorithm is {self.algorithm!r}; {known} are accepted")
        if self.episodes < 1 or self.rollouts < 0:
            raise ValueError("episodes must be positive, and rollouts not negative")
        if self.exploration is None:
            self.exploration = EXPLORATION[self.algorithm]
        if not (math.isfinite(self.exploration) and self.exploration > 0):
            raise ValueError(f"exploration is {self.exploration}; a positive number is accepted")
        self._features = np.asarray(self.simulator.features, dtype=np.float64)
        H, S, A, d = self._features.shape
        if np.square(self._features).sum(axis=-1).max() > 1 + 1e-9:
            raise ValueError("features are longer than one")
        if A < 2:
            raise ValueError("there is only one action")
        self._flat = self._features.reshape(H, S * A, d)
        self._most = np.arange(H, 0, -1.0)
        if self.baseline is None:
            self.baseline = self.algorithm == "log-barrier"
        if self.baseline and self.algorithm == "magnitude-reduced":
            raise ValueError("magnitude-reduced estimates have no baseline")
        self._baseline = Baseline(H, d)
        self._model = None if self.rollouts else self.simulator.transitions
        self._rng = np.random.default_rng(self.seed)
        self.policy = np.full((H, S, A), 1 / A)
        self.losses = np.zeros((H, S, A))
        self.steps = step_sizes(self.algorithm, H, A, d, self.episodes, self.exploration)

    def run(self, environment: Environment, rng: np.random.Generator) -> Array:
        """Play all episodes; the policy that each was played with, ``(K, H, S, A)``."""
        played = np.empty((self.episodes, *self.policy.shape))
        for k in range(self.episodes):
            played[k] = self.policy
            self.observe(*environment.play(k, self.policy, rng))
        return played

    def observe(self, states: ArrayLike, actions: ArrayLike, losses: ArrayLike) -> None:
        """Hear of an episode that was played with ``policy``, and change it.

        Parameters
        ----------
        states, actions : integer array, ``(H,)``
            Where it went.
        losses : array, ``(H,)``
            What each layer cost, in [0, 1].
        """
        points, weights = self._visited()
        inverse = inverse_moments(points, weights, self.steps.gamma)
        paid = np.asarray(losses, dtype=np.float64)[::-1].cumsum()[::-1]
        seen = self._features[np.arange(len(paid)), np.asarray(states), np.asarray(actions)]
        z = (self._flat @ (inverse @ seen[:, :, None])).reshape(self.policy.shape)
        if self.algorithm == "magnitude-reduced":
            # In rollouts the correction has paths of its own: it must not depend on the moments.
            points, weights = self._visited() if self.rollouts else (points, weights)
            correction = correction_of(self._features, inverse, points, weights, self._most)
            estimate = magnitude_reduced_estimate(z, paid, self._most, correction)
        elif self.baseline:
            theta = self._baseline.theta()
            expected = np.einsum("hsad,hd->hsa", self._features, theta)
            estimate = expected + plain_estimate(z, paid - (seen * theta).sum(axis=1))
            self._baseline.observe(seen, paid)
        else:
            estimate = plain_estimate(z, paid)
        size = norms(self._features, inverse)
        bonus = self.steps.beta[:, None, None] * (size + (self.policy * size).sum(axis=2, keepdims=True))
        self.losses += estimate - dilated_bonuses(bonus, self.policy, self._ahead())
        weigh = log_barrier_weights if self.algorithm == "log-barrier" else exponential_weights
        self.policy = weigh(self.losses, self.steps.eta[:, None])

    def _visited(self) -> tuple[Array, Array]:
        """Features of each layer and how likely they are met: of all there are, or of fresh paths."""
        if self._model is not None:
            weights = visits(self.simulator.start, self._model, self.policy)
            return self._flat, weights.reshape(self._flat.shape[:2])
        H, S, _, d = self._features.shape
        points = np.empty((H, self.rollouts, d))
        states = self._rng.choice(S, size=self.rollouts, p=self.simulator.start)
        for h in range(H):
            edges = self.policy[h, states].cumsum(axis=1)
            actions = (edges < self._rng.random((self.rollouts, 1)) * edges[:, -1:]).sum(axis=1)
            points[h] = self._features[h, states, actions]
            if h + 1 < H:
                states = self.simulator.sample(h, states, actions, self._rng)
        return points, np.full((H, self.rollouts), 1 / self.rollouts)

    def _ahead(self) -> NDArray:
        """For `dilated_bonuses`: the model, or a next state of every state and action."""
        if self._model is not None:
            return self._model
        H, S, A, _ = self._features.shape
        states, actions = (i.ravel() for i in np.indices((S, A)))
        drawn = [self.simulator.sample(h, states, actions, self._rng) for h in range(H - 1)]
        return np.array(drawn, dtype=np.int64).reshape(H - 1, S, A)
