"""The forward model of a measurement, arranged so that it costs as little as it can."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learnsolve.mri.coils import check_kspace
from learnsolve.mri.frame import Frame
from learnsolve.operators import Coils, Fourier, Mask, Operator

# Beyond so much of k-space's half width there is noise above all.
FAR = 0.7


@dataclass(frozen=True)
class Model:
    """A measurement in its frame.

    Attributes
    ----------
    operator : Operator
        From images to samples.
    samples : (..., coils, height, width) Tensor
    frame : Frame
    """

    operator: Operator
    samples: Tensor
    frame: Frame


def model(kspace: Tensor, sampled: Tensor, maps: Tensor, *, centred: bool = True) -> Model:
    """Arrange a measurement.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
        What is not sampled does not matter.
    sampled : (height, width) bool Tensor
    maps : (..., coils, height, width) complex Tensor
    centred : bool
        The origin of k-space, mask and images is at ``n // 2``, otherwise at 0.

    Raises
    ------
    ValueError
        Shapes or dtypes do not fit, nothing is sampled, or a number is not finite.

    Examples
    --------
    >>> import torch
    >>> k = torch.ones(2, 4, 6, dtype=torch.complex64)
    >>> found = model(k, torch.ones(4, 6, dtype=torch.bool), k)
    >>> found.operator.domain_shape
    (4, 6)
    """
    _check(kspace, sampled, maps)
    frame = Frame(sampled, centred)
    samples = frame.enter(torch.where(sampled, kspace, 0))
    shape = tuple(samples.shape)
    mask = frame.sampled if frame.lines is None else frame.lines
    axes, dtype = len(frame.axes), kspace.dtype
    transform = Fourier(shape, axes, centred=False, dtype=dtype, device=kspace.device)
    coils = Coils(frame.origin(maps.to(dtype)))
    return Model(Mask(mask.contiguous(), shape, dtype) @ (transform @ coils), samples.contiguous(), frame)


def _check(kspace: Tensor, sampled: Tensor, maps: Tensor) -> None:
    check_kspace(kspace)
    if maps.shape != kspace.shape or not maps.is_complex():
        found = f"{maps.dtype} of shape {tuple(maps.shape)}"
        raise ValueError(f"maps are {found}; complex numbers in k-space's shape {tuple(kspace.shape)} are")
    if sampled.dtype != torch.bool or sampled.shape != kspace.shape[-2:]:
        found = f"{sampled.dtype} of shape {tuple(sampled.shape)}"
        raise ValueError(f"the mask is {found}; booleans of shape {tuple(kspace.shape[-2:])} are accepted")
    if not sampled.any():
        raise ValueError("nothing is sampled")
    if not torch.isfinite(torch.view_as_real(maps)).all():
        raise ValueError("maps have numbers that are not finite")
    if not torch.where(sampled, kspace, 0).any():
        raise ValueError("k-space is zero wherever it is sampled")


def noise_level(kspace: Tensor, sampled: Tensor) -> float:
    r"""Standard deviation of the noise of a sample, by the median magnitude far from the middle.

    Of complex normal noise of variance :math:`\sigma^2` the median of the squares is
    :math:`\sigma^2 \ln 2`. Where the object itself reaches the rim of k-space, as in images of few pixels
    without noise, the answer is too large.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
        With its origin at ``n // 2``.
    sampled : (height, width) bool Tensor

    Examples
    --------
    >>> import torch
    >>> k = torch.randn(4, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> round(noise_level(k, torch.ones(64, 64, dtype=torch.bool)), 1)
    1.0
    """
    height, width = sampled.shape
    v, u = ((torch.arange(n, device=sampled.device) - n // 2).abs() / (n / 2) for n in (height, width))
    corners = sampled & (torch.hypot(v[:, None], u[None]) > 1)
    sides = sampled & (torch.maximum(v[:, None], u[None]) > FAR)
    far = next((part for part in (corners, sides) if int(part.sum()) >= 20), sampled)
    squares = kspace[..., far].abs().square().double()
    return float((squares.median(-1).values.median() / torch.log(torch.tensor(2.0))).sqrt())
