"""Fixed points of piecewise-linear maps, which within a region are those of a linear one."""

from typing import NamedTuple

import torch
from torch import Tensor

from learnsolve.dynamics.shplrnn import ShallowPLRNN
from learnsolve.kernels import shplrnn_reference
from learnsolve.kernels.shplrnn import Weights


class FixedPoint(NamedTuple):
    """Where a map stays.

    Attributes
    ----------
    state : (M,) float64 Tensor
    eigenvalues : (M,) complex128 Tensor
        Of the Jacobian there, the largest modulus first.
    """

    state: Tensor
    eigenvalues: Tensor

    @property
    def stable(self) -> bool:
        """Whether all that is near comes nearer: every modulus is less than one."""
        return bool(self.eigenvalues.abs().max() < 1)


@torch.no_grad()
def fixed_points(
    network: ShallowPLRNN, starts: Tensor, *, rounds: int = 100, tolerance: float = 1e-8
) -> list[FixedPoint]:
    r"""Search for fixed points from some states.

    In the region of a state z the map is :math:`J z + c`. Its fixed point :math:`(I - J)^{-1} c` is one of
    the whole map if it lies in the same region; if not, the search goes on in the region where it lies. That
    finds a fixed point exactly, but nothing says that it finds all: more starts find more.

    Parameters
    ----------
    network : ShallowPLRNN
        Its inputs, if it has any, are taken as zero.
    starts : (n, M) Tensor
    rounds : int
        Regions that are tried from each start.
    tolerance : float
        By which a state may move, in its own size, to be fixed.

    Returns
    -------
    list of FixedPoint
        Each once, stable ones first.

    References
    ----------
    L. Eisenmann, Z. Monfared, N. Göring, D. Durstewitz, *Bifurcations and loss jumps in RNN training*,
    NeurIPS 2023, which goes through regions in the same way.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics import ShallowPLRNN
    >>> from learnsolve.dynamics.fixed_points import fixed_points
    >>> network = ShallowPLRNN(2, 5, generator=torch.Generator().manual_seed(0))
    >>> found = fixed_points(network, torch.randn(50, 2))
    >>> z = found[0].state.float()[None]
    >>> torch.allclose(network(z, length=1)[:, 0], z, atol=1e-5)
    True
    """
    if starts.ndim != 2 or starts.shape[1] != network.dim:
        raise ValueError(f"starts have shape {tuple(starts.shape)}; (n, {network.dim}) is accepted")
    weights = Weights(*(one.double().cpu() for one in network.weights))
    z = starts.double().cpu()
    eye = torch.eye(network.dim, dtype=torch.float64)
    found: list[Tensor] = []
    for _ in range(rounds):
        J = shplrnn_reference.jacobian(weights, z, network.clipped)
        after = shplrnn_reference.step(weights, z, network.clipped)
        c = after - (J @ z.unsqueeze(-1)).squeeze(-1)
        solved, info = torch.linalg.solve_ex(eye - J, c.unsqueeze(-1))
        candidate = solved.squeeze(-1)
        sound = (info == 0) & candidate.isfinite().all(-1)
        z, candidate = z[sound], candidate[sound]
        moved = shplrnn_reference.step(weights, candidate, network.clipped) - candidate
        fixed = moved.norm(dim=-1) <= tolerance * (1 + candidate.norm(dim=-1))
        for point in candidate[fixed]:
            if all(float((point - one).norm()) > 1e-6 * (1 + float(one.norm())) for one in found):
                found.append(point)
        z = candidate[~fixed]
        if not len(z):
            break
    points = []
    for state in found:
        values = torch.linalg.eigvals(shplrnn_reference.jacobian(weights, state, network.clipped))
        points.append(FixedPoint(state, values[values.abs().argsort(descending=True)]))
    return sorted(points, key=lambda point: float(point.eigenvalues[0].abs()))
