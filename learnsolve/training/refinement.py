r"""Schedules refined for a task by the gradient norms of a run that was made before.

The last iterate of SGD with steps :math:`\eta_t \propto w_t \sum_{p > t} w_p` is bounded by what the mean of
the iterates with weights w is, and that is least for :math:`w_t \propto \lVert g_t \rVert^{-2}`. Where all
norms are alike the schedule is linear decay; where they fall it warms up; where they grow at the end it falls
faster.
"""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter

from learnsolve.training.run_folder import CHECKPOINT_FORMAT
from learnsolve.training.weights import read_tensors

# Of what norm the weights are a power, and which.
WEIGHTS = {"sgd": ("l2", -2.0), "adam": ("l1", -1.0)}


def refined(
    norms: ArrayLike,
    optimizer: Literal["sgd", "adam"] = "adam",
    *,
    filter_width: float = 0.1,
    most: float = 10.0,
) -> NDArray[np.float64]:
    r"""Factors of the rate at each step, from the gradient's norm at each step of an earlier run.

    .. math:: \eta_t \propto w_t \sum_{p = t + 1}^{T} w_p, \qquad
        w_t = \hat G_t^{-2} \text{ (SGD)}, \quad w_t = \hat G_t^{-1} \text{ (Adam)},

    where :math:`\hat G` are norms after a median filter: of SGD the Euclidean ones, of Adam and its kin the
    sums of absolute values.

    Parameters
    ----------
    norms : (T,) array
        Positive; :attr:`learnsolve.training.FitResult.gradient_norms` has both kinds.
    optimizer : {"sgd", "adam"}
        Which of the weights.
    filter_width : float
        Of the filter, as a share of T, in [0, 1); zero for none.
    most : float
        No weight is more than so many times the median one. A run that fits its data has norms that go to
        zero, and the schedule would be one long warm-up.

    Returns
    -------
    (T,) float64 array
        The largest is one, the last one zero. A `learnsolve.training.BudgetLR` or
        `learnsolve.training.FitOptions` takes them as its schedule, of a run of any length.

    Raises
    ------
    ValueError
        Norms are not positive and finite, or fewer than two; or a number is not accepted.

    References
    ----------
    A. Defazio, A. Cutkosky, H. Mehta, K. Mishchenko, *When, why and how much? Adaptive learning rate
    scheduling by refinement*, 2023.

    Examples
    --------
    >>> from learnsolve.training.refinement import refined
    >>> refined([3.0, 3.0, 3.0, 3.0]).round(3).tolist()
    [1.0, 0.667, 0.333, 0.0]
    """
    G = np.asarray(norms, np.float64)
    if G.ndim != 1 or len(G) < 2 or not np.isfinite(G).all() or not (G > 0).all():
        raise ValueError(f"norms have shape {G.shape}; (T,), two or more, positive and finite, are accepted")
    if optimizer not in WEIGHTS:
        raise ValueError(f"optimizer is {optimizer!r}; {' and '.join(WEIGHTS)} are accepted")
    if not 0 <= filter_width < 1 or not most >= 1:
        raise ValueError(
            f"filter_width is {filter_width} and most {most}; a share in [0, 1), and at least 1, are accepted"
        )
    # Relative to their median, so that no power is too large or too small a number.
    G = _filtered(G / np.median(G), filter_width)
    w = G ** WEIGHTS[optimizer][1]
    w = np.minimum(w, most * np.median(w))
    after = np.concatenate([np.cumsum(w[:0:-1])[::-1], [0.0]])
    eta = w * after
    return np.asarray(eta / eta.max())


def refined_from(folder: str | os.PathLike, *, points: int = 1000) -> tuple[float, ...]:
    """A refined schedule out of the folder of a finished run that noted its gradient norms.

    Parameters
    ----------
    folder : str or os.PathLike
        Of `learnsolve.training.fit`, whose options had ``gradient_norms``; which weights are taken says its
        optimizer. Of steps that were left out the norms do not count.
    points : int
        At most so many factors, at equal distances.

    Raises
    ------
    ValueError
        There is no checkpoint in it, the run is not finished, or noted no norms.
    WeightsError
        The checkpoint is damaged.
    """
    path = Path(folder) / "checkpoint.safetensors"
    if not path.exists():
        raise ValueError(f"{folder} holds no run: there is no {path.name}")
    tensors, metadata = read_tensors(path, CHECKPOINT_FORMAT)
    options = metadata["identity"]["fit"]
    if "carried.gradient_norms" not in tensors:
        raise ValueError(f"{folder} holds a run without gradient_norms: train it again with them")
    if metadata["step"] < options["steps"]:
        raise ValueError(f"{folder} holds a run of {metadata['step']} of {options['steps']} steps: finish it")
    kind: Literal["sgd", "adam"] = "sgd" if options["optimizer"] == "sgd" else "adam"
    norms = tensors["carried.gradient_norms"][:, ("l2", "l1").index(WEIGHTS[kind][0])].numpy()
    factors = refined(norms[np.isfinite(norms) & (norms > 0)], kind)
    return tuple(factors[:: -(-len(factors) // points)].tolist())


def _filtered(norms: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Medians over a window; at the end, where norms may grow or fall, of the series and its mirror image."""
    half = int(width * len(norms) / 2)
    if half == 0:
        return norms
    size = 2 * half + 1
    padded = np.pad(norms, (0, min(2 * size, len(norms) - 1)), mode="reflect")
    found: Any = median_filter(padded, size=size, mode="nearest")
    return np.asarray(found[: len(norms)], np.float64)
