"""What a contextual policy may be told of a matrix."""

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from learnsolve.operators import Operator
from learnsolve.operators.sweeps import matrix_of


def diagonal_excess(A: Operator) -> float:
    r"""How far a matrix is from having rows that sum to zero.

    It is :math:`\log_{10}(1 - \sum |a_{ij}| / \sum |a_{ii}|)`, where the first sum is over all entries off
    the diagonal. It grows with a shift or an absorption, and costs one pass over the matrix. Values below
    -6, and of rows that are not dominated by the diagonal, are given as -6.

    Parameters
    ----------
    A : Operator
        A square matrix whose entries are known.

    Raises
    ------
    TypeError
        The entries are not known.

    Examples
    --------
    >>> from learnsolve.operators import GridPoisson
    >>> A = GridPoisson(np.zeros((4, 4), int), boundary="dirichlet", absorption=1.0)
    >>> round(diagonal_excess(A), 3)  # 48 off the diagonal, 16 times 5 on it
    -0.398
    """
    matrix = abs(matrix_of(A))
    diagonal = float(matrix.diagonal().sum())
    if diagonal == 0:
        return -6.0
    return float(np.log10(max(2 - float(matrix.sum()) / diagonal, 1e-6)))


def jacobi_radius(A: Operator, rtol: float = 1e-3) -> float:
    r"""The spectral radius of the Jacobi iteration of a symmetric matrix, by a few steps of Lanczos.

    Parameters
    ----------
    A : Operator
        A symmetric matrix with a diagonal that is not negative.
    rtol : float
        Accuracy relative to what the radius is short of one; a thousandth costs some tens of products.

    Returns
    -------
    float
        The largest :math:`|\lambda|` of :math:`I - D^{-1} A`.

    Raises
    ------
    TypeError, ValueError
        The entries are not known, or some of the diagonal are negative.

    Examples
    --------
    >>> from learnsolve.operators import GridPoisson
    >>> A = GridPoisson(np.zeros((4, 4), int), boundary="dirichlet")
    >>> round(jacobi_radius(A), 3)  # cos(pi / 5)
    0.809
    """
    matrix = matrix_of(A)
    diagonal = matrix.diagonal()
    if not (diagonal >= 0).all():
        raise ValueError(f"the diagonal of {A!r} is negative in {int((diagonal < 0).sum())} places")
    # A cell among walls has a row of zeros, which no sweep changes.
    used = diagonal > 0
    root = np.where(used, 1 / np.sqrt(np.where(used, diagonal, 1.0)), 0.0)

    def apply(x: np.ndarray) -> np.ndarray:
        x = x.reshape(-1)
        return used * x - root * (matrix @ (root * x))

    size = A.shape[0]
    if size < 3:
        return float(np.abs(np.linalg.eigvalsh(np.stack([apply(e) for e in np.eye(size)]))).max())
    operator = LinearOperator((size, size), matvec=apply, dtype=diagonal.dtype)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        values = eigsh(operator, 1, which="LM", tol=rtol, v0=start, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        values = error.eigenvalues if error.eigenvalues.size else np.array([1.0])
    return float(np.abs(values).max())
