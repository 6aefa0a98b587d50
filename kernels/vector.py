"""The vector kernels' dispatcher.

Long vectors on the CPU take the numba form, so that the inner loop of a solve stays in one pool of threads
(torch has another, whose waiting threads would hold the cores); all else is torch.
"""

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from learnsolve.kernels.threads import threads

LONG = 1 << 10


def _long(*vectors: Tensor) -> bool:
    return vectors[0].numel() >= LONG and all(v.device.type == "cpu" and v.is_contiguous() for v in vectors)


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().numpy().reshape(-1)


def dot(x: Tensor, y: Tensor) -> complex:
    """``x^H y`` over all entries; a real number for real vectors."""
    if _long(x, y):
        from learnsolve.kernels import vector_numba

        return vector_numba.dot(_flat(x), _flat(y), threads(x.numel()))
    return torch.vdot(x.detach().reshape(-1), y.detach().reshape(-1)).item()


def norm(x: Tensor) -> float:
    """The Euclidean norm over all entries, accumulated in double precision where single would not do."""
    if _long(x):
        from learnsolve.kernels import vector_numba

        return sqrt(vector_numba.square(_flat(x), threads(x.numel())))
    value = float(torch.linalg.vector_norm(x.detach()))
    if x.dtype in (torch.float32, torch.complex64) and not 1e-15 < value < 1e18:
        value = float(torch.linalg.vector_norm(x.to(torch.complex128 if x.is_complex() else torch.float64)))
    return value


def combine(alpha: complex, x: Tensor, beta: complex, y: Tensor) -> None:
    """``y = alpha x + beta y`` in place."""
    if _long(x, y):
        from learnsolve.kernels import vector_numba

        kind = x.numpy().dtype.type
        vector_numba.combine(kind(alpha), _flat(x), kind(beta), _flat(y), threads(x.numel()))
    else:
        y.mul_(beta).add_(x, alpha=alpha)


def descend(alpha: complex, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> float:
    """``x += alpha p; r -= alpha Ap`` in place; returns the norm of ``r``."""
    if _long(p, Ap, x, r):
        from learnsolve.kernels import vector_numba

        kind = x.numpy().dtype.type
        total = vector_numba.descend(kind(alpha), _flat(p), _flat(Ap), _flat(x), _flat(r), threads(x.numel()))
        return sqrt(total)
    x.add_(p, alpha=alpha)
    r.sub_(Ap, alpha=alpha)
    return norm(r)


def rescale(scale: float, x: Tensor, out: Tensor) -> Tensor:
    """``out = scale x``, into another precision; returns ``out``."""
    if _long(x, out):
        from learnsolve.kernels import vector_numba

        vector_numba.rescale(out.numpy().dtype.type(scale), _flat(x), _flat(out), threads(x.numel()))
        return out
    return torch.mul(x, scale, out=out)
