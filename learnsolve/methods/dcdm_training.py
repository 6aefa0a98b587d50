"""Training of direction networks: on the steps of its own solves, or on samples of a matrix's spectrum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2, prod
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnsolve.kernels.vector import norm
from learnsolve.loop import Limits, System, iterate
from learnsolve.methods.dcdm import DCDM
from learnsolve.methods.dcdm_network import DirectionNetwork, NetworkOptions
from learnsolve.methods.dcdm_weights import save
from learnsolve.operators import GridPoisson
from learnsolve.training import FitOptions, FitProgress, FitResult, fit


class Vectors(Protocol):
    """A set of unit right-hand sides, as `learnsolve.datasets.samples.Samples`."""

    def batch(self, indices: Any) -> Tensor:
        """Those of the indices, ``(B, *shape)``."""


@dataclass(frozen=True)
class Source:
    """A matrix to train on.

    Attributes
    ----------
    A : GridPoisson
        Real.
    vectors : Vectors, optional
        Right-hand sides for ``loss="residual"``.
    indices : sequence of int
        Those to train on.
    """

    A: GridPoisson
    vectors: Vectors | None = None
    indices: Sequence[int] = ()


@dataclass(frozen=True)
class DCDMTraining:
    r"""How a direction network is trained.

    Parameters
    ----------
    network : NetworkOptions
        The network.
    fit : FitOptions
        Steps, learning rate and the like.
    loss : {"energy", "residual"}
        ``"residual"`` is the paper's: :math:`\|b - \alpha A y\|^2` after one line search, on vectors of the
        matrix's spectrum. ``"energy"`` lets the network solve systems of known, multiscale answers and
        takes the mean of :math:`\log \|e_{k+1}\|_A / \|e_k\|_A` over the first ``unroll`` steps of `DCDM`,
        so that it sees the residuals that it leaves itself.
    unroll : int
        Steps of DCDM in a training step of ``loss="energy"``.
    cells : int
        The batch of a training step has about so many grid cells.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    fit: FitOptions = field(default_factory=lambda: FitOptions(steps=1000, learning_rate=2e-3))
    loss: Literal["energy", "residual"] = "energy"
    unroll: int = 12
    cells: int = 1 << 15

    def __post_init__(self) -> None:
        if self.loss not in ("energy", "residual"):
            raise ValueError(f"loss is {self.loss!r}; 'energy' and 'residual' are accepted")
        if self.unroll < 1 or self.cells < 1:
            raise ValueError(f"unroll is {self.unroll} and cells {self.cells}; both must be positive")


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
    y = network(r[:, None])[:, 0]
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


def energy_loss(network: nn.Module, A: GridPoisson, x: Tensor, steps: int, memory: int = 2) -> Tensor:
    r"""The mean of :math:`\log \|e_{k+1}\|_A / \|e_k\|_A` over the first steps of DCDM towards known answers.

    Gradients pass through each step's direction, not from step to step.

    Parameters
    ----------
    network : torch.nn.Module
        From ``(B, 1, *shape)`` to the same.
    A : GridPoisson
        Real, in the network's dtype.
    x : Tensor of shape ``(B, *shape)``
        The answers, zero off the fluid.
    steps, memory : int
        Steps of DCDM, and against how many previous directions each is conjugated.
    """
    r, e = image(A, x), x
    previous: list[tuple[Tensor, Tensor, Tensor]] = []
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        size = _dot(r, r).sqrt().clamp(min=1e-30)
        r, e = r / size, e / size
        p = _direction(network, A, r)
        p = p / _dot(p, p).detach().sqrt().clamp(min=1e-30)
        Ap = image(A, p)
        for q, Aq, qAq in previous:
            beta = _dot(q, Ap) / qAq
            p, Ap = p - beta * q, Ap - beta * Aq
        # A proposal within the previous directions leaves nothing but rounding, which is not divided by.
        pAp, along = _dot(p, Ap).clamp(min=1e-12), _dot(p, r)
        left = 1 - along.square() / (pAp * _dot(e, r)).clamp(min=1e-12)
        # What is left may round to nothing in single precision.
        total = total + left.clamp(min=1e-6).log().mean() / (2 * steps)
        alpha = (along / pAp).detach()
        p, Ap, pAp = p.detach(), Ap.detach(), pAp.detach()
        r, e = r - alpha * Ap, e - alpha * p
        previous = [(p, Ap, pAp), *previous][:memory]
    return total


