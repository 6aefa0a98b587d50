"""A smoke simulation in two and three dimensions whose pressure projection calls the package's solvers.

Warm smoke rises from a source, swirls, and flows past solids. The velocity lives on the faces of a
staggered grid, everything else at the cells' centres. Axis 0 points up.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

import learnsolve
from learnsolve.operators import GridPoisson
from learnsolve.problems.poisson import LinearProblem
from learnsolve.problems.smoke_advection import Advection, confinement, few_threads
from learnsolve.problems.smoke_scene import Boundary, Box, Scene, Source, Sphere

__all__ = ["Box", "SmokeSimulation", "Source", "Sphere", "StepReport"]

_FLUCTUATION = 0.2
_FAINT = 1e-12


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes
    ----------
    time : float
        Simulated time after the step.
    iterations : int
        Of the pressure solve.
    solve_seconds, step_seconds : float
        Wall-clock time of the pressure solve with its set-up, and of the whole step.
    relative_residual : float
        Of the pressure solve.
    divergence : float
        Largest net outflow of a fluid cell after the projection, as a rate (1 / time). In enclosed
        fluid that moving solids squeeze, it is the deviation from the unavoidable mean.
    """

    time: float
    iterations: int
    solve_seconds: float
    step_seconds: float
    relative_residual: float
    divergence: float


