"""Linear operators: one class for everything that is linear, and the algebra over it."""

from learnsolve.operators.base import Adjoint, Operator, Product, Scaled, Sum
from learnsolve.operators.diagonal import Diagonal, Identity
from learnsolve.operators.fourier import Coils, Fourier, Mask, sense
from learnsolve.operators.grid import GridPoisson
from learnsolve.operators.recurrence import Bidiagonal
from learnsolve.operators.sparse import CSR, Dense, FunctionOperator
from learnsolve.operators.wavelet import Wavelet

__all__ = [
    "CSR",
    "Adjoint",
    "Bidiagonal",
    "Coils",
    "Dense",
    "Diagonal",
    "Fourier",
    "FunctionOperator",
    "GridPoisson",
    "Identity",
    "Mask",
    "Operator",
    "Product",
    "Scaled",
    "Sum",
    "Wavelet",
    "sense",
]
