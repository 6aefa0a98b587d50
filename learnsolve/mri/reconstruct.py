"""From k-space to an image in one call."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from learnsolve.arrays import as_tensor, restorer
from learnsolve.mri.classical import cg_sense, l1_wavelet, total_variation, zero_filled
from learnsolve.mri.coils import acs_region, check_kspace, low_resolution_maps, walsh
from learnsolve.mri.espirit import espirit
from learnsolve.mri.learned import recurrentvarnet
from learnsolve.mri.masks import sampled_of
from learnsolve.result import Result, Status

Method = Literal["auto", "l1-wavelet", "total-variation", "cg-sense", "recurrentvarnet", "zero-filled"]
METHODS: dict[str, Callable[..., Result]] = {
    "l1-wavelet": l1_wavelet,
    "total-variation": total_variation,
    "cg-sense": cg_sense,
    "recurrentvarnet": recurrentvarnet,
}
MAPS: dict[str, Callable[..., Any]] = {
    "espirit": lambda kspace, **options: _first(espirit(kspace, **options).maps),
    "walsh": walsh,
    "low-resolution": low_resolution_maps,
}


def _first(maps: torch.Tensor) -> torch.Tensor:
    return maps[..., 0, :, :, :]


def reconstruct(
    kspace: Any,
    method: Method = "l1-wavelet",
    *,
    sampled: Any = None,
    maps: Any = "espirit",
    centred: bool = True,
    **options: Any,
) -> Result:
    """An image from undersampled k-space.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex array
        Of numpy or torch; axes before the coils are a batch of slices.
    method : {"auto", "l1-wavelet", "total-variation", "cg-sense", "recurrentvarnet", "zero-filled"}
        See `l1_wavelet`, `total_variation`, `cg_sense`, `recurrentvarnet` and `zero_filled`. ``"auto"`` is
        the last where all is sampled, and otherwise the network of the shipped weights, which is checked by
        samples that it has not seen, and gives way to ``"l1-wavelet"``.
    sampled : (height, width) or (width,) bool array, optional
        By default where k-space is not zero.
    maps : {"espirit", "walsh", "low-resolution"} or array in k-space's shape
        Sensitivities; of a single coil without a fully sampled middle they are one everywhere.
    centred : bool
        The origin of k-space and images is at ``n // 2``, otherwise at 0.
    **options
        Of the method; those of ``"auto"`` are the network's.

    Returns
    -------
    Result
        ``x`` is the image in k-space's library: complex, or of ``"zero-filled"`` and ``"recurrentvarnet"``
        its size; ``method`` says what was done; ``extras["maps"]`` holds the sensitivities.

    Raises
    ------
    TypeError, ValueError
        The input or an option is not as described, or there is no fully sampled middle to find maps by.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.mri import reconstruct
    >>> rng = np.random.default_rng(0)
    >>> kspace = rng.standard_normal((2, 16, 16)) + 1j * rng.standard_normal((2, 16, 16))
    >>> res = reconstruct(kspace, "cg-sense")
    >>> res.success, res.x.shape
    (True, (16, 16))
    """
    if method not in ("auto", *METHODS, "zero-filled"):
        raise ValueError(f"method is {method!r}; auto, {', '.join(METHODS)} and zero-filled are accepted")
    k, back = as_tensor(kspace, "kspace"), restorer(kspace)
    check_kspace(k)
    if not k.any():
        raise ValueError("k-space is zero everywhere")
    mask = sampled_of(k) if sampled is None else torch.as_tensor(sampled, device=k.device)
    if mask.dtype == torch.bool and mask.ndim == 1 and mask.shape == k.shape[-1:]:
        mask = mask.expand(k.shape[-2:])
    if mask.dtype != torch.bool or mask.shape != k.shape[-2:]:
        found = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise ValueError(f"the mask is {found}; booleans of shape {tuple(k.shape[-2:])} are accepted")
    k = torch.where(mask, k, 0)
    if method == "auto":
        method, options = ("zero-filled", {}) if mask.all() else ("recurrentvarnet", options)
    if method == "zero-filled":
        if options:
            raise TypeError(f"zero-filled takes no {', '.join(options)}")
        image = zero_filled(k, centred=centred)
        return Result(back(image), Status.CONVERGED, 0, torch.zeros(1).double().numpy(), 0.0, 0.0, method)
    found_maps = _maps(k, mask, maps, centred)
    res = METHODS[method](k, mask, found_maps, centred=centred, **options)
    extras = {**res.extras, "maps": back(found_maps)}
    return Result(
        back(res.x),
        res.status,
        res.iterations,
        res.residuals,
        res.relative_residual,
        res.seconds,
        res.method,
        extras,
    )


def _maps(k: torch.Tensor, mask: torch.Tensor, maps: Any, centred: bool) -> torch.Tensor:
    if not isinstance(maps, str):
        return as_tensor(maps, "maps").to(k.device)
    if maps not in MAPS:
        raise ValueError(f"maps is {maps!r}; {', '.join(MAPS)} or an array are accepted")
    shown = mask if centred else torch.fft.fftshift(mask, (-2, -1))
    if k.shape[-3] == 1 and min(acs_region(shown)) < 8:
        return torch.ones_like(k)
    return torch.as_tensor(MAPS[maps](k, centred=centred))
