"""Timescales of trained networks, and what becomes of them when neurons are silenced or disturbed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from learnsolve.dynamics.timescales import Intervention, LeakyRNN, RecurrentNetwork

PERTURBATIONS = ("weights", "tau", "state")


def single_neuron_timescales(network: LeakyRNN) -> Tensor:
    r"""Of each neuron by itself: :math:`\tau`, in steps, (neurons,).

    Raises
    ------
    TypeError
        The network is gated and has none.

    Examples
    --------
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> from learnsolve.dynamics.timescale_analysis import single_neuron_timescales
    >>> bool(single_neuron_timescales(LeakyRNN(20, heads=1)).min() >= 1)
    True
    """
    if not isinstance(network, LeakyRNN):
        raise TypeError(f"a {type(network).__name__} has no tau; a LeakyRNN is accepted")
    return network.tau.detach().clamp(min=1)


@torch.no_grad()
def network_timescales(
    network: RecurrentNetwork,
    bits: Tensor | None = None,
    *,
    transient: int = 100,
    lags: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Of each neuron in its network: how fast the autocorrelation of its activity decays, in steps.

    What a neuron's activity differs by from its mean over a sequence has an autocorrelation :math:`r_l`, over
    all sequences, for lags l from 0 to ``lags``; :math:`r_0 = 1`. The timescale is the :math:`\tau` of the
    :math:`A e^{-l / \tau}`, A not negative, whose squared distance to it is least, all lags alike. It is
    sought, ever more closely, from a tenth of a step to ten times ``lags``: one at an end says only that it
    is less, or more.

    The paper takes the better of one and of two exponentials by Akaike's criterion, and of two the slower,
    which may be one that fits little but noise.

    Parameters
    ----------
    network : RecurrentNetwork
    bits : (B, T) or (B, T, inputs) Tensor, optional
        What drives the network; else 16 sequences of 600, a one as likely as a zero.
    transient : int
        Times at first that do not count.
    lags : int
        Fewer than the times that count.
    generator : torch.Generator, optional
        For bits and first states.

    Returns
    -------
    (neurons,) float64 Tensor
        NaN of neurons whose activity does not change.

    Raises
    ------
    ValueError
        A number is not accepted, or a shape does not fit.

    References
    ----------
    Khajehabdollahi and others, *Emergent mechanisms for long timescales depend on training curriculum and
    affect performance in memory tasks*, ICLR 2024.

    Examples
    --------
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> from learnsolve.dynamics.timescale_analysis import network_timescales
    >>> network_timescales(LeakyRNN(20, heads=1)).shape
    torch.Size([20])
    """
    if bits is None:
        device = network.readout.device if generator is None else generator.device
        bits = torch.randint(2, (16, 600, network.inputs), generator=generator, device=device)
    activity = network.states(bits.to(network.readout), generator=generator).double()
    counted = activity.shape[1] - transient
    if transient < 0 or not 1 <= lags < counted:
        raise ValueError(
            f"transient is {transient} and lags {lags} of {activity.shape[1]} times; at least 0, and 1 or "
            "more but fewer than the times after it, are accepted"
        )
    activity = activity[:, transient:]
    apart = activity - activity.mean(1, keepdim=True)
    products = [(apart[:, : counted - lag] * apart[:, lag:]).mean((0, 1)) for lag in range(lags + 1)]
    covariance = torch.stack(products, 1)  # (neurons, lags + 1)
    # Deviations of rounding are no change.
    changes = covariance[:, 0] > 1e-10 * activity.square().mean((0, 1))
    timescales = torch.full_like(covariance[:, 0], torch.nan)
    timescales[changes] = _decay(covariance[changes] / covariance[changes, :1])
    return timescales


def _decay(correlation: Tensor, points: int = 64, rounds: int = 4) -> Tensor:
    """Timescales (n,) of the exponentials nearest to correlations (n, lags + 1)."""
    lags = torch.arange(correlation.shape[1]).to(correlation)
    low = torch.full_like(correlation[:, 0], 0.1).log()
    high = torch.full_like(low, 10 * (len(lags) - 1)).log()
    share = torch.linspace(0, 1, points).to(correlation)
    for _ in range(rounds):
        rates = torch.exp(-(low[:, None] + (high - low)[:, None] * share))
        curves = torch.exp(-rates[..., None] * lags)
        # The best A is a quotient; what it leaves is least where this is most.
        explained = (curves @ correlation[..., None])[..., 0].clamp(min=0) / curves.square().sum(-1).sqrt()
        best, width = explained.argmax(1), (high - low) / (points - 1)
        low, high = low + (best - 1).clamp(min=0) * width, low + (best + 1).clamp(max=points - 1) * width
    return ((low + high) / 2).exp()


