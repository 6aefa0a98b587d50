"""A linear network as a preconditioner for batches of elliptic problems, its loss, and what judges it."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from learnsolve.operators import GridPoisson
from learnsolve.problems.elliptic_families import EllipticFamily
from learnsolve.training.seeding import seed_of

# Of the solves that judge: relative residual, most iterations, and directions that are kept conjugate.
RTOL, MOST, WINDOW = 1e-6, 200, 20

Batch = tuple[GridPoisson, Tensor]


class MultiscaleNetwork(nn.Module):
    """Convolutions without biases on ever coarser squares and back, beside the inverse of the diagonal.

    The answer is linear in the right-hand side, but not a symmetric function of it. The network sees of an
    operator its holes and its diagonal: it cannot tell a strong coupling along x from one along y.

    Parameters
    ----------
    channels : int
        Of all convolutions.
    levels : int
        Squares, each half as wide as the one before.
    """

    def __init__(self, channels: int = 8, levels: int = 4) -> None:
        super().__init__()

        def convolution(inputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, channels, 3, padding=1, bias=False)

        last = levels - 1
        self.down = nn.ModuleList(convolution(channels if level else 1) for level in range(levels))
        self.up = nn.ModuleList(
            convolution(channels if level == last else 2 * channels) for level in range(levels)
        )
        self.out = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, b: Tensor, active: Tensor, diagonal: Tensor) -> Tensor:
        """Approximate solutions.

        Parameters
        ----------
        b : (B, n, n) Tensor
            Right-hand sides; n is a multiple of ``2^(levels - 1)``.
        active : (B, n, n) bool Tensor
            Where there are unknowns.
        diagonal : (B, n, n) Tensor
            Of the operators.

        Returns
        -------
        (B, n, n) Tensor
            Zero where there are no unknowns.
        """
        scaled = torch.where(active, b, 0) / torch.where(active, diagonal, 1)
        x, share = scaled[:, None], active[:, None].to(b.dtype)
        states: list[Tensor] = []
        shares: list[Tensor] = []
        for level, down in enumerate(self.down):
            if level:
                # Means of four, but noise shall stay as large as it is.
                x, share = 2 * avg_pool2d(x, 2), avg_pool2d(share, 2)
            x = down(x) * share
            states.append(x)
            shares.append(share)
        x = self.up[-1](states[-1]) * shares[-1]
        for level in reversed(range(len(states) - 1)):
            both = torch.cat((states[level], interpolate(x, scale_factor=2.0)), 1)
            x = self.up[level](both) * shares[level]
        return self.out(x)[:, 0] + scaled


def residual_left(network: Callable[..., Tensor], batch: Batch) -> Tensor:
    r"""How much of the residual is left after the best step along what the network proposes.

    .. math:: \frac1B \sum_i \min_\alpha \frac{\| b_i - \alpha A_i z_i \|^2}{\| b_i \|^2}, \qquad z_i = f(b_i)

    Parameters
    ----------
    network : callable
        As `MultiscaleNetwork`.
    batch : (GridPoisson, (B, n, n) Tensor)
        From `systems`.

    Returns
    -------
    () Tensor
    """
    A, b = batch
    Az = A @ network(b, A.active, A.diagonal())
    rest = b - _dot(b, Az) / _dot(Az, Az).clamp(min=torch.finfo(b.dtype).tiny) * Az
    return (_dot(rest, rest) / _dot(b, b)).mean()


def flexible_cg(
    A: GridPoisson, b: Tensor, precondition: Callable[[Tensor], Tensor], most: int = MOST
) -> tuple[Tensor, Tensor]:
    """Solve each of a batch of systems by flexible conjugate gradients, the preconditioner being of any kind.

    Each direction is made conjugate to the `WINDOW` before it, and each residual is that of the definition.
    A preconditioner that answers one system with NaN may spoil the others, too.

    Parameters
    ----------
    A : GridPoisson
        Block diagonal, as `learnsolve.problems.elliptic_families` draws them.
    b : (B, n, n) Tensor
    precondition : callable
        From residuals (B, n, n) to approximate errors.
    most : int
        Iterations.

    Returns
    -------
    x : (B, n, n) Tensor
    iterations : (B,) int64 Tensor
        After how many the residual of each was first below `RTOL` times the norm of b; ``most`` if never.

    References
    ----------
    Notay, *Flexible conjugate gradients*, SIAM J. Sci. Comput. 22, 2000, with truncation.
    """
    count, size, tiny = len(b), b[0].numel(), torch.finfo(b.dtype).tiny
    directions, images = b.new_zeros(2, count, WINDOW, size)
    energies = b.new_ones(count, WINDOW)
    x, r = torch.zeros_like(b), b
    goal = RTOL**2 * _dot(b, b)
    unsolved = torch.ones_like(goal, dtype=torch.bool)
    iterations = torch.full((count,), most)
    for number in range(most):
        # What is solved takes steps of zero, and so stays as it is.
        z = torch.where(unsolved, precondition(r), 0).flatten(1)
        along = (images @ z[:, :, None])[:, :, 0] / energies
        p = (z - (along[:, None] @ directions)[:, 0]).view_as(b)
        Ap = A @ p
        energy = _dot(p, Ap).clamp(min=tiny)
        place = number % WINDOW
        directions[:, place], images[:, place] = p.flatten(1), Ap.flatten(1)
        energies[:, place] = energy.flatten()
        x = x + _dot(p, r) / energy * p
        r = b - A @ x
        reached = unsolved & (_dot(r, r) <= goal)
        iterations[reached.flatten()] = number + 1
        unsolved &= ~reached
        if not unsolved.any():
            break
    return x, iterations


def systems(
    family: EllipticFamily, count: int, cells: int, generator: torch.Generator, dtype: torch.dtype
) -> Batch:
    """Random operators of a family, and noise on the right."""
    A = family.draw(count, cells, generator, dtype=dtype)
    return A, torch.randn(A.domain_shape, generator=generator, dtype=dtype) * A.active


def mean_iterations(network: Callable[..., Tensor], A: GridPoisson, b: Tensor) -> float:
    """The mean number of iterations that systems take with a network in single precision."""
    active, diagonal = A.active, A.diagonal().float()
    found = flexible_cg(A, b, lambda r: network(r.float(), active, diagonal).double())
    return float(found[1].double().mean())


class FamilyTask:
    """A family of elliptic problems as a task of `learnsolve.training.continual.TaskStream`.

    Parameters
    ----------
    family : EllipticFamily
    cells : int
        Along each side.
    batch : int
        Systems in one batch, which are drawn anew each time.
    held_out : int
        Systems that it is judged by; always the same.
    """

    def __init__(self, family: EllipticFamily, cells: int, batch: int, held_out: int) -> None:
        self.family, self.cells, self.batch, self.name = family, cells, batch, family.name
        generator = torch.Generator().manual_seed(seed_of(0, f"held-out {family.name}", cells))
        self.held_out = systems(family, held_out, cells, generator, torch.float64)

    def batches(self, number: int, generator: torch.Generator) -> Batch:
        """Systems to learn from, in single precision."""
        return systems(self.family, self.batch, self.cells, generator, torch.float32)

    def score(self, network: Callable[..., Tensor]) -> float:
        """The mean number of iterations that held-out systems take with a network in single precision."""
        return mean_iterations(network, *self.held_out)

    @cached_property
    def plain(self) -> float:
        """The mean number of iterations with the diagonal alone."""
        A, b = self.held_out
        found = flexible_cg(A, b, lambda r: r / torch.where(A.active, A.diagonal(), 1))
        return float(found[1].double().mean())


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner products of the systems of a batch, (B, 1, 1)."""
    return (x * y).sum((1, 2), keepdim=True)
