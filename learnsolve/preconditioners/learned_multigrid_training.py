"""Training of the learned multigrid: through unrolled preconditioned conjugate gradients on small domains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.kernels.vector import norm
from learnsolve.loop import Limits, System, iterate
from learnsolve.methods.cg import CG
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners.coupling_network import CouplingNetwork, CouplingOptions
from learnsolve.preconditioners.learned_multigrid import KIND, LearnedMultigrid
from learnsolve.preconditioners.unrolled_multigrid import UnrolledMultigrid
from learnsolve.training import FitOptions, FitProgress, FitResult, fit
from learnsolve.training.shipped import save_network


@dataclass(frozen=True)
class MultigridTraining:
    r"""How the network of a learned multigrid is trained.

    The loss is the mean of :math:`\log(\|r_k\| / \|b\|) / k` after ``unroll`` steps of conjugate gradients
    from zero, over right-hand sides of all kinds: noise, the image of noise, a constant and a smooth bump.

    Parameters
    ----------
    network : CouplingOptions
        The network.
    fit : FitOptions
        Steps, learning rate and the like.
    unroll : int
        Steps of conjugate gradients.
    batch : int
        Domains in a training step.
    coarsest : int
        That of the levels in training; small, so that small domains have as many levels as large ones.
    """

    network: CouplingOptions = field(default_factory=CouplingOptions)
    fit: FitOptions = field(default_factory=lambda: FitOptions(steps=1000, learning_rate=6e-3, warmup=20))
    unroll: int = 4
    batch: int = 2
    coarsest: int = 40

    def __post_init__(self) -> None:
        for name in ("unroll", "batch", "coarsest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a positive integer is accepted")


class Unrolled(nn.Module):
    """The training loss as a module, so that several processes can share its gradients."""

    def __init__(self, network: CouplingNetwork, config: MultigridTraining) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, domains: Sequence[tuple[UnrolledMultigrid, Tensor]]) -> Tensor:
        """The mean loss over domains, each with right-hand sides ``(B, n)`` over its fluid cells."""
        steps, total = self.config.unroll, torch.zeros((), dtype=torch.float64)
        for multigrid, b in domains:
            squares = multigrid.residuals(multigrid.set_up(self.network), b, steps)
            total = total + (squares[-1] / squares[0]).clamp(min=1e-30).log().mean() / (2 * steps)
        return total / len(domains)


def right_hand_sides(A: GridPoisson, generator: torch.Generator) -> Tensor:
    """Noise, the image of noise, a constant and a bump, ``(4, n)``, each of unit norm and solvable."""
    shape = tuple(A.cells.shape)
    noise = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    places = torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    middle = torch.rand(len(shape), generator=generator, dtype=torch.float64)
    away = sum((place - m) ** 2 for place, m in zip(places, middle, strict=True))
    width = 0.05 + 0.3 * float(torch.rand(1, generator=generator))
    fields = [noise[0], A._apply(noise[1] * A.active), torch.ones(shape).double(), (-away / width**2).exp()]
    chosen = []
    for candidate in fields:
        b = A.project(candidate * A.active)[A.active]
        # On a closed domain nothing is left of a constant.
        b = (
            b
            if float(b.norm()) > 1e-6 * float(candidate.norm())
            else A.project(noise[0] * A.active)[A.active]
        )
        chosen.append(b / b.norm().clamp(min=1e-30))
    return torch.stack(chosen)


def iterations(network: CouplingNetwork | None, A: GridPoisson, b: Tensor, rtol: float, maxiter: int) -> int:
    """How many steps conjugate gradients take with this network; ``maxiter`` where they do not get there."""
    M = LearnedMultigrid(network).build(A)
    system = System(A, A.project(b) if A.singular else b, M)
    outcome = iterate(CG(), system, torch.zeros_like(b), Limits(rtol, 0.0, maxiter))
    return outcome.iterations if outcome.residuals[-1] <= rtol * norm(system.b) else maxiter


def train(
    config: MultigridTraining,
    matrices: Sequence[GridPoisson],
    held_out: Sequence[tuple[GridPoisson, Tensor]] = (),
    *,
    folder: Path | None = None,
    rtol: float = 1e-6,
    maxiter: int = 100,
    callback: Callable[[FitProgress], Any] | None = None,
    record: dict[str, Any] | None = None,
) -> tuple[CouplingNetwork, FitResult]:
    """Train a network; with a ``folder`` the run can be killed and continued.

    Parameters
    ----------
    config : MultigridTraining
        Network, steps and loss.
    matrices : sequence of GridPoisson
        Small domains; every step takes some at random.
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
    (CouplingNetwork, FitResult)

    Raises
    ------
    ValueError
        There is no matrix, or one too small to have two coarse levels; or as `learnsolve.training.fit`.
    """
    if not matrices:
        raise ValueError("there is nothing to train on: matrices is empty")
    for A in matrices:
        if A.unknowns <= config.coarsest:
            raise ValueError(
                f"a domain of {A.unknowns} unknowns has no coarse level; "
                f"at least {config.coarsest + 1} are accepted, or a smaller coarsest"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        module = Unrolled(config.network.build(), config)
    # What is aggregated does not depend on the network.
    options = LearnedMultigrid(module.network, coarsest=config.coarsest)
    domains = [UnrolledMultigrid(A, options.cycle_on(A, graphs=True)) for A in matrices]

    def batches(step: int, generator: torch.Generator) -> list[tuple[UnrolledMultigrid, Tensor]]:
        chosen = torch.randint(len(domains), (config.batch,), generator=generator).tolist()
        return [(domains[place], right_hand_sides(domains[place].A, generator)) for place in chosen]

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Unrolled)
        counts = [iterations(module.network, A, b, rtol, maxiter) for A, b in held_out]
        return {"iterations": sum(counts) / len(counts), "worst": float(max(counts))}

    result = fit(
        module,
        lambda module, batch: module(batch),
        batches,
        config.fit,
        folder=folder,
        validate=validate if held_out else None,
        callback=callback,
        config=record,
    )
    network = module.network.eval()
    if folder is not None and result.finished:
        save_network(folder / "network.safetensors", KIND, network, training=record or {})
    return network, result
