"""Completion of matrices of low rank from some of their entries."""

from learnsolve.completion.altmin import AltMin
from learnsolve.completion.result import Completion, error_of
from learnsolve.completion.run import Progress
from learnsolve.completion.solve import complete
from learnsolve.completion.stored import StoredEntries, store_entries
from learnsolve.completion.stream import Stream
from learnsolve.completion.theory import RobustAltMin

__all__ = [
    "AltMin",
    "Completion",
    "Progress",
    "RobustAltMin",
    "StoredEntries",
    "Stream",
    "complete",
    "error_of",
    "store_entries",
]
