"""Linear operators: one class for everything that is linear, and the algebra over it."""

from learnsolve.operators.base import Adjoint, Diagonal, Identity, Operator, Product, Scaled, Sum
from learnsolve.operators.grid import GridPoisson
from learnsolve.operators.sparse import CSR, Dense, FunctionOperator

__all__ = [
    "CSR",
    "Adjoint",
    "Dense",
    "Diagonal",
    "FunctionOperator",
    "GridPoisson",
    "Identity",
    "Operator",
    "Product",
    "Scaled",
    "Sum",
]
