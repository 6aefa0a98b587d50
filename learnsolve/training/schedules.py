"""Learning-rate schedules: factors in [0, 1] as functions of the progress in [0, 1], and of the step."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

Profile = Callable[[float], float]


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


def exponential(z: float) -> float:
    """``1000 ** -z``: three decades over the run."""
    return float(1000.0**-z)


def polynomial(z: float, power: float = 2.0) -> float:
    """``(1 - z) ** power``.

    Raises
    ------
    ValueError
        ``power`` is not positive.
    """
    if not power > 0:
        raise ValueError(f"power must be positive, not {power!r}")
    return float((1 - z) ** power)


def sampled(factor: Profile, at: int | Sequence[float]) -> Profile:
    """The factor of the last of some points of the progress, held until the next.

    Parameters
    ----------
    factor : callable
        A profile.
    at : int or sequence of float
        The points, from zero up to less than one; or how many, at equal distances from zero on. So
        ``sampled(linear, [0, 1/3, 2/3])`` falls twice, and ``sampled(rex, 20)`` every five hundredths.

    Raises
    ------
    ValueError
        The points do not rise from zero, or are none.

    References
    ----------
    J. Chen, C. Wolfe, A. Kyrillidis, REX: Revisiting Budgeted Training with an Improved Schedule,
    MLSys 2022: a schedule is a profile and a sampling rate.

    Examples
    --------
    >>> from learnsolve.training.schedules import linear, sampled
    >>> falls = sampled(linear, [0, 0.5, 0.75])
    >>> falls(0.49), falls(0.5), falls(1.0)
    (1.0, 0.5, 0.25)
    """
    points = [k / at for k in range(at)] if isinstance(at, int) else [float(one) for one in at]
    rises = all(one < other for one, other in pairwise(points))
    if not points or points[0] != 0 or points[-1] >= 1 or not rises:
        raise ValueError(
            f"at is {at!r}; points that rise from 0 to less than 1, or their number, are accepted"
        )
    return lambda z: factor(max(one for one in points if one <= z))


def tabulated(values: Sequence[float]) -> Profile:
    """The profile that has n values at the progress of 0, 1/n, 2/n and so on, and lines between them.

    Parameters
    ----------
    values : sequence of float
        Of [0, 1], such as `learnsolve.training.refinement.refined` gives.

    Raises
    ------
    ValueError
        There are none, or one is outside [0, 1].

    Examples
    --------
    >>> from learnsolve.training.schedules import tabulated
    >>> profile = tabulated([0.5, 1.0])
    >>> profile(0.0), profile(0.25), profile(0.5), profile(1.0)
    (0.5, 0.75, 1.0, 1.0)
    """
    table = [float(one) for one in values]
    if not table or not all(0 <= one <= 1 for one in table):
        raise ValueError("values are none, or not all of them in [0, 1]; one or more in [0, 1] are accepted")

    def factor(z: float) -> float:
        place = min(z * len(table), len(table) - 1)
        low = int(place)
        high = min(low + 1, len(table) - 1)
        return table[low] + (place - low) * (table[high] - table[low])

    return factor


def warmed_up(factor: Profile, share: float) -> Profile:
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


SCHEDULES: dict[str, Profile] = {
    "rex": rex,
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "polynomial": polynomial,
}


def schedule(profile: str | Profile | Sequence[float]) -> Profile:
    """The schedule of a name; a function is one, and factors are `tabulated`.

    Raises
    ------
    ValueError
        There is none of this name; the message lists those that there are. Or factors are not in [0, 1].

    Examples
    --------
    >>> from learnsolve.training.schedules import schedule
    >>> schedule("cosine")(0.0)
    1.0
    """
    if not isinstance(profile, str):
        return profile if callable(profile) else tabulated(profile)
    if profile not in SCHEDULES:
        raise ValueError(f"there is no schedule {profile!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[profile]


def factor_at(profile: Profile, step: int, total_steps: int, warmup: int = 0) -> float:
    """Factor of a step, counted from zero, of so many.

    In the warm-up it is that of the step's end, so that the first step has one; from the last step on it
    stays that of the end.
    """
    done = min(step, total_steps)
    return warmed_up(profile, warmup / total_steps)((done + (done < warmup)) / total_steps)


class BudgetLR(torch.optim.lr_scheduler.LRScheduler):
    """Torch's interface to the schedules here: rates are a function of the step alone.

    So a run that was stopped goes on with the very rates that it would have had: nothing is multiplied
    up from step to step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its rates are the largest.
    profile : str, callable or sequence of float
        Name in `SCHEDULES`; a function from the progress to a factor; or factors, see `tabulated`.
    total_steps : int
        Of the whole run: how often ``step`` will be called.
    warmup : int
        Steps over which the rate first rises linearly; less than ``total_steps``.
    last_epoch : int
        The step that is done, where a run goes on without `load_state_dict`; -1 for none.

    Raises
    ------
    ValueError
        A number is not accepted, or there is no profile of the name.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training import BudgetLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    >>> scheduler, rates = BudgetLR(optimizer, "linear", 4), []
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [0.4, 0.30000000000000004, 0.2, 0.1]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        profile: str | Profile | Sequence[float],
        total_steps: int,
        *,
        warmup: int = 0,
        last_epoch: int = -1,
    ) -> None:
        if total_steps < 1 or not 0 <= warmup < total_steps:
            raise ValueError(
                f"total_steps is {total_steps} and warmup {warmup}; at least 1, and 0 to less than "
                "total_steps, are accepted"
            )
        self.described = profile if isinstance(profile, str) else None
        self.profile = schedule(profile)
        self.total_steps, self.warmup = total_steps, warmup
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Rates of the step that comes next."""
        factor = factor_at(self.profile, self.last_epoch, self.total_steps, self.warmup)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Numbers alone; the profile is made anew, by whoever makes the scheduler."""
        names = ("total_steps", "warmup", "described", "base_lrs", "last_epoch", "_step_count", "_last_lr")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of a scheduler that was made alike.

        Raises
        ------
        ValueError
            It was made otherwise.
        """
        for name in ("total_steps", "warmup", "described"):
            if state_dict[name] != getattr(self, name):
                raise ValueError(
                    f"the state has {name} {state_dict[name]!r}, this scheduler {getattr(self, name)!r}"
                )
        self.__dict__.update(state_dict)
