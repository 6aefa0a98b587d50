"""Methods that tune themselves from one solve to the next."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from learnsolve.kernels.vector import norm
from learnsolve.loop import Breakdown, Method, System
from learnsolve.methods import CG, SOR
from learnsolve.online.base import POLICIES, Policy, PolicyFileError, grid_of, read_state, write_state
from learnsolve.online.contexts import diagonal_excess, jacobi_radius
from learnsolve.operators import Operator
from learnsolve.operators.sweeps import relaxation
from learnsolve.preconditioners import SSORPreconditioner
from learnsolve.result import Status

Context = Callable[[Operator], float]
METHOD_FORMAT = "learnsolve-tuned-1"


@dataclass
class State:
    """A solve under way: the inner method with its system and state, and what was chosen for it."""

    inner: Method
    system: System
    state: Any
    x0: Tensor
    first: float
    context: float | None
    arms: list[int]
    entered: list[float]
    limit: float = np.inf
    spent: float = 0.0
    began: float = field(default_factory=time.perf_counter)
    rescued: bool = False
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned(Method):
    """What `TunedSOR`, `TunedSSORCG` and `TunedMultigrid` share.

    An object of these classes learns from every solve for which it is used, from any thread. `Result.extras`
    says what was chosen (``choice``), whether the solve was brought to its end by the safe default
    (``rescued``), what it cost (``cost``), and the ``regret`` so far: all costs less as many times the
    lowest mean cost of an action.
    """

    policy: str | Policy = "tsallis-inf"
    cost: Literal["iterations", "products", "seconds"] = "iterations"
    context: Context | None = field(default=None, repr=False)
    patience: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cost not in ("iterations", "products", "seconds"):
            raise ValueError(f"cost is {self.cost!r}; 'iterations', 'products' and 'seconds' are accepted")
        if not self.patience >= 1:
            raise ValueError(f"patience is {self.patience}; a number of at least 1 is accepted")
        object.__setattr__(self, "policies", [self._policy(stage) for stage in range(self._stages())])
        object.__setattr__(self, "_lock", threading.Lock())

    policies: ClassVar[list[Policy]]
    _lock: ClassVar[Any]

    def _arms(self) -> int:
        """How many actions there are."""
        raise NotImplementedError

    def _choice(self, arm: int) -> Any:
        """An action as the result shows it."""
        raise NotImplementedError

    def _products(self, arm: int) -> float:
        """Matrix-vector products' worth of work in an iteration."""
        raise NotImplementedError

    def _inner(self, system: System, arm: int) -> tuple[Method, System]:
        """The method and the system for an action."""
        raise NotImplementedError

    def _stages(self) -> int:
        return 1

    def _options(self, name: str) -> dict[str, Any]:
        """What a policy of a name is told beyond the number of arms."""
        return {}

    def _policy(self, stage: int) -> Policy:
        arms = self._arms()
        if isinstance(self.policy, Policy):
            if self.policy.arms != arms:
                raise ValueError(f"the policy has {self.policy.arms} arms; there are {arms} actions")
            if stage == 0:
                return self.policy
            another = self.policy.fresh()
            another.rng = np.random.default_rng(self.policy.seed + stage)
            return another
        if self.policy not in POLICIES:
            raise ValueError(f"there is no policy {self.policy!r}; there are {', '.join(sorted(POLICIES))}")
        kind = POLICIES[self.policy]
        return kind(arms, seed=self.seed + stage, **self._options(self.policy))

    def setup(self, A: Operator) -> Any:
        context = None
        if self.policies[0].needs_context:
            given = self.context or (jacobi_radius if self.policies[0].name == "young" else diagonal_excess)
            context = float(given(A))
            if not np.isfinite(context):
                raise ValueError(f"the context of {A!r} is {context}; a finite number is needed")
        return self._prepared(A), context

    def _prepared(self, A: Operator) -> Any:
        raise NotImplementedError

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        context = system.setup[1]
        with self._lock:
            best = self.policies[0].best(context)
            arm = self.policies[0].choose(context)
        inner, within = self._inner(system, arm)
        s = State(inner, within, None, x.clone(), norm(r), context, [arm], [0.0])
        if best is not None:
            s.limit = self.patience * best[1]
        s.state = inner.start(within, x, r)
        return s

    def resume(self, system: System, state: State, x: Tensor, r: Tensor) -> State:
        state.state = state.inner.start(state.system, x, r)
        return state

    def solution(self, state: State) -> Tensor:
        return state.inner.solution(state.state)

    def step(self, system: System, s: State) -> float:
        try:
            estimate = s.inner.step(s.system, s.state)
        except Breakdown:
            if s.rescued:
                raise
            estimate = np.inf
        unit = 1.0 if self.cost == "iterations" else self._products(s.arms[-1])
        s.spent = time.perf_counter() - s.began if self.cost == "seconds" else s.spent + unit
        lost = not estimate < 1e4 * max(s.first, norm(s.system.b))
        if not s.rescued and (lost or s.spent > s.limit):
            return self._rescue(system, s, lost)
        stage = len(s.arms)
        if stage < self._stages() and 0 < estimate < s.first * 10.0**-stage:
            self._enter(s)
        return estimate

    def _rescue(self, system: System, s: State, lost: bool) -> float:
        """Go on with the action that looks best, or begin anew with the first one where all was lost."""
        with self._lock:
            best = self.policies[0].best(s.context)
        arm = 0 if lost or best is None else best[0]
        x = s.x0 if lost else self.solution(s)
        s.inner, s.system = self._inner(system, arm)
        r = s.system.residual(x)
        estimate = norm(r)
        s.state = s.inner.start(s.system, x.clone(), r)
        s.rescued = True
        return estimate

    def _enter(self, s: State) -> None:
        """Begin the next stage."""
        raise NotImplementedError

    def finished(self, state: State, status: Status) -> None:
        s = state
        if self.cost == "seconds":
            s.spent = time.perf_counter() - s.began
        with self._lock:
            if status is not Status.STOPPED:
                for policy, arm, entered in zip(self.policies, s.arms, s.entered, strict=False):
                    paid = s.spent - entered
                    # An action that did not lead to the end is no better than the worst that did.
                    paid = paid if status is Status.CONVERGED else max(paid, policy.worst)
                    policy.observe(arm, paid, s.context)
            first = self.policies[0]
            best = float(first.means.min()) if first.rounds else 0.0
            s.extras.update(
                choice=self._choice(s.arms[0]),
                cost=s.spent,
                rescued=s.rescued,
                regret=float(first.totals.sum()) - best * float(first.counts.sum()),
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write options and all that was learned to a JSON file, whole or not at all.

        A ``context`` function is not written.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("policy", "context")}
        with self._lock:
            policies = [policy.state() for policy in self.policies]
        write_state(
            path, {"format": METHOD_FORMAT, "method": self.name, "options": plain, "policies": policies}
        )

    @classmethod
    def load(cls, path: str | os.PathLike, *, context: Context | None = None) -> Any:
        """The method of a file, ready to go on as if nothing had been.

        Raises
        ------
        PolicyFileError
            The file is damaged, or one of another method.
        OSError
            The file cannot be read.
        """
        state = read_state(path)
        if state.get("format") != METHOD_FORMAT or state.get("method") != cls.name:
            raise PolicyFileError(f"{os.fspath(path)}: not a file of the method {cls.name!r}")
        try:
            policies = [Policy.from_state(entry) for entry in state["policies"]]
            options: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in state["options"].items()
            }
            method = cls(policy=policies[0], context=context, **options)
        except PolicyFileError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise PolicyFileError(f"{os.fspath(path)}: not the state of a method ({error!r})") from None
        if len(policies) != len(method.policies):
            raise PolicyFileError(
                f"{os.fspath(path)}: {len(policies)} policies for {len(method.policies)} stages"
            )
        method.policies[:] = policies
        return method


