"""Recurrent networks with trainable timescales: how long a neuron remembers, alone and among others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SLOPE = 0.01

Intervention = Callable[[Tensor], Tensor]


class RecurrentNetwork(nn.Module, ABC):
    """What leaky and gated networks share: states along a sequence, and heads that read the last one.

    Attributes
    ----------
    neurons, inputs : int
    readout : (heads, 2, neurons) Parameter
    offset : (heads, 2) Parameter
        Both are at first uniform within one over the root of ``neurons``.
    weights : (gates neurons, neurons) Parameter
        Of the recurrence.
    recurrent : (neurons, neurons) Tensor
        The matrix of the recurrence; of gates, that of the proposed state.
    interventions : list of callable
        Each is given every state (B, neurons), the first one included, and returns what takes its place, one
        after the other (see `ablated` and `perturbed`).
    """

    def __init__(self, neurons: int, heads: int, inputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        if min(neurons, heads, inputs) < 1:
            raise ValueError(
                f"neurons is {neurons}, heads {heads} and inputs {inputs}; positive numbers are accepted"
            )
        self.neurons, self.inputs = neurons, inputs
        self.readout = nn.Parameter(_uniform((heads, 2, neurons), neurons, generator))
        self.offset = nn.Parameter(_uniform((heads, 2), neurons, generator))
        self.interventions: list[Intervention] = []

    @property
    @abstractmethod
    def weights(self) -> nn.Parameter:
        """Of the recurrence, of all gates."""

    @property
    @abstractmethod
    def recurrent(self) -> Tensor:
        """The matrix of the recurrence."""

    @abstractmethod
    def _states(self, x: Tensor, first: Tensor) -> Tensor:
        """States (B, T, neurons) of inputs (B, T, inputs)."""

    def states(
        self, x: Tensor, first: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Activity of all neurons after each input.

        Parameters
        ----------
        x : (B, T) or (B, T, inputs) Tensor
        first : (B, neurons) Tensor, optional
            The state before; else a tenth of uniform numbers, drawn for each sequence.
        generator : torch.Generator, optional
            For that.

        Returns
        -------
        (B, T, neurons) Tensor

        Raises
        ------
        ValueError
            A shape does not fit.
        """
        given = x.unsqueeze(-1) if x.ndim == 2 else x
        if given.ndim != 3 or given.shape[1] < 1 or given.shape[2] != self.inputs:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; (B, T, {self.inputs}) with at least one time is accepted"
            )
        if first is None:
            device = self.readout.device if generator is None else generator.device
            drawn = torch.rand(len(x), self.neurons, generator=generator, device=device)
            first = 0.1 * drawn.to(self.readout)
        elif first.shape != (len(x), self.neurons):
            raise ValueError(f"first has shape {tuple(first.shape)}; {(len(x), self.neurons)} is accepted")
        return self._states(given.to(self.readout), self._changed(first))

    def forward(
        self,
        x: Tensor,
        heads: Sequence[int] | None = None,
        *,
        first: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What heads say after the last input.

        Parameters
        ----------
        x, first, generator
            As of `states`.
        heads : sequence of int, optional
            Which; all by default.

        Returns
        -------
        (B, heads, 2) Tensor
            Before the softmax.

        Raises
        ------
        ValueError
            A shape does not fit, or there is no such head.
        """
        chosen = range(len(self.readout)) if heads is None else heads
        if not all(0 <= head < len(self.readout) for head in chosen):
            raise ValueError(f"heads are {list(chosen)}; 0 to {len(self.readout) - 1} are accepted")
        last = self.states(x, first, generator=generator)[:, -1]
        readout, offset = self.readout[list(chosen)], self.offset[list(chosen)]
        return nn.functional.linear(last, readout.flatten(0, 1), offset.flatten()).unflatten(1, (-1, 2))

    def _changed(self, state: Tensor) -> Tensor:
        for intervention in self.interventions:
            state = intervention(state)
        return state


class LeakyRNN(RecurrentNetwork):
    r"""Neurons that forget at rates of their own, which are learned.

    .. math::
        h_t = \phi\left[\left(1 - \tfrac{1}{\tau}\right) h_{t-1}
        + \tfrac{1}{\tau} (W h_{t-1} + b + W_{in} x_t + b_{in})\right],

    where :math:`\phi` is a leaky ReLU of slope 0.01, W has a zero diagonal and no :math:`\tau` is less than
    one.

    Parameters
    ----------
    neurons, heads : int
        Heads have two classes.
    inputs : int
    generator : torch.Generator, optional
        For the weights at first: uniform within one over the root of how many are added; :math:`\tau` is
        uniform from one to two.

    Attributes
    ----------
    W : (neurons, neurons) Parameter
        Its diagonal counts as zero whatever it holds, and gets no gradient.
    b : (neurons,) Parameter
    W_in : (neurons, inputs) Parameter
    b_in : (neurons,) Parameter
    tau : (neurons,) Parameter
        What is less than one counts as one, and gets a gradient that lifts it but none that lowers it.

    Raises
    ------
    ValueError
        A number is not positive.

    References
    ----------
    Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius and Levina, *Emergent mechanisms for long
    timescales depend on training curriculum and affect performance in memory tasks*, ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> network = LeakyRNN(20, heads=3)
    >>> bits = torch.randint(2, (8, 15))
    >>> network.states(bits).shape, network(bits).shape, network(bits, [0, 2]).shape
    (torch.Size([8, 15, 20]), torch.Size([8, 3, 2]), torch.Size([8, 2, 2]))
    """

    def __init__(
        self, neurons: int, heads: int, *, inputs: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(neurons, heads, inputs, generator)
        self.W = nn.Parameter(_uniform((neurons, neurons), neurons, generator).fill_diagonal_(0))
        self.b = nn.Parameter(_uniform((neurons,), neurons, generator))
        self.W_in = nn.Parameter(_uniform((neurons, inputs), inputs, generator))
        self.b_in = nn.Parameter(_uniform((neurons,), inputs, generator))
        self.tau = nn.Parameter(1 + torch.rand(neurons, generator=generator))

    @property
    def weights(self) -> nn.Parameter:
        """W."""
        return self.W

    @property
    def recurrent(self) -> Tensor:
        """W with its zero diagonal."""
        return self.W - self.W.diagonal().diag()

    def _states(self, x: Tensor, first: Tensor) -> Tensor:
        tau = _AtLeastOne.apply(self.tau)
        # All that is linear in the state is one product, and the inputs of all times are there before.
        step = (self.recurrent / tau[:, None] + (1 - 1 / tau).diag()).mT
        drive = nn.functional.linear(x.transpose(0, 1), self.W_in, self.b_in + self.b) / tau
        state, states = first, []
        for driven in drive:
            state = self._changed(nn.functional.leaky_relu(torch.addmm(driven, state, step), SLOPE))
            states.append(state)
        return torch.stack(states, 1)


class GatedRNN(RecurrentNetwork):
    """A GRU or an LSTM of torch, with the heads and the first states of `LeakyRNN`.

    Parameters
    ----------
    neurons, heads : int
    inputs : int
    kind : {"gru", "lstm"}
        The cells of the latter begin at zero.
    generator : torch.Generator, optional
        For the weights at first, which are uniform within one over the root of ``neurons``.

    Attributes
    ----------
    cells : torch.nn.GRU or torch.nn.LSTM

    Raises
    ------
    ValueError
        A number is not positive, or there is no such kind.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.timescales import GatedRNN
    >>> GatedRNN(20, heads=3, kind="lstm")(torch.randint(2, (8, 15))).shape
    torch.Size([8, 3, 2])
    """

    def __init__(
        self,
        neurons: int,
        heads: int,
        *,
        inputs: int = 1,
        kind: str = "gru",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(neurons, heads, inputs, generator)
        kinds = {"gru": nn.GRU, "lstm": nn.LSTM}
        if kind not in kinds:
            raise ValueError(f"kind is {kind!r}; {', '.join(kinds)} are accepted")
        self.kind = kind
        self.cells = kinds[kind](inputs, neurons, batch_first=True)
        with torch.no_grad():
            for one in self.cells.parameters():
                one.copy_(_uniform(tuple(one.shape), neurons, generator))

    @property
    def weights(self) -> nn.Parameter:
        """Of all gates, one above the other."""
        return self.cells.weight_hh_l0

    @property
    def recurrent(self) -> Tensor:
        """What the proposed state, or cell, gets from the last state."""
        return self.weights.unflatten(0, (-1, self.neurons))[2]

    def _states(self, x: Tensor, first: Tensor) -> Tensor:
        if not self.interventions:
            return self.cells(x, self._carried(first, torch.zeros_like(first)))[0]
        state, cell, states = first, torch.zeros_like(first), []
        for t in range(x.shape[1]):
            out, carried = self.cells(x[:, t : t + 1], self._carried(state, cell))
            cell = carried[1][0] if self.kind == "lstm" else cell
            state = self._changed(out[:, 0])
            states.append(state)
        return torch.stack(states, 1)

    def _carried(self, state: Tensor, cell: Tensor) -> Any:
        return (state[None], cell[None]) if self.kind == "lstm" else state[None]


class _AtLeastOne(torch.autograd.Function):
    """The larger of a number and one; clamp alone would hold for good whatever got below one."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor) -> Tensor:
        ctx.save_for_backward(tau)
        return tau.clamp(min=1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (tau,) = ctx.saved_tensors
        return torch.where(tau > 1, slope, slope.clamp(max=0))


def _uniform(shape: tuple[int, ...], fan: int, generator: torch.Generator | None) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) / fan**0.5
