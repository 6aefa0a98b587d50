"""Copies within compiled kernels, by loops.

Where one array is assigned to another's slice, numba compiles a message about shapes that do not fit into
every kernel that does it, which takes seconds each time; here sizes are those of ``x``, and not looked at.
"""

from numba import njit

from learnsolve.kernels.threads import INLINE


@njit(**INLINE)
def copy_vector(x, out):
    """``out[i] = x[i]``."""
    for i in range(len(x)):
        out[i] = x[i]


@njit(**INLINE)
def copy_matrix(x, out):
    """``out[i, j] = x[i, j]``."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j]
