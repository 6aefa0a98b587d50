"""Sequences cut into parts of so many times, which kernels for a GPU take side by side."""

import torch
from torch import Tensor


def parts(pieces: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut each sequence into parts; the last may be shorter, and an empty sequence has none.

    Parameters
    ----------
    pieces : (n, 3) int64 tensor
        Group, first time, and last time and one of each sequence.
    size : int
        Times of a part.

    Returns
    -------
    bounds : (n + 1,) int64 tensor on the CPU
        Of each sequence its first part, and last part and one.
    parts : (N, 3) int64 tensor on the CPU
        Group, first time, and last time and one of each part.

    Examples
    --------
    >>> bounds, found = parts(torch.tensor([[0, 0, 5], [1, 0, 2]]), 3)
    >>> bounds.tolist(), found.tolist()
    ([0, 2, 3], [[0, 0, 3], [0, 3, 5], [1, 0, 2]])
    """
    pieces = pieces.detach().cpu().to(torch.int64)
    counts = (pieces[:, 2] - pieces[:, 1] + size - 1) // size
    bounds = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    owner = torch.repeat_interleave(torch.arange(len(pieces)), counts)
    begin = pieces[owner, 1] + size * (torch.arange(len(owner)) - bounds[owner])
    end = torch.minimum(begin + size, pieces[owner, 2])
    return bounds, torch.stack([pieces[owner, 0], begin, end], 1)
