"""Pictures. Every function draws on a matplotlib axes, makes one if none is given, and returns it.

Nothing here opens a window: save with ``ax.figure.savefig("name.png")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from learnsolve.problems.smoke import SmokeSimulation
    from learnsolve.result import Result

_SOLID = 1
_OBSTACLE_COLOUR = "#8a8f98"
_SKY_TOP, _SKY_BOTTOM = (0.03, 0.05, 0.10), (0.17, 0.23, 0.33)
_SUN, _SHADE = (0.95, 0.90, 0.80), (0.20, 0.25, 0.34)
_OBSTACLE, _FLOOR = (0.80, 0.42, 0.28), (0.38, 0.42, 0.48)


def plot_convergence(
    result: Result, ax: Axes | None = None, *, label: str | None = None, seconds: ArrayLike | None = None
) -> Axes:
    """Draw a solve's residual norm, relative to the right-hand side's, against the iteration or the time.

    Call it again with the same axes to compare methods.

    Parameters
    ----------
    result : Result
    ax : matplotlib Axes, optional
    label : str, optional
        For the legend; default: the method, its iterations and its time.
    seconds : (iterations + 1,) array, optional
        When each residual was reached, as a callback is told; drawn instead of the iteration.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there are not as many times as residuals.

    Examples
    --------
    >>> import numpy as np, learnsolve
    >>> A = np.diag(np.arange(1.0, 9.0))
    >>> ax = plot_convergence(learnsolve.solve(A, np.ones(8), method="cg"))
    >>> ax.get_yscale()
    'log'
    """
    ax = axes_of(ax)
    history = np.array(result.residuals, dtype=float)
    if history.size and history[-1] > 0 and np.isfinite(result.relative_residual):
        history *= result.relative_residual / history[-1]
    history[~(history > 0)] = np.nan
    if label is None:
        label = f"{result.method}: {result.iterations} iterations, {result.seconds:.2g} s"
    at = np.arange(history.size) if seconds is None else _array(seconds)
    if at.shape != history.shape:
        raise ValueError(f"seconds have shape {at.shape}, the residuals {history.shape}")
    ax.semilogy(at, history, marker="o" if history.size < 40 else "", ms=4, label=label)
    ax.set(xlabel="iteration" if seconds is None else "seconds", ylabel=r"$\|b - Ax\| \,/\, \|b\|$")
    ax.grid(True, which="major", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def plot_field(
    field: ArrayLike,
    ax: Axes | None = None,
    cells: ArrayLike | None = None,
    *,
    axis: int = 1,
    index: int | None = None,
    colorbar: bool = False,
    **image: Any,
) -> Axes:
    """Draw a field on a grid, axis 0 upwards; of a three-dimensional field one slice.

    Parameters
    ----------
    field : (ny, nx) or (nz, ny, nx) array or tensor
    ax : matplotlib Axes, optional
    cells : int array of the same shape, optional
        Cells that are 1 are drawn as solid.
    axis, index : int
        Of a three-dimensional field: the slice across ``axis`` at ``index`` (default: the middle).
    colorbar : bool
        Add a colour bar.
    **image
        Passed on to ``Axes.imshow``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the field has not two or three axes, or the cells have another shape.

    Examples
    --------
    >>> import numpy as np
    >>> ax = plot_field(np.random.default_rng(0).random((8, 12)))
    >>> len(ax.images)
    1
    """
    plane = _array(field)
    solid = None if cells is None else _array(cells) == _SOLID
    if plane.ndim not in (2, 3):
        raise ValueError(f"field must have 2 or 3 axes, got shape {plane.shape}")
    if solid is not None and solid.shape != plane.shape:
        raise ValueError(f"cells have shape {solid.shape}, the field {plane.shape}")
    if plane.ndim == 3:
        at = plane.shape[axis] // 2 if index is None else index
        plane = np.take(plane, at, axis=axis)
        solid = None if solid is None else np.take(solid, at, axis=axis)
    ax = axes_of(ax)
    image = {"origin": "lower", "cmap": "magma", "interpolation": "bilinear"} | image
    picture = ax.imshow(plane, **image)
    if solid is not None and solid.any():
        from matplotlib.colors import ListedColormap

        ax.imshow(
            np.ma.masked_where(~solid, np.ones(solid.shape)),
            origin=image["origin"],
            extent=image.get("extent"),
            cmap=ListedColormap([_OBSTACLE_COLOUR]),
            interpolation="nearest",
        )
    if colorbar:
        ax.figure.colorbar(picture, ax=ax, shrink=0.8)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_smoke(sim: SmokeSimulation, ax: Axes | None = None, *, azimuth: float = 30.0) -> Axes:
    """Draw a smoke simulation: its density in a plane, or a lit view of the whole volume.

    Parameters
    ----------
    sim : SmokeSimulation
    ax : matplotlib Axes, optional
    azimuth : float
        Angle of the view about the vertical in degrees (three dimensions).

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from learnsolve.problems.smoke import SmokeSimulation
    >>> ax = plot_smoke(SmokeSimulation((16, 12)))
    >>> ax.get_title()
    'time 0.00'
    """
    ax = axes_of(ax)
    if sim.density.ndim == 2:
        height, width = (n * sim.spacing for n in sim.density.shape)
        plot_field(sim.density, ax, sim.cells, extent=(0, width, 0, height), vmin=0, interpolation="bicubic")
    else:
        ax.imshow(_render(sim.density, sim.cells == _SOLID, azimuth), interpolation="bicubic")
        ax.set_axis_off()
    ax.set_title(f"time {sim.time:.2f}")
    return ax


def plot_regret(
    costs: ArrayLike, reference: ArrayLike, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """Draw what a method has paid on a sequence of systems more than a reference, system by system.

    Parameters
    ----------
    costs, reference : (systems,) arrays
        What each system cost.
    ax : matplotlib Axes, optional
    label : str, optional
        For the legend.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> ax = plot_regret([3, 4, 5], [3, 3, 3])
    >>> ax.lines[0].get_ydata().tolist()
    [0, 1, 3]
    """
    paid, known = np.asarray(costs), np.asarray(reference)
    if paid.shape != known.shape:
        raise ValueError(f"there are {paid.size} costs, and {known.size} of the reference")
    ax = axes_of(ax)
    ax.plot(np.arange(1, paid.size + 1), np.cumsum(paid - known), label=label)
    ax.set_xlabel("system")
    ax.set_ylabel("iterations beyond the reference")
    if label is not None:
        ax.legend()
    return ax


def plot_choices(choices: ArrayLike, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Draw what a method that tunes itself chose for each system of a sequence.

    Parameters
    ----------
    choices : (systems,) array
        Numbers.
    ax : matplotlib Axes, optional
    label : str, optional
        For the legend.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> plot_choices([1.0, 1.5]).get_ylabel()
    'choice'
    """
    ax = axes_of(ax)
    values = np.asarray(choices, float)
    ax.plot(np.arange(1, values.size + 1), values, ".", markersize=2, alpha=0.5, label=label)
    ax.set_xlabel("system")
    ax.set_ylabel("choice")
    if label is not None:
        ax.legend(markerscale=5)
    return ax


