"""The inverse of the diagonal."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from learnsolve.operators import Diagonal, Operator
from learnsolve.operators.sweeps import nonzero_diagonal
from learnsolve.preconditioners.base import Preconditioner


@dataclass(frozen=True)
class JacobiPreconditioner(Preconditioner):
    """``M = D^-1``.

    Raises
    ------
    ValueError
        The diagonal holds a zero.
    TypeError
        The operator does not know its diagonal.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> learnsolve.solve(np.diag([1.0, 100.0]), np.ones(2), method="cg", M="jacobi").iterations
    1
    """

    name: ClassVar[str] = "jacobi"
    summary: ClassVar[str] = "inverse of the diagonal"

    def build(self, A: Operator) -> Operator:
        diagonal = nonzero_diagonal(A)
        return Diagonal(torch.where(diagonal == 0, torch.zeros_like(diagonal), 1 / diagonal))
