"""Pictures of attractors, spectra and exponents, on a matplotlib axes that is given or made."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from learnsolve.plots import axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_portrait(
    runs: dict[str, ArrayLike], ax: "Axes | None" = None, *, variables: tuple[int, int] = (0, 1)
) -> "Axes":
    """Draw runs in the plane of two variables; of one variable, over its value a time before.

    Parameters
    ----------
    runs : mapping of name to (T, N) array
    ax : matplotlib Axes, optional
    variables : (int, int)
        Which go to the right and up.

    Examples
    --------
    >>> from learnsolve.dynamics.pictures import plot_portrait
    >>> from learnsolve.problems.chaotic import lorenz63
    >>> plot_portrait({"Lorenz": lorenz63().orbit(1000)}, variables=(0, 2)).get_xlabel()
    'variable 0'
    """
    ax = axes_of(ax)
    for name, run in runs.items():
        x = np.asarray(run, float)
        if x.shape[1] == 1:
            ax.plot(x[:-1, 0], x[1:, 0], lw=0.4, label=name)
            ax.set(xlabel="variable 0", ylabel="variable 0, a time later")
        else:
            ax.plot(x[:, variables[0]], x[:, variables[1]], lw=0.4, label=name)
            ax.set(xlabel=f"variable {variables[0]}", ylabel=f"variable {variables[1]}")
    ax.legend(loc="upper right")
    return ax


def plot_spectra(
    runs: dict[str, ArrayLike], ax: "Axes | None" = None, *, dt: float = 1.0, smoothing: int = 20
) -> "Axes":
    """Draw power spectra, the mean over variables, as `spectrum_distance` compares them.

    Parameters
    ----------
    runs : mapping of name to (T, N) array
    ax : matplotlib Axes, optional
    dt : float
        Time between two rows.
    smoothing : int
        In bins.

    Examples
    --------
    >>> from learnsolve.dynamics.pictures import plot_spectra
    >>> from learnsolve.problems.chaotic import lorenz63
    >>> plot_spectra({"Lorenz": lorenz63().orbit(1000)}, dt=0.01).get_yscale()
    'log'
    """
    from learnsolve.dynamics.measures import power_spectra

    ax = axes_of(ax)
    for name, run in runs.items():
        x = np.asarray(run, float)
        ax.semilogy(np.fft.rfftfreq(len(x), dt), power_spectra(x, smoothing).mean(1), lw=1, label=name)
    ax.set(xlabel="frequency", ylabel="share of the power")
    ax.legend(loc="upper right")
    return ax


def plot_exponents(spectra: dict[str, ArrayLike], ax: "Axes | None" = None) -> "Axes":
    """Draw Lyapunov exponents, the largest first.

    Parameters
    ----------
    spectra : mapping of name to (M,) array
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> from learnsolve.dynamics.pictures import plot_exponents
    >>> plot_exponents({"Hénon": [0.42, -1.62]}).get_ylabel()
    'Lyapunov exponent'
    """
    ax = axes_of(ax)
    ax.axhline(0, color="0.7", lw=0.8)
    for name, values in spectra.items():
        found = np.asarray(values, float)
        ax.plot(np.arange(1, len(found) + 1), found, marker="o", label=name)
    ax.set(xlabel="number", ylabel="Lyapunov exponent")
    ax.legend(loc="upper right")
    return ax
