"""Completion of matrices of low rank from some of their entries."""

from learnsolve.completion.altmin import AltMin
from learnsolve.completion.result import Completion, error_of
from learnsolve.completion.run import Progress
from learnsolve.completion.solve import complete
from learnsolve.completion.theory import RobustAltMin

__all__ = ["AltMin", "Completion", "Progress", "RobustAltMin", "complete", "error_of"]
