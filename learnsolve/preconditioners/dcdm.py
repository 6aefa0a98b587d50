"""The network of the Deep Conjugate Direction Method as a nonlinear preconditioner."""

from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor, nn

from learnsolve.kernels.vector import dot, norm
from learnsolve.operators import Operator
from learnsolve.preconditioners.base import Inverse, Preconditioner


@dataclass(frozen=True)
class DCDMPreconditioner(Preconditioner):
    r"""The network's direction for a residual, scaled by the exact line search: nonlinear.

    .. math:: M(r) = \frac{d^T r}{d^T A d} d, \qquad d = f_\theta(r / \|r\|)

    so that :math:`r^T M(r) \ge 0`. Where the direction is of no use, ``M(r) = r``. Methods take their
    flexible form with it.

    Parameters
    ----------
    network : torch.nn.Module, optional
        As for `learnsolve.methods.DCDM`.
    weights : str, optional
        A name of shipped weights or a path, read where there is no ``network``; by default
        ``"poisson2d"`` or ``"poisson3d"``.

    Raises
    ------
    TypeError
        The matrix is complex, or its vectors are not grids.

    Examples
    --------
    >>> import numpy as np, torch, learnsolve
    >>> from learnsolve.methods.dcdm_network import NetworkOptions
    >>> network = NetworkOptions(dims=2, channels=4).build()
    >>> A = learnsolve.operators.GridPoisson(np.zeros((8, 8), int), boundary="dirichlet")
    >>> learnsolve.solve(A, np.ones((8, 8)), method="cg", M=DCDMPreconditioner(network)).success
    True
    """

    network: nn.Module | None = field(default=None, repr=False, compare=False)
    weights: str | None = None

    name: ClassVar[str] = "dcdm"
    summary: ClassVar[str] = "the network of dcdm, nonlinear, for Poisson problems on grids"

    def build(self, A: Operator) -> Operator:
        from learnsolve.methods.dcdm import direction, network_for

        network = network_for(A, self.network, self.weights)

        def apply(r: Tensor) -> Tensor:
            size = norm(r)
            if size == 0 or not isfinite(size):
                return r.clone()
            d = direction(network, A, r, size)
            Ad = A._apply(d)
            along, dAd = dot(d, r).real, dot(d, Ad).real
            if not (isfinite(along) and dAd > 0) or abs(along) <= 1e-10 * norm(d) * size:
                return r.clone()
            return torch.mul(d, along / dAd)

        inverse = Inverse(A, apply, None, "dcdm", hermitian=False)
        inverse.linear = False
        return inverse
