"""The normaliser at the door: behind it, an operator and torch tensors of one dtype and device."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from learnsolve import arrays
from learnsolve.operators import CSR, Dense, FunctionOperator, Operator
from learnsolve.preconditioners import Preconditioner, named


def as_operator(A: Any) -> Operator:
    """An operator from anything that stands for a matrix.

    Parameters
    ----------
    A : Operator, array, tensor, scipy.sparse, scipy LinearOperator, or callable with ``shape``
        Dense matrices may be numpy, torch or cupy; sparse ones scipy in any format, cupyx CSR, torch CSR,
        CSC, BSR or COO. A callable's ``shape`` is ``(rows, columns)``, its ``dtype`` float64 if it has none.

    Raises
    ------
    TypeError
        The type or dtype is not one of these.
    ValueError
        There are not two axes, no entries, or some that are not finite.
    """
    operator = _convert(A)
    if 0 in operator.shape:
        raise ValueError(f"A has shape {operator.shape}: there is nothing to solve")
    for parameter in operator.parameters():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise ValueError("A holds NaN or infinity")
    return operator


def _convert(A: Any) -> Operator:
    if isinstance(A, Operator):
        return A
    if scipy.sparse.issparse(A):
        if A.ndim != 2:
            raise ValueError(f"A has shape {A.shape}; a matrix has two axes")
        arrays.torch_dtype(A.dtype, "A")
        return CSR.from_scipy(A)
    if isinstance(A, Tensor):
        arrays.torch_dtype(A.dtype, "A")
        return Dense(A) if A.layout is torch.strided else _from_torch_sparse(A)
    if type(A).__module__.startswith("cupyx.scipy.sparse"):
        csr = A.tocsr()
        csr.sum_duplicates()
        indptr, indices, data = (torch.from_dlpack(part) for part in (csr.indptr, csr.indices, csr.data))
        return CSR(indptr, indices, data, A.shape)
    if isinstance(A, LinearOperator):
        dtype = arrays.torch_dtype(A.dtype, "A")
        return _wrapped(A.matvec, A.rmatvec, A.shape, dtype)
    if isinstance(A, np.ndarray | list | tuple) or arrays.is_cupy(A):
        array = A if arrays.is_cupy(A) else np.asarray(A)
        if array.ndim != 2:
            raise ValueError(f"A has shape {array.shape}; a matrix has two axes")
        return Dense(arrays.as_tensor(array, "A"))
    if callable(A) and hasattr(A, "shape"):
        dtype = arrays.torch_dtype(getattr(A, "dtype", np.float64), "A")
        return _wrapped(A, getattr(A, "rmatvec", None), A.shape, dtype)
    raise TypeError(
        f"A is a {type(A).__name__}; arrays, sparse matrices, operators and callables with a shape are taken"
    )


def _wrapped(function: Callable, adjoint: Callable | None, shape: Any, dtype: torch.dtype) -> Operator:
    rows, columns = (int(n) for n in shape)
    return FunctionOperator(
        function, (columns,), (rows,), dtype, adjoint=adjoint, restore=arrays.restorer(np.empty(0))
    )


def _from_torch_sparse(A: Tensor) -> CSR:
    if A.ndim != 2:
        raise ValueError(f"A has shape {tuple(A.shape)}; a matrix has two axes")
    if A.layout is torch.sparse_coo:
        A = A if A.is_coalesced() else A.coalesce()
        rows, columns = A.indices()
        counts = torch.bincount(rows, minlength=A.shape[0])
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return CSR(indptr, columns, A.values(), (A.shape[0], A.shape[1]))
    if A.layout is not torch.sparse_csr:
        A = A.to_sparse_csr()
    return CSR(A.crow_indices(), A.col_indices(), A.values(), (A.shape[0], A.shape[1]))


def as_inverse(M: Any, A: Operator) -> Operator | None:
    """An operator that approximates the inverse of ``A``, from whatever stands for one; None for none.

    Raises
    ------
    TypeError
        The preconditioner is not for matrices like ``A``.
    ValueError
        There is none of that name, or it has another shape.
    """
    if M is None:
        return None
    spec = named(M) if isinstance(M, str) else M
    inverse = spec.build(A) if isinstance(spec, Preconditioner) else as_operator(spec)
    if inverse.domain_shape == A.range_shape and inverse.range_shape == A.domain_shape:
        return inverse
    if inverse.shape != A.shape[::-1]:
        raise ValueError(f"M has shape {inverse.shape}; A of shape {A.shape} needs {A.shape[::-1]}")
    return _Reshaped(inverse, A)


class _Reshaped(Operator):
    """A preconditioner on flat vectors, for an operator on grids."""

    def __init__(self, inner: Operator, A: Operator) -> None:
        super().__init__(A.range_shape, A.domain_shape, inner.dtype, A.device, hermitian=inner.hermitian)
        self.inner, self.A, self.linear = inner, A, inner.linear

    def _apply(self, x: Tensor) -> Tensor:
        return self.A.enter(self.inner._apply(self.A.leave(x, self.inner.domain_shape)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.A.enter(self.inner._adjoint(self.A.leave(y, self.inner.range_shape)))

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return _Reshaped(self.inner.to(device, dtype), self.A)


class Converting(Operator):
    """A preconditioner of another dtype than the iteration's."""

    def __init__(self, inner: Operator, dtype: torch.dtype) -> None:
        super().__init__(
            inner.domain_shape, inner.range_shape, dtype, inner.device, hermitian=inner.hermitian
        )
        self.inner, self.linear = inner, inner.linear

    def _apply(self, x: Tensor) -> Tensor:
        return arrays.in_dtype(self.inner._apply, x, self.inner.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return arrays.in_dtype(self.inner._adjoint, y, self.inner.dtype)


@dataclass
class Columns:
    """A right-hand side in the operator's form, and the way back.

    ``parts`` are the columns, each in the shape of the operator's range.
    """

    parts: list[Tensor]
    starts: list[Tensor]
    restore: Callable[[list[Tensor]], Any]
    restore_one: Callable[[Tensor], Any]
    dtype: torch.dtype


def enter(A: Operator, b: Any, x0: Any) -> Columns:
    """Check ``b`` and ``x0`` against ``A`` and bring them into its form, in the common dtype.

    Raises
    ------
    TypeError
        An integer or otherwise unsupported dtype.
    ValueError
        Shapes that do not fit, or ``x0`` with NaN or infinity.
    """
    tensor = arrays.as_tensor(b, "b")
    library = arrays.restorer(b)
    dtype = torch.promote_types(A.dtype, tensor.dtype)
    home = tensor.device
    tensor = tensor.to(A.device, dtype)
    rows, columns = A.shape
    square = A.domain_shape == A.range_shape
    several = tensor.ndim == 2 and tensor.shape[0] == rows and tuple(tensor.shape) != A.range_shape
    if several:
        parts = [_range_enter(A, part) for part in tensor.unbind(1)]
    else:
        try:
            parts = [_range_enter(A, tensor)]
        except ValueError:
            raise ValueError(
                f"b has shape {tuple(tensor.shape)}; A of shape {A.shape} takes ({rows},), ({rows}, k)"
                + (f" or the grid's {A.range_shape}" if len(A.range_shape) > 1 else "")
            ) from None
    if x0 is None:
        starts = [torch.zeros(A.domain_shape, dtype=dtype, device=A.device) for _ in parts]
    else:
        guess = arrays.as_tensor(x0, "x0").to(A.device, dtype)
        wanted = (columns, len(parts)) if several else None
        if several and tuple(guess.shape) != wanted:
            raise ValueError(
                f"x0 has shape {tuple(guess.shape)}; b of shape {tuple(tensor.shape)} needs {wanted}"
            )
        if not bool(torch.isfinite(guess).all()):
            raise ValueError("x0 holds NaN or infinity")
        starts = [A.enter(part, "x0").clone() for part in (guess.unbind(1) if several else [guess])]
    shape = tuple(tensor.shape)

    def one(x: Tensor) -> Any:
        x = (A.leave(x, shape[:1]) if several else A.leave(x, shape)) if square else x
        return library(x.to(home))

    def back(xs: list[Tensor]) -> Any:
        if not several:
            return one(xs[0])
        flat = [A.leave(x, shape[:1]) if square else x.reshape(-1) for x in xs]
        whole = torch.stack(flat, 1) if flat else torch.zeros(columns, 0, dtype=dtype, device=A.device)
        return library(whole.to(home))

    return Columns(parts, starts, back, one, dtype)


def _range_enter(A: Operator, b: Tensor) -> Tensor:
    if A.domain_shape == A.range_shape:
        return A.enter(b, "b")
    if tuple(b.shape) == A.range_shape or b.shape == (prod(A.range_shape),):
        return b.reshape(A.range_shape)
    raise ValueError
