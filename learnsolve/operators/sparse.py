"""Matrices whose entries are known, sparse and dense, and maps known by their product alone."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from learnsolve import arrays
from learnsolve.kernels import sparse as kernels
from learnsolve.operators.base import Operator


class CSR(Operator):
    """A sparse matrix in compressed rows.

    Parameters
    ----------
    indptr : (rows + 1,) int32 or int64 tensor
        Where each row begins in ``indices`` and ``values``.
    indices : (entries,) int32 or int64 tensor
        Columns, ascending in each row and without duplicates.
    values : (entries,) tensor
        Entries; a tensor that requires grad makes solves differentiable in it.
    shape : tuple of int
        Rows and columns.
    hermitian, positive_definite : bool, optional
        Promises; where None, whether the matrix is Hermitian is looked up when it is first asked.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> A = CSR.from_scipy(scipy.sparse.eye_array(3, format="csr") * 2.0)
    >>> A @ np.ones(3)
    array([2., 2., 2.])
    """

    def __init__(
        self,
        indptr: Tensor,
        indices: Tensor,
        values: Tensor,
        shape: tuple[int, int],
        *,
        hermitian: bool | None = None,
        positive_definite: bool | None = None,
    ) -> None:
        rows, columns = shape
        arrays.torch_dtype(values.dtype, "values")
        if indptr.shape != (rows + 1,) or indices.shape != values.shape or indices.ndim != 1:
            raise ValueError(
                f"indptr {tuple(indptr.shape)}, indices {tuple(indices.shape)} and values "
                f"{tuple(values.shape)} do not make a {rows}x{columns} matrix"
            )
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= columns):
            raise ValueError(
                f"indices run from {int(indices.min())} to {int(indices.max())}, columns are {columns}"
            )
        if (
            int(indptr[0]) != 0
            or int(indptr[-1]) != indices.numel()
            or bool((indptr[1:] < indptr[:-1]).any())
        ):
            raise ValueError(f"indptr must rise from 0 to the number of entries, {indices.numel()}")
        self._hermitian: bool | None = None
        super().__init__(
            (columns,), (rows,), values.dtype, values.device, positive_definite=positive_definite
        )
        self._hermitian = hermitian
        self.indptr, self.indices, self.values = indptr, indices.to(indptr.dtype), values

    @classmethod
    def from_scipy(cls, matrix: Any) -> "CSR":
        """From a scipy.sparse matrix or array in any format."""
        csr = scipy.sparse.csr_array(matrix)
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        indptr, indices = (torch.from_numpy(np.ascontiguousarray(part)) for part in (csr.indptr, csr.indices))
        return cls(indptr, indices, arrays.as_tensor(csr.data, "A"), csr.shape)

    @property
    def hermitian(self) -> bool | None:
        """Whether the matrix equals its adjoint, entry for entry."""
        if self._hermitian is None and hasattr(self, "values"):
            self._hermitian = _equals_adjoint(self)
        return self._hermitian

    @hermitian.setter
    def hermitian(self, value: bool | None) -> None:
        self._hermitian = value

    @cached_property
    def rows(self) -> Tensor:
        """The row of each entry."""
        counts = self.indptr[1:] - self.indptr[:-1]
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.device), counts.long())

    @cached_property
    def _adjoint_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """``indptr`` and ``indices`` of the adjoint, and the place of its entries among ours."""
        order = torch.argsort(self.indices.long() * (self.shape[0] + 1) + self.rows)
        counts = torch.bincount(self.indices.long(), minlength=self.shape[1])
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(self.indptr.dtype)
        return indptr, self.rows[order].to(self.indptr.dtype), order

    @property
    def H(self) -> Operator:
        """The adjoint, as a CSR matrix too."""
        if self.hermitian:
            return self
        indptr, indices, order = self._adjoint_order
        values = self.values[order].conj().resolve_conj()
        return CSR(indptr, indices, values, self.shape[::-1], hermitian=False)

    def _apply(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad):
            products = self.values * x[self.indices.long()]
            return torch.zeros(self.shape[0], dtype=products.dtype, device=x.device).index_add(
                0, self.rows, products
            )
        y = torch.empty((self.shape[0], *x.shape[1:]), dtype=self.dtype, device=self.device)
        kernels.spmv(self.indptr, self.indices, self.values.detach(), x.contiguous(), y)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.H._apply(y)

    def diagonal(self) -> Tensor:
        """The diagonal, zero where none is stored."""
        here = self.rows == self.indices
        size = min(self.shape)
        return torch.zeros(size, dtype=self.dtype, device=self.device).index_add(
            0, self.rows[here], self.values[here]
        )

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        clone = object.__new__(CSR)
        clone.__dict__.update(self.__dict__, values=parameters[0])
        return clone

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (y[self.rows] * x[self.indices.long()].conj(),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "CSR":
        return CSR(
            self.indptr.to(device),
            self.indices.to(device),
            self.values.to(device, dtype),
            self.shape,
            hermitian=self._hermitian,
            positive_definite=self.positive_definite,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.range_shape[0], self.domain_shape[0]

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The same matrix as a scipy array that shares its memory."""
        parts = (self.values.detach().cpu().numpy(), self.indices.cpu().numpy(), self.indptr.cpu().numpy())
        return scipy.sparse.csr_array(parts, shape=self.shape)