@dataclass(frozen=True)
class _TunedOmega(Tuned):
    """With over-relaxations ``omega`` from ``low`` to ``high`` for actions."""

    low: float = 1.0
    high: float = 1.95
    arms: int = 20
    order: Literal["multicolor", "lexicographic"] = "multicolor"

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high < 2 and self.arms >= 1):
            raise ValueError(
                f"low is {self.low}, high {self.high}, arms {self.arms}; 0 < low <= high < 2 and a positive "
                "number of arms are accepted"
            )
        SOR(omega=self.low, order=self.order)
        super().__post_init__()

    @property
    def omegas(self) -> np.ndarray:
        """The grid of over-relaxations, ``(arms,)``."""
        return grid_of(self.low, self.high, self.arms)

    def _arms(self) -> int:
        return self.arms

    def _choice(self, arm: int) -> float:
        return float(self.omegas[arm])

    def _prepared(self, A: Operator) -> Any:
        return relaxation(A)


@dataclass(frozen=True)
class TunedSOR(_TunedOmega):
    """Successive over-relaxation whose ``omega`` is tuned while a sequence of systems is solved.

    Keep the object, and give it to every solve: it learns from their costs alone.

    Parameters
    ----------
    policy : str or Policy
        A name of `POLICIES` or a policy of ``arms`` arms.
    cost : {"iterations", "products", "seconds"}
        What is to be little.
    context : callable, optional
        From the matrix to the number that a contextual policy is told; by default `diagonal_excess`, and for
        the policy ``"young"`` `jacobi_radius`.
    patience : float
        A solve that costs so many times what the best action is expected to cost goes on with that.
    seed : int
        Of the policy, if it is given by name.
    low, high, arms : float, float, int
        The grid of ``omega``.
    order : {"multicolor", "lexicographic"}
        As in `learnsolve.methods.SOR`.

    Raises
    ------
    ValueError
        An option is out of range, or there is no policy of that name.

    References
    ----------
    Khodak, Chow, Balcan and Talwalkar, *Learning to relax: setting solver parameters across a sequence of
    linear system instances*, ICLR 2024.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.problems.heat import shifted
    >>> method = TunedSOR(policy="tsallis-inf", order="lexicographic")
    >>> options = {"method": method, "rtol": 1e-8, "maxiter": 10_000}
    >>> results = [learnsolve.solve(p.A, p.b, **options) for p in shifted(30)]
    >>> all(result.success for result in results), sorted(results[-1].extras)[:3]
    (True, ['choice', 'cost', 'regret'])
    """

    name: ClassVar[str] = "tuned-sor"
    summary: ClassVar[str] = "successive over-relaxation, tuned from solve to solve"

    def _options(self, name: str) -> dict[str, Any]:
        return {"low": self.low, "high": self.high} if name == "young" else {}

    def _products(self, arm: int) -> float:
        return 2.0

    def _inner(self, system: System, arm: int) -> tuple[Method, System]:
        inner = SOR(omega=self._choice(arm), order=self.order)
        return inner, System(system.A, system.b, None, system.setup[0])


