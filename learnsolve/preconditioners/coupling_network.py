"""The network of the learned multigrid: small, local, and the same on every level and grid."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from learnsolve.kernels.coupling_numba import Weights

# As in learnsolve.kernels.coupling_numba, which is loaded when it is needed.
NODE_FEATURES, EDGE_FEATURES, CELL_FEATURES, WIDTH = 6, 5, 5, 16


@dataclass(frozen=True)
class CouplingOptions:
    """Size of a `CouplingNetwork`.

    Parameters
    ----------
    rounds : int
        How often unknowns hear from their neighbours.
    bound : float
        Multipliers lie between ``exp(-bound)`` and ``exp(bound)``.
    """

    rounds: int = 2
    bound: float = 2.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; a positive integer is accepted")
        if not 0 < self.bound <= 4:
            raise ValueError(f"bound is {self.bound}; a number above 0 and up to 4 is accepted")

    def build(self) -> "CouplingNetwork":
        """A network with random weights that leave the classical multigrid as it is."""
        return CouplingNetwork(self)


class Unknowns(NamedTuple):
    """What the network is told of a coarse level of ``n`` unknowns and ``m`` undirected edges.

    Attributes
    ----------
    nodes, edges : (n, NODE_FEATURES) and (m, EDGE_FEATURES) Tensor
        Features.
    i, j : (m,) int64 Tensor
        Ends of the edges.
    sides : int
        Neighbours of an unknown inside.
    """

    nodes: Tensor
    edges: Tensor
    i: Tensor
    j: Tensor
    sides: int


class Tuned(NamedTuple):
    """What the network says of a coarse level.

    Attributes
    ----------
    multiplier, excess : (m,) and (n,) Tensor
        Factors for the couplings and for the coupling to boundary values.
    embedding : (n, WIDTH) Tensor
        What it has made of the unknowns.
    """

    multiplier: Tensor
    excess: Tensor
    embedding: Tensor


class CouplingNetwork(nn.Module):
    """From the shape of aggregates and the couplings between them to corrections of a multigrid.

    Parameters
    ----------
    options : CouplingOptions
        Sizes.

    Examples
    --------
    >>> network = CouplingOptions().build()
    >>> sum(p.numel() for p in network.parameters())
    2712
    """

    node: nn.Parameter
    sender: nn.Parameter
    edge: nn.Parameter
    keep: nn.Parameter
    take: nn.Parameter
    pair: nn.Parameter
    joint: nn.Parameter
    coupling: nn.Parameter
    own: nn.Parameter
    cell: nn.Parameter
    parent: nn.Parameter
    relaxation: nn.Parameter

    def __init__(self, options: CouplingOptions) -> None:
        super().__init__()
        self.options = options
        width, rounds = WIDTH, options.rounds
        # A matrix takes a row vector from the left; where there is a bias it is the last row.
        shapes = {
            "node": (NODE_FEATURES + 1, width),
            "sender": (rounds, width, width),
            "edge": (rounds, EDGE_FEATURES + 1, width),
            "keep": (rounds, width + 1, width),
            "take": (rounds, width, width),
            "pair": (width, width),
            "joint": (EDGE_FEATURES + 1, width),
            "coupling": (2, width + 1),
            "own": (2, width + 1),
            "cell": (CELL_FEATURES + 1, width),
            "parent": (width, width),
            "relaxation": (width + 1, 4),
        }
        for name, shape in shapes.items():
            values = torch.zeros(shape)
            if name not in ("coupling", "own", "relaxation"):
                nn.init.uniform_(values, -1, 1).mul_(shape[-2] ** -0.5)
            setattr(self, name, nn.Parameter(values))

    @property
    def metadata(self) -> dict[str, Any]:
        """What it takes to build the network again."""
        return asdict(self.options)

    def unknowns(self, level: Unknowns, deep: bool = False) -> Tuned:
        """Corrections of the first coarse level or, ``deep``, of one below, where no factor is below one."""
        h = torch.relu(_affine(level.nodes, self.node))
        for r in range(self.options.rounds):
            sent, told = h @ self.sender[r], _affine(level.edges, self.edge[r])
            heard = torch.zeros_like(h).index_add(0, level.i, torch.relu(sent[level.j] + told))
            heard = heard.index_add(0, level.j, torch.relu(sent[level.i] + told)) / level.sides
            h = torch.relu(_affine(h, self.keep[r]) + heard @ self.take[r])
        paired = h @ self.pair
        joint = torch.relu(_affine(level.edges, self.joint) + paired[level.i] + paired[level.j])
        factors = [_affine(joint, self.coupling[int(deep)]), _affine(h, self.own[int(deep)])]
        if deep:
            # Unlike that of relu, the gradient of clamp is one at zero, where training begins.
            factors = [factor.clamp(min=0) for factor in factors]
        return Tuned(self._bounded(factors[0]), self._bounded(factors[1]), h)

    def cells(self, features: Tensor, parents: Tensor) -> Tensor:
        """Over-relaxation of the first and the other colour of the first sweep and of the second.

        ``(n, 4)``, for cells of the finest grid with features ``(n, CELL_FEATURES)`` that belong to coarse
        unknowns with embeddings ``(n, WIDTH)``.
        """
        hidden = torch.relu(_affine(features, self.cell) + parents @ self.parent)
        return _over(_affine(hidden, self.relaxation))

    def _bounded(self, value: Tensor) -> Tensor:
        bound = self.options.bound
        return torch.exp(bound * torch.tanh(value / bound))

    def arrays(self) -> "Weights":
        """The parameters as the kernels take them."""
        from learnsolve.kernels.coupling_numba import Weights

        found = {name: p.detach().cpu().float().numpy() for name, p in self.named_parameters()}
        return Weights(**found)


def _affine(x: Tensor, weights: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]


def _over(logit: Tensor) -> Tensor:
    """Between 0 and 2."""
    return 2 * torch.sigmoid(logit.clamp(-4, 4))
