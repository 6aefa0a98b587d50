"""Conjugate gradients deflated by the indicators of subdomains, as a peer."""

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg


def deflated_cg(A: Any, b: np.ndarray, rtol: float, maxiter: int, blocks: int = 8) -> tuple[np.ndarray, int]:
    """Answer and iterations of CG on ``P A x = P b``, ``P = I - A Z (Z^T A Z)^-1 Z^T``.

    Parameters
    ----------
    A : GridPoisson
        The matrix.
    b : array of the grid's shape
        The right-hand side.
    rtol, maxiter : float, int
        When to stop.
    blocks : int
        Subdomains along each axis; ``Z`` has a column of ones for each that holds fluid.

    References
    ----------
    Frank and Vuik, *On the construction of deflation-based preconditioners*, SIAM J. Sci. Comput. 23 (2001).
    """
    active = A.active.numpy()
    matrix, right = A.to_scipy(), b[active]
    places = np.argwhere(active) * blocks // np.array(active.shape)
    number = np.unique(np.ravel_multi_index(places.T, (blocks,) * active.ndim), return_inverse=True)[1]
    size = right.size
    Z = scipy.sparse.csr_array((np.ones(size), (np.arange(size), number)))
    AZ = (matrix @ Z).tocsr()
    E = (Z.T @ AZ).toarray()
    # A closed domain's indicators add up to its null space.
    inverse = np.linalg.pinv(E, hermitian=True)

    def project(r: np.ndarray) -> np.ndarray:
        return r - AZ @ (inverse @ (Z.T @ r))

    x = np.zeros(size)
    r = project(right)
    p, rr, count = r.copy(), r @ r, 0
    while count < maxiter and np.sqrt(rr) > rtol * np.linalg.norm(right):
        Ap = project(matrix @ p)
        alpha = rr / (p @ Ap)
        x += alpha * p
        r -= alpha * Ap
        rr, before = r @ r, rr
        p = r + rr / before * p
        count += 1
    x = Z @ (inverse @ (Z.T @ right)) + x - Z @ (inverse @ (AZ.T @ x))
    answer = np.zeros(active.shape)
    answer[active] = x
    return answer, count