class SmokeSimulation:
    """Smoke on a staggered (marker-and-cell) grid.

    Each step emits, carries all fields along the flow, adds buoyancy and vorticity confinement, gives
    the faces of solids their solid's velocity, solves a Poisson equation for the pressure, and
    subtracts its gradient, which leaves the flow without divergence. The solve starts from the last
    pressure; while all obstacles stand still, its set-up is made once.

    Lengths are in widths of the domain (the extent along the last axis).

    Parameters
    ----------
    shape : tuple of 2 or 3 int
        Cells along each axis; axis 0 points up.
    obstacles : sequence of Sphere or Box
        One with a velocity moves and pushes the smoke.
    sources : sequence of Source, optional
        Default: one ball near the middle of the floor.
    dt : float
        Time step. The scheme stays stable for any; two or three cells a step look best.
    buoyancy : float
        Upward acceleration for each unit of temperature.
    weight : float
        Downward acceleration for each unit of density.
    cooling : float
        Rate at which temperature fades.
    vorticity : float
        Strength of the vorticity confinement; 0: none.
    advection : "maccormack" or "semi-lagrangian"
        Second or first order in time and space; the first is limited, so it makes no new extrema.
    boundary : "open" or "closed"
        Whether the top layer of cells is air at pressure zero. All other walls are solid.
    rtol : float
        Relative tolerance of the pressure solve.
    method, M
        As in `learnsolve.prepare`.
    seed : int or None
        Of the small fluctuations in the sources' temperature; None: no fluctuations.
    dtype : "float64" or "float32"

    Attributes
    ----------
    time : float
    obstacles : list of Sphere or Box
        Where they are now.
    density, temperature, pressure : arrays of the grid's shape
        The pressure is scaled: its difference between two cells is the change in velocity that the
        projection made. Views; a step replaces them.
    cells : int8 array of the grid's shape
        0 fluid, 1 solid, 2 air.
    velocity : tuple of arrays, one for each axis
        On the faces across that axis: one more layer along it than the grid has.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an obstacle or a source has the wrong number of axes.

    References
    ----------
    R. Bridson, "Fluid Simulation for Computer Graphics", 2nd edition, 2015.

    Examples
    --------
    >>> sim = SmokeSimulation((24, 16), obstacles=[Sphere((0.9, 0.5), 0.15)])
    >>> report = sim.step()
    >>> report.relative_residual <= 1e-5
    True
    >>> sim.density.shape
    (24, 16)
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        obstacles: Sequence[Sphere | Box] = (),
        sources: Sequence[Source] | None = None,
        dt: float = 0.03,
        buoyancy: float = 2.0,
        weight: float = 0.0,
        cooling: float = 0.0,
        vorticity: float = 1.0,
        advection: Literal["maccormack", "semi-lagrangian"] = "maccormack",
        boundary: Boundary = "open",
        rtol: float = 1e-5,
        method: Any = "auto",
        M: Any = None,
        seed: int | None = 0,
        dtype: Literal["float64", "float32"] = "float64",
    ) -> None:
        shape = tuple(int(n) for n in shape)
        if len(shape) not in (2, 3) or min(shape) < 4:
            raise ValueError(f"shape must be 2 or 3 integers of at least 4, got {shape}")
        if not (np.isfinite(dt) and dt > 0):
            raise ValueError(f"dt must be positive, got {dt}")
        if cooling < 0:
            raise ValueError(f"cooling must not be negative, got {cooling}")
        if advection not in ("maccormack", "semi-lagrangian"):
            raise ValueError(f"advection must be 'maccormack' or 'semi-lagrangian', got {advection!r}")
        if boundary not in ("open", "closed"):
            raise ValueError(f"boundary must be 'open' or 'closed', got {boundary!r}")
        if dtype not in ("float64", "float32"):
            raise ValueError(f"dtype must be 'float64' or 'float32', got {dtype!r}")
        self.shape, self.dt, self.time = shape, float(dt), 0.0
        self.buoyancy, self.weight, self.cooling, self.vorticity = buoyancy, weight, cooling, vorticity
        self.boundary: Boundary = boundary
        self.rtol, self.method, self.M = rtol, method, M
        self.spacing = 1.0 / shape[-1]
        self.obstacles = list(obstacles)
        self.sources = [_default_source(shape)] if sources is None else list(sources)
        for thing in (*self.obstacles, *self.sources):
            corner = thing.lower if isinstance(thing, Box) else thing.centre
            if len(corner) != len(shape):
                raise ValueError(f"{thing} has {len(corner)} axes, the grid has {len(shape)}")

        self._dtype = np.dtype(dtype)
        self._axes = (0, 2) if len(shape) == 2 else (0, 1, 2)
        self._full = (shape[0], 1 if len(shape) == 2 else shape[1], shape[-1])
        self._random = None if seed is None else np.random.default_rng(seed)
        self._points = [self.spacing * (p + 0.5) for p in np.ogrid[tuple(slice(n) for n in shape)]]
        nz, ny, nx = self._full
        self._velocity = (
            np.zeros((nz + 1, ny, nx), self._dtype),
            np.zeros((nz, ny + 1, nx), self._dtype),
            np.zeros((nz, ny, nx + 1), self._dtype),
        )
        self._density, self._temperature, self._pressure, self._right = (
            np.zeros(self._full, self._dtype) for _ in range(4)
        )
        self._advection = Advection(self._full, self._dtype, advection == "maccormack")
        self._moving = any(obstacle.velocity is not None for obstacle in self.obstacles)
        self._place()

    @property
    def density(self) -> np.ndarray:
        """Smoke in each cell."""
        return self._density.reshape(self.shape)

    @property
    def temperature(self) -> np.ndarray:
        """Excess over the air's temperature in each cell."""
        return self._temperature.reshape(self.shape)

    @property
    def pressure(self) -> np.ndarray:
        """Pressure of the last projection."""
        return self._pressure.reshape(self.shape)

    @property
    def cells(self) -> np.ndarray:
        """0 fluid, 1 solid, 2 air."""
        return self._scene.cells.reshape(self.shape)

    @property
    def velocity(self) -> tuple[np.ndarray, ...]:
        """Velocity on the faces across each axis."""
        if len(self.shape) == 2:
            return self._velocity[0][:, 0], self._velocity[2][:, 0]
        return self._velocity

    def step(self) -> StepReport:
        """Advance by one time step.

        Returns
        -------
        StepReport
        """
        begin = time.perf_counter()
        with few_threads(self._density.size):
            self._emit()
            self._carry()
            self.time += self.dt
            setup = time.perf_counter()
            if self._moving:
                self._place()
            setup = time.perf_counter() - setup if self._moving else 0.0
            self._accelerate()
            self._scene.impose(self._velocity)
            result = self._project()
        return StepReport(
            time=self.time,
            iterations=result.iterations,
            solve_seconds=setup + result.seconds,
            step_seconds=time.perf_counter() - begin,
            relative_residual=result.relative_residual,
            divergence=self._divergence(),
        )

    def pressure_problem(self) -> LinearProblem:
        """Return the pressure equation of the last step.

        Returns
        -------
        LinearProblem
            ``A`` is the `GridPoisson` over the cells, ``b`` an array of the grid's shape: the net
            inflow of each fluid cell before the projection.
        """
        return LinearProblem(self._operator, self._right.reshape(self.shape).copy())

    def _place(self) -> None:
        """Move the obstacles to the present time, draw them, and set up the pressure solve."""
        still = (0.0,) * len(self.shape)
        speeds = []
        for number, obstacle in enumerate(self.obstacles):
            given = obstacle.velocity
            speed = still if given is None else tuple(given(self.time) if callable(given) else given)
            if len(speed) != len(self.shape):
                raise ValueError(f"{obstacle} has a velocity of {len(speed)} axes")
            if self.time > 0:
                self.obstacles[number] = obstacle.moved([self.dt * s for s in speed])
            speeds.append(speed if len(speed) == 3 else (speed[0], 0.0, speed[1]))
        self._scene = Scene(self._full, self._points, self.obstacles, speeds, self.boundary)
        for field in (self._density, self._temperature):
            field[~self._scene.fluid] = 0.0
        if not self._scene.fluid.any():
            raise ValueError("the obstacles leave no fluid")
        self._operator = GridPoisson(self.cells, dtype=getattr(torch, self._dtype.name))
        self._solver = learnsolve.prepare(self._operator, method=self.method, M=self.M)

    def _emit(self) -> None:
        for source in self.sources:
            cover = source.coverage(self._points, self.spacing).reshape(self._full)
            index = np.nonzero((cover > 0) & self._scene.fluid)
            share = cover[index]
            warmth = source.temperature * share
            if self._random is not None:
                warmth = warmth * (1 - _FLUCTUATION * self._random.random(share.size))
            self._density[index] = np.maximum(self._density[index], source.density * share)
            self._temperature[index] = np.maximum(self._temperature[index], warmth)

    def _carry(self) -> None:
        self._advection.trace(self._velocity, self.dt / self.spacing)
        solid, gone = self._scene.solid, ~self._scene.fluid
        mass = float(self._density.sum())
        density = self._advection.carry(self._density, blocked=solid)
        temperature = self._advection.carry(self._temperature, blocked=solid)
        density[gone | (density < _FAINT)] = 0.0
        temperature[gone | (np.abs(temperature) < _FAINT)] = 0.0
        grown = float(density.sum())
        if grown > mass:
            density *= mass / grown
        temperature *= np.exp(-self.cooling * self.dt)
        self._density, self._temperature = density, temperature
        carry, (uz, uy, ux) = self._advection.carry, self._velocity
        self._velocity = carry(uz, 0), carry(uy, 1), carry(ux, 2)

    def _accelerate(self) -> None:
        lift = self.dt * (self.buoyancy * self._temperature - self.weight * self._density)
        self._velocity[0][1:-1] += 0.5 * (lift[1:] + lift[:-1])
        if self.vorticity:
            force = confinement(self._velocity, self._scene.fluid, self.dt * self.vorticity)
            for axis in self._axes:
                push = np.moveaxis(force[axis], axis, 0)
                np.moveaxis(self._velocity[axis], axis, 0)[1:-1] += 0.5 * (push[1:] + push[:-1])

    def _project(self) -> Any:
        """Subtract the pressure's gradient; return the solve's result."""
        scene = self._scene
        self._right = scene.consistent(-self._outflow())
        guess = np.where(scene.fluid, self._pressure, 0.0).astype(self._dtype)
        result = self._solver.solve(
            self._right.reshape(self.shape), x0=guess.reshape(self.shape), rtol=self.rtol
        )
        self._pressure = np.asarray(result.x).reshape(self._full)
        for axis in self._axes:
            inner = np.moveaxis(self._velocity[axis], axis, 0)[1:-1]
            inner -= np.diff(np.moveaxis(self._pressure, axis, 0), axis=0)
        scene.impose(self._velocity)
        if self.boundary == "open":
            uz, uy, ux = self._velocity
            uz[-1] = uz[-2]
            uy[-1], ux[-1] = uy[-2], ux[-2]
            scene.impose(self._velocity)
        return result

    def _outflow(self) -> np.ndarray:
        """Net outflow of every fluid cell, in velocity units; zero elsewhere."""
        uz, uy, ux = self._velocity
        out = np.diff(uz, axis=0) + np.diff(uy, axis=1) + np.diff(ux, axis=2)
        out[~self._scene.fluid] = 0.0
        return out

    def _divergence(self) -> float:
        return float(np.abs(self._scene.consistent(self._outflow())).max()) / self.spacing


def _default_source(shape: tuple[int, ...]) -> Source:
    centre = [0.5 * n / shape[-1] for n in shape]
    centre[0] = 0.12
    return Source(tuple(centre), 0.1)