@dataclass(frozen=True)
class TunedSSORCG(_TunedOmega):
    """Conjugate gradients with symmetric over-relaxation for a preconditioner, tuned as `TunedSOR`.

    Parameters
    ----------
    policy, cost, context, patience, seed, low, high, arms
        As in `TunedSOR`.
    order : {"lexicographic", "multicolor"}
        With two colours over-relaxation gains nothing; the order of the unknowns is the better one.

    Raises
    ------
    ValueError
        As `TunedSOR`.

    References
    ----------
    Axelsson, *Iterative Solution Methods* (1994), section 7.4; Khodak et al., ICLR 2024, section 4.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.problems.heat import Heat
    >>> heat, method = Heat(24), TunedSSORCG(policy="chebcb")
    >>> for _ in range(5):
    ...     problem = heat.problem()
    ...     res = learnsolve.solve(problem.A, problem.b, method=method, x0=heat.u, rtol=1e-8, check=True)
    ...     heat.accept(res.x)
    >>> 1 <= res.extras["choice"] <= 1.95
    True
    """

    order: Literal["multicolor", "lexicographic"] = "lexicographic"

    name: ClassVar[str] = "tuned-ssor-cg"
    summary: ClassVar[str] = "conjugate gradients with SSOR, tuned from solve to solve"

    def _options(self, name: str) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "symmetric": True} if name == "young" else {}

    def _products(self, arm: int) -> float:
        return 3.0

    def _inner(self, system: System, arm: int) -> tuple[Method, System]:
        M = SSORPreconditioner(omega=self._choice(arm), order=self.order)
        return CG(), System(system.A, system.b, M.from_sweeps(system.A, system.setup[0]))
