"""numpy, scipy, torch and cupy in, torch inside, the same out; nothing is copied that need not be."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype("float32"): torch.float32,
    np.dtype("float64"): torch.float64,
    np.dtype("complex64"): torch.complex64,
    np.dtype("complex128"): torch.complex128,
}
NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {value: key for key, value in DTYPES.items()}
ACCEPTED = "float32, float64, complex64 or complex128"


def is_cupy(array: Any) -> bool:
    """Whether ``array`` is a cupy array, without importing cupy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def torch_dtype(dtype: Any, name: str) -> torch.dtype:
    """The torch dtype of a supported dtype of any library; `TypeError` for others, integers included."""
    if isinstance(dtype, torch.dtype):
        if dtype in NUMPY_DTYPES:
            return dtype
    else:
        found = DTYPES.get(np.dtype(dtype))
        if found is not None:
            return found
    raise TypeError(
        f"{name} has dtype {dtype}; accepted are {ACCEPTED} (convert it, e.g. with astype(float))"
    )


def as_tensor(array: Any, name: str) -> Tensor:
    """A torch tensor that shares the memory of ``array`` where the library allows it."""
    if isinstance(array, Tensor):
        torch_dtype(array.dtype, name)
        return array
    if is_cupy(array):
        torch_dtype(array.dtype, name)
        return torch.from_dlpack(array)
    array = np.asarray(array)
    torch_dtype(array.dtype, name)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array)


def restorer(array: Any) -> Callable[[Tensor], Any]:
    """A function that takes a tensor back into the library of ``array``."""
    if isinstance(array, Tensor):
        return lambda tensor: tensor
    if is_cupy(array):
        cupy = sys.modules["cupy"]
        return lambda tensor: cupy.from_dlpack(tensor.detach())
    return lambda tensor: tensor.detach().cpu().numpy()


def in_dtype(function: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply a linear function that knows ``dtype`` only; of complex ``x`` to its parts where that is real."""
    if x.is_complex() and not dtype.is_complex:
        real, imag = (function(part.to(dtype, copy=True)) for part in (x.real, x.imag))
        return torch.complex(real, imag).to(x.dtype)
    return function(x.to(dtype)).to(x.dtype)


def turns(index: np.ndarray) -> np.ndarray:
    """How often the number at each place of an array has come before it.

    Examples
    --------
    >>> import numpy as np
    >>> turns(np.array([5, 2, 5, 5, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    if index.size == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[begins, ordered.size])
    found = np.empty(index.size, np.int64)
    found[order] = np.arange(index.size) - np.repeat(begins, lengths)
    return found
