"""`Operator`: everything in the package that is linear, and its algebra."""

from math import prod
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla
import torch
from torch import Tensor

from learnsolve import arrays


class Operator:
    """A linear map between arrays of fixed shapes.

    A subclass writes `_apply` and `_adjoint` on torch tensors, and `diagonal` where it can.

    Parameters
    ----------
    domain_shape, range_shape : tuple of int
        Shapes of ``x`` and ``A @ x``.
    dtype : torch.dtype
        float32, float64, complex64 or complex128.
    device : torch.device
        Where the operator's data lie.
    hermitian, positive_definite : bool, optional
        Promises: ``A == A.H``; ``x^H A x > 0`` on the range of ``A``. None: not known.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import Diagonal, Identity
    >>> A = Diagonal(torch.tensor([1.0, 2.0])) + 3 * Identity((2,), torch.float32)
    >>> A @ torch.ones(2)
    tensor([4., 5.])
    """

    linear: bool = True
    lower_triangular: bool = False
    singular: bool = False
    # Whether vectors stay as they are.
    identity: bool = False
    # Whether `substitute` and `substitute_adjoint` are defined.
    solvable: bool = False

    def __init__(
        self,
        domain_shape: tuple[int, ...],
        range_shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        hermitian: bool | None = None,
        positive_definite: bool | None = None,
    ) -> None:
        self.domain_shape = tuple(domain_shape)
        self.range_shape = tuple(range_shape)
        self.dtype = dtype
        self.device = torch.device(device)
        self.hermitian = hermitian
        self.positive_definite = positive_definite

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return prod(self.range_shape), prod(self.domain_shape)

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define its product")

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.hermitian:
            return self._apply(y)
        raise NotImplementedError(f"{type(self).__name__} does not define the product with its adjoint")

    def substitute(self, b: Tensor) -> Tensor:
        """The solution of ``A x = b`` without an iteration, of operators that are ``solvable``."""
        raise NotImplementedError(f"{type(self).__name__} does not solve itself")

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        """The solution of ``A.H x = b``."""
        raise NotImplementedError(f"{type(self).__name__} does not solve itself")

    def diagonal(self) -> Tensor:
        """The matrix's diagonal in the shape of the domain; `NotImplementedError` where it is not known."""
        raise NotImplementedError(f"{type(self).__name__} does not know its diagonal")

    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors on which the operator depends, for gradients."""
        return ()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> "Operator":
        """The same operator of other parameters."""
        return self

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """What `parameters` receive when the product ``A x`` receives ``y``; differentiable in both."""
        return ()

    def project(self, x: Tensor) -> Tensor:
        """Remove the part of ``x`` in the known null space; ``x`` itself where there is none."""
        return x

    def enter(self, x: Tensor, name: str = "x") -> Tensor:
        """Bring a vector in any accepted shape into the domain's."""
        if x.shape == self.domain_shape:
            return x
        if x.shape == (prod(self.domain_shape),):
            return x.reshape(self.domain_shape)
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; {self!r} takes {self.domain_shape} "
            f"or ({prod(self.domain_shape)},)"
        )

    def leave(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `enter`."""
        return x.reshape(shape)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Operator):
            return Product(self, other)
        x = arrays.as_tensor(other, "x")
        restore = arrays.restorer(other)
        dtype = torch.promote_types(self.dtype, x.dtype)
        x = x.to(device=self.device, dtype=dtype)
        operator = self.to(dtype=dtype)
        rows, columns = self.shape
        if x.ndim == 2 and x.shape[0] == columns and x.shape != self.domain_shape:
            parts = [operator._apply(operator.enter(part)).reshape(-1) for part in x.unbind(1)]
            if parts and parts[0].numel() == rows:
                return restore(torch.stack(parts, 1) if parts else x.new_zeros(rows, 0))
        y = operator._apply(operator.enter(x))
        return restore(operator.leave(y, tuple(x.shape)) if self.domain_shape == self.range_shape else y)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "Operator":
        """The operator on another device or in another dtype; itself where nothing changes."""
        device = self.device if device is None else torch.device(device)
        dtype = self.dtype if dtype is None else dtype
        if dtype == self.dtype and device == self.device:
            return self
        if self.dtype.is_complex and not dtype.is_complex:
            raise TypeError(f"the {self.dtype} operator {self!r} can't become {dtype}")
        return self._moved(device, dtype)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "Operator":
        raise NotImplementedError(f"{self!r} can't be moved to {device}, {dtype}")

    @property
    def H(self) -> "Operator":
        """The adjoint, ``conj(A).T``."""
        return self if self.hermitian else Adjoint(self)

    def __add__(self, other: "Operator") -> "Operator":
        return Sum(self, other)

    def __sub__(self, other: "Operator") -> "Operator":
        return Sum(self, Scaled(-1.0, other))

    def __rmul__(self, scalar: complex) -> "Operator":
        return Scaled(scalar, self)

    def __neg__(self) -> "Operator":
        return Scaled(-1.0, self)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.linalg.LinearOperator` on flat vectors, or a CSR array where entries are known."""
        kind = arrays.NUMPY_DTYPES[self.dtype]

        def matvec(x: np.ndarray) -> np.ndarray:
            return np.asarray(self @ np.array(x, kind).reshape(-1)).reshape(-1)

        def rmatvec(y: np.ndarray) -> np.ndarray:
            return np.asarray(self.H @ np.array(y, kind).reshape(-1)).reshape(-1)

        return sla.LinearOperator(self.shape, matvec=matvec, rmatvec=rmatvec, dtype=kind)

    def __repr__(self) -> str:
        promises = [
            name
            for name, kept in (("hermitian", self.hermitian), ("positive definite", self.positive_definite))
            if kept
        ]
        notes = "".join(f", {promise}" for promise in promises)
        size = "x".join(map(str, self.shape))
        return f"<{type(self).__name__} {size}, {str(self.dtype).removeprefix('torch.')}{notes}>"


def _same(name: str, left: Any, right: Any, what: str) -> None:
    if left != right:
        raise ValueError(f"{name}: the operators have different {what}: {left} and {right}")


class _Hosted(Operator):
    """An operator on the vectors of another one, its host: same shapes, same unknowns."""

    host: Operator

    @property
    def shape(self) -> tuple[int, int]:
        return self.host.shape

    def enter(self, x: Tensor, name: str = "x") -> Tensor:
        return self.host.enter(x, name)

    def leave(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.host.leave(x, shape)


class Adjoint(Operator):
    """``A.H``."""

    def __init__(self, inner: Operator) -> None:
        super().__init__(
            inner.range_shape,
            inner.domain_shape,
            inner.dtype,
            inner.device,
            hermitian=inner.hermitian,
            positive_definite=inner.positive_definite,
        )
        self.inner = inner
        self.linear = inner.linear
        self.singular = inner.singular
        self.solvable = inner.solvable

    def substitute(self, b: Tensor) -> Tensor:
        return self.inner.substitute_adjoint(b)

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        return self.inner.substitute(b)

    def _apply(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._apply(y)

    def diagonal(self) -> Tensor:
        return self.inner.diagonal().conj()

    def parameters(self) -> tuple[Tensor, ...]:
        return self.inner.parameters()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        return Adjoint(self.inner.with_parameters(parameters))

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return self.inner.cotangents(y, x)

    @property
    def H(self) -> Operator:
        return self.inner

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Adjoint(self.inner.to(device, dtype))


class Product(Operator):
    """``A @ B``; positive (semi-)definite and Hermitian where it is visibly ``B.H @ B``."""

    def __init__(self, left: Operator, right: Operator) -> None:
        _same("A @ B", left.domain_shape, right.range_shape, "inner shapes")
        _same("A @ B", left.device, right.device, "devices")
        gram = isinstance(left, Adjoint) and left.inner is right
        super().__init__(
            right.domain_shape,
            left.range_shape,
            torch.promote_types(left.dtype, right.dtype),
            left.device,
            hermitian=True if gram else None,
            positive_definite=True if gram else None,
        )
        self.left, self.right = left.to(dtype=self.dtype), right.to(dtype=self.dtype)
        self.linear = left.linear and right.linear

    def _apply(self, x: Tensor) -> Tensor:
        return self.left._apply(self.right._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.right._adjoint(self.left._adjoint(y))

    def parameters(self) -> tuple[Tensor, ...]:
        return self.left.parameters() + self.right.parameters()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        count = len(self.left.parameters())
        left, right = parameters[:count], parameters[count:]
        return type(self)(self.left.with_parameters(left), self.right.with_parameters(right))

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        above, below = self.left.cotangents(self.right._apply(x), y), self.left._adjoint(y)
        return above + self.right.cotangents(x, below)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        if isinstance(self.left, Adjoint) and self.left.inner is self.right:
            right = self.right.to(device, dtype)
            return right.H @ right
        return Product(self.left.to(device, dtype), self.right.to(device, dtype))


class Sum(_Hosted):
    """``A + B``."""

    def __init__(self, left: Operator, right: Operator) -> None:
        _same("A + B", left.domain_shape, right.domain_shape, "domains")
        _same("A + B", left.range_shape, right.range_shape, "ranges")
        _same("A + B", left.device, right.device, "devices")
        super().__init__(
            left.domain_shape,
            left.range_shape,
            torch.promote_types(left.dtype, right.dtype),
            left.device,
            hermitian=True if left.hermitian and right.hermitian else None,
            positive_definite=True if left.positive_definite and right.positive_definite else None,
        )
        self.left, self.right = left.to(dtype=self.dtype), right.to(dtype=self.dtype)
        self.linear = left.linear and right.linear
        self.host = self.right if left.identity else self.left

    def _apply(self, x: Tensor) -> Tensor:
        return self.left._apply(x) + self.right._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.left._adjoint(y) + self.right._adjoint(y)

    def diagonal(self) -> Tensor:
        return self.left.diagonal() + self.right.diagonal()

    def parameters(self) -> tuple[Tensor, ...]:
        return self.left.parameters() + self.right.parameters()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        count = len(self.left.parameters())
        left, right = parameters[:count], parameters[count:]
        return type(self)(self.left.with_parameters(left), self.right.with_parameters(right))

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return self.left.cotangents(x, y) + self.right.cotangents(x, y)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Sum(self.left.to(device, dtype), self.right.to(device, dtype))


class Scaled(_Hosted):
    """``c * A``."""

    def __init__(self, scalar: complex, inner: Operator) -> None:
        dtype = inner.dtype
        if isinstance(scalar, complex) and scalar.imag:
            dtype = torch.promote_types(dtype, torch.complex64)
        real = not isinstance(scalar, complex) or scalar.imag == 0
        positive = real and complex(scalar).real > 0
        super().__init__(
            inner.domain_shape,
            inner.range_shape,
            dtype,
            inner.device,
            hermitian=inner.hermitian if real else None,
            positive_definite=inner.positive_definite if positive else None,
        )
        self.scalar = scalar if not real else complex(scalar).real
        self.inner = self.host = inner.to(dtype=dtype)
        self.linear = inner.linear
        self.singular = inner.singular

    def _apply(self, x: Tensor) -> Tensor:
        return self.scalar * self.inner._apply(x)

    def project(self, x: Tensor) -> Tensor:
        return self.inner.project(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return np.conj(self.scalar).item() * self.inner._adjoint(y)

    def diagonal(self) -> Tensor:
        return self.scalar * self.inner.diagonal()

    def parameters(self) -> tuple[Tensor, ...]:
        return self.inner.parameters()

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        return Scaled(self.scalar, self.inner.with_parameters(parameters))

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return self.inner.cotangents(x, np.conj(self.scalar).item() * y)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Scaled(self.scalar, self.inner.to(device, dtype))
