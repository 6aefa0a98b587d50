"""The shallow piecewise-linear recurrent network, a map of a few states with known Jacobians."""

from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.kernels import shplrnn as kernels
from learnsolve.kernels import shplrnn_reference
from learnsolve.kernels.shplrnn import Drawn, Weights


class _Orbit(torch.autograd.Function):
    """All states of an orbit that is drawn to targets, by one kernel, and the gradient by another."""

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, targets: Tensor, drive: Tensor, how: Any, *weights: Tensor
    ) -> Tensor:
        drawn, clipped, length = how
        given = Weights(*weights)
        states = kernels.orbit(given, first, targets, drive, drawn, clipped=clipped, length=length)
        ctx.save_for_backward(first, targets, drive, states, *weights)
        ctx.how = drawn, clipped
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> Any:
        first, targets, drive, states, *weights = ctx.saved_tensors
        drawn, clipped = ctx.how
        found, dfirst, ddrive = kernels.orbit_adjoint(
            Weights(*weights), first, targets, drive, drawn, states, slopes.contiguous(), clipped=clipped
        )
        return dfirst, None, ddrive, None, *found


class _Error(torch.autograd.Function):
    """The error of an orbit that is drawn to its targets, by one kernel that finds the gradient, too."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, targets: Tensor, how: Any, *weights: Tensor) -> Tensor:
        drawn, clipped = how
        value, found = kernels.error(Weights(*weights), first, targets, drawn, clipped=clipped)
        ctx.save_for_backward(*found)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return None, None, None, *(slope * one for one in ctx.saved_tensors)


class ShallowPLRNN(nn.Module):
    r"""A map that is linear in each of many regions, with one hidden layer.

    .. math::
        z_t = A z_{t-1} + W_1 [\phi(W_2 z_{t-1} + h_2) - \phi(W_2 z_{t-1})] + h_1 + C s_t,
        \qquad \phi(x) = \max(x, 0),

    with A diagonal. That is the clipped form, whose orbits stay bounded where :math:`\max |A| < 1`; the plain
    one lacks the second :math:`\phi`.

    Parameters
    ----------
    dim : int
        States M.
    hidden : int
        Hidden units H.
    inputs : int
        External inputs K, zero for none.
    clipped : bool
    generator : torch.Generator, optional
        For the weights at first: A is the diagonal of :math:`R R^T / M + I` over its largest eigenvalue, R
        normal; W_1, W_2 and C are uniform within one over the square root of their second side, and h_2
        within one over that of H.

    Attributes
    ----------
    A : (M,) Parameter
    W1 : (M, H) Parameter
    W2 : (H, M) Parameter
    h1 : (M,) Parameter
    h2 : (H,) Parameter
    C : (M, K) Parameter or None

    Raises
    ------
    ValueError
        A number is not positive, or ``inputs`` is negative.

    References
    ----------
    F. Hess, Z. Monfared, M. Brenner, D. Durstewitz, *Generalized teacher forcing for learning chaotic
    dynamics*, ICML 2023, equations 2 and 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics import ShallowPLRNN
    >>> network = ShallowPLRNN(3, 50)
    >>> sum(one.numel() for one in network.parameters())
    356
    >>> network(torch.zeros(2, 3), length=100).shape
    torch.Size([2, 100, 3])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        inputs: int = 0,
        clipped: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(dim, hidden) < 1 or inputs < 0:
            raise ValueError(
                f"dim is {dim}, hidden {hidden} and inputs {inputs}; positive numbers, and inputs of at "
                "least 0 are accepted"
            )
        self.dim, self.hidden, self.inputs, self.clipped = dim, hidden, inputs, clipped
        R = torch.randn(dim, dim, generator=generator)
        K = R @ R.mT / dim + torch.eye(dim)
        self.A = nn.Parameter(K.diagonal() / torch.linalg.eigvalsh(K)[-1])
        self.W1 = nn.Parameter(_uniform((dim, hidden), hidden, generator))
        self.W2 = nn.Parameter(_uniform((hidden, dim), dim, generator))
        self.h1 = nn.Parameter(torch.zeros(dim))
        self.h2 = nn.Parameter(_uniform((hidden,), hidden, generator))
        self.C = nn.Parameter(_uniform((dim, inputs), inputs, generator)) if inputs else None

    @property
    def weights(self) -> Weights:
        """Those of the map without inputs, for the kernels."""
        return Weights(self.A, self.W1, self.W2, self.h1, self.h2)

    def forward(
        self,
        first: Tensor,
        targets: Tensor | None = None,
        inputs: Tensor | None = None,
        *,
        alpha: float = 0.0,
        every: int = 1,
        length: int | None = None,
    ) -> Tensor:
        r"""States of all times that follow, each drawn to its target before it goes on.

        After the state :math:`z_t` comes what follows :math:`(1 - \alpha) z_t + \alpha \hat z_t`: one for
        ``alpha`` is teacher forcing, zero lets the map run freely. Targets get no gradient.

        Parameters
        ----------
        first : (B, M) Tensor
        targets : (B, T, M) Tensor, optional
            NaN where there is nothing to be drawn to.
        inputs : (B, T, K) Tensor, optional
            :math:`s_t`, of a network that has inputs.
        alpha : float
            In [0, 1].
        every : int
            Draw at every so many times alone.
        length : int, optional
            T, where there are neither targets nor inputs.

        Returns
        -------
        (B, T, M) Tensor

        Raises
        ------
        ValueError
            Shapes do not fit, or a number is not accepted.
        """
        T = _length(targets, inputs, length)
        for name, one, wide in (("targets", targets, self.dim), ("inputs", inputs, self.inputs)):
            if one is not None and one.shape != (len(first), T, wide):
                raise ValueError(f"{name} has shape {tuple(one.shape)}; {(len(first), T, wide)} is accepted")
        if first.ndim != 2 or first.shape[1] != self.dim:
            raise ValueError(f"first has shape {tuple(first.shape)}; (B, {self.dim}) is accepted")
        if (inputs is None) != (self.C is None):
            raise ValueError(
                f"a network of {self.inputs} inputs is given {'none' if inputs is None else 'some'}"
            )
        if not (0 <= alpha <= 1 and every >= 1):
            raise ValueError(f"alpha is {alpha} and every {every}; [0, 1] and at least 1 are accepted")
        none = first.new_empty(len(first), 0, self.dim)
        drive = none if inputs is None or self.C is None else inputs.to(first.dtype) @ self.C.mT
        drawn_to = none if targets is None else targets.detach().to(first.dtype)
        how = Drawn(float(alpha), every), self.clipped, T
        return _Orbit.apply(first, drawn_to, drive, how, *self.weights)

    def error(self, first: Tensor, targets: Tensor, *, alpha: float = 0.0, every: int = 1) -> Tensor:
        """The mean of ``(forward(first, targets) - targets) ** 2`` over known targets, in one go.

        Parameters
        ----------
        first, targets, alpha, every
            As of `forward`, of a network without inputs. Only weights get gradients.

        Returns
        -------
        () Tensor

        Examples
        --------
        >>> import torch
        >>> from learnsolve.dynamics import ShallowPLRNN
        >>> network, x = ShallowPLRNN(3, 50), torch.randn(2, 11, 3)
        >>> wanted = (network(x[:, 0], x[:, 1:], alpha=0.5) - x[:, 1:]).square().mean()
        >>> torch.allclose(network.error(x[:, 0], x[:, 1:], alpha=0.5), wanted)
        True
        """
        how = Drawn(float(alpha), every), self.clipped
        value: Tensor = _Error.apply(first.detach(), targets.detach(), how, *self.weights)
        return value

    def jacobian(self, z: Tensor) -> Tensor:
        """Of the map by its states: (..., M, M) at states (..., M); inputs do not change it.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.dynamics import ShallowPLRNN
        >>> network, z = ShallowPLRNN(3, 50), torch.ones(1, 3)
        >>> wanted = torch.autograd.functional.jacobian(lambda z: network(z, length=1)[:, 0], z)
        >>> torch.allclose(network.jacobian(z[0]), wanted[0, :, 0], atol=1e-6)
        True
        """
        return shplrnn_reference.jacobian(self.weights, z, self.clipped)


def _uniform(shape: tuple[int, ...], fan: int, generator: torch.Generator | None) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) / fan**0.5


def _length(targets: Tensor | None, inputs: Tensor | None, length: int | None) -> int:
    lengths = {one.shape[1] for one in (targets, inputs) if one is not None and one.ndim == 3}
    lengths |= set() if length is None else {length}
    if len(lengths) != 1:
        raise ValueError(
            f"lengths are {sorted(lengths)}; one length, of targets, inputs or as given, is accepted"
        )
    return lengths.pop()