def _equals_adjoint(matrix: CSR) -> bool:
    if matrix.shape[0] != matrix.shape[1]:
        return False
    indptr, indices, order = matrix._adjoint_order
    if not (torch.equal(indptr, matrix.indptr) and torch.equal(indices, matrix.indices)):
        return False
    values = matrix.values.detach()
    return torch.equal(values[order].conj().resolve_conj(), values)


class Dense(Operator):
    """A matrix of which every entry is stored.

    Parameters
    ----------
    values : (rows, columns) tensor
        The matrix; a tensor that requires grad makes solves differentiable in it.

    Examples
    --------
    >>> import torch
    >>> Dense(torch.eye(2)) @ torch.ones(2)
    tensor([1., 1.])
    """

    def __init__(self, values: Tensor) -> None:
        if values.ndim != 2:
            raise ValueError(f"A has shape {tuple(values.shape)}; a matrix has two axes")
        rows, columns = values.shape
        detached = values.detach()
        square = rows == columns
        super().__init__(
            (columns,),
            (rows,),
            values.dtype,
            values.device,
            hermitian=square and torch.equal(detached, detached.mH.resolve_conj()),
        )
        self.values = values

    @property
    def H(self) -> Operator:
        """The adjoint, as a dense matrix too."""
        return self if self.hermitian else Dense(self.values.mH.resolve_conj())

    def _apply(self, x: Tensor) -> Tensor:
        return self.values @ x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.values.mH @ y

    def diagonal(self) -> Tensor:
        return self.values.diagonal()

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        clone = object.__new__(Dense)
        clone.__dict__.update(self.__dict__, values=parameters[0])
        return clone

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (y[:, None] * x.conj(),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Dense(self.values.to(device, dtype))

    def to_scipy(self) -> np.ndarray:
        """The same matrix as a numpy array."""
        return self.values.detach().cpu().numpy()


class FunctionOperator(Operator):
    """A linear map known by its product alone.

    Parameters
    ----------
    function : callable
        ``x -> A x`` on torch tensors, or on arrays of ``library``.
    domain_shape, range_shape : tuple of int
        Shapes of ``x`` and of what the function returns.
    adjoint : callable, optional
        ``y -> A^H y``; needed by methods that use it (lsmr) and by gradients unless ``hermitian``.
    restore : callable, optional
        Turns a tensor into what ``function`` wants, e.g. `learnsolve.arrays.restorer` of a numpy array.

    Examples
    --------
    >>> import torch
    >>> A = FunctionOperator(lambda x: 2 * x, (3,), (3,), torch.float64, hermitian=True)
    >>> A @ torch.ones(3, dtype=torch.float64)
    tensor([2., 2., 2.], dtype=torch.float64)
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        domain_shape: tuple[int, ...],
        range_shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        adjoint: Callable[[Any], Any] | None = None,
        restore: Callable[[Tensor], Any] | None = None,
        hermitian: bool | None = None,
        positive_definite: bool | None = None,
    ) -> None:
        super().__init__(
            domain_shape, range_shape, dtype, device, hermitian=hermitian, positive_definite=positive_definite
        )
        self.function, self.adjoint, self.restore = function, adjoint, restore

    def _call(self, function: Callable[[Any], Any], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        y = function(x if self.restore is None else self.restore(x))
        y = arrays.as_tensor(y, "the operator's product").to(self.device, self.dtype)
        if y.numel() != int(np.prod(shape)):
            raise ValueError(f"the operator's product has shape {tuple(y.shape)}; {shape} was expected")
        return y.reshape(shape)

    def _apply(self, x: Tensor) -> Tensor:
        return self._call(self.function, x, self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.adjoint is None:
            return super()._adjoint(y)
        return self._call(self.adjoint, y, self.domain_shape)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "FunctionOperator":
        clone = object.__new__(FunctionOperator)
        clone.__dict__.update(self.__dict__, dtype=dtype, device=device)
        return clone
