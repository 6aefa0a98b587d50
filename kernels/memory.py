"""What compiled kernels get of tensors: views of their memory, and scalars of their dtype."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_SCALARS: dict[torch.dtype, Any] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
}


def views(*tensors: Tensor) -> list[Any]:
    """Arrays that share the tensors' memory, so that what is written is written there.

    Examples
    --------
    >>> x = torch.zeros(2)
    >>> views(x)[0][0] = 3
    >>> x
    tensor([3., 0.])
    """
    return [tensor.detach().resolve_conj().resolve_neg().numpy() for tensor in tensors]


def inputs(*tensors: Tensor) -> list[Any]:
    """Contiguous arrays, to be read alone: copies where a tensor is not contiguous.

    Examples
    --------
    >>> inputs(torch.ones(2, 3).mT)[0].flags.c_contiguous
    True
    """
    return views(*(tensor.contiguous() for tensor in tensors))


def scalar(value: complex, x: Tensor) -> Any:
    """A number of a tensor's dtype.

    Examples
    --------
    >>> scalar(0.5, torch.ones(1)).dtype
    dtype('float32')
    """
    return _SCALARS[x.dtype](value)


def real(q: Tensor) -> torch.dtype:
    """The dtype that kernels over any floating dtype compute in.

    Raises
    ------
    TypeError
        It is no floating one.

    Examples
    --------
    >>> real(torch.ones(1, dtype=torch.bfloat16))
    torch.float32
    """
    if not q.is_floating_point():
        raise TypeError(f"Triton kernels work in floating dtypes, not in {q.dtype}: use the reference form")
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def room(x: Tensor) -> Tensor:
    """Contiguous memory for a tensor of this shape and dtype.

    Examples
    --------
    >>> room(torch.ones(2, 3).mT).stride()
    (2, 1)
    """
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
