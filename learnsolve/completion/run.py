"""A completion under way: the start, the sweeps, and how it ends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.completion.altmin import MEDIAN, AltMin, Factors, Objective, spectral, sweeps
from learnsolve.completion.anderson import Anderson
from learnsolve.completion.aside import FEW
from learnsolve.completion.checkpoint import Checkpoint
from learnsolve.completion.entries import Entries
from learnsolve.completion.irls import irls
from learnsolve.completion.result import Completion, balanced_svd
from learnsolve.completion.theory import RobustAltMin, split_sweeps
from learnsolve.operators.lines import Lines
from learnsolve.operators.sampled import Sampled
from learnsolve.result import Status

Array = NDArray[np.float64]

# Sweeps over which the observed error must fall by this share, or it has settled.
WINDOW, SETTLED = 5, 1e-3
# Where it falls to no less than this share, and what was kept aside is not predicted, another method is
# tried, if there are not more than so many entries times the rank.
SLOW, POLISHED = 0.7, 20_000_000
# With fewer entries than so many times the degrees of freedom it is tried wherever nothing was fitted.
DOUBTED = 5.0
# With fewer than so many alternating minimization fails in most cases.
BARELY = 2.0
# How many times larger than where it is known a row may be as a whole.
SPIKE = 10.0
# How many times larger than the observed error that of entries kept aside may be.
GENERALISES = 3.0
LARGEST_RANK = 50
# Of values whose squares, and those of what comes of them, neither overflow nor vanish.
LARGEST_SCALE = 1e70


class _StoppedError(Exception):
    """A callback has stopped a run."""


@dataclass(frozen=True)
class Progress:
    """What a callback sees after each sweep; a true return value stops the run.

    Attributes
    ----------
    iteration : int
    observed : float
        Norm of the error on the observed entries, relative to that of their values.
    held_out : float
        Root of the mean square error on the entries kept aside; NaN without any.
    rank : int
    """

    iteration: int
    observed: float
    held_out: float
    rank: int


@dataclass
class Run:
    """A completion under way.

    ``fit`` are the entries in memory, if they are there; ``probe`` some of those that are fitted.
    """

    method: str
    sampled: Sampled
    fit: Entries | None
    probe: Entries
    aside: Entries | None
    options: AltMin | RobustAltMin
    objective: Objective
    rtol: float
    maxiter: int
    seed: int
    deadline: float | None
    callback: Callable[[Progress], Any] | None
    checkpoint: Checkpoint | None

    def __post_init__(self) -> None:
        counted = [self.sampled.counts(transposed) for transposed in (False, True)]
        self.counts, self.squares = [count for count, _ in counted], [square for _, square in counted]
        with np.errstate(over="ignore"):
            self.size = float(np.sqrt(self.squares[0].sum()))
        if not (1 / LARGEST_SCALE <= self._scale() <= LARGEST_SCALE or not self.probe.values.any()):
            raise ValueError(
                f"the root mean square of the values is {self._scale():g}; "
                f"{1 / LARGEST_SCALE:g} to {LARGEST_SCALE:g} are accepted"
            )
        self.observed: list[float] = []
        self.held_out: list[float] = []
        self.extras: dict[str, Any] = {"fitted_entries": self.sampled.nnz}
        self.factors = self._nothing(1)
        self.anderson: Anderson | None = None
        self.held: dict[str, Any] = {}

    def _nothing(self, rank: int) -> Factors:
        m, n = self.sampled.shape
        mean = self.sampled.mean() if self.objective.bias else 0.0
        return Factors(np.zeros((m, rank)), np.zeros((n, rank)), mean, np.zeros(m), np.zeros(n))

    def start(self, rank: int) -> Factors:
        """Factors to begin with, of the entries or of random numbers."""
        empty = self._nothing(rank)
        bounds = (-np.inf, np.inf)
        if self.objective.robust is not None:
            values = self.probe.values - empty.mean
            middle = np.median(values)
            reach = 3 * MEDIAN * np.median(np.abs(values - middle))
            bounds = (middle - reach, middle + reach)
        random = isinstance(self.options, AltMin) and self.options.initial == "random"
        if random or self.objective.nonnegative:
            rng = np.random.default_rng(self.seed)
            scale = float(np.sqrt(max(self._scale() ** 2 - empty.mean**2, 0.0) / rank) ** 0.5)
            U, V = (scale * rng.standard_normal((size, rank)) for size in self.sampled.shape)
            if self.objective.nonnegative:
                U, V = np.abs(U), np.abs(V)
        else:
            plain = empty.mean == 0 and self.objective.robust is None
            U, V = spectral(
                self.sampled,
                rank,
                self.seed,
                share=1.0 if self.objective.unobserved else None,
                change=None if plain else lambda values: np.clip(values - empty.mean, *bounds),
            )
        return Factors(U, V, empty.mean, empty.row_bias, empty.col_bias)

    def begin(self, factors: Factors) -> None:
        """Take factors, and begin the history with them."""
        self.factors = factors
        self.observed, self.held_out = [], []
        self._note(self._error())

    def _described(self) -> str:
        """What a checkpoint must agree with."""
        about = (self.sampled.shape, self.sampled.nnz, self.size, self.options, self.objective, self.seed)
        return repr(about)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        now, fast = self.factors, {} if self.anderson is None else self.anderson.state()
        self.checkpoint.save(
            self._described(),
            U=now.U, V=now.V, mean=now.mean, row_bias=now.row_bias, col_bias=now.col_bias,
            observed=self.observed, held_out=self.held_out, **fast,
        )  # fmt: skip

    def resumed(self) -> bool:
        """Whether there was a checkpoint, from which the run now goes on."""
        found = None if self.checkpoint is None else self.checkpoint.load(self._described())
        if found is None:
            return False
        self.observed, self.held_out = (found.pop(name).tolist() for name in ("observed", "held_out"))
        mean, factors = float(found.pop("mean")), ("U", "V", "row_bias", "col_bias")
        self.factors = Factors(mean=mean, **{name: found.pop(name) for name in factors})
        self.held = found
        return True

    def _left(self) -> Iterator[tuple[Lines, Array]]:
        """The residuals, in blocks of rows."""
        now = self.factors
        return self.sampled.residual(now.U, now.V, now.row_bias + now.mean, now.col_bias)

    def _error(self) -> float:
        """Norm of the residuals."""
        return float(np.sqrt(sum(float(left @ left) for _, left in self._left())))

    def _note(self, error: float) -> None:
        self.observed.append(error)
        self.held_out.append(self._aside())

    def _aside(self) -> float:
        """Root of the mean square error on what was kept aside; with gross errors about, by the median."""
        if self.aside is None:
            return float("nan")
        left = self.aside.values - self.factors.at(self.aside)
        if self.objective.robust is not None:
            return MEDIAN * float(np.median(np.abs(left)))
        return float(np.sqrt(np.mean(np.square(left))))

    def _sweeps(self) -> Iterator[tuple[Factors, float]]:
        if isinstance(self.options, RobustAltMin):
            assert self.fit is not None
            return split_sweeps(self.fit, self.factors.U.shape[1], self.options, self.seed)
        number = max(len(self.observed) - 1, 0)
        self.anderson = None
        weighted = self.fit is not None and self.fit.weights is not None
        if self.options.acceleration and replace(self.objective, bias=False) == Objective() and not weighted:
            self.anderson = Anderson(self.options.acceleration)
            if self.held:
                self.anderson.restore(self.held)
            self.held = {}
        return sweeps(
            self.sampled, self.factors, self.options, self.objective, self.probe, number, self.anderson
        )

    def grow(self) -> None:
        """Raise the rank by one, with the first singular vectors of what is left, while it helps."""
        best, errors, shape = None, [], self.sampled.shape
        ceiling = min(LARGEST_RANK, max(1, self.sampled.nnz // (2 * sum(shape))), *shape)
        self.begin(self.start(1))
        for rank in range(1, ceiling + 1):
            now = np.inf
            for count, (factors, error) in enumerate(self._sweeps(), start=1):
                self.factors, before, now = factors, now, error
                # At the rank of exact entries the error goes on falling.
                done = count >= 10 and now > 0.8 * before
                if done or now <= self.rtol * self.size or count == 100 or not np.isfinite(now):
                    break
            aside = self._aside()
            errors.append(aside)
            if best is None or aside < 0.98 * best[0]:
                best = (aside, rank, self.factors)
            if now <= self.rtol * self.size or rank - best[1] >= 2 or not np.isfinite(aside):
                break
            u, v = spectral(self.sampled.holding(*(left for _, left in self._left())), 1, self.seed)
            self.factors = replace(
                self.factors,
                U=np.column_stack([self.factors.U, u]),
                V=np.column_stack([self.factors.V, v]),
            )
        assert best is not None
        self.extras["held_out_by_rank"] = errors
        self.begin(best[2])

    def _scale(self) -> float:
        """Root of the mean square of the observed values."""
        return self.size / np.sqrt(self.sampled.nnz)

    def sweep(self) -> Status:
        """Sweep until the end; says how it ended."""
        if self.size == 0 or self.observed[-1] <= self.rtol * self.size:
            return self._judged(fitted=True)
        if self.method == "irls":
            return self.polish(maxiter=max(self.maxiter, 1000))
        freedom = self.factors.U.shape[1] * (sum(self.sampled.shape) - self.factors.U.shape[1])
        # With fewer it is tried first.
        if self.sampled.nnz < FEW * freedom and len(self.observed) == 1 and self._polishes():
            began = self.factors
            # Where alternating minimization would fail too, what is lost once is tried again at once.
            restarts = 2 if self.sampled.nnz < BARELY * freedom else 0
            status = self.polish(restarts=restarts, maxiter=max(self.maxiter, 1000 * (restarts > 0)))
            if self.extras.get("ended") == "fitted" or status in (Status.STOPPED, Status.TIMEOUT):
                return status
            for name in ("ended", "spikes", "polish"):
                self.extras.pop(name, None)
            self.begin(began)
        status = self._swept()
        stalled = status is Status.OVERFITTED or (status is Status.MAXITER and len(self.observed) > WINDOW)
        # So few exact entries may have stalled where it looks like noise.
        doubted = self.extras.get("ended") == "settled" and self.sampled.nnz < DOUBTED * freedom
        if not ((stalled or doubted) and self._polishes()):
            return status
        restarts = 0 if status is Status.CONVERGED else 2
        return self.polish(status, restarts, max(self.maxiter, 1000))

    def _polishes(self) -> bool:
        """Whether `irls` knows all that the problem has, and is not too much work."""
        rank = self.factors.U.shape[1]
        plain = self.objective == Objective() and self.fit is not None and self.fit.weights is None
        small = rank < min(self.sampled.shape) and self.sampled.nnz * rank <= POLISHED
        return self.method == "auto" and plain and small

    def polish(self, status: Status | None = None, restarts: int = 2, maxiter: int = 1000) -> Status:
        """Iteratively reweighted least squares; its answer is taken if it fits, or what came before did not.

        ``status`` is how alternating minimization ended, if it was tried.
        """
        assert self.fit is not None
        before, rank = self.observed[-1], self.factors.U.shape[1]
        began = len(self.observed) - 1

        def report(number: int, error: float) -> None:
            self.observed.append(error * self.size)
            self.held_out.append(float("nan"))
            progress = Progress(len(self.observed) - 1, error, float("nan"), rank)
            if self.callback is not None and self.callback(progress):
                raise _StoppedError

        now = time.perf_counter()
        try:
            U, V, _, fitted = irls(
                self.fit.rows,
                self.fit.cols,
                self.fit.values,
                self.fit.shape,
                rank,
                maxiter=maxiter,
                rtol=self.rtol,
                timeout=None if self.deadline is None else max(self.deadline - now, 1e-3),
                seed=self.seed,
                report=report,
                restarts=restarts,
            )
        except _StoppedError:
            # What was reached by then is not handed out; the factors are those from before.
            self.extras["ended"] = "stopped"
            self.observed[-1], self.held_out[-1] = before, self._aside()
            return Status.STOPPED
        found = Factors(U, V, 0.0, np.zeros(len(U)), np.zeros(len(V)))
        left = float(np.linalg.norm(self.fit.values - found.at(self.fit)))
        taken = fitted or (status is not Status.CONVERGED and left < before) or self.method == "irls"
        if taken:
            self.factors = found
        else:
            left = before
        self.observed.append(left)
        self.held_out.append(self._aside())
        self.extras["polish"] = {"from": before / self.size, "iterations": len(self.observed) - 1 - began}
        if not fitted and self.deadline is not None and time.perf_counter() > self.deadline:
            return Status.TIMEOUT
        return self._judged(fitted=fitted)

    def _swept(self) -> Status:
        """Alternating minimization until its end."""
        for factors, error in self._sweeps():
            if not np.isfinite(error):
                return Status.NONFINITE
            self.factors = factors
            self._note(error)
            self._save()
            number = len(self.observed) - 1
            progress = Progress(number, error / self.size, self.held_out[-1], factors.U.shape[1])
            if self.callback is not None and self.callback(progress):
                return Status.STOPPED
            if error <= self.rtol * self.size:
                return self._judged(fitted=True)
            if number > WINDOW and error > (1 - SETTLED) * self.observed[-1 - WINDOW]:
                return self._judged(fitted=False)
            if number >= self.maxiter:
                return Status.MAXITER
            slow = number >= 3 * WINDOW and error > SLOW * self.observed[-1 - WINDOW]
            if slow and self._polishes() and self._overfits():
                return Status.OVERFITTED
            if self.deadline is not None and time.perf_counter() > self.deadline:
                return Status.TIMEOUT
        return Status.MAXITER

    def _judged(self, fitted: bool) -> Status:
        """Whether what was kept aside is predicted too."""
        self.extras |= {"ended": "fitted" if fitted else "settled", "spikes": self._spikes()}
        worse = self.aside is not None and (self._overfits() or any(self.extras["spikes"]))
        return Status.OVERFITTED if worse else Status.CONVERGED

    def _overfits(self) -> bool:
        """Whether what was kept aside is not predicted."""
        if self.aside is None:
            return False
        error = self.held_out[-1]
        inside = self.observed[-1] / np.sqrt(self.sampled.nnz)
        if self.objective.robust is not None:
            left = self.probe.values - self.factors.at(self.probe)
            inside = MEDIAN * float(np.median(np.abs(left)))
        allowed = max(GENERALISES * inside, 10 * self.rtol * self._scale())
        constant = float(np.sqrt(np.mean(np.square(self.aside.values - self.probe.values.mean()))))
        return bool(error > allowed or (error > constant and error > 10 * self.rtol * self._scale()))

    def _spikes(self) -> tuple[int, int]:
        """Rows and columns that are far larger as a whole than where they are known: nothing holds them."""
        if self.objective.bias:
            return 0, 0
        found, U, V = [], self.factors.U, self.factors.V
        for own, other, counts, squares in zip((U, V), (V, U), self.counts, self.squares, strict=True):
            whole = np.einsum("ic,cd,id->i", own, other.T @ other / len(other), own, optimize=True)
            known = squares / np.maximum(counts, 1)
            found.append(int(np.sum((counts > 0) & (whole > SPIKE**2 * known + 1e-12 * self._scale() ** 2))))
        return found[0], found[1]

    def result(self, status: Status, seconds: float) -> Completion:
        """What the run came to; the factors share the singular values evenly."""
        x = self.factors.U, self.factors.V
        if not self.objective.nonnegative:
            u, s, v = balanced_svd(*x)
            root = np.sqrt(s)
            x = u * root, v * root
        last = self.observed[-1]
        return Completion(
            x=x,
            status=status,
            iterations=len(self.observed) - 1,
            residuals=np.array(self.observed),
            relative_residual=last / self.size if self.size else last,
            seconds=seconds,
            method=self.method if self.method == "irls" else "altmin" + " + irls" * ("polish" in self.extras),
            extras=self.extras,
            held_out=np.array(self.held_out),
            mean=self.factors.mean,
            row_bias=self.factors.row_bias,
            col_bias=self.factors.col_bias,
        )
