"""ESPIRiT: sensitivity maps as eigenvectors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from learnsolve.mri.coils import calibration, first_vectors, middle, with_phase
from learnsolve.mri.masks import sampled_of
from learnsolve.mri.model import noise_level

# Singular values over the first: rounding below, and signal above whatever the noise is said to be.
LEAST, MOST = 1e-3, 0.1


@dataclass(frozen=True)
class Maps:
    """Sensitivities and how far the data obey them.

    Attributes
    ----------
    maps : (..., maps, coils, height, width) complex Tensor
        The squares of the first set sum to one over the coils, times the crop.
    eigenvalues : (..., maps, height, width) Tensor
        About one where the data come from an object that the coils see, less elsewhere.
    """

    maps: Tensor
    eigenvalues: Tensor


def espirit(
    kspace: Tensor,
    *,
    acs: tuple[int, int] | None = None,
    kernel: int = 6,
    threshold: float | Literal["auto"] = "auto",
    maps: int = 1,
    crop: float = 0.0,
    largest: int = 24,
    centred: bool = True,
) -> Maps:
    r"""Maps as eigenvectors of the operator that every patch of the data obeys.

    The patches of the fully sampled middle span a space of low dimension. Its projection :math:`V V^H`,
    summed over where a patch may lie, is a convolution that leaves k-space as it is, and so in the image a
    matrix at each pixel that leaves the coils' values as they are: its eigenvectors of eigenvalue one are the
    maps. The matrices come from the convolution's :math:`(2k - 1)^2` taps in one transform.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
        What was not sampled is zero.
    acs : (height, width), optional
        Of the fully sampled middle; by default it is found.
    kernel : int
        Width k of the patches.
    threshold : float or "auto"
        Singular values below this share of the first are noise. By default it is where the middle of those of
        noise alone is, whose level k-space's rim tells.
    maps : int
        How many sets; more than one for images that are folded onto themselves.
    crop : float
        Where the eigenvalue falls from one to zero about this, the maps do too; zero for no crop.
    largest : int
        Width of the region that is used at most.
    centred : bool
        The origin of k-space and images is at ``n // 2``, otherwise at 0.

    Returns
    -------
    Maps

    Raises
    ------
    ValueError
        The fully sampled middle is smaller than a patch, a number is not finite, or an option is out of
        range.

    References
    ----------
    Uecker and others, *ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI*, Magnetic Resonance
    in Medicine 71, 2014, equations 8 to 14.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> kspace = torch.randn(2, 32, 32, dtype=torch.complex64, generator=generator)
    >>> found = espirit(kspace, acs=(20, 20))
    >>> found.maps.shape, found.eigenvalues.shape
    (torch.Size([1, 2, 32, 32]), torch.Size([1, 32, 32]))
    """
    if kernel < 1:
        raise ValueError(f"kernel is {kernel}; a positive number is accepted")
    if (threshold != "auto" and not 0 < threshold < 1) or not 0 <= crop < 1:
        raise ValueError(
            f"threshold is {threshold} and crop {crop}; numbers below one are accepted, and threshold='auto'"
        )
    coils = kspace.shape[-3] if kspace.ndim >= 3 else 0
    if coils and not 1 <= maps <= coils:
        raise ValueError(f"maps is {maps}; 1 to {coils} sets are accepted for so many coils")
    region = calibration(kspace, acs, kernel + 1, centred)
    tall, wide = (min(n, max(largest, kernel + 1)) for n in region.shape[-2:])
    region = middle(region, (tall, wide))
    if region.ndim > 3:
        parts = zip(kspace.flatten(0, -4), region.flatten(0, -4), strict=True)
        found = [_espirit(*part, kernel, threshold, maps, crop, centred) for part in parts]
        batch = kspace.shape[:-3]
        stacked = (torch.stack([getattr(one, name) for one in found]) for name in ("maps", "eigenvalues"))
        return Maps(*(part.reshape(*batch, *part.shape[1:]) for part in stacked))
    return _espirit(kspace, region, kernel, threshold, maps, crop, centred)


def _espirit(
    kspace: Tensor,
    region: Tensor,
    k: int,
    threshold: float | Literal["auto"],
    sets: int,
    crop: float,
    centred: bool,
) -> Maps:
    coils, (height, width) = kspace.shape[0], kspace.shape[-2:]
    patches = region.unfold(1, k, 1).unfold(2, k, 1).permute(1, 2, 0, 3, 4).reshape(-1, coils * k * k)
    share, noise = threshold, 0.0
    if share == "auto":
        shown = kspace if centred else torch.fft.fftshift(kspace, (-2, -1))
        share, noise = LEAST, noise_level(shown, sampled_of(shown))
    taps = _taps(_row_space(patches, share, noise).reshape(-1, coils, k, k)) / k**2
    # At each pixel the transform of the taps, whose origin is their middle.
    large = torch.zeros(coils, coils, height, width, dtype=taps.dtype, device=taps.device)
    rows, cols = (torch.arange(-k + 1, k, device=taps.device) % n for n in (height, width))
    large[:, :, rows[:, None], cols[None, :]] = taps
    matrices = torch.fft.fft2(large)
    matrices = matrices.movedim((0, 1), (-2, -1)).reshape(-1, coils, coils)
    if sets == 1:
        vectors, values = first_vectors(matrices)
        vectors, values = vectors[:, :, None], values[:, None]
    else:
        values, vectors = torch.linalg.eigh(matrices)
        values, vectors = values[:, -sets:].flip(-1), vectors[:, :, -sets:].flip(-1)
    found = vectors.reshape(height, width, coils, sets).permute(3, 2, 0, 1)
    eigenvalues = values.reshape(height, width, sets).permute(2, 0, 1)
    if centred:
        found, eigenvalues = (torch.fft.fftshift(part, (-2, -1)) for part in (found, eigenvalues))
    found = with_phase(found, region)
    if crop:
        found = found * torch.sigmoid((eigenvalues - crop) / (0.1 * (1 - crop))).unsqueeze(1)
    return Maps(found.contiguous(), eigenvalues.contiguous())


def _row_space(patches: Tensor, share: float, noise: float) -> Tensor:
    """Orthonormal rows that patches are sums of, by the smaller of their two Gram matrices."""
    count, size = patches.shape
    # Squares of small singular values are lost in single precision's rounding of the large ones'.
    wide = patches.to(torch.complex128)
    squares, vectors = torch.linalg.eigh(wide @ wide.mH if count < size else wide.mH @ wide)
    # Those of noise alone lie about the root of the longer side, by Marchenko's and Pastur's law.
    kept = squares > max(share**2 * squares[-1], min(noise**2 * max(count, size), MOST**2 * squares[-1]))
    if count < size:
        return ((vectors[:, kept] / squares[kept].sqrt()).mH @ wide).to(patches.dtype)
    return vectors[:, kept].mH.to(patches.dtype)


def _taps(kernels: Tensor) -> Tensor:
    """Sums of a projection over where a patch may lie: two axes of coils, two of lags from -k + 1 on."""
    k = kernels.shape[-1]
    size = 2 * k - 1
    transformed = torch.fft.fft2(kernels.conj(), s=(size, size))
    powers = torch.einsum("ncyx,ndyx->cdyx", transformed.conj(), transformed)
    return torch.fft.fftshift(torch.fft.ifft2(powers), (-2, -1))
