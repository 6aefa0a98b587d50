"""Substitution: operators that know how to solve with themselves."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from learnsolve.kernels.vector import norm
from learnsolve.loop import Method, System
from learnsolve.operators import Operator


@dataclass
class State:
    """The iterate and its residual."""

    x: Tensor
    r: Tensor


@dataclass(frozen=True)
class Substitution(Method):
    """The exact solution by an operator's own recurrence, and refinement where rounding leaves a residual.

    Examples
    --------
    >>> import torch, learnsolve
    >>> A = learnsolve.operators.Bidiagonal(torch.full((4, 1), -0.5))
    >>> learnsolve.solve(A, torch.ones(4, 1), method="substitution").success
    True
    """

    name: ClassVar[str] = "substitution"
    summary: ClassVar[str] = "one scan: recurrences, which are triangular systems"

    def setup(self, A: Operator) -> Any:
        if not A.solvable:
            raise TypeError(
                f"substitution takes operators that solve themselves, as recurrences do; not {A!r}"
            )
        return A.substitute

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        return State(x, r)

    def step(self, system: System, s: State) -> float:
        s.x = s.x + system.setup(s.r)
        s.r = system.residual(s.x)
        return norm(s.r)
