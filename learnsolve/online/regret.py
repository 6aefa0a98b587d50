"""Costs of policies on sequences, beside those of who knows the sequence beforehand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learnsolve.online.base import Policy


def replay(policy: Policy, costs: ArrayLike, contexts: Sequence[float] | None = None) -> NDArray[np.float64]:
    """What a policy pays on a table of costs, learning as it goes.

    Parameters
    ----------
    policy : Policy
        The policy; it is changed.
    costs : (rounds, arms) array
        What each action would cost in each round.
    contexts : (rounds,) sequence, optional
        What the policy is told before.

    Returns
    -------
    (rounds,) array

    Examples
    --------
    >>> from learnsolve.online import Fixed
    >>> replay(Fixed(2, action=1), [[1, 2], [3, 4]]).tolist()
    [2.0, 4.0]
    """
    table = np.asarray(costs, float)
    if table.ndim != 2 or table.shape[1] != policy.arms:
        raise ValueError(f"costs has shape {table.shape}; (rounds, {policy.arms}) is accepted")
    if contexts is not None and len(contexts) != len(table):
        raise ValueError(f"there are {len(contexts)} contexts for {len(table)} rounds")
    paid = np.empty(len(table))
    for t, row in enumerate(table):
        context = None if contexts is None else float(contexts[t])
        action = policy.choose(context)
        paid[t] = row[action]
        policy.observe(action, paid[t], context)
    return paid


def best_fixed(costs: ArrayLike) -> tuple[int, float]:
    """The action that costs least over all rounds of a ``(rounds, arms)`` table, and what it costs.

    Examples
    --------
    >>> best_fixed([[1, 2], [4, 2]])
    (1, 4.0)
    """
    sums = np.asarray(costs, float).sum(axis=0)
    return int(sums.argmin()), float(sums.min())


def instance_optimum(costs: ArrayLike) -> float:
    """What it costs to take the cheapest action in each round of a ``(rounds, arms)`` table.

    Examples
    --------
    >>> instance_optimum([[1, 2], [4, 2]])
    3.0
    """
    return float(np.asarray(costs, float).min(axis=1).sum())


def regret(paid: ArrayLike, costs: ArrayLike) -> NDArray[np.float64]:
    """What was paid by each round beyond the action that is best over the whole table.

    Parameters
    ----------
    paid : (rounds,) array
        From `replay`.
    costs : (rounds, arms) array
        The table.

    Returns
    -------
    (rounds,) array

    Examples
    --------
    >>> regret([2, 4], [[1, 2], [3, 4]]).tolist()
    [1.0, 2.0]
    """
    table = np.asarray(costs, float)
    return np.cumsum(np.asarray(paid, float) - table[:, best_fixed(table)[0]])


def growth(values: ArrayLike, first: int) -> float:
    """The exponent of a curve's growth from round ``first`` on: the slope of a line through its logarithms.

    Thirty points are taken, evenly spaced on the logarithmic axis; those that are not positive are left out.
    Of fewer than two that are left there is no slope: NaN.

    Examples
    --------
    >>> round(growth(np.sqrt(np.arange(1, 10_001)), 10), 2)
    0.5
    """
    curve = np.asarray(values, float)
    rounds = np.unique(np.geomspace(first, len(curve), 30).astype(int))
    heights = curve[rounds - 1]
    positive = heights > 0
    if positive.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(rounds[positive]), np.log(heights[positive]), 1)[0])
