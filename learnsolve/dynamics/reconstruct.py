"""`reconstruct_dynamics`: a model of the system behind a measured series."""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from learnsolve.dynamics.measures import Agreement, agreement
from learnsolve.dynamics.model import DynamicalModel
from learnsolve.dynamics.observation import Affine, Identity
from learnsolve.dynamics.shplrnn import ShallowPLRNN
from learnsolve.dynamics.teacher_forcing import Annealed
from learnsolve.dynamics.trajectories import Trajectories, Windows, trajectories
from learnsolve.training import FitOptions, FitProgress, FitResult, fit, with_parts

METHODS = ("gtf", "stf", "bptt")
# By how many nats a free run may differ more from what was held out than what was learned from does; that
# must itself be as little, for which a short series needs fewer bins.
CLOSE = 1.0
BINS = (30, 20, 14, 10, 7, 5, 3)


@dataclass(frozen=True)
class Reconstruction:
    """What was reconstructed, and how much of the system it shows.

    Attributes
    ----------
    model : DynamicalModel
    success : bool
        Whether all steps were done and a free run visits what was held out: its D_stsp is at most one nat
        above the floor, which is at most one itself. Bins are so few that it is.
    message : str
        A sentence on why, or why not.
    free_run : Agreement
        Of a free run with the judged series.
    floor : Agreement
        Of the series that was learned from with the judged one: less says nothing.
    alpha : float
        Strength of the forcing in the end.
    fit : FitResult
        Status, loss, seconds and history of the training.
    """

    model: DynamicalModel
    success: bool
    message: str
    free_run: Agreement
    floor: Agreement
    alpha: float
    fit: FitResult

    def __bool__(self) -> bool:
        return self.success

    def __repr__(self) -> str:
        return (
            f"<Reconstruction {'SUCCESS' if self.success else self.fit.status.upper()}: {self.fit.step} "
            f"steps, D_stsp = {self.free_run.state_space:.2f} (floor {self.floor.state_space:.2f}), "
            f"D_H = {self.free_run.spectrum:.3f} ({self.floor.spectrum:.3f}), {self.fit.seconds:.1f} s>"
        )


