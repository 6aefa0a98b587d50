"""`solve` and `prepare`: one linear system, or many with one matrix."""

import time
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnsolve import automatic, door, gradient
from learnsolve.kernels.vector import norm
from learnsolve.loop import Limits, Method, Outcome, Progress, System, check_limits, iterate
from learnsolve.methods import METHODS
from learnsolve.operators import Operator
from learnsolve.preconditioners import AMG_KINDS, PRECONDITIONERS, AlgebraicMultigrid, Preconditioner, named
from learnsolve.result import ConvergenceWarning, Result, SolveError, Status

_ORDER = list(Status)


def methods_table() -> list[tuple[str, str]]:
    """Names of all methods and preconditioners, with a line on each.

    Returns
    -------
    list of (str, str)
        Preconditioners begin with ``M=``.

    Examples
    --------
    >>> dict(methods_table())["cg"]
    'conjugate gradients: Hermitian positive definite A and M'
    """
    rows = [("auto", "by structure, promises and size, as a backslash would")]
    rows += [(name, method.summary) for name, method in METHODS.items()]
    rows += [(f"M={name}", kind.summary) for name, kind in PRECONDITIONERS.items()]
    rows += [(f"M={kind}", f"algebraic multigrid, kind={kind!r} (PyAMG)") for kind in AMG_KINDS]
    return rows


def _method(method: str | Method, options: dict[str, Any]) -> Method | None:
    """The method of a name and its options; None for ``"auto"``."""
    if isinstance(method, Method):
        if options:
            raise TypeError(f"options {sorted(options)} go with a method's name; {method!r} has its own")
        return method
    if method == "auto":
        if options:
            raise TypeError(f"unknown options {sorted(options)}; method='auto' takes none")
        return None
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"there is no method {method!r}; there are auto, {', '.join(METHODS)}")
    kind = METHODS[method]
    allowed = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise TypeError(
            f"unknown options {unknown} for method {method!r}; it takes {', '.join(allowed) or 'none'}"
        )
    return kind(**options)


class _Stage:
    """A method with its set-up and preconditioner, made when it is first needed."""

    def __init__(self, A: Operator, method: Method, M: Any) -> None:
        self.A, self.method, self.spec = A, method, M
        self.ready = False
        self.seconds = 0.0

    def get(self) -> tuple[Any, Operator | None]:
        if not self.ready:
            began = time.perf_counter()
            self.M = door.as_inverse(self.spec, self.A)
            self.setup = self.method.setup(self.A)
            self.ready = True
            self.seconds = time.perf_counter() - began
        return self.setup, self.M

    @property
    def label(self) -> str:
        """What the result calls it."""
        if self.spec is None:
            return self.method.name
        spec = named(self.spec) if isinstance(self.spec, str) else self.spec
        if isinstance(spec, AlgebraicMultigrid):
            return f"{self.method.name} + {spec.kind}"
        return f"{self.method.name} + {spec.name if isinstance(spec, Preconditioner) else 'M'}"


