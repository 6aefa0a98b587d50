"""The Deep Conjugate Direction Method: a network proposes directions, conjugation and line search certify."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from learnsolve.kernels.vector import combine, descend, dot, norm
from learnsolve.loop import Breakdown, Method, System
from learnsolve.operators import Operator


def network_for(A: Operator, network: nn.Module | None, weights: str | None) -> nn.Module:
    """A network that fits ``A``, on its device; that of the weights where there is none.

    Raises
    ------
    TypeError
        The matrix is complex, its vectors are not grids, or the network is for other grids.
    """
    dims = len(A.domain_shape)
    if dims not in (2, 3) or A.dtype.is_complex:
        raise TypeError(f"dcdm takes real operators on grids of two or three dimensions, not {A!r}")
    if network is None:
        from learnsolve.methods.dcdm_weights import load

        network = load(weights or f"poisson{dims}d")
    expected = getattr(getattr(network, "options", None), "dims", dims)
    if expected != dims:
        raise TypeError(f"the network is for {expected} dimensions, {A!r} has {dims}")
    return network.eval().to(A.device)


def direction(network: nn.Module, A: Operator, r: Tensor, size: float) -> Tensor:
    """The network's direction for a residual of norm ``size``, zero off the unknowns, without null space."""
    unit = (r / size).to(next(network.parameters()).dtype)
    with torch.no_grad():
        d = network(unit[None, None])[0, 0].to(r.dtype)
    active = getattr(A, "active", None)
    if active is not None:
        d = torch.where(active, d, torch.zeros((), dtype=d.dtype, device=d.device))
    return A.project(d) if A.singular else d


@dataclass
class State:
    """Iterate, residual, and the last directions with their images and ``p^T A p``.

    ``proposed``: the last direction was the network's; ``resting``: for how many steps it is not asked.
    """

    x: Tensor
    r: Tensor
    size: float
    directions: list[tuple[Tensor, Tensor, float]]
    best: float
    stalled: int = 0
    resting: int = 0
    rest: int = 1
    count: int = 0
    proposed: bool = False
    extras: dict[str, Any] = field(default_factory=lambda: {"fallback_steps": 0, "network_steps": 0})