def multiscale(A: GridPoisson, count: int, generator: torch.Generator) -> Tensor:
    """Random answers ``(count, *shape)`` with something on every scale, in single precision.

    Octave by octave, smoothly interpolated noise is scaled so that its image under ``A`` has a norm that is
    random between 0.01 and 1.
    """
    shape = A.domain_shape
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    total = torch.zeros((count, *shape), device=A.device)
    for octave in range(ceil(log2(max(shape))) + 1):
        coarse = [max(1, ceil(n / 2**octave)) for n in shape]
        noise = torch.randn((count, 1, *coarse), generator=generator).to(A.device)
        x = functional.interpolate(noise, size=shape, mode=mode)[:, 0] if octave else noise[:, 0]
        x = torch.where(A.active, x, torch.zeros((), device=A.device))
        Ax = image(A, x)
        weight = 10 ** (-2 * torch.rand((count, *[1] * len(shape)), generator=generator))
        total = total + weight.to(A.device) * x / _dot(Ax, Ax).sqrt().clamp(min=1e-20)
    return total


def iterations(network: nn.Module, A: GridPoisson, b: Tensor, rtol: float, maxiter: int) -> int:
    """How many steps `DCDM` with this network takes; ``maxiter`` where it does not get there."""
    method = DCDM(network)
    system = System(A, A.project(b) if A.singular else b, None, method.setup(A))
    outcome = iterate(method, system, torch.zeros_like(b), Limits(rtol, 0.0, maxiter))
    reached = outcome.residuals[-1] <= rtol * norm(system.b)
    return outcome.iterations if reached else maxiter


def train(
    config: DCDMTraining,
    sources: Sequence[Source],
    held_out: Sequence[tuple[GridPoisson, Tensor]] = (),
    *,
    folder: Path | None = None,
    rtol: float = 1e-4,
    maxiter: int = 200,
    callback: Callable[[FitProgress], Any] | None = None,
    record: dict[str, Any] | None = None,
) -> tuple[DirectionNetwork, FitResult]:
    """Train a network; with a ``folder`` the run can be killed and continued.

    Parameters
    ----------
    config : DCDMTraining
        Network, steps and loss.
    sources : sequence of Source
        Matrices; every step takes one, in turn.
    held_out : sequence of (GridPoisson, Tensor)
        Systems on whose iterations the network is judged.
    folder : Path, optional
        Where the run keeps its checkpoint, metrics and, when it has finished, ``network.safetensors``.
    rtol, maxiter : float, int
        Of the held-out solves.
    callback : callable, optional
        As in `learnsolve.training.fit`.
    record : dict, optional
        Written to the run's ``config.toml`` and into the weights.

    Returns
    -------
    (DirectionNetwork, FitResult)

    Raises
    ------
    ValueError
        There is no source, or one without vectors for ``loss="residual"``; or as `learnsolve.training.fit`.
    """
    if not sources:
        raise ValueError("there is nothing to train on: sources is empty")
    if config.loss == "residual" and not all(s.vectors is not None and len(s.indices) for s in sources):
        raise ValueError("loss='residual' takes sources with vectors and indices")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        network = config.network.build()
    matrices = [cast(GridPoisson, source.A.to(dtype=torch.float32)) for source in sources]

    def batches(step: int, generator: torch.Generator) -> tuple[GridPoisson, Tensor]:
        source, A = sources[step % len(sources)], matrices[step % len(sources)]
        count = max(1, config.cells // prod(A.domain_shape))
        if config.loss == "energy":
            return A, multiscale(A, count, generator)
        assert source.vectors is not None
        which = torch.as_tensor(source.indices)
        chosen = which[torch.randint(len(which), (count,), generator=generator)]
        return A, source.vectors.batch(chosen.numpy())

    def loss(network: nn.Module, batch: tuple[GridPoisson, Tensor]) -> Tensor:
        A, vectors = batch
        device = next(network.parameters()).device
        A, vectors = cast(GridPoisson, A.to(device=device)), vectors.to(device)
        if config.loss == "energy":
            return energy_loss(network, A, vectors, config.unroll)
        return residual_loss(network, A, vectors)

    def validate(network: nn.Module) -> dict[str, float]:
        counts = [iterations(network, A, b, rtol, maxiter) for A, b in held_out]
        return {"iterations": sum(counts) / len(counts), "worst": float(max(counts))}

    result = fit(
        network,
        loss,
        batches,
        config.fit,
        folder=folder,
        validate=validate if held_out else None,
        callback=callback,
        config=record,
    )
    network.eval()
    if folder is not None and result.finished:
        save(folder / "network.safetensors", network, training=record or {})
    return network, result