class Solver:
    """A matrix with its set-up, for many right-hand sides; made by `prepare`.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> solver = learnsolve.prepare(np.diag([1.0, 2.0]), method="cg", M="jacobi")
    >>> [solver.solve(b).x.tolist() for b in np.eye(2)]
    [[1.0, 0.0], [0.0, 0.5]]
    """

    def __init__(self, A: Operator, method: Method | None, M: Any) -> None:
        self.A = A
        with torch.no_grad():
            plan = automatic.plan(A, M) if method is None else [(method, M)]
        if method is not None and A.shape[0] != A.shape[1] and not method.least_squares:
            raise ValueError(
                f"A has shape {A.shape}; {method.name} needs a square matrix (method='lsmr' does not)"
            )
        self.stages = [_Stage(A, *entry) for entry in plan]
        self._adjoint: Solver | None = None

    @property
    def adjoint(self) -> "Solver":
        """The solver of ``A.H`` with the adjoint preconditioner."""
        if self._adjoint is None:
            if self.A.hermitian:
                self._adjoint = self
            else:
                solver = object.__new__(Solver)
                solver.A, solver._adjoint = self.A.H, self
                solver.stages = []
                for stage in self.stages:
                    spec = stage.spec
                    if spec is not None and not isinstance(spec, str | Preconditioner):
                        spec = door.as_operator(spec).H
                    solver.stages.append(_Stage(solver.A, stage.method, spec))
                self._adjoint = solver
        return self._adjoint

    def run(self, b: Tensor, x: Tensor, limits: Limits) -> tuple[Outcome, _Stage]:
        """Solve for one column in the operator's form, by the first stage that succeeds."""
        outcome: Outcome | None = None
        used = self.stages[0]
        for stage in self.stages:
            try:
                setup, M = stage.get()
            except (ValueError, RuntimeError, MemoryError) as error:
                if len(self.stages) == 1:
                    raise
                if outcome is None:
                    outcome = Outcome(x, Status.BREAKDOWN, np.array([norm(b)]), 0, str(error))
                    used = stage
                continue
            A = self.A if self.A.dtype == b.dtype else self.A.to(dtype=b.dtype)
            if M is not None and M.dtype != b.dtype:
                M = door.Converting(M, b.dtype)
            rhs = A.project(b) if A.singular else b
            found = iterate(stage.method, System(A, rhs, M, setup), x.clone(), limits)
            if A.singular:
                found = _minimum_norm(A, b, rhs, found, limits)
            if (
                outcome is None
                or found.residuals[-1] < outcome.residuals[-1]
                or found.status is Status.CONVERGED
            ):
                outcome, used = found, stage
            if found.status in (Status.CONVERGED, Status.TIMEOUT, Status.STOPPED, Status.NONFINITE):
                break
            if found.status is Status.STAGNATED and A.singular:
                break
        assert outcome is not None
        return outcome, used

    def solve(
        self,
        b: Any,
        *,
        x0: Any = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        timeout: float | None = None,
        callback: Callable[[Progress], Any] | None = None,
        check: bool = False,
    ) -> Result:
        """Solve for ``b``; the parameters are those of `learnsolve.solve`."""
        began = time.perf_counter()
        check_limits(rtol, atol, maxiter, timeout)
        columns = door.enter(self.A, b, x0)
        limits = Limits(
            rtol=float(rtol),
            atol=float(atol),
            maxiter=min(10 * max(self.A.shape), 100_000) if maxiter is None else int(maxiter),
            deadline=np.inf if timeout is None else began + timeout,
            began=began,
            callback=callback,
            restore=columns.restore_one,
        )
        outcomes: list[tuple[Outcome, _Stage]] = []
        answers: list[Tensor] = []
        for part, start in zip(columns.parts, columns.starts, strict=True):
            x = gradient.solve(self, part, start, limits, outcomes)
            answers.append(x)
        result = _result(self.A, columns, outcomes, answers, limits)
        if not result.success:
            if check:
                raise SolveError(result)
            if result.status is not Status.STOPPED:
                warnings.warn(f"{result!r}: {result.status.value}", ConvergenceWarning, stacklevel=3)
        return result


def _minimum_norm(A: Operator, b: Tensor, rhs: Tensor, found: Outcome, limits: Limits) -> Outcome:
    """Project the answer, and judge it by the right-hand side that was asked for."""
    found.x = A.project(found.x)
    true = norm(b - A._apply(found.x))
    found.residuals[-1] = true
    if found.status is Status.CONVERGED and true > max(limits.rtol * norm(b), limits.atol):
        found.status = Status.STAGNATED
        found.detail = (
            "A is singular and b is not in its range: its part there, of relative size "
            f"{1 - norm(b - rhs) / norm(b):.1e}, was solved for"
        )
    return found


def _result(
    A: Operator,
    columns: door.Columns,
    outcomes: list[tuple[Outcome, _Stage]],
    answers: list[Tensor],
    limits: Limits,
) -> Result:
    length = max((outcome.residuals.size for outcome, _ in outcomes), default=1)
    histories = [np.pad(o.residuals, (0, length - o.residuals.size), mode="edge") for o, _ in outcomes]
    relative = []
    for (outcome, _), b in zip(outcomes, columns.parts, strict=True):
        size, last = norm(b), float(outcome.residuals[-1])
        relative.append(last / size if size else (0.0 if last == 0 else np.inf))
    worst = max((outcome.status for outcome, _ in outcomes), key=_ORDER.index, default=Status.CONVERGED)
    stages = list({id(stage): stage for _, stage in outcomes}.values())
    extras: dict[str, Any] = {"setup_seconds": sum(stage.seconds for stage in stages)}
    details = [outcome.detail for outcome, _ in outcomes if outcome.detail]
    if details:
        extras["detail"] = details[0]
    for outcome, _ in outcomes:
        extras.update(outcome.extras)
    return Result(
        x=columns.restore(answers),
        status=worst,
        iterations=max((outcome.iterations for outcome, _ in outcomes), default=0),
        residuals=histories[0]
        if len(histories) == 1
        else np.stack(histories, 1)
        if histories
        else np.zeros((1, 0)),
        relative_residual=max(relative, default=0.0),
        seconds=time.perf_counter() - limits.began,
        method=", ".join(dict.fromkeys(stage.label for stage in stages)) or "none",
        extras=extras,
    )


