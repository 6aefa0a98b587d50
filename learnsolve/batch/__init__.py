"""Many files: one task each, on processes of this machine or any executor."""

from learnsolve.batch.run import Record, Task, map_files, read_records
from learnsolve.batch.scans import Recipe, ReconstructFile
from learnsolve.batch.tasks import CompleteFile, SolveFile

__all__ = [
    "CompleteFile",
    "Recipe",
    "ReconstructFile",
    "Record",
    "SolveFile",
    "Task",
    "map_files",
    "read_records",
]