def reconstruct_dynamics(
    series: Any,
    method: Literal["gtf", "stf", "bptt"] = "gtf",
    dim: int | None = None,
    *,
    hidden: int = 50,
    alpha: float | str | Annealed = "geometric-mean",
    every: int = 10,
    observation: Literal["identity", "affine"] = "identity",
    inputs: Any = None,
    times: ArrayLike | None = None,
    dt: float = 1.0,
    clipped: bool = True,
    length: int = 200,
    batch: int = 16,
    steps: int = 25_000,
    learning_rate: float = 1e-3,
    schedule: str = "rex",
    regularization: float = 1e-5,
    conditioning: float = 1e-6,
    held_out: float = 0.2,
    names: Sequence[str] = (),
    seed: int = 0,
    timeout: float | None = None,
    parts: int = 0,
    folder: str | os.PathLike | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Reconstruction:
    r"""Learn the system behind a measured series: a map whose free run has its attractor and spectrum.

    A shallow piecewise-linear recurrent network (`ShallowPLRNN`) is trained by gradient through time on
    windows of the series. Chaotic orbits part from each other whatever the model, and gradients with them; so
    at each time the state is drawn to what was measured, as strongly as Jacobians grow:

    .. math:: \tilde z_t = (1 - \alpha) z_t + \alpha \hat z_t, \qquad \alpha^* = \max(0, 1 - 1 / \mathcal N).

    Parameters
    ----------
    series : (T,) or (T, N) array, or a sequence of (T_i, N) arrays
        One trajectory or several, at regular times. NaN where nothing was measured: there a state goes on
        freely, and nothing is learned.
    method : {"gtf", "stf", "bptt"}
        Generalized teacher forcing; sparse teacher forcing, which puts the state to the measured one at every
        so many times; or no forcing.
    dim : int, optional
        Latent states M; N by default.
    hidden : int
        Hidden units H.
    alpha : float, str or Annealed
        Of "gtf": a constant strength in [0, 1]; or how the norm of Jacobians is estimated, from which the
        strength is annealed: "geometric-mean", "arithmetic-mean", "maximum", "upper-bound" or
        "exponential-mean".
    every : int
        Of "stf": times from one forced state to the next.
    observation : {"identity", "affine"}
        Whether the first states are the variables, or variables are an affine function of the states.
    inputs : (T, K) array, or a sequence of (T_i, K) arrays, optional
        External inputs, of which those of a time act on the state of that time.
    times : (T,) array, optional
        Of the measurements; regular ones.
    dt : float
        Time between measurements, where ``times`` are left out.
    clipped : bool
        Whether the network is the clipped one, which cannot fly away.
    length, batch : int
        Times of a window, and windows of a step.
    steps : int
    learning_rate : float
        Of RAdam, at first.
    schedule : str
        As of `learnsolve.training.FitOptions`.
    regularization : float
        Weight of the squares of 1 - A, W_1, W_2, h_1, h_2 and C in the loss.
    conditioning : float
        Weight of the square of what the condition number of an affine observation is above one.
    held_out : float
        Share at the end of each trajectory by which the result is judged, and nothing is learned; with zero
        it is judged by what it learned from.
    names : sequence of str
        Of the variables.
    seed : int
    timeout : float, optional
        Seconds.
    parts : int
        Batches that make a step; see `learnsolve.training.FitOptions`.
    folder : str or os.PathLike, optional
        Where a run that is stopped can go on.
    callback : callable, optional
        Gets a `learnsolve.training.FitProgress` after each step; a true value stops the run.
    device, dtype
        Of the training; float32 or float64.

    Returns
    -------
    Reconstruction

    Raises
    ------
    ValueError
        The series is constant, too short, irregular or has infinite numbers; shapes do not fit, or an option
        is not accepted: the message says which.
    RuntimeError
        The loss was not finite in many steps.

    References
    ----------
    F. Hess, Z. Monfared, M. Brenner, D. Durstewitz, *Generalized teacher forcing for learning chaotic
    dynamics*, ICML 2023. M. Brenner and others, *Tractable dendritic RNNs for reconstructing nonlinear
    dynamical systems*, ICML 2022, for sparse teacher forcing.

    Examples
    --------
    >>> from learnsolve import reconstruct_dynamics
    >>> from learnsolve.problems.chaotic import lorenz63
    >>> res = reconstruct_dynamics(lorenz63().orbit(2000), dt=0.01, steps=20)
    >>> res.model.simulate(1000).shape, res.model.lyapunov_spectrum(1000).exponents.shape
    ((1000, 3), (3,))
    """
    given, dt = trajectories(series, inputs=inputs, times=times, dt=dt)
    _checked(method, alpha, every, observation, regularization, conditioning, held_out, names, given, dtype)
    options = FitOptions(
        steps, learning_rate, schedule, optimizer="radam", clip=0.0, seed=seed, timeout=timeout, parts=parts,
        validate_every=max(steps // 100, 1), checkpoint_every=max(steps // 20, 1),
    )  # fmt: skip
    learned, judged = given.cut(held_out)
    if held_out and not any(np.isfinite(one).all(1).sum() > 1 for one in judged.values):
        raise ValueError(
            f"held_out is {held_out}: fewer than two whole measurements are left to judge by; more, or zero, "
            "is accepted"
        )
    mean, scale = learned.moments()
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("a variable is constant over what is learned from: lower held_out, or leave it out")
    level = Trajectories([(one - mean) / scale for one in learned.values], learned.inputs)
    windows = Windows(level, length, dtype, torch.device(device))
    generator = torch.Generator().manual_seed(seed)
    states = given.observed if dim is None else dim
    network = ShallowPLRNN(
        states, hidden, inputs=given.inputs[0].shape[1], clipped=clipped, generator=generator
    )
    seen = (
        Identity(states, given.observed)
        if observation == "identity"
        else Affine(states, given.observed, generator)
    )
    options = with_parts(options, folder)
    strengths = [_strength(method, deepcopy(alpha)) for _ in range(options.parts)]
    strength = strengths[0]
    every = every if method == "stf" else 1
    task = _Task(network, seen, strengths, every, windows.gaps, regularization, conditioning).to(
        device, dtype
    )
    record = {"method": method, "alpha": repr(strength), "every": every, "length": length, "batch": batch}
    result = fit(
        task, lambda wrapped, some: wrapped(*some),
        lambda number, drawn: (number, *windows.draw(batch, drawn)), options, folder=folder,
        callback=callback, carried={f"part{i}.alpha": one.state for i, one in enumerate(strengths)},
        config=record | {"regularization": regularization, "conditioning": conditioning},
    )  # fmt: skip
    last = learned.values[0]
    start = last[np.flatnonzero(np.isfinite(last).all(1))[-1]]
    model = DynamicalModel(network.cpu(), seen.cpu(), mean, scale, dt, tuple(names), start)
    return _judged(model, learned, judged if held_out else learned, result, strength.state.item())


class _Constant:
    """A strength that stays."""

    def __init__(self, alpha: float) -> None:
        self.state = torch.tensor([alpha], dtype=torch.float64)

    def __repr__(self) -> str:
        return repr(self.state.item())

    def __call__(self, number: int, network: ShallowPLRNN, states: Tensor) -> float:
        """The same for every batch."""
        return self.state.item()


def _strength(method: str, alpha: float | str | Annealed) -> _Constant | Annealed:
    if method != "gtf":
        return _Constant(1.0 if method == "stf" else 0.0)
    if isinstance(alpha, Annealed):
        return alpha
    return Annealed(alpha) if isinstance(alpha, str) else _Constant(float(alpha))


class _Penalty(torch.autograd.Function):
    """A weight times the squares of 1 - A and of all other parameters."""

    @staticmethod
    def forward(ctx: Any, weight: float, A: Tensor, *others: Tensor) -> Tensor:
        every = torch.cat([A - 1, *(one.flatten() for one in others)])
        ctx.weight = weight
        ctx.shapes = [one.shape for one in (A, *others)]
        ctx.save_for_backward(every)
        return weight * torch.dot(every, every)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        (every,) = ctx.saved_tensors
        parts = (2 * ctx.weight * slope * every).split([shape.numel() for shape in ctx.shapes])
        return None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True))


