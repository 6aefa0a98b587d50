"""Learning-rate schedules: factors in [0, 1] as functions of the progress in [0, 1]."""

import math
from collections.abc import Callable


def rex(z: float, beta: float = 0.5) -> float:
    """``(1 - z) / (beta + (1 - beta) (1 - z))``: near one for long, then falls ever faster to zero.

    Parameters
    ----------
    z : float
        Progress in [0, 1].
    beta : float
        In (0, 1]; one is `linear`, less holds the rate up for longer.

    Raises
    ------
    ValueError
        ``beta`` is outside (0, 1].

    References
    ----------
    J. Chen, C. Wolfe, A. Kyrillidis, REX: Revisiting Budgeted Training with an Improved Schedule,
    MLSys 2022; there ``beta`` is one half.

    Examples
    --------
    >>> from learnsolve.training.schedules import rex
    >>> rex(0.0), round(rex(0.5), 3), rex(1.0)
    (1.0, 0.667, 0.0)
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be in (0, 1], not {beta!r}")
    # The denominator is written as a sum that rounding cannot put below the numerator.
    return (1 - z) / ((1 - z) + beta * z)


def linear(z: float) -> float:
    """``1 - z``."""
    return 1 - z


def cosine(z: float) -> float:
    """``(1 + cos(pi z)) / 2`` (Loshchilov and Hutter, SGDR, ICLR 2017, without restarts)."""
    return (1 + math.cos(math.pi * z)) / 2


def constant(z: float) -> float:
    """One."""
    return 1.0


def step(z: float) -> float:
    """One, a tenth from half of the way on, a hundredth from three quarters on."""
    return 1.0 if z < 0.5 else 0.1 if z < 0.75 else 0.01


def warmed_up(factor: Callable[[float], float], share: float) -> Callable[[float], float]:
    """A linear rise from zero over the first ``share`` of the progress, then ``factor`` over the rest.

    Parameters
    ----------
    factor : callable
        The schedule that follows; it sees progress from zero to one.
    share : float
        In [0, 1); zero gives ``factor`` back.

    Raises
    ------
    ValueError
        ``share`` is outside [0, 1).

    Examples
    --------
    >>> from learnsolve.training.schedules import linear, warmed_up
    >>> risen = warmed_up(linear, 0.2)
    >>> risen(0.0), risen(0.1), risen(0.2), risen(1.0)
    (0.0, 0.5, 1.0, 0.0)
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of the warm-up must be in [0, 1), not {share!r}")
    if share == 0:
        return factor
    return lambda z: z / share if z < share else factor((z - share) / (1 - share))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "rex": rex,
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "step": step,
}


def schedule(name: str) -> Callable[[float], float]:
    """The schedule of a name.

    Raises
    ------
    ValueError
        There is none of this name; the message lists those that there are.

    Examples
    --------
    >>> from learnsolve.training.schedules import schedule
    >>> schedule("cosine")(0.0)
    1.0
    """
    if name not in SCHEDULES:
        raise ValueError(f"there is no schedule {name!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
