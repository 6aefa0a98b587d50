"""Operators that act on each entry alone."""

import torch
from torch import Tensor

from learnsolve.operators.base import Operator


class Identity(Operator):
    """The identity on arrays of one shape."""

    identity = True

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(shape, shape, dtype, device, hermitian=True, positive_definite=True)

    def _apply(self, x: Tensor) -> Tensor:
        return x

    def diagonal(self) -> Tensor:
        return torch.ones(self.domain_shape, dtype=self.dtype, device=self.device)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Identity(self.domain_shape, dtype, device)


class Diagonal(Operator):
    """Multiplication by an array, entry by entry.

    Parameters
    ----------
    values : Tensor
        The diagonal, in the shape of the vectors.
    """

    def __init__(self, values: Tensor) -> None:
        hermitian = True if not values.is_complex() else bool((values.imag == 0).all())
        positive = hermitian and bool((values.real > 0).all())
        super().__init__(
            values.shape,
            values.shape,
            values.dtype,
            values.device,
            hermitian=hermitian,
            positive_definite=positive,
        )
        self.values = values

    def _apply(self, x: Tensor) -> Tensor:
        return self.values * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.values.conj() * y

    def diagonal(self) -> Tensor:
        return self.values

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        clone = object.__new__(Diagonal)
        clone.__dict__.update(self.__dict__, values=parameters[0])
        return clone

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (y * x.conj(),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return Diagonal(self.values.to(device, dtype))