class _Task(nn.Module):
    """The loss, over a network and what is observed of it."""

    def __init__(
        self,
        network: ShallowPLRNN,
        observation: Identity | Affine,
        strengths: Sequence["_Constant | Annealed"],
        every: int,
        gaps: bool,
        regularization: float,
        conditioning: float,
    ) -> None:
        super().__init__()
        self.network, self.observation, self.strengths = network, observation, strengths
        self.every, self.gaps = every, gaps
        # Where states are what is observed, the error needs no orbit to be shown.
        self.direct = isinstance(observation, Identity) and observation.whole and not network.inputs
        self.regularization, self.conditioning = regularization, conditioning

    def forward(self, number: int, x: Tensor, inputs: Tensor) -> Tensor:
        """Mean squared error of the states before they are forced, and penalties."""
        states = self.observation.states(x)
        first, targets = states[:, 0], states[:, 1:]
        step, part = divmod(number, len(self.strengths))
        alpha = self.strengths[part](step, self.network, targets)
        if self.direct:
            loss = self.network.error(first, targets, alpha=alpha, every=self.every)
        else:
            drive = inputs[:, 1:] if self.network.inputs else None
            orbit = self.network(first.nan_to_num(), targets, drive, alpha=alpha, every=self.every)
            seen, wanted = self.observation(orbit), x[:, 1:]
            if self.gaps:
                # Filled before the difference, for a gap times a gradient of zero is still none.
                known = wanted.isfinite()
                wanted = torch.where(known, wanted, seen.detach())
                loss = (seen - wanted).square().sum() / known.sum()
            else:
                loss = functional.mse_loss(seen, wanted)
        if self.regularization:
            loss = loss + _Penalty.apply(self.regularization, *self.network.parameters())
        if self.conditioning and isinstance(self.observation, Affine):
            loss = loss + self.conditioning * self.observation.penalty()
        return loss


def _judged(
    model: DynamicalModel, learned: Trajectories, judged: Trajectories, result: FitResult, alpha: float
) -> Reconstruction:
    """A free run beside what was held out."""
    longest = int(np.argmax([len(one) for one in judged.values]))
    true = judged.values[longest]
    begin = int(np.flatnonzero(np.isfinite(true).all(1))[0])
    if model.network.inputs:
        run = model.forecast(true[begin], len(true) - begin - 1, inputs=judged.inputs[longest][begin + 1 :])
    else:
        run = model.simulate(len(true), x0=true[begin], transient=len(true) // 4)
    other = max(learned.values, key=len)
    other = other[np.isfinite(other).all(1)]
    for bins in BINS:
        floor = agreement(true, other, bins=bins)
        if floor.state_space <= CLOSE:
            break
    free = agreement(true, run, bins=bins)
    message = _shortcoming(result, free, floor)
    return Reconstruction(
        model, not message, message or "a free run visits what the series does", free, floor, alpha, result
    )


def _shortcoming(result: FitResult, free: Agreement, floor: Agreement) -> str:
    """Why a reconstruction is none, or nothing."""
    if not result.finished:
        return f"the training came to step {result.step} ({result.status}): call again, or give it more time"
    if floor.state_space > CLOSE:
        return (
            f"what was held out is unlike what was learned from (D_stsp {floor.state_space:.2f}): the system "
            "changes, or the series is too short to judge by"
        )
    if not np.isfinite(free.state_space):
        return "a free run flies away: take the clipped network, or a smaller learning rate"
    if free.state_space > floor.state_space + CLOSE:
        return (
            f"a free run is elsewhere than the series (D_stsp {free.state_space:.2f}, floor "
            f"{floor.state_space:.2f}): more steps, hidden units or states may help"
        )
    return ""


def _checked(
    method: str,
    alpha: Any,
    every: int,
    observation: str,
    regularization: float,
    conditioning: float,
    held_out: float,
    names: Sequence[str],
    given: Trajectories,
    dtype: torch.dtype,
) -> None:
    """Options that no one else looks at."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; {', '.join(METHODS)} are accepted")
    if isinstance(alpha, float | int) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; a number in [0, 1], or the name of an estimator, is accepted")
    if every < 1:
        raise ValueError(f"every is {every}; at least 1 is accepted")
    if observation not in ("identity", "affine"):
        raise ValueError(f"observation is {observation!r}; identity and affine are accepted")
    if not (regularization >= 0 and conditioning >= 0):
        raise ValueError(
            f"regularization is {regularization} and conditioning {conditioning}; at least 0 is accepted"
        )
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out is {held_out}; a share in [0, 1) is accepted")
    if names and len(names) != given.observed:
        raise ValueError(f"there are {len(names)} names of {given.observed} variables")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}; torch.float32 and torch.float64 are accepted")
