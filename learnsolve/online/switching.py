"""A policy for sequences that change abruptly."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from learnsolve.online.base import Policy
from learnsolve.online.policies import Fixed


@dataclass
class Switching(Policy):
    r"""Another policy, begun anew where the sequence of systems has changed abruptly.

    A change is noticed by a two-sided cumulative sum of :math:`\ln` of a cost over what was expected of its
    action, in units of the standard deviation of the same: Page's test.

    Parameters
    ----------
    arms, seed
        Those of ``inner``.
    inner : Policy
        The policy.
    threshold, drift : float
        Where the sum raises the alarm, and what is taken off it in each round, in standard deviations.
    every : int, optional
        Begin anew after so many rounds at the latest: a change that leaves the cost of the chosen action as
        it was, and makes another one cheap, shows in no cost.

    References
    ----------
    Page, *Continuous inspection schemes*, Biometrika 41 (1954).

    Examples
    --------
    >>> from learnsolve.online import TsallisINF
    >>> policy = Switching(2, inner=TsallisINF(2))
    >>> for t in range(600):
    ...     action = policy.choose()
    ...     policy.observe(action, [10, 30][action] if t < 300 else [30, 10][action])
    >>> policy.restarts
    1
    """

    inner: Policy = field(default_factory=lambda: Fixed(1))
    threshold: float = 12.0
    drift: float = 1.0
    every: int | None = None
    # Each for the action that looks best, and for all others: a change may show in one of the two only.
    up: NDArray[np.float64] = field(init=False, repr=False)
    down: NDArray[np.float64] = field(init=False, repr=False)
    mean: NDArray[np.float64] = field(init=False, repr=False)
    variance: NDArray[np.float64] = field(init=False, repr=False)
    seen: NDArray[np.float64] = field(init=False, repr=False)
    restarts: int = field(default=0, init=False)

    name: ClassVar[str] = "switching"
    summary: ClassVar[str] = "another policy, begun anew where the sequence changes"

    # Rounds of the inner policy before a change is looked for, and the least standard deviation.
    PATIENCE: ClassVar[int] = 30
    LEAST: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._begin()
        if self.inner.arms != self.arms:
            raise ValueError(f"arms is {self.arms}, but inner has {self.inner.arms}")
        if not (self.threshold > 0 and self.drift >= 0) or (self.every is not None and self.every < 1):
            raise ValueError(
                f"threshold is {self.threshold}, drift {self.drift}, every {self.every}; a positive number, "
                "one that is not negative, and None or a positive one are accepted"
            )

    @property
    def needs_context(self) -> bool:
        return self.inner.needs_context

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        return self.inner.probabilities(context)

    def choose(self, context: float | None = None) -> int:
        return self.inner.choose(context)

    def best(self, context: float | None = None) -> tuple[int, float] | None:
        return self.inner.best(context)

    def learn(self, action: int, cost: float, context: float | None) -> None:
        expected, best = self.inner.predicted(action, context), self.inner.best(context)
        if best is not None and np.isfinite(expected) and expected > 0 and cost > 0:
            self._test(int(action != best[0]), float(np.log(cost / expected)))
        old = self.every is not None and self.inner.rounds >= self.every
        if old or max(self.up.max(), self.down.max()) > self.threshold:
            self.inner = self.inner.fresh()
            self._begin()
            self.restarts += 1
        self.inner.observe(action, cost, context)

    def _begin(self) -> None:
        self.up, self.down, self.mean, self.variance, self.seen = np.zeros((5, 2))

    def _test(self, which: int, off: float) -> None:
        """Add to the sums how far a logarithm is off what was expected."""
        off -= self.mean[which]
        size = max(np.sqrt(self.variance[which]), self.LEAST)
        if self.inner.rounds >= self.PATIENCE:
            score = float(np.clip(off / size, -4, 4))
            self.up[which] = max(0.0, self.up[which] + score - self.drift)
            self.down[which] = max(0.0, self.down[which] - score - self.drift)
        self.seen[which] += 1
        weight = 1 / min(self.seen[which], 200)
        self.mean[which] += weight * float(np.clip(off, -4 * size, 4 * size))
        self.variance[which] += weight * (min(off**2, 16 * size**2) - self.variance[which])
