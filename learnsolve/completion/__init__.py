"""Completion of matrices of low rank from some of their entries."""

from learnsolve.completion.altmin import AltMin
from learnsolve.completion.result import Completion, error_of
from learnsolve.completion.run import Progress, complete

__all__ = ["AltMin", "Completion", "Progress", "complete", "error_of"]
