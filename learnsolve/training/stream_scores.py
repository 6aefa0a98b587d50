"""Scores of a stream of tasks: what was learned, kept and passed on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class StreamScores:
    """The matrix R of scores, and what is commonly read off it.

    Parameters
    ----------
    names : sequence of str
        Of the T tasks.
    matrix : (T, T) array_like
        ``R[i, j]``, the score of task j after task i was learned.
    untrained : (T,) array_like
        ``b[j]``, the score of task j before anything was learned.
    better : {"more", "less"}
        Scores. With "less", transfers are taken with the other sign: a positive one is always a gain, and
        a negative `backward_transfer` forgetting. Means of scores stay as they are.

    Raises
    ------
    ValueError
        There is no name, the shapes are not (T, T) and (T,), or ``better`` is neither.

    References
    ----------
    Lopez-Paz and Ranzato, *Gradient episodic memory for continual learning*, NIPS 2017: R, ACC, BWT, FWT.

    Rebuffi, Kolesnikov, Sperl and Lampert, *iCaRL: incremental classifier and representation learning*, CVPR
    2017: average incremental accuracy.

    Examples
    --------
    >>> from learnsolve.training.stream_scores import StreamScores
    >>> scores = StreamScores(["discs", "layers"], [[0.9, 0.5], [0.7, 0.8]], [0.1, 0.1])
    >>> round(scores.average, 3), round(scores.backward_transfer, 3), round(scores.forward_transfer, 3)
    (0.75, -0.2, 0.4)
    """

    names: Sequence[str]
    matrix: NDArray[np.float64]
    untrained: NDArray[np.float64]
    better: Literal["more", "less"] = "more"

    def __post_init__(self) -> None:
        check_better(self.better)
        names = tuple(self.names)
        matrix, untrained = np.asarray(self.matrix, np.float64), np.asarray(self.untrained, np.float64)
        tasks = len(names)
        if tasks == 0 or matrix.shape != (tasks, tasks) or untrained.shape != (tasks,):
            raise ValueError(
                f"there are {tasks} names, matrix has shape {matrix.shape} and untrained {untrained.shape}; "
                "T names of at least one, (T, T) and (T,) are accepted"
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "untrained", untrained)

    @property
    def average(self) -> float:
        """ACC, the mean over all tasks j of ``R[T-1, j]``."""
        return float(self.matrix[-1].mean())

    @property
    def average_incremental(self) -> float:
        """The mean over i of the mean over j <= i of ``R[i, j]``."""
        return float(np.mean([row[: number + 1].mean() for number, row in enumerate(self.matrix)]))

    @property
    def backward_transfer(self) -> float:
        """BWT, the mean over j < T - 1 of ``R[T-1, j] - R[j, j]``; NaN for a single task."""
        return self._gain(self.matrix[-1, :-1] - self.matrix.diagonal()[:-1])

    @property
    def forward_transfer(self) -> float:
        """FWT, the mean over j > 0 of ``R[j-1, j] - b[j]``; NaN for a single task."""
        return self._gain(self.matrix.diagonal(1) - self.untrained[1:])

    def _gain(self, differences: NDArray[np.float64]) -> float:
        """Their mean, positive if scores became better."""
        if not len(differences):
            return math.nan
        gain = float(differences.mean())
        # A difference, for the opposite of zero shall not be minus zero.
        return 0 - gain if self.better == "less" else gain


def score_table(methods: Mapping[str, StreamScores], title: str) -> "Table":
    """For each method its last score of each task, and what is read off its matrix.

    Parameters
    ----------
    methods : mapping of str to StreamScores
        Of one stream, by the names of the methods.
    title : str

    Returns
    -------
    rich.table.Table

    Raises
    ------
    ValueError
        There is no method, or they are not of the same tasks.

    Examples
    --------
    >>> from learnsolve.training.stream_scores import StreamScores, score_table
    >>> scores = StreamScores(["discs", "layers"], [[9, 30], [18, 10]], [40, 40], better="less")
    >>> [column.header for column in score_table({"fine-tune": scores}, "preconditioner").columns]
    ['method', 'discs', 'layers', 'ACC', 'BWT', 'FWT', 'incremental']
    """
    from rich.table import Table

    streams = {(tuple(scores.names), scores.better) for scores in methods.values()}
    if len(streams) != 1:
        raise ValueError(f"there are scores of {len(streams)} streams; those of one are accepted")
    names, better = streams.pop()
    table = Table(title=f"{title}: scores after the last task; {better} is better", title_justify="left")
    table.add_column("method")
    for heading in (*names, "ACC", "BWT", "FWT", "incremental"):
        table.add_column(heading, justify="right")
    for method, scores in methods.items():
        transfers = f"{scores.backward_transfer:+.4g}", f"{scores.forward_transfer:+.4g}"
        last = (f"{score:.4g}" for score in scores.matrix[-1])
        table.add_row(method, *last, f"{scores.average:.4g}", *transfers, f"{scores.average_incremental:.4g}")
    return table


def check_better(better: str) -> None:
    """Raise if it is neither.

    Raises
    ------
    ValueError
        Says so.

    Examples
    --------
    >>> from learnsolve.training.stream_scores import check_better
    >>> check_better("larger")
    Traceback (most recent call last):
    ValueError: better is 'larger'; 'more' and 'less' are accepted
    """
    if better not in ("more", "less"):
        raise ValueError(f"better is {better!r}; 'more' and 'less' are accepted")
