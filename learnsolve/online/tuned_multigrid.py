"""Multigrid that tunes itself from one solve to the next, or from stage to stage of a solve."""

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal

from learnsolve.loop import Method, System
from learnsolve.methods import CG, FlexibleCG
from learnsolve.online.tuned import State, Tuned
from learnsolve.operators import GridPoisson, Operator
from learnsolve.preconditioners import Multigrid
from learnsolve.preconditioners.multigrid import MultigridCycle


@dataclass(frozen=True)
class TunedMultigrid(Tuned):
    """Conjugate gradients with multigrid whose cycle, sweeps and over-relaxation are tuned.

    With several stages the choice is made anew whenever the residual has fallen by a factor of ten, by a
    policy of its own for each stage, which is charged with all the work from there to the end; the directions
    are then those of flexible conjugate gradients.

    Parameters
    ----------
    policy, context, patience, seed
        As in `TunedSOR`.
    cost : {"products", "iterations", "seconds"}
        What is to be little; a cycle counts as many products as its sweeps on all levels.
    cycles : tuple of str
        Of ``"V"`` and ``"W"``.
    sweeps : tuple of int
        Numbers of sweeps.
    omegas : tuple of float
        Over-relaxations; all combinations are actions.
    stages : int
        How many stages there are at most; a policy for several must not need a context.

    Raises
    ------
    TypeError
        The matrix of a solve is not a `GridPoisson`.
    ValueError
        An option is out of range.

    References
    ----------
    Dai, Luo, Wei and Zimmert, *Refined regret for adversarial MDPs with linear function approximation*, ICML
    2023, for policies charged with the loss to come.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.problems import poisson
    >>> method = TunedMultigrid(policy="log-barrier", stages=4)
    >>> problem = poisson.obstacles((32, 32))
    >>> learnsolve.solve(problem.A, problem.b, method=method, rtol=1e-8).success
    True
    """

    cost: Literal["iterations", "products", "seconds"] = "products"
    cycles: tuple[Literal["V", "W"], ...] = ("V", "W")
    sweeps: tuple[int, ...] = (1, 2, 3)
    omegas: tuple[float, ...] = (1.0, 1.15)
    stages: int = 1

    name: ClassVar[str] = "tuned-multigrid"
    summary: ClassVar[str] = "conjugate gradients with multigrid, tuned from solve to solve"

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ValueError(f"stages is {self.stages}; a positive number is accepted")
        if not self.cycles or set(self.cycles) - {"V", "W"} or not self.sweeps or not self.omegas:
            raise ValueError("cycles, sweeps and omegas must not be empty, and cycles be of 'V' and 'W'")
        object.__setattr__(
            self,
            "actions",
            [
                Multigrid(cycle=c, sweeps=n, omega=w)
                for c, n, w in product(self.cycles, self.sweeps, self.omegas)
            ],
        )
        super().__post_init__()
        if self.stages > 1 and self.policies[0].needs_context:
            raise ValueError(f"policy {self.policies[0].name!r} needs a context, and stages have none")

    actions: ClassVar[list[Multigrid]]

    def _arms(self) -> int:
        return len(self.actions)

    def _stages(self) -> int:
        return self.stages

    def _choice(self, arm: int) -> tuple[str, int, float]:
        action = self.actions[arm]
        return action.cycle, action.sweeps, action.omega

    def _products(self, arm: int) -> float:
        # In two dimensions, where coarse levels weigh most: 4/3 of the finest level's work, twice that in W.
        levels = 2.0 if self.actions[arm].cycle == "W" else 4 / 3
        return 1 + levels * (2 * self.actions[arm].sweeps + 1)

    def _prepared(self, A: Operator) -> Any:
        if not isinstance(A, GridPoisson):
            raise TypeError(f"tuned-multigrid takes a GridPoisson, not {A!r}")
        return MultigridCycle(A, Multigrid())

    def _inner(self, system: System, arm: int) -> tuple[Method, System]:
        cycle = system.setup[0]
        cycle.options = self.actions[arm]
        return (FlexibleCG() if self.stages > 1 else CG()), System(system.A, system.b, cycle)

    def _enter(self, s: State) -> None:
        with self._lock:
            arm = self.policies[len(s.arms)].choose(s.context)
        s.arms.append(arm)
        s.entered.append(s.spent)
        if not s.rescued:
            assert isinstance(s.system.M, MultigridCycle)
            s.system.M.options = self.actions[arm]
