r"""A mountainside with a ridge: the least surface on which two runs stay together or part.

The picture is that of Singh and others (below): two runs come down one mountainside. Where no ridge is
between them, a straight line joins them without a barrier; where a ridge has come between them, the line
crosses it. Their text beyond the abstract was not at hand: the surface that stands for the picture here, and
all that follows from it, is derived in this file. With a coordinate v down the mountain and u across it,

.. math:: L(u, v) = h + s v + \frac12 b v^2 + t u + \frac12 (k + c v) u^2 + \frac14 q u^4,

the normal form of a pitchfork bifurcation, whose parameter is the way down. Where :math:`k + c v` is
positive, the mountainside is one valley, and gradient descent brings runs together. Where it is negative,
there is a ridge at u = 0, and runs on its two sides move apart, to valleys at
:math:`\pm\sqrt{-(k + c v) / q}`. Without a tilt t, these lie :math:`(k + c v)^2 / 4q` below the ridge: that
is the barrier between two runs that ended in them, and half of what its second-order estimate says. The
surface has a floor if :math:`b > c^2 / 2q`.

References
----------
S. P. Singh, L. Adilova, M. Kamp, A. Fischer, B. Schölkopf, T. Hofmann, *Landscaping linear mode
connectivity*, HiLD workshop at ICML 2024.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray
from torch import nn

from learnsolve.plots import axes_of
from learnsolve.training.connectivity import Barrier, Loss, averaged, judged, must_fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 1e6


@dataclass(frozen=True)
class Mountainside:
    """The surface that the head of this file describes, with parameters made up or of `fit_mountainside`.

    Parameters
    ----------
    height, slope, bend : float
        h, s and b: what the way down is like along u = 0.
    tilt : float
        t: by how much one side is the better one.
    curvature, change : float
        k and c: the curvature across, at v = 0 and its change with v.
    quartic : float
        q, at least zero.

    Raises
    ------
    ValueError
        A parameter is not finite, or ``quartic`` is negative.

    Examples
    --------
    A ridge that begins half-way down:

    >>> from learnsolve.training.landscape import Mountainside
    >>> surface = Mountainside(height=2, slope=-1, bend=1, tilt=0, curvature=1, change=-2, quartic=4)
    >>> surface.fork, surface.ridge(0.25), surface.ridge(1.5)
    (0.5, 0.0, 0.25)
    """

    height: float
    slope: float
    bend: float
    tilt: float
    curvature: float
    change: float
    quartic: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in astuple(self)) or self.quartic < 0:
            raise ValueError(f"{self} is not accepted: all must be finite, and quartic at least 0")

    def __call__(self, u: Any, v: Any) -> Any:
        """The loss at a point; u and v are numbers, or arrays or tensors that broadcast."""
        down = self.height + self.slope * v + self.bend * v**2 / 2
        return down + self.tilt * u + self.across(v) * u**2 / 2 + self.quartic * u**4 / 4

    def across(self, v: Any) -> Any:
        """The curvature across at u = 0: of a valley if it is positive, of a ridge if it is negative."""
        return self.curvature + self.change * v

    @property
    def fork(self) -> float:
        """The v where valley and ridge meet; infinite if the curvature does not change."""
        return -self.curvature / self.change if self.change else math.inf

    def ridge(self, v: float) -> float:
        """How high the ridge is above its valleys without the tilt; zero where there is none."""
        steep = max(0.0, -self.across(v))
        if steep == 0:
            return 0.0
        return steep**2 / (4 * self.quartic) if self.quartic else math.inf

    def barrier(self, p: tuple[float, float], q: tuple[float, float]) -> float:
        """The largest loss on the segment between two points above the chord, exactly.

        Parameters
        ----------
        p, q : (float, float)
            u and v of the ends.

        Examples
        --------
        >>> from learnsolve.training.landscape import Mountainside
        >>> surface = Mountainside(height=0, slope=0, bend=0, tilt=0, curvature=-1, change=0, quartic=1)
        >>> round(surface.barrier((-1, 0), (1, 0)), 12), surface.ridge(0)
        (0.25, 0.25)
        """
        # On a line the surface is a polynomial of degree four, which five values determine.
        at = np.linspace(0, 1, 5)
        losses = self(*((1 - at) * one + at * other for one, other in zip(p, q, strict=True)))
        excess = Polynomial.fit(at, losses - (1 - at) * losses[0] - at * losses[-1], 4, domain=[0, 1])
        turns = excess.deriv().roots()
        places = turns.real[(abs(turns.imag) < 1e-9) & (turns.real > 0) & (turns.real < 1)]
        return float(max(0.0, *excess(places))) if len(places) else 0.0

    def descend(
        self, start: tuple[float, float], *, steps: int = 1000, rate: float = 0.01
    ) -> NDArray[np.float64]:
        """A run of gradient descent on the surface.

        Parameters
        ----------
        start : (float, float)
        steps : int
        rate : float

        Returns
        -------
        (steps + 1, 2) float64 array
            u and v, from the start on.

        Raises
        ------
        ValueError
            The run leaves for infinity: the surface falls for ever there, or the rate is too large.

        Examples
        --------
        Two runs that begin on the two sides of a ridge end behind it:

        >>> from learnsolve.training.landscape import Mountainside
        >>> surface = Mountainside(height=2, slope=-1, bend=1, tilt=0, curvature=1, change=-2, quartic=4)
        >>> left, right = (surface.descend((u, 0.0), steps=5000)[-1] for u in (-0.1, 0.1))
        >>> right.round(3), round(surface.barrier(left, right), 3)
        (array([0.707, 1.5  ]), 0.25)
        """
        u, v = (float(x) for x in start)
        path = [(u, v)]
        for _ in range(steps):
            du = self.tilt + self.across(v) * u + self.quartic * u**3
            dv = self.slope + self.bend * v + self.change * u**2 / 2
            u, v = u - rate * du, v - rate * dv
            if not (abs(u) < FAR and abs(v) < FAR):
                raise ValueError(f"the run from {start} leaves for infinity after {len(path)} steps")
            path.append((u, v))
        return np.array(path)


class Plane(NamedTuple):
    """Losses in the plane through two networks and a third from which they may have come.

    Attributes
    ----------
    u : (m,) float64 array
        Across: -1 and 1 are where the two networks are, if v is one.
    v : (n,) float64 array
        Down: zero where the third is, one at the middle of the two.
    losses : (n, m) float64 array
    """

    u: NDArray[np.float64]
    v: NDArray[np.float64]
    losses: NDArray[np.float64]


def measure_plane(
    start: nn.Module, a: nn.Module, b: nn.Module, loss: Loss, *, across: int = 9, down: int = 6
) -> Plane:
    """Measure the loss in the plane through three networks.

    Parameters
    ----------
    start : torch.nn.Module
        Where the two runs were one; of independent runs, the average of their first networks.
    a, b : torch.nn.Module
        Where they have come to.
    loss : callable
        As of `learnsolve.training.connectivity.barrier`.
    across, down : int
        Points; u goes from -1 to 1 and v from 0 to 1.

    Raises
    ------
    ValueError
        The networks do not fit, or there are less than five points across or three down.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.landscape import measure_plane
    >>> network = torch.nn.Linear(2, 1)
    >>> plane = measure_plane(network, network, network, lambda network: network(torch.ones(2)).sum())
    >>> plane.losses.shape
    (6, 9)
    """
    must_fit(start, a)
    must_fit(start, b)
    if across < 5 or down < 3:
        raise ValueError(f"there are {across} points across and {down} down; at least 5 and 3 are accepted")
    u, v = np.linspace(-1, 1, across), np.linspace(0, 1, down)
    shares = [[(1 - y, (y - x) / 2, (y + x) / 2) for x in u] for y in v]
    losses = [[judged(averaged([start, a, b], share), loss) for share in row] for row in shares]
    return Plane(u, v, np.array(losses))


def fit_mountainside(plane: Plane) -> tuple[Mountainside, float]:
    """The surface that is nearest to measured losses, by linear least squares, and how near it is.

    Parameters
    ----------
    plane : Plane
        Of `measure_plane`, or a part of it: what is predicted for v = 1 is only a prediction if the fit does
        not know that row.

    Returns
    -------
    surface : Mountainside
        Its ``barrier((-1, 1), (1, 1))`` is that which it predicts between the two networks.
    explained : float
        The share of the variance of the losses that it explains; one if they do not vary.

    Raises
    ------
    ValueError
        A loss is not finite, or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.training.landscape import Mountainside, Plane, fit_mountainside
    >>> surface = Mountainside(height=2, slope=-1, bend=1, tilt=0, curvature=1, change=-2, quartic=4)
    >>> u, v = np.linspace(-1, 1, 9), np.linspace(0, 1, 6)
    >>> found, explained = fit_mountainside(Plane(u, v, surface(u, v[:, None])))
    >>> round(found.change, 6), round(explained, 6)
    (-2.0, 1.0)
    """
    from scipy.optimize import lsq_linear

    losses = np.asarray(plane.losses, float)
    if losses.shape != (len(plane.v), len(plane.u)) or not np.isfinite(losses).all():
        raise ValueError(
            f"losses of shape {losses.shape} are given for {len(plane.v)} v and {len(plane.u)} u; finite "
            "ones, a row for each v, are accepted"
        )
    u, v = (x.ravel() for x in np.meshgrid(plane.u, plane.v))
    terms = np.stack([np.ones_like(u), v, v**2 / 2, u, u**2 / 2, v * u**2 / 2, u**4 / 4], axis=-1)
    least = np.full(7, -np.inf)
    least[-1] = 0.0
    found = lsq_linear(terms, losses.ravel(), (least, np.inf), method="bvls").x
    left = losses.ravel() - terms @ found
    spread = losses.var()
    varies = spread > 1e-12 * np.square(losses).mean()
    surface = Mountainside(*(float(value) for value in found))
    return surface, float(1 - left.var() / spread) if varies else 1.0


def plot_mountainside(
    surface: Mountainside,
    ax: "Axes | None" = None,
    *,
    plane: Plane | None = None,
    runs: Sequence[ArrayLike] = (),
) -> "Axes":
    """Draw the lines of equal loss of a surface, beside those that were measured, and runs.

    Parameters
    ----------
    surface : Mountainside
    ax : matplotlib Axes, optional
    plane : Plane, optional
        Its lines are dashed.
    runs : sequence of (steps, 2) array
        As of `Mountainside.descend`.

    Examples
    --------
    >>> from learnsolve.training.landscape import Mountainside, plot_mountainside
    >>> surface = Mountainside(height=2, slope=-1, bend=1, tilt=0, curvature=1, change=-2, quartic=4)
    >>> plot_mountainside(surface, runs=[surface.descend((0.1, 0.0), steps=100)]).get_ylabel()
    'down the mountain, v'
    """
    ax = axes_of(ax)
    u, v = np.linspace(-1.2, 1.2, 97), np.linspace(0, 1.2, 97)
    filled = ax.contourf(u, v, surface(u, v[:, None]), levels=20, cmap="viridis")
    if plane is not None:
        ax.contour(*plane, levels=filled.levels, colors="white", linewidths=0.7, linestyles="dashed")
    for run in runs:
        ax.plot(*np.asarray(run, float).T, color="tab:red", lw=1.5)
    ax.figure.colorbar(filled, ax=ax, label="loss")
    ax.set(xlabel="across, u", ylabel="down the mountain, v", xlim=(-1.2, 1.2), ylim=(1.2, 0))
    return ax


def plot_barriers(barriers: Mapping[str, Barrier], ax: "Axes | None" = None) -> "Axes":
    """Draw losses on the way from one network to another.

    Parameters
    ----------
    barriers : mapping of name to Barrier
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import barrier
    >>> from learnsolve.training.landscape import plot_barriers
    >>> network = torch.nn.Linear(2, 1)
    >>> found = barrier(network, network, lambda network: network(torch.ones(2)).sum())
    >>> plot_barriers({"itself": found}).get_ylabel()
    'loss'
    """
    ax = axes_of(ax)
    for name, found in barriers.items():
        ax.plot(found.alphas.numpy(), found.curve.numpy(), marker=".", label=f"{name}: {found.height:.3g}")
    ax.set(xlabel="share of the second network", ylabel="loss")
    ax.legend(title="barrier", frameon=False)
    return ax
