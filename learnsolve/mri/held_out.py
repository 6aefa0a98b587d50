"""How well a method foretells k-space that it has not seen, where there is no reference."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnsolve.arrays import as_tensor
from learnsolve.mri.coils import norm
from learnsolve.mri.examples import split
from learnsolve.mri.masks import sampled_of
from learnsolve.mri.reconstruct import Method, reconstruct
from learnsolve.operators import sense
from learnsolve.result import Result

ASIDE = 0.2


def held_out_error(
    kspace: Any,
    method: Method = "l1-wavelet",
    *,
    sampled: Any = None,
    share: float = ASIDE,
    seed: int = 0,
    centred: bool = True,
    **options: Any,
) -> float:
    r"""Error at samples that were kept aside, over their norm: :math:`|U' (E x - y)| / |U' y|`.

    Its square is a normalised mean square error in k-space. Noise alone makes it
    :math:`\sqrt{n \sigma^2} / |U' y|`.

    Parameters
    ----------
    kspace, method, sampled, centred
        As for `reconstruct`.
    share : float
        Of what is sampled outside of the fully sampled middle: whole lines, where whole lines are sampled.
    seed : int
        Of what is kept aside.
    **options
        Of `reconstruct`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As from `reconstruct`, or nothing is sampled outside of the middle.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.mri import held_out_error
    >>> k = torch.ones(2, 16, 16, dtype=torch.complex64)
    >>> sampled = torch.ones(16, 16, dtype=torch.bool)
    >>> sampled[:3] = False
    >>> held_out_error(k, "cg-sense", sampled=sampled) < 1.1
    True
    """
    k = as_tensor(kspace, "kspace")
    mask = sampled_of(k) if sampled is None else torch.as_tensor(sampled, device=k.device)
    mask = mask.expand(k.shape[-2:])
    left, aside = split(mask, centred, np.random.default_rng(seed), share)
    wanted = torch.where(aside, k, 0)
    size = norm(wanted)
    if size == 0:
        raise ValueError("what was kept aside is zero")
    if method == "zero-filled":
        return 1.0
    if method == "recurrentvarnet":
        options = {**options, "check": False, "as_kspace": True}
    res = reconstruct(torch.where(left, k, 0), method, sampled=left, centred=centred, **options)
    return norm(foretold(res, aside, centred) - wanted) / size


def foretold(res: Result, where: Tensor, centred: bool) -> Tensor:
    """K-space of a reconstruction at some positions, and zero elsewhere.

    Parameters
    ----------
    res : Result
        Of `reconstruct`, with its maps, or of a network with its k-space.
    where : (height, width) bool Tensor
    centred : bool
    """
    if "kspace" in res.extras:
        return torch.where(where, res.extras["kspace"], 0)
    found: Tensor = sense(res.extras["maps"], where, centred=centred) @ res.x
    return found
