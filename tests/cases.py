"""Named linear systems, and what each method owes them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Case:
    """A system; ``kind`` says which methods must solve it."""

    name: str
    A: Any
    b: np.ndarray
    kind: str
    rtol: float = 1e-6

    def __str__(self) -> str:
        return self.name


def _second_difference(n: int) -> sp.csr_array:
    return sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()


def _random(n: int, seed: int, complex_valued: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.random((n, n))
    return A + 1j * rng.random((n, n)) if complex_valued else A


def _saddle() -> np.ndarray:
    """Symmetric, indefinite, zero diagonal blocks: Lanczos processes without look-ahead break down on it."""
    weights = np.array([1.0, 2.0, 2.0, 2.0, 1.0])
    A = np.zeros((11, 11))
    A[:5, 5] = A[5, :5] = weights
    A[np.arange(5), np.arange(6, 11)] = A[np.arange(6, 11), np.arange(5)] = -1
    A[np.arange(6, 11), np.arange(6, 11)] = -1
    return A


def _systems() -> list[tuple[str, Any, str]]:
    line = _second_difference(40)
    plane = sp.kron(line, sp.eye_array(40)) + sp.kron(sp.eye_array(40), line)
    signs = sp.diags_array([6.0, -5, 2, 7, -1, 10, 4, -3, -8, 9]).tocsr()
    convection = sp.diags_array([-1.0, 2.0], offsets=[-1, 0], shape=(10, 10)).tocsr()
    symmetric, hermitian = _random(4, 1), _random(4, 2, True)
    gram, complex_gram = _random(9, 3), _random(9, 4, True)
    scaled = sp.diags_array(10.0 ** np.linspace(-4, 4, 60)).tocsr()
    return [
        ("line", line, "spd"),
        ("minus-line", -line, "hermitian"),
        ("plane", plane.tocsr(), "spd"),
        ("plane-coo", plane.tocoo(), "spd"),
        ("plane-csc", plane.tocsc(), "spd"),
        ("signs", signs, "hermitian"),
        ("random", _random(4, 0), "general"),
        ("symmetric", symmetric + symmetric.T, "hermitian"),
        ("gram", gram @ gram.T, "spd"),
        ("complex", _random(4, 5, True), "general"),
        ("hermitian", hermitian + hermitian.conj().T, "hermitian"),
        ("complex-gram", complex_gram @ complex_gram.conj().T, "spd"),
        ("convection", convection, "general"),
        ("saddle", _saddle(), "hermitian"),
        ("one", np.array([[3.0]]), "spd"),
        ("scaled", (scaled + 1e-3 * _second_difference(60)).tocsr(), "stiff"),
        ("permutation", np.eye(5)[[1, 2, 3, 4, 0]], "general"),
    ]


def _single(A: Any) -> Any:
    return A.astype(np.complex64 if A.dtype.kind == "c" else np.float32)


def _cases() -> list[Case]:
    found = []
    for name, A, kind in _systems():
        b = np.arange(1, A.shape[0] + 1, dtype=float)
        found.append(Case(name, A, b, kind))
        found.append(
            Case(
                f"{name}-single",
                _single(A),
                b.astype(np.float32),
                kind,
                1e-4 if kind in ("spd", "stiff") else 1e-3,
            )
        )
    return found


CASES = _cases()
# What each method must solve, by kind; a restarted or short recurrence owes less than "auto".
OWED = {
    "auto": ("spd", "hermitian", "general", "stiff"),
    "direct": ("spd", "hermitian", "general", "stiff"),
    "gmres": ("spd", "hermitian", "general"),
    "cg": ("spd",),
    "fcg": ("spd",),
    "minres": ("spd", "hermitian"),
    "bicgstab": ("spd",),
    "lsmr": (),
    "chebyshev": (),
    "jacobi": (),
    "gauss_seidel": (),
    "sor": (),
    "ssor": (),
}
