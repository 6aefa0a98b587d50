"""A system that was reconstructed from measurements: what follows, and what it does on its own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from learnsolve.dynamics.fixed_points import FixedPoint, fixed_points
from learnsolve.dynamics.observation import OBSERVATIONS, Affine, Identity
from learnsolve.dynamics.shplrnn import ShallowPLRNN
from learnsolve.kernels import shplrnn as kernels
from learnsolve.training.weights import WeightsError, mismatch, read_tensors, write_tensors

FORMAT = "learnsolve-dynamics-1"

Array = NDArray[np.float64]


class Spectrum(NamedTuple):
    """Lyapunov exponents for a unit of time, the largest first, and how many steps they are a mean of."""

    exponents: Array
    steps: int

    @property
    def kaplan_yorke(self) -> float:
        """Dimension of the attractor by Kaplan and Yorke.

        Examples
        --------
        >>> import numpy as np
        >>> from learnsolve.dynamics.model import Spectrum
        >>> Spectrum(np.array([0.9, 0.0, -1.8]), 1000).kaplan_yorke
        2.5
        """
        sums = np.cumsum(self.exponents)
        if sums[0] < 0:
            return 0.0
        whole = int(np.flatnonzero(sums >= 0)[-1]) + 1
        if whole == len(sums):
            return float(whole)
        return whole + float(sums[whole - 1] / abs(self.exponents[whole]))


@dataclass(frozen=True)
class DynamicalModel:
    """A map of latent states, what is observed of them, and the units of what was measured.

    Attributes
    ----------
    network : ShallowPLRNN
    observation : Identity or Affine
        Of standardised variables.
    mean, scale : (N,) float64 array
        Of the variables over what was learned from.
    dt : float
        Time between two measurements.
    names : tuple of str
        Of the variables.
    start : (N,) float64 array
        Where a run begins of which nothing else is said.
    """

    network: ShallowPLRNN
    observation: Identity | Affine
    mean: Array
    scale: Array
    dt: float = 1.0
    names: tuple[str, ...] = ()
    start: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def dim(self) -> int:
        """Latent states M."""
        return self.network.dim

    @torch.no_grad()
    def forecast(self, x: ArrayLike, steps: int, *, inputs: ArrayLike | None = None) -> Array:
        """What follows observations.

        Parameters
        ----------
        x : (N,) or (B, N) array
            In the units of the series. States that are not seen begin at zero.
        steps : int
        inputs : (steps, K) or (B, steps, K) array, optional
            Of a model that has inputs, those of the times that follow.

        Returns
        -------
        (steps, N) or (B, steps, N) float64 array

        Raises
        ------
        ValueError
            Shapes do not fit, a number is not finite, or ``steps`` is negative.

        Examples
        --------
        >>> from learnsolve import reconstruct_dynamics
        >>> from learnsolve.problems.chaotic import lorenz63
        >>> model = reconstruct_dynamics(lorenz63().orbit(2000), steps=5).model
        >>> model.forecast([1.0, 1.0, 20.0], 100).shape
        (100, 3)
        """
        given = np.asarray(x, float)
        if given.ndim not in (1, 2) or given.shape[-1] != len(self.mean) or not np.isfinite(given).all():
            raise ValueError(
                f"x has shape {given.shape}; ({len(self.mean)},) or (B, {len(self.mean)}) of finite numbers "
                "is accepted"
            )
        if steps < 0:
            raise ValueError(f"steps is {steps}; at least 0 is accepted")
        rows = torch.tensor((np.atleast_2d(given) - self.mean) / self.scale).to(self.network.A)
        drive = None
        if inputs is not None:
            drive = torch.tensor(np.asarray(inputs, float)).to(self.network.A)
            drive = drive.expand(len(rows), *drive.shape) if drive.ndim == 2 else drive
        states = self.network(self.observation.states(rows).nan_to_num(), None, drive, length=steps)
        out = self._measured(states)
        return out if given.ndim == 2 else out[0]

    def simulate(
        self, steps: int, *, x0: ArrayLike | None = None, transient: int = 0, inputs: ArrayLike | None = None
    ) -> Array:
        """A free run, (steps, N), after ``transient`` steps that are left out.

        Parameters
        ----------
        steps, transient : int
        x0 : (N,) array, optional
            An observation to begin at; else the last one that was learned from.
        inputs : (transient + steps, K) array, optional
        """
        begin = self.start if x0 is None else np.asarray(x0, float)
        return self.forecast(begin, transient + steps, inputs=inputs)[transient:]

    def jacobian(self, z: ArrayLike) -> Array:
        """Of one step by the latent states: (..., M, M) at (..., M)."""
        with torch.no_grad():
            return (
                self.network.jacobian(torch.tensor(np.asarray(z)).to(self.network.A)).cpu().double().numpy()
            )

    def states(self, x: ArrayLike) -> Array:
        """Latent states (..., M) that observations (..., N) say there are; zero where they say nothing."""
        level = torch.tensor((np.asarray(x, float) - self.mean) / self.scale).to(self.network.A)
        with torch.no_grad():
            return self.observation.states(level).nan_to_num().cpu().double().numpy()

    @torch.no_grad()
    def lyapunov_spectrum(
        self,
        steps: int = 100_000,
        *,
        count: int | None = None,
        transient: int = 1000,
        x0: ArrayLike | None = None,
    ) -> Spectrum:
        """Exponents along a free run, by orthogonal directions that are carried along.

        Parameters
        ----------
        steps, transient : int
        count : int, optional
            How many, the largest first; all M by default.
        x0 : (N,) array, optional
            As of `simulate`.

        Raises
        ------
        ValueError
            A number is not accepted, or the model has inputs, which no run of its own has.

        References
        ----------
        G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, *Lyapunov characteristic exponents for smooth
        dynamical systems and for Hamiltonian systems*, Meccanica 15, 1980.
        """
        count = self.dim if count is None else count
        if steps < 1 or transient < 0 or not 1 <= count <= self.dim:
            raise ValueError(
                f"steps is {steps}, transient {transient} and count {count}; at least 1, at least 0, and 1 "
                f"to {self.dim} are accepted"
            )
        self._alone("its exponents")
        weights = kernels.Weights(*(one.double() for one in self.network.weights))
        first = torch.tensor(self.states(self.start if x0 is None else x0))
        frame = torch.eye(self.dim, dtype=torch.float64)[:count].contiguous()
        sums = kernels.exponents(
            weights, first, frame, transient=transient, steps=steps, clipped=self.network.clipped
        )
        return Spectrum(sums.cpu().numpy() / (steps * self.dt), steps)

    def fixed_points(self, *, starts: int = 200, seed: int = 0) -> list[FixedPoint]:
        """Fixed points in the latent states, as `learnsolve.dynamics.fixed_points.fixed_points` finds them.

        Parameters
        ----------
        starts : int
            Half of them along a free run, half at random in twice its extent.
        seed : int

        Raises
        ------
        ValueError
            The model has inputs.
        """
        self._alone("its fixed points")
        run = torch.tensor(self.states(self.simulate(10 * starts, transient=100)))
        run = run[run.isfinite().all(1)][::20].reshape(-1, self.dim)
        generator = torch.Generator().manual_seed(seed)
        around = 2 * torch.randn(starts - starts // 2, self.dim, generator=generator, dtype=torch.float64)
        return fixed_points(self.network, torch.cat([run[: starts // 2], around]))

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, whole or not at all."""
        tensors = {f"network.{name}": one for name, one in self.network.state_dict().items()}
        tensors |= {f"observation.{name}": one for name, one in self.observation.state_dict().items()}
        tensors |= {name: torch.tensor(getattr(self, name)) for name in ("mean", "scale", "start")}
        network = self.network
        write_tensors(
            path,
            tensors,
            FORMAT,
            {
                "dim": network.dim,
                "hidden": network.hidden,
                "inputs": network.inputs,
                "clipped": network.clipped,
                "observation": self.observation.kind,
                "dt": self.dt,
                "names": list(self.names),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "DynamicalModel":
        """Read what `save` wrote.

        Raises
        ------
        WeightsError
            The file is damaged, or no such model.
        OSError
            It cannot be read.

        Examples
        --------
        >>> from learnsolve.dynamics import DynamicalModel
        >>> DynamicalModel.load("model.safetensors")  # doctest: +SKIP
        """
        tensors, about = read_tensors(path, FORMAT)
        try:
            return cls._of(tensors, about)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(path, f"no whole model ({error})") from None

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "DynamicalModel":
        mean, scale, start = (tensors[name].double().numpy() for name in ("mean", "scale", "start"))
        dtype = tensors["network.A"].dtype
        network = ShallowPLRNN(
            about["dim"], about["hidden"], inputs=about["inputs"], clipped=bool(about["clipped"])
        ).to(dtype)
        observation = OBSERVATIONS[about["observation"]](about["dim"], len(mean)).to(dtype)
        for name, part in (("network", network), ("observation", observation)):
            found = {key.split(".", 1)[1]: one for key, one in tensors.items() if key.startswith(f"{name}.")}
            what = mismatch(part.state_dict(), found)
            if what is not None:
                raise ValueError(f"{name} {what}")
            part.load_state_dict(found)
        return cls(network, observation, mean, scale, float(about["dt"]), tuple(about["names"]), start)

    def _measured(self, states: Tensor) -> Array:
        return self.observation(states).cpu().double().numpy() * self.scale + self.mean

    def _alone(self, what: str) -> None:
        if self.network.inputs:
            raise ValueError(f"a model with inputs does nothing on its own: {what} are not defined")