def axes_of(ax: Axes | None) -> Axes:
    """The axes itself, or where there is none that of a new figure.

    Examples
    --------
    >>> from learnsolve.plots import axes_of
    >>> axes_of(None).get_title()
    ''
    """
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").add_subplot()


def _array(values: Any) -> np.ndarray:
    """Return a numpy array, also of a tensor that needs a gradient or lies on another device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def _render(density: np.ndarray, solid: np.ndarray, azimuth: float, elevation: float = 14.0) -> np.ndarray:
    """March parallel rays through smoke and solids that a sun lights from the upper left.

    Returns an image, (rows, columns, 3) float, the top row first.
    """
    scale = 160.0 / max(density.shape)
    floor = 4
    pad = [(floor, 0), (0, 0), (0, 0)]
    smoke = np.pad(ndimage.zoom(density.astype(np.float32), scale, order=1), pad)
    body = np.pad(ndimage.zoom(ndimage.gaussian_filter(solid.astype(np.float32), 0.7), scale, order=1), pad)
    ground = np.zeros_like(smoke)
    ground[:floor] = 1.0
    opacity = 0.22 * smoke
    light = _sunlight(0.35 * opacity + 3.0 * (body > 0.5))
    slope = np.gradient(ndimage.gaussian_filter(body, 1.5))
    steepness = np.sqrt(sum(g * g for g in slope)) + 1e-6
    facing = np.clip(-(0.75 * slope[0] - 0.35 * slope[1] - 0.55 * slope[2]) / steepness, 0.0, 1.0)
    shine = np.where(body > 0.3, facing * np.minimum(1.0, light + 0.35), light)
    turned = [_turn(v, azimuth, elevation) for v in (opacity, body, ground)]
    turned.append(_turn(shine, azimuth, elevation, "nearest"))

    rows, columns = turned[0].shape[0], turned[0].shape[2]
    blend = np.linspace(1.0, 0.0, rows)[:, None, None]
    colour, passed = np.zeros((rows, columns, 3)), np.ones((rows, columns, 1))
    for opaque, hull, earth, lit in zip(*(np.moveaxis(v, 1, 0)[..., None] for v in turned), strict=True):
        for cover, tint in (
            (np.clip(4.0 * (hull - 0.3), 0.0, 1.0), _OBSTACLE),
            (np.clip(2.0 * earth, 0.0, 1.0), _FLOOR),
            (1.0 - np.exp(-opaque), (1.0, 1.0, 1.0)),
        ):
            colour += passed * cover * np.array(tint) * (np.array(_SHADE) * 1.6 + lit * np.array(_SUN))
            passed = passed * (1.0 - cover)
    colour += passed * ((1 - blend) * np.array(_SKY_TOP) + blend * np.array(_SKY_BOTTOM))
    return np.clip(colour[::-1], 0.0, 1.0)


def _sunlight(opacity: np.ndarray) -> np.ndarray:
    """How much of a slanting light reaches every cell; the slant also softens the shadows."""
    light = np.ones_like(opacity)
    for k in range(opacity.shape[0] - 2, -1, -1):
        above = light[k + 1] * np.exp(-opacity[k + 1])
        above[:, 1:] = 0.5 * (above[:, 1:] + above[:, :-1])
        light[k] = above
    return light


def _turn(volume: np.ndarray, azimuth: float, elevation: float, outside: str = "grid-constant") -> np.ndarray:
    """Turn about the vertical, then tilt towards the viewer; linear interpolation."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    about = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
    tilt = np.array([[np.cos(e), -np.sin(e), 0], [np.sin(e), np.cos(e), 0], [0, 0, 1]])
    matrix = about @ tilt
    size = np.array(volume.shape)
    shape = np.ceil(np.abs(matrix.T) @ size).astype(int)
    offset = size / 2 - 0.5 - matrix @ (shape / 2 - 0.5)
    return ndimage.affine_transform(volume, matrix, offset, tuple(shape), order=1, mode=outside)
