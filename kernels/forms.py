"""Which form of a kernel suits a tensor."""

from collections.abc import Container
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def has_triton() -> bool:
    """Whether Triton is installed.

    Examples
    --------
    >>> has_triton() in (True, False)
    True
    """
    return find_spec("triton") is not None


def by_triton(x: Tensor, dtypes: Container[torch.dtype] = (torch.float32, torch.float64)) -> bool:
    """Whether it lies on a GPU, in a dtype of the kernels there.

    Examples
    --------
    >>> by_triton(torch.ones(1))
    False
    """
    return x.device.type == "cuda" and x.dtype in dtypes and has_triton()


def by_numba(x: Tensor, dtypes: Container[torch.dtype]) -> bool:
    """Whether it lies in memory that compiled kernels of the CPU see, in one of their dtypes.

    Examples
    --------
    >>> by_numba(torch.ones(1), (torch.float64,))
    False
    """
    return x.device.type == "cpu" and x.dtype in dtypes
