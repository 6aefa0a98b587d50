"""The function that completes a matrix."""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from learnsolve.completion.altmin import AltMin, Factors, Objective
from learnsolve.completion.aside import keep_aside, some_of
from learnsolve.completion.checkpoint import Checkpoint
from learnsolve.completion.entries import Duplicates, Entries, as_entries
from learnsolve.completion.result import Completion
from learnsolve.completion.run import Progress, Run
from learnsolve.completion.stored import StoredEntries
from learnsolve.completion.theory import RobustAltMin
from learnsolve.operators.sampled import InMemory, Loss, Sampled
from learnsolve.result import ConvergenceWarning, SolveError, Status

# What to do, where the word of `Status` is for linear systems.
ADVICE = {
    Status.MAXITER: "maxiter was reached before the tolerance: raise maxiter, or look at the rank",
    Status.TIMEOUT: "timeout was reached before the tolerance",
}


def complete(
    entries: Any,
    rank: int | None = None,
    method: str | AltMin | RobustAltMin = "auto",
    *,
    shape: tuple[int, int] | None = None,
    rtol: float = 1e-6,
    maxiter: int = 500,
    regularization: float = 0.0,
    shrinkage: float = 0.0,
    bias: bool = False,
    weights: Any = None,
    unobserved: float = 0.0,
    nonnegative: bool = False,
    robust: Loss | None = None,
    x0: Completion | tuple[Any, Any] | None = None,
    held_out: float | None = None,
    duplicates: Duplicates = "average",
    seed: int = 0,
    timeout: float | None = None,
    callback: Callable[[Progress], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    device: Any = None,
    check: bool = False,
) -> Completion:
    r"""Complete a matrix of low rank of which some entries are known.

    It ends as CONVERGED if the observed entries are fitted to ``rtol``, or as well as the rank allows (their
    error has fallen by less than 0.1 % in five sweeps), and if entries that were kept aside are predicted
    too: with at most three times the observed error, or ten times ``rtol``, and better than by a constant.
    Otherwise, or if a row or column is ten times as large as where it is known (``extras["spikes"]``), it is
    OVERFITTED.

    Parameters
    ----------
    entries : scipy sparse array, (rows, cols, values), masked array, array with NaN, or StoredEntries
        Of a sparse array what is stored is known, zeros too. `store_entries` makes a file of entries, which
        may be more than memory holds; for these a rank must be given, and only alternating minimization runs.
    rank : int, optional
        By default it grows until entries kept aside are no longer predicted better.
    method : {"auto", "altmin", "irls"}, AltMin or RobustAltMin
        ``"irls"`` is `learnsolve.completion.irls.irls`, for matrices of which barely enough is known or whose
        singular values lie far apart. ``"auto"`` is alternating minimization, and where that stalls
        without predicting what was kept aside, ``"irls"`` takes over (``extras["polish"]``); with fewer than
        3.5 entries a degree of freedom ``"irls"`` comes first. It does not where there are weights, biases,
        a penalty or gross errors, which it does not know.
    shape : (m, n), optional
        Needed with ``(rows, cols, values)``.
    rtol : float
        Where the observed error is small enough, relative to the norm of the observed values.
    maxiter : int
        Most sweeps.
    regularization : float
        :math:`\lambda`: each row's least squares has :math:`\lambda n_i |u_i|^2` added, where it has
        :math:`n_i` entries, and each column's likewise.
    shrinkage : float
        :math:`\mu`: it has :math:`\mu |u_i|^2` added too, however many entries there are. For ratings, some
        of both predicts better than either.
    bias : bool
        Add a mean and a number for each row and each column to the model.
    weights : array, optional
        Positive, one for each entry in the order of ``entries``.
    unobserved : float
        For implicit feedback, where what is not known counts as zero: with this weight, beside which those of
        the entries are the confidence. The penalty of a row is then :math:`\lambda |u_i|^2`, and by default
        nothing is kept aside.
    nonnegative : bool
        Only factors without negative numbers.
    robust : {"huber", "trimmed"}, optional
        For entries that are grossly wrong: count an entry the less, the larger its residual is, or not at
        all beyond three standard deviations, which are estimated by the median.
    x0 : Completion or (U, V), optional
        Where to begin; its rank must be ``rank``.
    held_out : float, optional
        Share of the entries to keep aside. By default 2 %, at most 10 000, or 50 where less than 3.5 times
        the degrees of freedom is known; with zero nobody notices that only what is known was fitted. None is
        taken from a row or column that would be left with no more than ``rank``.
    duplicates : {"average", "refuse"}
        What to do with a place that comes twice.
    seed : int
        Of the entries kept aside and of the start.
    timeout : float, optional
        Seconds.
    callback : callable, optional
        Gets a `Progress` after each sweep and stops the run by a true value.
    checkpoint : str or os.PathLike, optional
        File of the sweeps so far. It is written now and then, so that it takes a twentieth of the time; if it
        is there, the run goes on from it as if it had not been interrupted. Nobody removes it.
    device : torch.device or str, optional
        ``"cuda"`` holds the entries on a GPU and solves the rows there; alternating minimization only, with
        exact rows or conjugate gradients.
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
    objective = Objective(regularization, shrinkage, bias, robust, unobserved, nonnegative)
    with threadpool_limits(1, "blas"):
        known: Entries | StoredEntries
        if isinstance(entries, StoredEntries):
            known = _stored(entries, rank, method, shape, weights, held_out, x0, device)
        else:
            known = as_entries(entries, shape, weights=weights, duplicates=duplicates)
        options = _checked(
            known.shape, rank, method, objective, weights, x0, rtol, maxiter, held_out, timeout
        )
        given = None if x0 is None else _given(x0, known.shape, rank)
        if checkpoint is not None and (method == "irls" or isinstance(method, RobustAltMin)):
            raise ValueError(f"{method} keeps no checkpoints; 'altmin' and AltMin do")
        fit: Entries | None = None
        if isinstance(known, StoredEntries):
            sampled: Sampled = known
            probe, aside = known.probe, None if unobserved else known.aside
        else:
            limit = rank if given is None else given.U.shape[1]
            share = 0.0 if unobserved and held_out is None else held_out
            fit, aside = keep_aside(known, share, limit or 1, seed)
            sampled = memory = InMemory(fit.rows, fit.cols, fit.values, fit.shape, fit.weights)
            probe = some_of(fit)
            if device is not None:
                sampled = _on_device(memory, device, options, objective, method)
        run = Run(
            method if isinstance(method, str) else "altmin",
            sampled, fit, probe, aside, options, objective, rtol, maxiter, seed,
            None if timeout is None else began + timeout, callback,
            None if checkpoint is None else Checkpoint(checkpoint),
        )  # fmt: skip
        if run.resumed():
            pass
        elif given is not None:
            run.begin(given)
        elif rank is not None:
            run.begin(run.start(rank))
        elif aside is None:
            raise ValueError(
                "the rank is found by entries kept aside: held_out must leave some, or give a rank"
            )
        else:
            run.grow()
        status = run.sweep()
        result = run.result(status, time.perf_counter() - began)
    if not result.success:
        if check:
            raise SolveError(result)
        warnings.warn(f"{result!r}: {ADVICE.get(status, status.value)}", ConvergenceWarning, stacklevel=2)
    return result


def _stored(
    entries: StoredEntries,
    rank: int | None,
    method: str | AltMin | RobustAltMin,
    shape: tuple[int, int] | None,
    weights: Any,
    held_out: float | None,
    x0: Any,
    device: Any,
) -> StoredEntries:
    """Refuse what is only for entries in memory."""
    if rank is None and x0 is None:
        raise ValueError("stored entries need a rank")
    if device is not None:
        raise ValueError("stored entries are read on the CPU; device is for those in memory")
    if method == "irls" or isinstance(method, RobustAltMin):
        raise ValueError(f"{method} takes entries in memory; for stored ones 'altmin' is accepted")
    if weights is not None or held_out is not None:
        raise ValueError(
            "stored entries have no weights, and what is kept aside was chosen when they were stored"
        )
    if shape is not None and tuple(shape) != entries.shape:
        raise ValueError(f"shape is {shape}, and the entries have {entries.shape}")
    return entries


def _on_device(
    known: InMemory, device: Any, options: AltMin | RobustAltMin, objective: Objective, method: Any
) -> Sampled:
    """Entries on a device, if it can do what is asked for."""
    import torch

    from learnsolve.operators.sampled_device import OnDevice

    refused = isinstance(options, RobustAltMin) or options.solver == "sketch" or objective.nonnegative
    if refused or method == "irls":
        raise ValueError("a device takes no sketch, no irls, no RobustAltMin and no nonnegative")
    try:
        return OnDevice(known, torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {device!r}: {error}") from error


def _checked(
    shape: tuple[int, int],
    rank: int | None,
    method: str | AltMin | RobustAltMin,
    objective: Objective,
    weights: Any,
    x0: Any,
    rtol: float,
    maxiter: int,
    held_out: float | None,
    timeout: float | None,
) -> AltMin | RobustAltMin:
    """Refuse options that make no sense; returns those of the sweeps."""
    most = min(shape)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"rank is {rank}; 1 to {most} are accepted for the shape {shape}")
    if not (isinstance(method, AltMin | RobustAltMin) or method in ("auto", "altmin", "irls")):
        raise ValueError(f"method is {method!r}; 'auto', 'altmin', 'irls', AltMin, RobustAltMin are accepted")
    for name in ("regularization", "shrinkage", "unobserved"):
        value = getattr(objective, name)
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; a number that is not negative is accepted")
    if objective.robust not in (None, "huber", "trimmed"):
        raise ValueError(f"robust is {objective.robust!r}; None, 'huber' and 'trimmed' are accepted")
    if objective.bias and (objective.unobserved or objective.nonnegative):
        raise ValueError("bias goes neither with unobserved nor with nonnegative")
    if objective.unobserved and objective.robust is not None:
        raise ValueError("robust does not go with unobserved")
    if objective.unobserved and rank is None and x0 is None:
        raise ValueError("with unobserved, rank must be given")
    if method == "irls" or isinstance(method, RobustAltMin):
        special = (rank is None, weights is not None, x0 is not None, objective != Objective())
        if any(special):
            raise ValueError(f"{method} takes a rank, and no weights, x0, penalty, bias or other loss")
    if method == "irls" and rank == most:
        raise ValueError(f"irls takes a rank below {most}, the shorter side")
    if not rtol > 0:
        raise ValueError(f"rtol is {rtol}; a positive number is accepted")
    if maxiter < 1:
        raise ValueError(f"maxiter is {maxiter}; a positive number is accepted")
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
