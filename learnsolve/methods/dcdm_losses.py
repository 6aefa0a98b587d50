"""Losses of direction networks: of running solves, or of one line search."""

from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnsolve.loop import Limits, System, iterate
from learnsolve.methods.cg import CG
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import Multigrid

STEEPEST = 1.5


def image(A: GridPoisson, y: Tensor) -> Tensor:
    """``A y`` for a batch of vectors on the grid, differentiable in ``y``."""
    dims = len(A.domain_shape)
    total = A.diagonal() * y
    for axis in range(dims):
        place, count = y.ndim - dims + axis, A.domain_shape[axis] - 1
        if count == 0:
            continue
        weights = A.faces(axis).narrow(axis, 1, count)
        before, after = y.narrow(place, 0, count), y.narrow(place, 1, count)
        zero = torch.zeros_like(y.narrow(place, 0, 1))
        total = total - torch.cat([weights * after, zero], place) - torch.cat([zero, weights * before], place)
    return total


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner products over all axes but the first, which are kept."""
    return (x * y).sum(tuple(range(1, x.ndim)), keepdim=True)


def _direction(network: nn.Module, A: GridPoisson, r: Tensor) -> Tensor:
    unit = r[:, None].to(next(network.parameters()).dtype)
    y = network(unit)[:, 0].to(r.dtype)
    return torch.where(A.active, y, torch.zeros((), dtype=y.dtype, device=y.device))


def residual_loss(network: nn.Module, A: GridPoisson, b: Tensor) -> Tensor:
    r"""The mean over the batch of what one exact line search along the network's direction leaves.

    .. math:: \frac1B \sum_i \| b_i - \alpha_i A y_i \|^2, \qquad y_i = f_\theta(b_i), \qquad
              \alpha_i = \frac{y_i^T b_i}{y_i^T A y_i}

    Parameters
    ----------
    network : torch.nn.Module
        From ``(B, 1, *shape)`` to the same.
    A : GridPoisson
        Real, in the network's dtype.
    b : Tensor of shape ``(B, *shape)``
        Of unit norm, zero off the fluid.

    References
    ----------
    Kaneda et al., ICML 2023, equation 6.
    """
    y = _direction(network, A, b)
    Ay = image(A, y)
    rest = b - _dot(y, b) / _dot(y, Ay) * Ay
    return _dot(rest, rest).mean()


def multiscale(A: GridPoisson, generator: torch.Generator) -> Tensor:
    """A random right-hand side of unit norm, anything from rough to smooth.

    The sum of smoothly interpolated noise on grids of spacing ``2^k``, whose norms are ``2^(-s k)`` with a
    random slope ``s`` from -1.5 to 1.5.
    """
    shape = A.domain_shape
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    slope = float(STEEPEST * (2 * torch.rand((), generator=generator) - 1))
    total = torch.zeros(shape, dtype=A.dtype)
    active = A.active.cpu()
    for octave in range(ceil(log2(max(shape))) + 1):
        coarse = [ceil(n / 2**octave) for n in shape]
        noise = torch.randn((1, 1, *coarse), generator=generator, dtype=A.dtype)
        noise = functional.interpolate(noise, size=shape, mode=mode)[0, 0] * active
        total += 2 ** (-slope * octave) * noise / noise.norm().clamp(min=1e-30)
    r = total.to(A.device)
    r = A.project(r) if A.singular else r
    return r / r.norm()


class RunningSolves:
    """A batch of solves by DCDM towards known answers, each at another step.

    Parameters
    ----------
    A : GridPoisson
        Real, in double precision.
    count : int
        How many solves.
    depth : int
        A solve ends after so many steps, and another one takes its place.
    memory : int
        Against how many previous directions a new one is made conjugate.

    Attributes
    ----------
    tensors : dict of Tensor
        All that changes, in place: errors ``e``, directions ``p``, their images ``Ap`` and ``p^T A p``, and
        at which step each solve is.
    """

    def __init__(self, A: GridPoisson, count: int, depth: int, memory: int = 2) -> None:
        self.A, self.depth = A, depth
        shape = (count, *A.domain_shape)
        steps = torch.arange(count, device=A.device) % depth
        zeros = torch.zeros(memory, *shape, dtype=A.dtype, device=A.device)
        ones = torch.ones(memory, count, *[1] * len(A.domain_shape), dtype=A.dtype, device=A.device)
        e = torch.zeros(shape, dtype=A.dtype, device=A.device)
        self.tensors = {"e": e, "p": zeros, "Ap": zeros.clone(), "pAp": ones, "step": steps}
        self._inverse = Multigrid().build(A)

    def refill(self, generator: torch.Generator) -> None:
        """Begin new solves in place of those that have ended or come to rounding."""
        e, step = self.tensors["e"], self.tensors["step"]
        ended = step >= self.depth
        step[ended] = 0
        ended |= ~(_dot(e, image(self.A, e)).flatten() > 0)
        for index in ended.nonzero().flatten().tolist():
            # Roughly solved is enough: the right-hand side is the answer's image anyway.
            system = System(self.A, multiscale(self.A, generator), self._inverse)
            e[index] = iterate(CG(), system, torch.zeros_like(e[index]), Limits(1e-4, 0.0, 100)).x
        for name, neutral in (("p", 0.0), ("Ap", 0.0), ("pAp", 1.0)):
            self.tensors[name][:, ended] = neutral


def energy_loss(network: nn.Module, solves: RunningSolves) -> Tensor:
    r"""The mean of :math:`\log \|e_{k+1}\|_A / \|e_k\|_A` over running solves, each of which makes a step.

    Gradients pass through this step's directions, not to earlier ones.

    Parameters
    ----------
    network : torch.nn.Module
        From ``(B, 1, *shape)`` to the same.
    solves : RunningSolves
        Changed in place.
    """
    A, held = solves.A, solves.tensors
    r = image(A, held["e"])
    size = _dot(r, r).sqrt().clamp(min=1e-150)
    r, e = r / size, held["e"] / size
    p = _direction(network, A, r)
    p = p / _dot(p, p).detach().sqrt().clamp(min=1e-30)
    Ap = image(A, p)
    for q, Aq, qAq in zip(*(held[name].clone() for name in ("p", "Ap", "pAp")), strict=True):
        beta = _dot(q, Ap) / qAq
        p, Ap = p - beta * q, Ap - beta * Aq
    # A proposal within the previous directions leaves nothing but rounding, which is not divided by.
    pAp, along = _dot(p, Ap).clamp(min=1e-12), _dot(p, r)
    left = 1 - along.square() / (pAp * _dot(e, r)).clamp(min=1e-12)
    with torch.no_grad():
        held["e"].copy_(e - along / pAp * p)
        for name, new in (("p", p), ("Ap", Ap), ("pAp", pAp)):
            if len(held[name]):
                held[name].copy_(torch.cat([new[None], held[name][:-1]]))
        held["step"] += 1
    # What is left may round to nothing.
    return left.clamp(min=1e-6).log().mean() / 2
