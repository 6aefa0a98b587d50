"""What a preconditioner is: a small frozen dataclass of options that builds an operator for a matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from learnsolve.operators import Operator


@dataclass(frozen=True)
class Preconditioner:
    """Options of a preconditioner; `build` makes the approximate inverse of a matrix."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    def build(self, A: Operator) -> Operator:
        """The approximate inverse of ``A``, on its device and in its dtype."""
        raise NotImplementedError


class Inverse(Operator):
    """An approximate inverse known by its product and that of its adjoint."""

    def __init__(
        self,
        A: Operator,
        apply: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None,
        label: str,
        positive_definite: bool | None = None,
        *,
        hermitian: bool | None = None,
    ) -> None:
        hermitian = adjoint is None if hermitian is None else hermitian
        super().__init__(
            A.range_shape,
            A.domain_shape,
            A.dtype,
            A.device,
            hermitian=hermitian,
            positive_definite=positive_definite,
        )
        self._forward, self._backward, self.label = apply, adjoint, label
        self._shape = A.shape[::-1]

    @property
    def shape(self) -> tuple[int, int]:
        """That of the matrix, transposed."""
        return self._shape

    def _apply(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return super()._adjoint(y) if self._backward is None else self._backward(y)

    def __repr__(self) -> str:
        return self.label