@torch.no_grad()
def spectral_radius(network: RecurrentNetwork) -> float:
    """The largest modulus of an eigenvalue of ``network.recurrent``.

    Examples
    --------
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> from learnsolve.dynamics.timescale_analysis import spectral_radius
    >>> 0.4 < spectral_radius(LeakyRNN(200, heads=1)) < 0.8
    True
    """
    return float(torch.linalg.eigvals(network.recurrent).abs().max())


@contextmanager
def ablated(network: RecurrentNetwork, neurons: Sequence[int] | Tensor) -> Iterator[None]:
    """Silence neurons for a while: their activity is zero at all times.

    Parameters
    ----------
    network : RecurrentNetwork
    neurons : sequence of int, or (n,) int Tensor
        Their numbers.

    Raises
    ------
    ValueError
        There are no such neurons.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> from learnsolve.dynamics.timescale_analysis import ablated
    >>> network = LeakyRNN(5, heads=1)
    >>> with ablated(network, [0, 3]):
    ...     network.states(torch.ones(1, 4))[0].abs().sum(0) > 0
    tensor([False,  True,  True, False,  True])
    """
    chosen = [int(one) for one in neurons]
    if not all(0 <= one < network.neurons for one in chosen):
        raise ValueError(f"neurons are {chosen}; numbers from 0 to {network.neurons - 1} are accepted")
    silent = torch.zeros(network.neurons, dtype=torch.bool, device=network.readout.device)
    silent[chosen] = True
    with _intervening(network, lambda state: state.masked_fill(silent, 0)):
        yield


@contextmanager
def perturbed(
    network: RecurrentNetwork, kind: str, size: float, generator: torch.Generator | None = None
) -> Iterator[None]:
    r"""Add noise for a while: :math:`v + s \lVert v \rVert \xi / \lVert \xi \rVert` instead of v.

    Parameters
    ----------
    network : RecurrentNetwork
    kind : {"weights", "tau", "state"}
        What v is: ``network.weights``, once; the timescales, once, where :math:`\xi` is not negative,
        so that they stay above one; or each state of each sequence.
    size : float
        s.
    generator : torch.Generator, optional
        For :math:`\xi`, of standard normal numbers.

    Raises
    ------
    ValueError
        There is no such kind, the network is gated and has no tau, or ``size`` is negative.

    References
    ----------
    Khajehabdollahi and others, *Emergent mechanisms for long timescales depend on training curriculum and
    affect performance in memory tasks*, ICLR 2024; there of weights and timescales.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.dynamics.timescales import LeakyRNN
    >>> from learnsolve.dynamics.timescale_analysis import perturbed, single_neuron_timescales
    >>> network = LeakyRNN(5, heads=1)
    >>> before = single_neuron_timescales(network)
    >>> with perturbed(network, "tau", 0.1):
    ...     within = single_neuron_timescales(network)
    >>> round(float((within - before).norm() / before.norm()), 4)
    0.1
    """
    if kind not in PERTURBATIONS or not size >= 0:
        raise ValueError(
            f"kind is {kind!r} and size {size}; {', '.join(PERTURBATIONS)}, and at least 0, are accepted"
        )
    if kind == "state":
        with _intervening(network, lambda state: state + _noise(state, size, generator, rows=True)):
            yield
        return
    if kind == "tau" and not isinstance(network, LeakyRNN):
        raise ValueError(f"a {type(network).__name__} has no tau; kinds weights and state are accepted")
    parameter = network.tau if kind == "tau" and isinstance(network, LeakyRNN) else network.weights
    before = parameter.detach().clone()
    try:
        with torch.no_grad():
            if kind == "tau":
                parameter.clamp_(min=1)
                parameter.add_(_noise(parameter, size, generator).abs())
            else:
                parameter.add_(_noise(parameter, size, generator))
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(before)


@contextmanager
def _intervening(network: RecurrentNetwork, intervention: Intervention) -> Iterator[None]:
    network.interventions.append(intervention)
    try:
        yield
    finally:
        network.interventions.remove(intervention)


def _noise(v: Tensor, size: float, generator: torch.Generator | None, rows: bool = False) -> Tensor:
    """Of the norm ``size`` times that of v, or so in each row."""
    device = v.device if generator is None else generator.device
    xi = torch.randn(v.shape, generator=generator, device=device).to(v)
    if not rows:
        return size * v.norm() / xi.norm() * xi
    return size * v.norm(dim=-1, keepdim=True) / xi.norm(dim=-1, keepdim=True) * xi
