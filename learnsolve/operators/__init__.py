"""Linear operators: one class for everything that is linear, and the algebra over it."""

from learnsolve.operators.base import Adjoint, Operator, Product, Scaled, Sum
from learnsolve.operators.diagonal import Diagonal, Identity
from learnsolve.operators.fourier import Coils, Fourier, Mask, sense
from learnsolve.operators.grid import GridPoisson
from learnsolve.operators.grid_matrix import grid_from_matrix
from learnsolve.operators.grid_recurrence import GridRecurrence
from learnsolve.operators.recurrence import Bidiagonal
from learnsolve.operators.semiseparable import Semiseparable
from learnsolve.operators.sparse import CSR, Dense, FunctionOperator
from learnsolve.operators.toeplitz import CausalToeplitz
from learnsolve.operators.wavelet import Wavelet

__all__ = [
    "CSR",
    "Adjoint",
    "Bidiagonal",
    "CausalToeplitz",
    "Coils",
    "Dense",
    "Diagonal",
    "Fourier",
    "FunctionOperator",
    "GridPoisson",
    "GridRecurrence",
    "Identity",
    "Mask",
    "Operator",
    "Product",
    "Scaled",
    "Semiseparable",
    "Sum",
    "Wavelet",
    "grid_from_matrix",
    "sense",
]