@dataclass(frozen=True)
class DCDM(Method):
    r"""The Deep Conjugate Direction Method, for symmetric positive (semi-)definite systems on grids.

    .. math:: d = f_\theta(r / \|r\|), \qquad
              p = d - \sum_{i=1}^{2} \frac{p_{k-i}^T A d}{p_{k-i}^T A p_{k-i}} p_{k-i}, \qquad
              x \leftarrow x + \frac{p^T r}{p^T A p} p

    Whatever the network says, each step lowers the error in the norm of ``A``. Where a direction is of no
    use (not finite, orthogonal to the residual, or the residual's norm has not fallen in ``patience``
    steps), the preconditioned residual takes its place, for one step the first time and twice as many
    each time after, which makes the method conjugate gradients in the end. ``Result.extras`` counts
    ``network_steps`` and ``fallback_steps``.

    Parameters
    ----------
    network : torch.nn.Module, optional
        From ``(1, 1, *shape)`` to the same shape, single precision.
    weights : str, optional
        A name of shipped weights or a path, read where there is no ``network``; by default
        ``"poisson2d"`` or ``"poisson3d"`` by the grid's axes.
    memory : int
        Against how many previous directions a new one is conjugated; 0 for none.
    patience : int
        So many steps without a lower residual call for a fallback.
    recompute : int
        The residual is recomputed from its definition every so many steps.

    Raises
    ------
    TypeError
        The matrix is complex, or its vectors are not grids.

    References
    ----------
    Kaneda, Akar, Chen, Kala, Hyde and Teran, *A Deep Conjugate Direction Method for Iteratively Solving
    Linear Systems*, ICML 2023, algorithm 1.

    Examples
    --------
    A network of random weights gives the right answer too, only later.

    >>> import numpy as np, torch, learnsolve
    >>> from learnsolve.methods.dcdm_network import NetworkOptions
    >>> _ = torch.manual_seed(0)
    >>> network = NetworkOptions(dims=2, channels=4).build()
    >>> A = learnsolve.operators.GridPoisson(np.zeros((8, 8), int), boundary="dirichlet")
    >>> learnsolve.solve(A, np.ones((8, 8)), method=DCDM(network)).success
    True
    """

    network: nn.Module | None = field(default=None, repr=False, compare=False)
    weights: str | None = None
    memory: int = 2
    patience: int = 5
    recompute: int = 20

    name: ClassVar[str] = "dcdm"
    summary: ClassVar[str] = "deep conjugate directions: a network proposes, for Poisson problems on grids"

    def __post_init__(self) -> None:
        if self.memory < 0 or self.patience < 1 or self.recompute < 1:
            raise ValueError(
                f"memory is {self.memory}, patience {self.patience} and recompute {self.recompute}; "
                "memory must not be negative, the others must be positive"
            )

    @classmethod
    def load(cls, weights: str | Path, **options: Any) -> "DCDM":
        """A method with shipped weights of a name, or with the weights of a file.

        Raises
        ------
        learnsolve.training.WeightsError
            The file holds no such weights.
        FileNotFoundError
            There is no such file, nor weights of that name.
        """
        from learnsolve.methods.dcdm_weights import load

        return cls(load(weights), str(weights), **options)

    def setup(self, A: Operator) -> nn.Module:
        return network_for(A, self.network, self.weights)

    def start(self, system: System, x: Tensor, r: Tensor) -> State:
        size = norm(r)
        return State(x, r, size, [], size)

    def step(self, system: System, s: State) -> float:
        found = None
        if s.resting == 0:
            found = self._conjugated(system, s, direction(system.setup, system.A, s.r, s.size))
            if found is None:
                self._rest(s)
        s.proposed = found is not None
        if found is None:
            s.resting -= 1
            s.extras["fallback_steps"] += 1
            found = self._conjugated(system, s, system.precondition(s.r).clone())
            if found is None:
                s.directions.clear()
                found = self._conjugated(system, s, s.r.clone())
            if found is None:
                raise Breakdown("the residual itself is no direction of descent: A is not positive definite")
        else:
            s.extras["network_steps"] += 1
        p, Ap, pAp = found
        s.size = descend(dot(p, s.r).real / pAp, p, Ap, s.x, s.r)
        s.count += 1
        if s.count % self.recompute == 0:
            s.r = system.residual(s.x)
            s.size = norm(s.r)
        s.directions = [found, *s.directions][: self.memory]
        if s.size < 0.95 * s.best:
            s.best, s.stalled = s.size, 0
        else:
            s.stalled += 1
            if s.stalled >= self.patience and s.resting == 0:
                self._rest(s)
        return s.size

    @staticmethod
    def _rest(s: State) -> None:
        s.resting, s.rest, s.stalled = s.rest, 2 * s.rest, 0
        if s.proposed:
            # Conjugate gradients that do not begin with the residual itself lose their speed (Powell, 1976).
            s.directions.clear()

    @staticmethod
    def _conjugated(system: System, s: State, d: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """``d`` made conjugate to the previous directions, with its image; None if it is of no use."""
        size = norm(d)
        if not isfinite(size) or size == 0:
            return None
        d = d / size
        Ad = system.A._apply(d)
        for p, Ap, pAp in s.directions:
            beta = -dot(p, Ad).real / pAp
            combine(beta, p, 1.0, d)
            combine(beta, Ap, 1.0, Ad)
        dAd, along, length = dot(d, Ad).real, dot(d, s.r).real, norm(d)
        if not (dAd > 0 and isfinite(along)) or abs(along) <= 1e-10 * length * s.size:
            return None
        return d, Ad, dAd
