"""How states are observed, and which states an observation says there were."""

import torch
from torch import Tensor, nn


class Identity(nn.Module):
    """The first states are what is observed; the others, if there are any, are never seen.

    Parameters
    ----------
    dim, observed : int
        States, and variables; not more than states.

    Raises
    ------
    ValueError
        There are more variables than states.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.observation import Identity
    >>> seen = Identity(3, 2)
    >>> seen(torch.tensor([1.0, 2.0, 3.0])), seen.states(torch.tensor([1.0, 2.0]))
    (tensor([1., 2.]), tensor([1., 2., nan]))
    """

    kind = "identity"

    def __init__(self, dim: int, observed: int) -> None:
        super().__init__()
        if not 1 <= observed <= dim:
            raise ValueError(
                f"{observed} variables of {dim} states; the identity observes at most as many as there are"
            )
        self.dim, self.observed = dim, observed

    @property
    def whole(self) -> bool:
        """Whether every state is observed."""
        return self.observed == self.dim

    def forward(self, z: Tensor) -> Tensor:
        """Observations (..., N) of states (..., M)."""
        return z if self.whole else z[..., : self.observed]

    def states(self, x: Tensor) -> Tensor:
        """States (..., M) of observations (..., N); NaN where nothing is known."""
        if self.whole:
            return x
        unseen = x.new_full((*x.shape[:-1], self.dim - self.observed), torch.nan)
        return torch.cat([x, unseen], -1)


class Affine(nn.Module):
    r"""Observations are :math:`B z + c` of the states.

    Parameters
    ----------
    dim, observed : int
    generator : torch.Generator, optional
        For B at first, uniform within one over the square root of ``dim``.

    Attributes
    ----------
    B : (N, M) Parameter
    c : (N,) Parameter

    Raises
    ------
    ValueError
        A number is not positive.

    References
    ----------
    Hess and others, *Generalized teacher forcing for learning chaotic dynamics*, ICML 2023, section 3.1:
    states to force with are :math:`B^+ (x - c)`, through which no gradient goes.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.observation import Affine
    >>> seen, x = Affine(2, 5), torch.randn(4, 2) @ torch.randn(2, 5)
    >>> seen(seen.states(x)).shape
    torch.Size([4, 5])
    """

    kind = "affine"

    def __init__(self, dim: int, observed: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if min(dim, observed) < 1:
            raise ValueError(f"{observed} variables of {dim} states; positive numbers are accepted")
        self.dim, self.observed = dim, observed
        self.B = nn.Parameter((2 * torch.rand(observed, dim, generator=generator) - 1) / dim**0.5)
        self.c = nn.Parameter(torch.zeros(observed))

    def forward(self, z: Tensor) -> Tensor:
        """Observations (..., N) of states (..., M)."""
        return z @ self.B.mT + self.c

    @torch.no_grad()
    def states(self, x: Tensor) -> Tensor:
        """States (..., M) by the pseudo-inverse; NaN where an observation is not whole."""
        return (x - self.c) @ torch.linalg.pinv(self.B).mT

    def penalty(self) -> Tensor:
        """The square of what the condition number of B is above one."""
        values = torch.linalg.svdvals(self.B)
        return (1 - values[0] / values[-1]).square()


OBSERVATIONS: dict[str, type[Identity] | type[Affine]] = {"identity": Identity, "affine": Affine}
