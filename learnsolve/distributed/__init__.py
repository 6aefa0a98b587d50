"""Beyond one process: PETSc with the package's preconditioners.

``-pc_type python -pc_python_type learnsolve.distributed.LearnedPC`` loads them in any PETSc program.
"""

from learnsolve.distributed.preconditioner import LearnedPC
from learnsolve.distributed.solve import solve_petsc

__all__ = ["LearnedPC", "solve_petsc"]