def prepare(A: Any, *, method: str | Method = "auto", M: Any = None, **options: Any) -> Solver:
    """Make a solver that keeps its set-up from one right-hand side to the next.

    Parameters
    ----------
    A, method, M, **options
        As in `solve`.

    Returns
    -------
    Solver
        Its ``solve(b, ...)`` takes the other parameters of `solve` and returns a `Result`.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> solver = learnsolve.prepare(np.diag([1.0, 2.0]))
    >>> solver.solve(np.array([1.0, 4.0])).x
    array([1., 2.])
    """
    chosen = _method(method, options)
    return Solver(door.as_operator(A), chosen, M)


def solve(
    A: Any,
    b: Any,
    *,
    method: str | Method = "auto",
    M: Any = None,
    x0: Any = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    timeout: float | None = None,
    callback: Callable[[Progress], Any] | None = None,
    check: bool = False,
    **options: Any,
) -> Result:
    r"""Solve ``A x = b``.

    The answer is accepted when :math:`\|b - A x\| \le \max(\mathrm{rtol}\,\|b\|, \mathrm{atol})` for the
    residual computed anew from its definition. On torch tensors the answer is differentiable in ``b`` and
    in the entries of ``A`` (twice), by the implicit function theorem.

    Parameters
    ----------
    A : (m, n) matrix or operator
        numpy, scipy.sparse in any format, scipy ``LinearOperator``, torch dense or sparse, cupy, cupyx, a
        `learnsolve.operators.Operator`, or a callable with ``shape``; float32, float64, complex64 or
        complex128.
    b : (m,), (m, k) or an array of the operator's shape
        Right-hand side, or ``k`` of them.
    method : str or Method
        A name of `methods_table` or an instance of a class of `learnsolve.methods`. ``"auto"`` picks by
        structure, promises and size, and falls back where it fails; `Result.method` says what was done.
    M : str, Preconditioner, matrix, operator or callable with ``shape``, optional
        Approximate inverse of ``A``: a name (``"multigrid"``, ``"ilu"``, ``"ruge_stuben"``, ...), an instance
        of a class of `learnsolve.preconditioners`, or the inverse itself. With a named method None means
        none, as in scipy.
    x0 : array of ``x``'s shape, optional
        Where to begin; zero if left out.
    rtol, atol : float
        Tolerances.
    maxiter : int, optional
        At most so many iterations for each column and method; by default ``10 n``, at most 100,000.
    timeout : float, optional
        At most so many seconds.
    callback : callable, optional
        Called after each iteration with a `learnsolve.loop.Progress`; a true return value stops the solve.
        What it raises is passed on.
    check : bool
        Raise `SolveError` instead of warning where the tolerance is not reached.
    **options
        Go to the method's constructor.

    Returns
    -------
    Result
        The answer in ``b``'s library and device, with a status; unpacks as scipy's ``(x, info)``.
        A rectangular system's answer is that of least squares, and so is CONVERGED when the residual is
        orthogonal to the range of ``A``. A `GridPoisson` that is singular gets the answer of minimum norm,
        with status STAGNATED if ``b`` is not in its range; NaN or infinity in ``b`` gets NONFINITE.

    Raises
    ------
    TypeError
        An integer dtype, a type that stands for no matrix, an unknown option.
    ValueError
        Shapes that do not fit, an empty matrix, NaN or infinity in ``A``, an unknown name, a zero diagonal
        where the method divides by it.
    SolveError
        With ``check=True``, if the tolerance is not reached.

    Warns
    -----
    ConvergenceWarning
        If the tolerance is not reached.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> res = learnsolve.solve(A, np.array([1.0, 2.0]))
    >>> res.x.round(4)
    array([0.0909, 0.6364])
    >>> x, info = learnsolve.solve(A, np.array([1.0, 2.0]), method="cg", rtol=1e-10)
    >>> info
    0
    """
    began = time.perf_counter()
    solver = prepare(A, method=method, M=M, **options)
    spent = time.perf_counter() - began
    if timeout is not None and timeout > 0:
        timeout = max(timeout - spent, 1e-9)
    return solver.solve(
        b, x0=x0, rtol=rtol, atol=atol, maxiter=maxiter, timeout=timeout, callback=callback, check=check
    )
