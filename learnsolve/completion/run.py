"""The function that completes a matrix."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learnsolve.completion.altmin import MEDIAN, AltMin, Factors, Robust, spectral, sweeps
from learnsolve.completion.entries import Duplicates, Entries, as_entries
from learnsolve.completion.result import Completion, balanced_svd
from learnsolve.completion.theory import RobustAltMin, split_sweeps
from learnsolve.operators.sampled import Sampled
from learnsolve.result import ConvergenceWarning, SolveError, Status

Array = NDArray[np.float64]

# Sweeps over which the observed error must fall by this share, or it has settled.
WINDOW, SETTLED = 5, 1e-3
# What to do, where the word of `Status` is for linear systems.
ADVICE = {
    Status.MAXITER: "maxiter was reached before the tolerance: raise maxiter, or look at the rank",
    Status.TIMEOUT: "timeout was reached before the tolerance",
}
# How many times larger than the observed error that of entries kept aside may be.
GENERALISES = 3.0
LARGEST_RANK = 50


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


def complete(
    entries: Any,
    rank: int | None = None,
    method: str | AltMin | RobustAltMin = "auto",
    *,
    shape: tuple[int, int] | None = None,
    rtol: float = 1e-6,
    maxiter: int = 500,
    regularization: float = 0.0,
    bias: bool = False,
    weights: Any = None,
    robust: Robust | None = None,
    x0: Completion | tuple[Any, Any] | None = None,
    held_out: float | None = None,
    duplicates: Duplicates = "average",
    seed: int = 0,
    timeout: float | None = None,
    callback: Callable[[Progress], Any] | None = None,
    check: bool = False,
) -> Completion:
    r"""Complete a matrix of low rank of which some entries are known.

    It ends as CONVERGED if the observed entries are fitted to ``rtol``, or as well as the rank allows (their
    error has fallen by less than 0.1 % in five sweeps), and if entries that were kept aside are predicted
    too: with at most three times the observed error, or ten times ``rtol``, and better than by a constant.
    Otherwise it is OVERFITTED.

    Parameters
    ----------
    entries : scipy sparse array, (rows, cols, values), masked array, or array with NaN
        Of a sparse array what is stored is known, zeros too.
    rank : int, optional
        By default it grows until entries kept aside are no longer predicted better.
    method : {"auto", "altmin"}, AltMin or RobustAltMin
        ``"auto"`` is alternating minimization.
    shape : (m, n), optional
        Needed with ``(rows, cols, values)``.
    rtol : float
        Where the observed error is small enough, relative to the norm of the observed values.
    maxiter : int
        Most sweeps.
    regularization : float
        :math:`\lambda`: each row's least squares has :math:`\lambda n_i |u_i|^2` added, where it has
        :math:`n_i` entries, and each column's likewise.
    bias : bool
        Add a mean and a number for each row and each column to the model.
    weights : array, optional
        Positive, one for each entry in the order of ``entries``.
    robust : {"huber", "trimmed"}, optional
        For entries that are grossly wrong: count an entry the less, the larger its residual is, or not at
        all beyond three standard deviations, which are estimated by the median.
    x0 : Completion or (U, V), optional
        Where to begin; its rank must be ``rank``.
    held_out : float, optional
        Share of the entries to keep aside. By default 2 %, at most 10 000; with zero nobody notices that
        only what is known was fitted. None is taken from a row or column that would be left with no more
        than ``rank``.
    duplicates : {"average", "refuse"}
        What to do with a place that comes twice.
    seed : int
        Of the entries kept aside and of the start.
    timeout : float, optional
        Seconds.
    callback : callable, optional
        Gets a `Progress` after each sweep and stops the run by a true value.
    check : bool
        Raise `SolveError` instead of warning.

    Returns
    -------
    Completion

    Raises
    ------
    TypeError, ValueError
        The entries or an option are not as described; before any work.
    SolveError
        With ``check=True``, if the run does not converge.

    Warns
    -----
    ConvergenceWarning
        Without ``check``, in the same case.

    References
    ----------
    Gu, Song, Yin and Zhang, *Low rank matrix completion via robust alternating minimization in nearly linear
    time*, ICLR 2024.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> known = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))
    >>> known[[0, 3, 5], [1, 2, 0]] = np.nan
    >>> res = learnsolve.complete(known, rank=1, rtol=1e-9)
    >>> res.success, res.predict(5, 0).round(6)
    (True, np.float64(6.0))
    """
    began = time.perf_counter()
    known = as_entries(entries, shape, weights=weights, duplicates=duplicates)
    options = _checked(
        known, rank, method, bias, weights, x0, rtol, maxiter, regularization, robust, held_out, timeout
    )
    given = None if x0 is None else _given(x0, known.shape, rank)
    limit = rank if given is None else given.U.shape[1]
    fit, aside = keep_aside(known, held_out, limit or 1, seed)
    sampled = Sampled(fit.rows, fit.cols, fit.shape)
    run = _Run(
        fit, aside, sampled, options, rtol, maxiter, regularization, bias, robust, seed,
        None if timeout is None else began + timeout, callback,
    )  # fmt: skip
    if given is not None:
        run.begin(given)
    elif rank is not None:
        run.begin(run.start(rank))
    elif aside is None:
        raise ValueError("the rank is found by entries kept aside: held_out must leave some, or give a rank")
    else:
        run.grow()
    status = run.sweep()
    result = run.result(status, time.perf_counter() - began)
    if not result.success:
        if check:
            raise SolveError(result)
        warnings.warn(f"{result!r}: {ADVICE.get(status, status.value)}", ConvergenceWarning, stacklevel=2)
    return result


def _checked(
    known: Entries,
    rank: int | None,
    method: str | AltMin | RobustAltMin,
    bias: bool,
    weights: Any,
    x0: Any,
    rtol: float,
    maxiter: int,
    regularization: float,
    robust: str | None,
    held_out: float | None,
    timeout: float | None,
) -> AltMin | RobustAltMin:
    """Refuse options that make no sense; returns those of the sweeps."""
    most = min(known.shape)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"rank is {rank}; 1 to {most} are accepted for the shape {known.shape}")
    if not (isinstance(method, AltMin | RobustAltMin) or method in ("auto", "altmin")):
        raise ValueError(f"method is {method!r}; 'auto', 'altmin', AltMin and RobustAltMin are accepted")
    plain = (rank is None, bias, weights is not None, x0 is not None, robust is not None, regularization)
    if isinstance(method, RobustAltMin) and any(plain):
        raise ValueError("RobustAltMin takes a rank, and no bias, weights, x0, robust or regularization")
    if not rtol > 0:
        raise ValueError(f"rtol is {rtol}; a positive number is accepted")
    if maxiter < 1:
        raise ValueError(f"maxiter is {maxiter}; a positive number is accepted")
    if not (np.isfinite(regularization) and regularization >= 0):
        raise ValueError(f"regularization is {regularization}; a number that is not negative is accepted")
    if robust not in (None, "huber", "trimmed"):
        raise ValueError(f"robust is {robust!r}; None, 'huber' and 'trimmed' are accepted")
    if held_out is not None and not 0 <= held_out < 1:
        raise ValueError(f"held_out is {held_out}; a share from 0 to 1 is accepted")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout}; a positive number of seconds is accepted")
    return AltMin() if isinstance(method, str) else method


def _given(x0: Completion | tuple[Any, Any], shape: tuple[int, int], rank: int | None) -> Factors:
    """Factors to begin with."""
    if isinstance(x0, Completion):
        found = Factors(x0.U, x0.V, x0.mean, x0.row_bias, x0.col_bias)
    else:
        if len(x0) != 2:
            raise ValueError(f"x0 has {len(x0)} parts; (U, V) are accepted")
        U, V = (np.array(part, dtype=np.float64) for part in x0)
        if U.ndim != 2 or V.ndim != 2 or U.shape[1] != V.shape[1]:
            raise ValueError(f"x0 has shapes {U.shape} and {V.shape}; (m, k) and (n, k) are accepted")
        found = Factors(U, V, 0.0, np.zeros(len(U)), np.zeros(len(V)))
    if (len(found.U), len(found.V)) != shape:
        raise ValueError(f"x0 is of a matrix {len(found.U)} by {len(found.V)}, the entries of {shape}")
    if rank is not None and found.U.shape[1] != rank:
        raise ValueError(f"x0 has rank {found.U.shape[1]}, and rank is {rank}")
    if not all(np.isfinite(part).all() for part in (found.U, found.V)):
        raise ValueError("x0 is not finite")
    return found


def keep_aside(known: Entries, share: float | None, rank: int, seed: int) -> tuple[Entries, Entries | None]:
    """Divide entries into those to fit and those to judge by, which are None where none can be spared.

    Parameters
    ----------
    known : Entries
    share : float, optional
        Of all; by default 2 %, at most 10 000.
    rank : int
        How many every row and column keeps, and one more.
    seed : int

    Examples
    --------
    >>> known = as_entries(np.ones((50, 40)))
    >>> fit, aside = keep_aside(known, 0.1, 2, seed=0)
    >>> fit.nnz, aside.nnz
    (1800, 200)
    """
    wanted = min(-(-known.nnz // 50), 10_000) if share is None else int(share * known.nnz)
    if wanted == 0:
        return known, None
    order = np.random.default_rng(seed).permutation(known.nnz)
    spare = [np.bincount(index, minlength=size) - rank - 1 for index, size in zip(
        (known.rows, known.cols), known.shape, strict=True)]  # fmt: skip
    # Of the first so many of a row in this order, that many can be spared; those of both a row and a column.
    order = order[: min(known.nnz, 20 * wanted)]
    chosen = order[
        (_turn(known.rows[order]) < spare[0][known.rows[order]])
        & (_turn(known.cols[order]) < spare[1][known.cols[order]])
    ][:wanted]
    if chosen.size == 0:
        return known, None
    kept = np.ones(known.nnz, bool)
    kept[chosen] = False
    return known.some(kept), known.some(np.sort(chosen))


def _turn(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each index has come before."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[begins, ordered.size])
    found = np.empty(index.size, np.int64)
    found[order] = np.arange(index.size) - np.repeat(begins, lengths)
    return found


@dataclass
class _Run:
    """A completion under way."""

    fit: Entries
    aside: Entries | None
    sampled: Sampled
    options: AltMin | RobustAltMin
    rtol: float
    maxiter: int
    regularization: float
    bias: bool
    robust: Robust | None
    seed: int
    deadline: float | None
    callback: Callable[[Progress], Any] | None

    def __post_init__(self) -> None:
        self.size = float(np.linalg.norm(self.fit.values))
        self.observed: list[float] = []
        self.held_out: list[float] = []
        self.extras: dict[str, Any] = {"fitted_entries": self.fit.nnz}
        self.factors = self._nothing(1)

    def _nothing(self, rank: int) -> Factors:
        m, n = self.fit.shape
        mean = float(np.average(self.fit.values, weights=self.fit.weights)) if self.bias else 0.0
        return Factors(np.zeros((m, rank)), np.zeros((n, rank)), mean, np.zeros(m), np.zeros(n))

    def start(self, rank: int) -> Factors:
        """Factors to begin with, of the entries or of random numbers."""
        empty = self._nothing(rank)
        values = self.fit.values - empty.mean
        if self.robust is not None:
            middle = np.median(values)
            reach = 3 * MEDIAN * np.median(np.abs(values - middle))
            values = np.clip(values, middle - reach, middle + reach)
        if isinstance(self.options, AltMin) and self.options.initial == "random":
            rng = np.random.default_rng(self.seed)
            scale = float(np.sqrt(np.sqrt(np.mean(np.square(values)) / rank)))
            U, V = (scale * rng.standard_normal((size, rank)) for size in self.fit.shape)
        else:
            U, V = spectral(self.sampled, values, rank, self.seed)
        return Factors(U, V, empty.mean, empty.row_bias, empty.col_bias)

    def begin(self, factors: Factors) -> None:
        """Take factors, and begin the history with them."""
        self.factors = factors
        self.observed, self.held_out = [], []
        self._note(self.fit.values - factors.at(self.fit))

    def _note(self, left: Array) -> None:
        self.observed.append(float(np.linalg.norm(left)))
        self.held_out.append(self._aside())

    def _aside(self) -> float:
        """Root of the mean square error on what was kept aside; with gross errors about, by the median."""
        if self.aside is None:
            return float("nan")
        left = self.aside.values - self.factors.at(self.aside)
        if self.robust is not None:
            return MEDIAN * float(np.median(np.abs(left)))
        return float(np.sqrt(np.mean(np.square(left))))

    def _sweeps(self) -> Iterator[tuple[Factors, Array]]:
        if isinstance(self.options, RobustAltMin):
            rank = self.factors.U.shape[1]
            return split_sweeps(self.fit, self.sampled, rank, self.options, self.seed)
        return sweeps(
            self.fit,
            self.sampled,
            self.factors,
            self.options,
            regularization=self.regularization,
            bias=self.bias,
            robust=self.robust,
        )

    def grow(self) -> None:
        """Raise the rank by one, with the first singular vectors of what is left, while it helps."""
        best, errors = None, []
        ceiling = min(LARGEST_RANK, max(1, self.fit.nnz // (2 * sum(self.fit.shape))), *self.fit.shape)
        self.begin(self.start(1))
        for rank in range(1, ceiling + 1):
            now = np.inf
            for count, (factors, left) in enumerate(self._sweeps(), start=1):
                self.factors, before = factors, now
                now = float(np.linalg.norm(left))
                # At the rank of exact entries the error goes on falling.
                done = count >= 10 and now > 0.8 * before
                if done or now <= self.rtol * self.size or count == 100 or not np.isfinite(now):
                    break
            error = self._aside()
            errors.append(error)
            if best is None or error < 0.98 * best[0]:
                best = (error, rank, self.factors)
            if now <= self.rtol * self.size or rank - best[1] >= 2 or not np.isfinite(error):
                break
            u, v = spectral(self.sampled, left, 1, self.seed)
            self.factors = Factors(
                np.column_stack([self.factors.U, u]),
                np.column_stack([self.factors.V, v]),
                self.factors.mean,
                self.factors.row_bias,
                self.factors.col_bias,
            )
        assert best is not None
        self.extras["held_out_by_rank"] = errors
        self.begin(best[2])

    def _scale(self) -> float:
        """Root of the mean square of the observed values."""
        return self.size / np.sqrt(self.fit.nnz)

    def sweep(self) -> Status:
        """Sweep until the end; says how it ended."""
        if self.size == 0 or self.observed[-1] <= self.rtol * self.size:
            return self._judged(fitted=True)
        for factors, left in self._sweeps():
            if not np.isfinite(left).all():
                return Status.NONFINITE
            self.factors = factors
            self._note(left)
            number, error = len(self.observed) - 1, self.observed[-1]
            progress = Progress(number, error / self.size, self.held_out[-1], factors.U.shape[1])
            if self.callback is not None and self.callback(progress):
                return Status.STOPPED
            if error <= self.rtol * self.size:
                return self._judged(fitted=True)
            if number > WINDOW and error > (1 - SETTLED) * self.observed[-1 - WINDOW]:
                return self._judged(fitted=False)
            if number >= self.maxiter:
                return Status.MAXITER
            if self.deadline is not None and time.perf_counter() > self.deadline:
                return Status.TIMEOUT
        return Status.MAXITER

    def _judged(self, fitted: bool) -> Status:
        """Whether what was kept aside is predicted too."""
        self.extras["ended"] = "fitted" if fitted else "settled"
        if self.aside is None:
            return Status.CONVERGED
        error = self.held_out[-1]
        inside = self.observed[-1] / np.sqrt(self.fit.nnz)
        if self.robust is not None:
            left = self.fit.values - self.factors.at(self.fit)
            inside = MEDIAN * float(np.median(np.abs(left)))
        allowed = max(GENERALISES * inside, 10 * self.rtol * self._scale())
        constant = float(np.sqrt(np.mean(np.square(self.aside.values - self.fit.values.mean()))))
        worse = error > allowed or (error > constant and error > 10 * self.rtol * self._scale())
        return Status.OVERFITTED if worse else Status.CONVERGED

    def result(self, status: Status, seconds: float) -> Completion:
        """What the run came to; the factors share the singular values evenly."""
        u, s, v = balanced_svd(self.factors.U, self.factors.V)
        root = np.sqrt(s)
        last = self.observed[-1]
        return Completion(
            x=(u * root, v * root),
            status=status,
            iterations=len(self.observed) - 1,
            residuals=np.array(self.observed),
            relative_residual=last / self.size if self.size else last,
            seconds=seconds,
            method="altmin",
            extras=self.extras,
            held_out=np.array(self.held_out),
            mean=self.factors.mean,
            row_bias=self.factors.row_bias,
            col_bias=self.factors.col_bias,
        )
