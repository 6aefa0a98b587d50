"""Methods for linear systems: each one file, and one line in this table."""

from learnsolve.loop import Method
from learnsolve.methods.bicgstab import BiCGSTAB
from learnsolve.methods.cg import CG, FlexibleCG
from learnsolve.methods.chebyshev import Chebyshev
from learnsolve.methods.dcdm import DCDM
from learnsolve.methods.direct import Direct
from learnsolve.methods.fast_poisson import FastPoisson
from learnsolve.methods.gmres import GMRES
from learnsolve.methods.lsmr import LSMR
from learnsolve.methods.minres import MINRES
from learnsolve.methods.relaxation import SOR, SSOR, GaussSeidel, Jacobi
from learnsolve.methods.substitution import Substitution

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        CG,
        FlexibleCG,
        MINRES,
        GMRES,
        BiCGSTAB,
        LSMR,
        Jacobi,
        GaussSeidel,
        SOR,
        SSOR,
        Chebyshev,
        FastPoisson,
        Direct,
        Substitution,
        DCDM,
    )
}

__all__ = ["METHODS", "Method", *(method.__name__ for method in METHODS.values())]
