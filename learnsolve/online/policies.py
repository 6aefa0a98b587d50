"""Policies for one parameter of a solver: bandits, contextual bandits, and what they are compared with."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.polynomial.chebyshev import chebinterpolate, chebvander
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from learnsolve.online.base import Policy, grid_of, newton


@dataclass
class Fixed(Policy):
    """Always the same action.

    Parameters
    ----------
    arms, seed
        As in `Policy`.
    action : int
        The action.

    Examples
    --------
    >>> Fixed(20, action=3).choose()
    3
    """

    action: int = 0

    name: ClassVar[str] = "fixed"
    summary: ClassVar[str] = "always the same action"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.action < self.arms:
            raise ValueError(f"action is {self.action}; 0 to {self.arms - 1} are accepted")

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        return np.eye(self.arms)[self.action]

    def learn(self, action: int, cost: float, context: float | None) -> None:
        pass


@dataclass
class TsallisINF(Policy):
    r"""Follow the regularized leader with the Tsallis entropy of power one half.

    In round :math:`t`, :math:`p_i = 4 (\eta_t (\hat L_i / s - x))^{-2}` with :math:`x` such that they sum to
    one, where :math:`\hat L` sums up estimated losses, :math:`s` is the mean loss so far, and a loss is a
    cost less one.

    Parameters
    ----------
    arms, seed
        As in `Policy`.
    estimator : {"doubly-robust", "importance"}
        ``"importance"`` is that of the papers, :math:`\hat\ell_i = 1[i = a] \ell / p_i`, with their
        :math:`\eta_t = 2 / \sqrt t`. ``"doubly-robust"`` corrects the mean :math:`m_i` of an action's losses
        so far, :math:`\hat\ell_i = m_i + 1[i = a] (\ell - m_i) / p_i`, where what is better than expected is
        divided by :math:`p_i + \eta_t / 2`, so that no estimate is very negative. Its step is
        :math:`\eta_t = 3 / \sqrt{1 + Z_t}`, where :math:`Z` sums up
        :math:`\sum_i \sqrt{p_i} (1 - p_i)`, the term for which the step has to pay, over its largest value.
        On costs of solvers, which vary much from system to system, its regret is about a fifth.

    References
    ----------
    Zimmert and Seldin, *Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits*, JMLR 22
    (2021), algorithm 1; Khodak, Chow, Balcan and Talwalkar, *Learning to relax*, ICLR 2024, section 3.

    Examples
    --------
    >>> policy = TsallisINF(3, seed=0)
    >>> for _ in range(500):
    ...     action = policy.choose()
    ...     policy.observe(action, cost=[30, 10, 20][action])
    >>> int(policy.probabilities().argmax())
    1
    """

    estimator: Literal["doubly-robust", "importance"] = "doubly-robust"
    losses: NDArray[np.float64] = field(init=False, repr=False)
    stability: float = field(default=0.0, init=False, repr=False)

    name: ClassVar[str] = "tsallis-inf"
    summary: ClassVar[str] = "bandit: comes close to the best fixed action"

    # What an action's mean is shrunk towards before it has been chosen often: so many costs of half the mean.
    PRIOR: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimator not in ("doubly-robust", "importance"):
            raise ValueError(
                f"estimator is {self.estimator!r}; 'doubly-robust' and 'importance' are accepted"
            )
        self.losses = np.zeros(self.arms)

    def _step(self, after: int) -> float:
        """The step after so many rounds."""
        if self.estimator == "importance":
            return 2 / np.sqrt(after + 1)
        return 3 / np.sqrt(1 + self.stability)

    def _scale(self) -> float:
        """The mean loss so far."""
        return max(self.totals.sum() / max(self.counts.sum(), 1) - 1, 1e-12)

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        if self.counts.sum() == 0:
            return np.full(self.arms, 1 / self.arms)
        return tsallis_weights(self.losses / self._scale(), self._step(int(self.counts.sum())))

    def learn(self, action: int, cost: float, context: float | None) -> None:
        p = self.probabilities()
        loss = cost - 1
        if self.estimator == "importance":
            self.losses[action] += loss / p[action]
            return
        half = 0.5 * (self._scale() if self.counts.sum() else loss)
        means = (self.totals - self.counts + self.PRIOR * half) / (self.counts + self.PRIOR)
        off = loss - means[action]
        damping = 0.5 * self._step(self.rounds) if off < 0 else 0.0
        self.losses += means
        self.losses[action] += off / (p[action] + damping)
        spread = float((np.sqrt(p) * (1 - p)).sum())
        self.stability += spread / max(np.sqrt(self.arms) - 1 / np.sqrt(self.arms), 1e-12)


def tsallis_weights(losses: NDArray[np.float64], eta: float) -> NDArray[np.float64]:
    r"""The distribution that minimises :math:`\langle p, L \rangle - \frac{4}{\eta} \sum_i \sqrt{p_i}`.

    It is :math:`p_i = 4 (\eta (L_i - x))^{-2}` with :math:`x` such that they sum to one.

    Parameters
    ----------
    losses : (arms,) array
        Sums of estimated losses.
    eta : float
        Step, positive.

    Examples
    --------
    >>> tsallis_weights(np.array([0.0, 0.0]), 1.0).tolist()
    [0.5, 0.5]
    """
    losses = losses - losses.min()

    def excess(x: float) -> tuple[float, float]:
        root = 2 / (eta * (losses - x))
        return float((root**2).sum()) - 1, eta * float((root**3).sum())

    p = (2 / (eta * (losses - newton(excess, -2 / eta)))) ** 2
    return p / p.sum()


@dataclass
class ChebCB(Policy):
    """Chebyshev regression of costs on a context, explored by inverse gap weighting (SquareCB).

    The logarithm of the cost is a polynomial of the context and of the action's number, fitted by least
    squares with a penalty that grows with the degree, as the paper's bounds on the coefficients fall with it:
    so it may have many terms, which it needs where costs rise steeply, and is yet smooth where few costs are
    known. An action that is expected to cost ``1 + g`` times the best one is chosen with probability
    ``1 / (arms + exploration n g)``, and the best one otherwise. The paper fits a polynomial of the context
    to each action alone; neighbouring actions cost nearly the same, and one polynomial of both learns from
    them all. And ``n`` is not the number of rounds so far but how many of them tell of the best action in
    this context, by the leverage of its features: contexts may come in any order. A fit that is wrong only
    beyond what it has seen would never be found out, so that the best action's neighbours are chosen with
    probability ``1 / (arms + sqrt(n))`` at least; they cost little more, and reveal it.

    Parameters
    ----------
    arms, seed
        As in `Policy`; neighbours in number are taken to be neighbours in effect.
    context_range : (low, high), optional
        Contexts beyond are treated as its ends. By default it grows with the contexts seen.
    degree, arm_degree : int
        Terms of the polynomial in the context and in the action.
    exploration : float
        Larger is greedier.
    ridge : float
        Penalty on the square of the coefficient of degrees ``j`` and ``k``: so many times
        ``(1 + j^2 + k^2)^2``.
    forgetting : float
        Weight of a cost in the fit one round later; below one for sequences that change.

    References
    ----------
    Khodak, Chow, Balcan and Talwalkar, *Learning to relax*, ICLR 2024, algorithm 2; Foster and Rakhlin,
    *Beyond UCB*, ICML 2020, for SquareCB.

    Examples
    --------
    >>> policy = ChebCB(5, seed=0)
    >>> rng = np.random.default_rng(1)
    >>> for _ in range(500):
    ...     context = rng.uniform()
    ...     action = policy.choose(context)
    ...     policy.observe(action, 10 + abs(action - 4 * context) ** 2, context)
    >>> [policy.best(context)[0] for context in (0.0, 0.5, 1.0)]
    [0, 2, 4]
    """

    context_range: tuple[float, float] | None = None
    degree: int = 10
    arm_degree: int = 10
    exploration: float = 30.0
    ridge: float = 1e-4
    forgetting: float = 1.0
    span: NDArray[np.float64] = field(init=False, repr=False)
    gram: NDArray[np.float64] = field(init=False, repr=False)
    moment: NDArray[np.float64] = field(init=False, repr=False)
    weight: float = field(default=0.0, init=False, repr=False)

    name: ClassVar[str] = "chebcb"
    summary: ClassVar[str] = "contextual bandit: comes close to the best action for each context"
    contextual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_range is not None:
            low, high = self.context_range
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ValueError(
                    f"context_range is {self.context_range}; two finite, rising numbers are accepted"
                )
        if self.degree < 1 or self.arm_degree < 1:
            raise ValueError(f"degree is {self.degree}, arm_degree {self.arm_degree}; both must be positive")
        if not (self.exploration > 0 and self.ridge > 0 and 0 < self.forgetting <= 1):
            raise ValueError(
                f"exploration is {self.exploration}, ridge {self.ridge}, forgetting {self.forgetting}; "
                "positive numbers, the last at most 1, are accepted"
            )
        self.span = np.array(self.context_range if self.context_range is not None else (0.0, 0.0), float)
        self._columns = min(self.arm_degree, self.arms)
        places = np.linspace(-1, 1, self.arms) if self.arms > 1 else np.zeros(1)
        self._arms = chebvander(places, self._columns - 1)
        self._fit: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None
        j, k = np.arange(self.degree), np.arange(self._columns)
        self._penalty = self.ridge * np.diag(((1 + k[:, None] ** 2 + j**2) ** 2).reshape(-1).astype(float))
        size = self.degree * self._columns
        self.gram, self.moment = np.zeros((size, size)), np.zeros(size)

    def _features(self, context: float) -> NDArray[np.float64]:
        """Chebyshev polynomials of a context, which is held within the range."""
        low, high = self.span
        u = 2 * (context - low) / (high - low) - 1 if high > low else 0.0
        return chebvander(np.clip(u, -1, 1), self.degree - 1)[0]

    def expected(self, context: float) -> NDArray[np.float64]:
        """The logarithm of each action's expected cost, ``(arms,)``."""
        theta = self._fitted()[1].reshape(self._columns, self.degree)
        return self._arms @ theta @ self._features(context)

    def _fitted(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The Cholesky factor of the regularised Gram matrix and the coefficients, computed once a cost."""
        if self._fit is None:
            factor = np.linalg.cholesky(self.gram + self._penalty)
            self._fit = factor, cho_solve((factor, True), self.moment)
        return self._fit

    def _known(self, action: int, context: float) -> float:
        """How many rounds' worth is known of an action in a context, by the leverage of its features."""
        x = np.outer(self._arms[action], self._features(context)).reshape(-1)
        root = solve_triangular(self._fitted()[0], x, lower=True)
        leverage = float(root @ root)
        return min(self.weight, x.size / max(leverage, 1e-12)) + 1

    def predicted(self, action: int, context: float | None = None) -> float:
        return super().predicted(action) if context is None else float(np.exp(self.expected(context)[action]))

    def best(self, context: float | None = None) -> tuple[int, float] | None:
        if self.rounds == 0 or context is None:
            return super().best()
        expected = self.expected(context)
        return int(expected.argmin()), float(np.exp(expected.min()))

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        assert context is not None
        if self.rounds == 0:
            return np.full(self.arms, 1 / self.arms)
        expected = self.expected(context)
        best = int(expected.argmin())
        gaps, known = np.expm1(np.minimum(expected - expected[best], 20)), self._known(best, context)
        p = 1 / (self.arms + self.exploration * known * gaps)
        beside = slice(max(best - 1, 0), best + 2)
        p[beside] = np.maximum(p[beside], 1 / (self.arms + np.sqrt(known)))
        p[best] = 0
        p[best] = 1 - p.sum()
        return p

    def learn(self, action: int, cost: float, context: float | None) -> None:
        assert context is not None
        if self.context_range is None:
            self._include(context)
        x = np.outer(self._arms[action], self._features(context)).reshape(-1)
        self.gram *= self.forgetting
        self.moment *= self.forgetting
        self.weight = self.forgetting * self.weight + 1
        self.gram += np.outer(x, x)
        self._fit = None
        self.moment += np.log(max(cost, 1e-3)) * x

    def _include(self, context: float) -> None:
        """Widen the range so that it holds a context; the sums are carried over to the new polynomials."""
        low, high = self.span
        if self.rounds == 1:
            self.span = context + np.array([-0.1, 0.1]) * max(abs(context), 1e-3)
            return
        if low <= context <= high:
            return
        wide = np.array([min(low, context), max(high, context)])
        wide += np.array([-0.1, 0.1]) * (wide[1] - wide[0]) * (wide != self.span)
        # T_j of the old variable in terms of those of the new one, and the inverse.

        def old_of_new(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return (wide[0] + wide[1] + v * (wide[1] - wide[0]) - low - high) / (high - low)

        change = np.zeros((self.degree, self.degree))
        for j in range(self.degree):
            unit = np.eye(self.degree)[j]
            terms = chebinterpolate(lambda v: np.polynomial.chebyshev.chebval(old_of_new(v), unit), j)  # noqa: B023
            change[j, : j + 1] = terms
        back = np.kron(np.eye(self._columns), np.linalg.inv(change))
        self.gram, self.moment, self.span = back @ self.gram @ back.T, back @ self.moment, wide


@dataclass
class Young(Policy):
    r"""The over-relaxation that asymptotic theory predicts; it learns nothing.

    The context is the spectral radius :math:`\rho` of the Jacobi iteration; chosen is the arm nearest to
    :math:`2 / (1 + \sqrt{1 - \rho^2})` or, for the symmetric method, :math:`2 / (1 + \sqrt{2 (1 - \rho)})`.

    Parameters
    ----------
    arms, seed
        As in `Policy`.
    low, high : float
        The over-relaxations of the first and the last arm; the others lie evenly between.
    symmetric : bool
        For SSOR.

    References
    ----------
    Young, *Iterative Solution of Large Linear Systems* (1971), sections 6.2 and 15.2.

    Examples
    --------
    >>> Young(20).choose(0.98)
    13
    """

    low: float = 1.0
    high: float = 1.95
    symmetric: bool = False

    name: ClassVar[str] = "young"
    summary: ClassVar[str] = "the optimum of asymptotic theory, from an estimated spectral radius"
    contextual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; rising numbers are accepted")

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        assert context is not None
        radius = min(abs(context), 1.0)
        root = np.sqrt(2 * (1 - radius)) if self.symmetric else np.sqrt(1 - radius**2)
        omegas = grid_of(self.low, self.high, self.arms)
        return np.eye(self.arms)[np.abs(omegas - 2 / (1 + root)).argmin()]

    def learn(self, action: int, cost: float, context: float | None) -> None:
        pass
