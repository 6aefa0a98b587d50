"""Estimates of what is yet to be paid in a Markov decision process, and what they are made of."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def exponential_weights(losses: ArrayLike, eta: ArrayLike) -> Array:
    """Weights in proportion to ``exp(-eta losses)``, along the last axis.

    Examples
    --------
    >>> from learnsolve.online.mdp_estimates import exponential_weights
    >>> exponential_weights([0.0, 1.0], eta=1.0).round(3)
    array([0.731, 0.269])
    """
    losses = np.asarray(losses, dtype=np.float64)
    p = np.exp(-np.asarray(eta)[..., None] * (losses - losses.min(axis=-1, keepdims=True)))
    return p / p.sum(axis=-1, keepdims=True)


def visits(start: Array, transitions: Array, policy: Array) -> Array:
    """How likely each state and action of each layer is to be visited, ``(H, S, A)``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import visits
    >>> visits(np.array([1.0, 0.0]), np.empty((0, 2, 2, 2)), np.full((1, 2, 2), 0.5))
    array([[[0.5, 0.5],
            [0. , 0. ]]])
    """
    found = np.empty_like(policy)
    reached = start
    for h in range(len(policy)):
        found[h] = reached[:, None] * policy[h]
        if h + 1 < len(policy):
            reached = np.einsum("sa,sat->t", found[h], transitions[h])
    return found


def inverse_moments(features: Array, weights: Array, gamma: ArrayLike) -> Array:
    """``(gamma I + sum(weights features features'))^-1`` for each layer.

    Parameters
    ----------
    features : array, ``(H, n, d)``
        Any number of points in each layer.
    weights : array, ``(H, n)``
        Of the points.
    gamma : float or array, ``(H,)``
        Regularisation, positive.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import inverse_moments
    >>> inverse_moments(np.eye(2)[None], np.array([[0.75, 0.25]]), gamma=0.25)
    array([[[1., 0.],
            [0., 2.]]])
    """
    moments = np.swapaxes(features, 1, 2) @ (weights[..., None] * features)
    ridge = np.multiply.outer(np.broadcast_to(gamma, len(features)), np.eye(features.shape[2]))
    return np.linalg.inv(moments + ridge)


def plain_estimate(z: Array, paid: Array) -> Array:
    """``z L``: unbiased but for gamma, and as low as ``-R / gamma``.

    Parameters
    ----------
    z : array, ``(H, ...)``
        ``f(s, a)' M f(s_h, a_h)`` for all states and actions, with ``M`` of `inverse_moments`.
    paid : array, ``(H,)``
        ``L``, the loss of an episode from each layer on; in ``[0, R]``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import plain_estimate
    >>> plain_estimate(np.array([[-8.0, 4.0]]), np.array([0.5]))
    array([[-4.,  2.]])
    """
    return z * paid.reshape(paid.shape + (1,) * (z.ndim - 1))


def magnitude_reduced_estimate(z: Array, paid: Array, most: Array, correction: Array) -> Array:
    """``z L - R min(z, 0) + correction``: its mean is that of `plain_estimate`, and it is never very low.

    The second term lifts what is negative to at least zero, whatever ``L`` is. The correction, of
    `correction_of`, takes the mean of that back; it is at least ``-R sqrt(f' M f)``, so the whole is at
    least ``-R / sqrt(gamma)`` instead of ``-R / gamma``.

    Parameters
    ----------
    z, paid : array
        As for `plain_estimate`.
    most : array, ``(H,)``
        ``R``, the largest that ``L`` can be.
    correction : array, ``(H, ...)``
        ``R E[min(z, 0)]`` for all states and actions.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import magnitude_reduced_estimate, plain_estimate
    >>> z, paid = np.array([[-8.0, 4.0]]), np.array([0.5])
    >>> plain_estimate(z, paid)
    array([[-4.,  2.]])
    >>> magnitude_reduced_estimate(z, paid, np.array([1.0]), np.array([[-0.5, -0.25]]))
    array([[3.5 , 1.75]])
    """
    shape = paid.shape + (1,) * (z.ndim - 1)
    return z * paid.reshape(shape) - most.reshape(shape) * np.minimum(z, 0) + correction


def correction_of(features: Array, inverse: Array, points: Array, weights: Array, most: Array) -> Array:
    """``R E[min(f' M f_m, 0)]`` for all states and actions, ``(H, S, A)``.

    Parameters
    ----------
    features : array, ``(H, S, A, d)``
        ``f``.
    inverse : array, ``(H, d, d)``
        ``M``.
    points, weights : array, ``(H, n, d)`` and ``(H, n)``
        ``f_m`` and how likely it is: all states and actions, or draws of a simulator.
    most : array, ``(H,)``
        ``R``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import correction_of
    >>> features, points = np.array([[[[1.0], [-1.0]]]]), np.array([[[1.0], [-1.0]]])
    >>> correction_of(features, np.ones((1, 1, 1)), points, np.array([[0.75, 0.25]]), np.array([2.0]))
    array([[[-0.5, -1.5]]])
    """
    flat = features.reshape(len(features), -1, features.shape[-1])
    z = flat @ inverse @ np.swapaxes(points, 1, 2)
    mean = (np.minimum(z, 0) @ weights[..., None])[..., 0]
    return (most[:, None] * mean).reshape(features.shape[:3])


def dilated_bonuses(bonus: Array, policy: Array, ahead: Array) -> Array:
    """``B = b + (1 + 1/H) E[B(s', a')]``, by dynamic programming.

    Parameters
    ----------
    bonus : array, ``(H, S, A)``
        ``b``.
    policy : array, ``(H, S, A)``
        How likely each action is.
    ahead : array, ``(H - 1, S, A, S)`` or ``(H - 1, S, A)``
        How likely each next state is, or the numbers of next states that were drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import dilated_bonuses
    >>> one = np.ones((2, 1, 1))
    >>> dilated_bonuses(one, one, np.ones((1, 1, 1, 1))).ravel()
    array([2.5, 1. ])
    """
    layers = len(bonus)
    found = bonus.copy()
    for h in range(layers - 2, -1, -1):
        value = (policy[h + 1] * found[h + 1]).sum(axis=1)
        found[h] += (1 + 1 / layers) * (ahead[h] @ value if ahead.ndim == 4 else value[ahead[h]])
    return found


def norms(features: Array, inverse: Array) -> Array:
    """``f' M f`` for all states and actions, ``(H, S, A)``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import norms
    >>> norms(np.array([[[[0.6, 0.8]]]]), 2 * np.eye(2)[None])
    array([[[2.]]])
    """
    flat = features.reshape(len(features), -1, features.shape[-1])
    return ((flat @ inverse) * flat).sum(axis=2).reshape(features.shape[:3])


@dataclass
class Baseline:
    """What is yet to be paid, by ridge regression on all episodes so far: a control variate.

    With ``g = f(s, a)' theta`` of any ``theta`` that is known before an episode, ``g + z (L - g(s_h, a_h))``
    has the mean of ``z L`` but for gamma, and the variance of ``L - g`` in the place of that of ``L``.

    Parameters
    ----------
    layers, dimension : int
        ``H`` and ``d``.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.online.mdp_estimates import Baseline
    >>> baseline = Baseline(1, 2)
    >>> for _ in range(999):
    ...     baseline.observe(np.array([[1.0, 0.0]]), np.array([0.7]))
    >>> baseline.theta().round(2)
    array([[0.7, 0. ]])
    """

    layers: int
    dimension: int
    moments: Array = field(init=False, repr=False)
    sums: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.moments = np.tile(np.eye(self.dimension), (self.layers, 1, 1))
        self.sums = np.zeros((self.layers, self.dimension))

    def theta(self) -> Array:
        """The coefficients, ``(H, d)``."""
        return np.asarray(np.linalg.solve(self.moments, self.sums[..., None])[..., 0], np.float64)

    def observe(self, seen: Array, paid: Array) -> None:
        """Take in an episode: its features ``(H, d)``, and its loss from each layer on, ``(H,)``."""
        self.moments += seen[:, :, None] * seen[:, None, :]
        self.sums += seen * paid[:, None]
