r"""Generalized teacher forcing: how strongly a state is drawn to the data.

With strength :math:`\alpha` the product of Jacobians along a sequence is that of :math:`(1 - \alpha) J_t`,
which stays bounded where :math:`(1 - \alpha) \lVert J_t \rVert \le 1`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from learnsolve.dynamics.shplrnn import ShallowPLRNN
from learnsolve.kernels import shplrnn as kernels

# Batches from one estimate to the next, and the share that the strength keeps of itself where it falls.
EVERY, KEPT = 5, 0.999


def optimal_alpha(norm: float) -> float:
    r"""The least strength with which Jacobians of a norm do not grow: :math:`\max(0, 1 - 1 / \mathcal N)`.

    References
    ----------
    Hess and others, *Generalized teacher forcing for learning chaotic dynamics*, ICML 2023, section 3.3.

    Examples
    --------
    >>> from learnsolve.dynamics.teacher_forcing import optimal_alpha
    >>> optimal_alpha(2.0), optimal_alpha(0.5)
    (0.5, 0.0)
    """
    return max(0.0, 1 - 1 / norm) if norm > 0 else 0.0


Estimator = Callable[[ShallowPLRNN, Tensor], float]


@torch.no_grad()
def upper_bound(network: ShallowPLRNN, states: Tensor) -> float:
    r"""No Jacobian has a larger norm: :math:`\max |A| + \lVert W_1 \rVert \lVert W_2 \rVert`."""
    W1, W2 = (torch.linalg.matrix_norm(one, ord=2) for one in (network.W1, network.W2))
    return float(network.A.abs().max() + W1 * W2)


@torch.no_grad()
def maximum(network: ShallowPLRNN, states: Tensor) -> float:
    """The largest norm of a Jacobian at any of the states."""
    return float(_norms(network, states).nan_to_num(0).max())


@torch.no_grad()
def geometric_mean(network: ShallowPLRNN, states: Tensor) -> float:
    """Of each sequence the geometric mean of the norms, and of these the largest; it bounds products."""
    return float(_norms(network, states).log().nanmean(1).nan_to_num(-torch.inf).max().exp())


@torch.no_grad()
def arithmetic_mean(network: ShallowPLRNN, states: Tensor) -> float:
    """Of each sequence the norm of the mean Jacobian, and of these the largest."""
    return float(torch.linalg.matrix_norm(_mean(network.jacobian(states), states), ord=2).max())


@torch.no_grad()
def exponential_mean(network: ShallowPLRNN, states: Tensor) -> float:
    """Of each sequence the norm of the exponential of the mean logarithm; of these the largest."""
    values, vectors = torch.linalg.eig(network.jacobian(states).double())
    small = values.abs().clamp(min=1e-12)
    logarithms = torch.complex(small.log(), values.angle())
    whole = vectors @ (logarithms.unsqueeze(-1) * torch.linalg.pinv(vectors))
    return float(torch.linalg.matrix_norm(torch.linalg.matrix_exp(_mean(whole, states)), ord=2).max())


ESTIMATORS: dict[str, Estimator] = {
    "geometric-mean": geometric_mean,
    "arithmetic-mean": arithmetic_mean,
    "maximum": maximum,
    "upper-bound": upper_bound,
    "exponential-mean": exponential_mean,
}


class Annealed:
    r"""A strength that follows what the Jacobians ask for: up at once, and slowly down.

    Every few batches :math:`\mathcal N` is estimated at the states that a batch is drawn to. Where
    :math:`\alpha^* = \max(0, 1 - 1 / \mathcal N)` is more than the strength it takes its place; else the
    strength goes to :math:`\gamma \alpha + (1 - \gamma) \alpha^*`.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`.
    every : int
        Batches from one estimate to the next.
    kept : float
        :math:`\gamma`, in [0, 1]; zero takes each estimate as it is.
    start : float
        Strength at first.

    Attributes
    ----------
    state : (1,) float64 Tensor
        The strength, as a tensor, so that a checkpoint can keep it.

    Raises
    ------
    ValueError
        There is no such estimator, or a number is not accepted.

    References
    ----------
    Hess and others, *Generalized teacher forcing for learning chaotic dynamics*, ICML 2023, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics import ShallowPLRNN
    >>> from learnsolve.dynamics.teacher_forcing import Annealed
    >>> strength = Annealed("maximum")
    >>> 0 <= strength(0, ShallowPLRNN(3, 50), torch.randn(4, 20, 3)) <= 1
    True
    """

    def __init__(
        self, estimator: str = "geometric-mean", *, every: int = EVERY, kept: float = KEPT, start: float = 1.0
    ) -> None:
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator is {estimator!r}; {', '.join(ESTIMATORS)} are accepted")
        if every < 1 or not (0 <= kept <= 1 and 0 <= start <= 1):
            raise ValueError(
                f"every is {every}, kept {kept} and start {start}; at least 1, and numbers in [0, 1] "
                "are accepted"
            )
        self.estimator, self.every, self.kept = estimator, every, kept
        self.state = torch.tensor([float(start)], dtype=torch.float64)

    def __repr__(self) -> str:
        return f"Annealed({self.estimator!r}, every={self.every}, kept={self.kept})"

    def __call__(self, number: int, network: ShallowPLRNN, states: Tensor) -> float:
        """Strength for the batch of a number, of states (B, T, M) to be drawn to."""
        now = self.state.item()
        if number % self.every == 0:
            wanted = optimal_alpha(ESTIMATORS[self.estimator](network, states))
            now = wanted if wanted > now else self.kept * now + (1 - self.kept) * wanted
            self.state.fill_(now)
        return now


def _norms(network: ShallowPLRNN, states: Tensor) -> Tensor:
    """Of the Jacobians at states (B, T, M); NaN where a state is."""
    points = states.reshape(-1, states.shape[-1])
    norms = kernels.jacobian_norms(network.weights, points.nan_to_num(), clipped=network.clipped)
    norms[points.isnan().any(-1)] = torch.nan
    return norms.reshape(states.shape[:-1])


def _mean(matrices: Tensor, states: Tensor) -> Tensor:
    """Over the times whose states (B, T, M) are known: (B, M, M) of (B, T, M, M)."""
    known = ~states.isnan().any(-1)
    total = (matrices * known[..., None, None]).sum(1)
    return total / known.sum(1).clamp(min=1)[:, None, None]
