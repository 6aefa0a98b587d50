"""Training of direction networks: on the steps of its own solves, or on samples of a matrix's spectrum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from learnsolve.kernels.vector import norm
from learnsolve.loop import Limits, System, iterate
from learnsolve.methods.dcdm import DCDM
from learnsolve.methods.dcdm_losses import RunningSolves, energy_loss, residual_loss
from learnsolve.methods.dcdm_network import DirectionNetwork, NetworkOptions
from learnsolve.methods.dcdm_weights import save
from learnsolve.operators import GridPoisson
from learnsolve.training import FitOptions, FitProgress, FitResult, fit, with_parts


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
        matrix's spectrum. ``"energy"`` lets the network solve systems of known answers, a batch of which
        goes on by a step of `DCDM` in each training step, and takes the mean of
        :math:`\log \|e_{k+1}\|_A / \|e_k\|_A`, so that it sees the residuals that it leaves itself.
    depth : int
        With ``loss="energy"`` a solve makes so many steps before a new one takes its place.
    cells : int
        The batch of a training step has about so many grid cells.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    fit: FitOptions = field(default_factory=lambda: FitOptions(steps=1000, learning_rate=2e-3))
    loss: Literal["energy", "residual"] = "energy"
    depth: int = 16
    cells: int = 1 << 15

    def __post_init__(self) -> None:
        if self.loss not in ("energy", "residual"):
            raise ValueError(f"loss is {self.loss!r}; 'energy' and 'residual' are accepted")
        if self.depth < 1 or self.cells < 1:
            raise ValueError(f"depth is {self.depth} and cells {self.cells}; both must be positive")


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
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    rtol: float = 1e-4,
    maxiter: int = 200,
    callback: Callable[[FitProgress], Any] | None = None,
    record: dict[str, Any] | None = None,
    initial: DirectionNetwork | None = None,
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
    device : torch.device or str
        Where to train; the held-out systems must be there.
    folder : Path, optional
        Where the run keeps its checkpoint, metrics and, when it has finished, ``network.safetensors``.
    rtol, maxiter : float, int
        Of the held-out solves.
    callback : callable, optional
        As in `learnsolve.training.fit`.
    record : dict, optional
        Written to the run's ``config.toml`` and into the weights.
    initial : DirectionNetwork, optional
        From whose weights training begins, instead of random ones; not changed.

    Returns
    -------
    (DirectionNetwork, FitResult)

    Raises
    ------
    ValueError
        There is no source, or one without vectors for ``loss="residual"``; ``initial`` has other options than
        the config; or as `learnsolve.training.fit`.
    """
    if not sources:
        raise ValueError("there is nothing to train on: sources is empty")
    if config.loss == "residual" and not all(s.vectors is not None and len(s.indices) for s in sources):
        raise ValueError("loss='residual' takes sources with vectors and indices")
    if initial is not None and initial.options != config.network:
        raise ValueError(
            f"initial is a network of {initial.options}, and the config asks for {config.network}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        network = config.network.build().to(device)
    if initial is not None:
        network.load_state_dict(initial.state_dict())
    kind = torch.float64 if config.loss == "energy" else torch.float32
    matrices = [cast(GridPoisson, source.A.to(dtype=kind, device=device)) for source in sources]
    counts = [max(1, config.cells // prod(A.domain_shape)) for A in matrices]
    options = with_parts(config.fit, folder)
    running: list[list[RunningSolves]] = []
    if config.loss == "energy":
        running = [
            [RunningSolves(A, n, config.depth) for A, n in zip(matrices, counts, strict=True)]
            for _ in range(options.parts)
        ]

    def batches(count: int, generator: torch.Generator) -> Any:
        number = count % len(sources)
        if running:
            solves = running[count % options.parts][number]
            solves.refill(generator)
            return solves
        vectors, which = sources[number].vectors, torch.as_tensor(sources[number].indices)
        assert vectors is not None
        chosen = which[torch.randint(len(which), (counts[number],), generator=generator)]
        return matrices[number], vectors.batch(chosen.numpy())

    def loss(network: nn.Module, batch: Any) -> Tensor:
        if running:
            return energy_loss(network, batch)
        A, vectors = batch
        return residual_loss(network, A, vectors.to(A.device))

    def validate(network: nn.Module) -> dict[str, float]:
        counts = [iterations(network, A, b, rtol, maxiter) for A, b in held_out]
        return {"iterations": sum(counts) / len(counts), "worst": float(max(counts))}

    result = fit(
        network,
        loss,
        batches,
        options,
        folder=folder,
        validate=validate if held_out else None,
        callback=callback,
        config=record,
        carried={
            f"part{part}.{i}.{name}": tensor
            for part, each in enumerate(running)
            for i, solves in enumerate(each)
            for name, tensor in solves.tensors.items()
        },
    )
    network.eval()
    if folder is not None and result.finished:
        save(folder / "network.safetensors", network, training=record or {})
    return network, result
