"""What the coils see: sensitivity maps from the fully sampled middle of k-space."""

import torch
from torch import Tensor

from learnsolve.mri.masks import sampled_of
from learnsolve.operators.fourier import Fourier


def rss(images: Tensor) -> Tensor:
    """Root of the sum of squares over coils.

    Parameters
    ----------
    images : (..., coils, height, width) Tensor

    Examples
    --------
    >>> import torch
    >>> rss(torch.tensor([3.0, 4.0]).reshape(2, 1, 1))
    tensor([[5.]])
    """
    return images.abs().square().sum(-3).sqrt()


def norm(x: Tensor) -> float:
    """Euclidean norm of complex numbers, as of real ones, which is many times faster.

    Examples
    --------
    >>> import torch
    >>> norm(torch.tensor([3 + 4j, 0]))
    5.0
    """
    return float(torch.linalg.vector_norm(torch.view_as_real(x)))


def images_of(kspace: Tensor, *, centred: bool = True) -> Tensor:
    """Images of the coils: the adjoint Fourier transform.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    centred : bool
        Of `Fourier`.

    Examples
    --------
    >>> import torch
    >>> images_of(torch.ones(1, 2, 2, dtype=torch.complex64), centred=False).real
    tensor([[[2., 0.],
             [0., 0.]]])
    """
    shape = tuple(kspace.shape)
    return Fourier(shape, centred=centred, dtype=kspace.dtype, device=kspace.device)._adjoint(kspace)


def kspace_of(images: Tensor, *, centred: bool = True) -> Tensor:
    """K-space of the coils: the Fourier transform.

    Parameters
    ----------
    images : (..., coils, height, width) complex Tensor
    centred : bool
        Of `Fourier`.

    Examples
    --------
    >>> import torch
    >>> kspace_of(torch.ones(1, 2, 2, dtype=torch.complex64), centred=False).real
    tensor([[[2., 0.],
             [0., 0.]]])
    """
    shape = tuple(images.shape)
    return Fourier(shape, centred=centred, dtype=images.dtype, device=images.device)._apply(images)


def acs_region(sampled: Tensor) -> tuple[int, int]:
    """Height and width of the largest box around the middle in which all is sampled.

    Parameters
    ----------
    sampled : (height, width) bool Tensor
        Of k-space with its origin at ``n // 2``.

    Returns
    -------
    height, width : int
        Zero by zero if the origin itself is not sampled.

    Examples
    --------
    >>> import torch
    >>> lines = torch.tensor([True, False, True, True, True, False]).expand(4, 6)
    >>> acs_region(lines)
    (4, 3)
    """
    height, width = sampled.shape
    sums = (~sampled).to(torch.int64).cumsum(0).cumsum(1)
    missed = torch.nn.functional.pad(sums, (1, 0, 1, 0)).tolist()
    best = (0, 0)
    wide = width
    for tall in range(1, height + 1):
        y = height // 2 - tall // 2
        while wide:
            x = width // 2 - wide // 2
            lower, upper = missed[y + tall], missed[y]
            if lower[x + wide] - lower[x] - upper[x + wide] + upper[x] == 0:
                break
            wide -= 1
        if not wide:
            break
        if tall * wide > best[0] * best[1]:
            best = (tall, wide)
    return best


def middle(kspace: Tensor, size: tuple[int, int]) -> Tensor:
    """A box around the middle of centred k-space."""
    (height, width), (tall, wide) = kspace.shape[-2:], size
    y, x = height // 2 - tall // 2, width // 2 - wide // 2
    return kspace[..., y : y + tall, x : x + wide]


def check_kspace(kspace: Tensor) -> None:
    """Refuse what is no k-space of coils, or not finite."""
    if kspace.ndim < 3 or not kspace.is_complex():
        found = f"{kspace.dtype} of shape {tuple(kspace.shape)}"
        raise ValueError(f"k-space is {found}; complex (..., coils, height, width) is accepted")
    if not torch.isfinite(torch.view_as_real(kspace)).all():
        raise ValueError("k-space has numbers that are not finite")


def calibration(kspace: Tensor, acs: tuple[int, int] | None, least: int, centred: bool) -> Tensor:
    """The fully sampled middle, or an error that says why there is none."""
    check_kspace(kspace)
    if not centred:
        kspace = torch.fft.fftshift(kspace, (-2, -1))
    size = acs_region(sampled_of(kspace)) if acs is None else acs
    if min(size) < least or size[0] > kspace.shape[-2] or size[1] > kspace.shape[-1]:
        raise ValueError(
            f"the fully sampled middle of k-space is {size[0]} by {size[1]} "
            f"of {tuple(kspace.shape[-2:])}; at least {least} by {least} are needed to calibrate by"
        )
    return middle(kspace, size)


def low_resolution_maps(
    kspace: Tensor, *, acs: tuple[int, int] | None = None, centred: bool = True
) -> Tensor:
    """Images of the fully sampled middle, under a Hann window, over their root of squares.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    acs : (height, width), optional
        Of the middle; by default it is found.
    centred : bool
        The origin of k-space and images is at ``n // 2``, otherwise at 0.

    Returns
    -------
    (..., coils, height, width) Tensor

    Raises
    ------
    ValueError
        There is no fully sampled middle, or a number is not finite.

    Examples
    --------
    >>> import torch
    >>> maps = low_resolution_maps(torch.ones(2, 8, 8, dtype=torch.complex64))
    >>> bool(torch.allclose(maps.abs().square().sum(0), torch.ones(8, 8)))
    True
    """
    images = _blurred(kspace, calibration(kspace, acs, 1, centred))
    maps = images / rss(images).clamp_min(torch.finfo(images.real.dtype).tiny).unsqueeze(-3)
    return maps if centred else torch.fft.ifftshift(maps, (-2, -1))


def _blurred(kspace: Tensor, region: Tensor) -> Tensor:
    """Centred images of a region under a window, of full size."""
    tall, wide = region.shape[-2:]
    height, width = kspace.shape[-2:]
    real = region.real.dtype
    window = torch.outer(*(torch.hann_window(n + 2, periodic=False, dtype=real)[1:-1] for n in (tall, wide)))
    whole = torch.zeros_like(kspace)
    y, x = height // 2 - tall // 2, width // 2 - wide // 2
    whole[..., y : y + tall, x : x + wide] = region * window.to(kspace.device)
    return images_of(whole)


def walsh(
    kspace: Tensor, *, acs: tuple[int, int] | None = None, window: int = 7, centred: bool = True
) -> Tensor:
    """Maps by the first eigenvector of the coils' covariance about each pixel.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    acs : (height, width), optional
    window : int
        Pixels over which the covariance is summed, each way; odd.
    centred : bool
        The origin of k-space and images is at ``n // 2``, otherwise at 0.

    Returns
    -------
    (..., coils, height, width) Tensor

    Raises
    ------
    ValueError
        As by `low_resolution_maps`, or the window is even.

    References
    ----------
    Walsh, Gmitro and Marcellin, *Adaptive reconstruction of phased array MR imagery*, Magnetic Resonance in
    Medicine 43, 2000.

    Examples
    --------
    >>> import torch
    >>> walsh(torch.ones(2, 8, 8, dtype=torch.complex64)).shape
    torch.Size([2, 8, 8])
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window}; an odd number is accepted")
    images = _blurred(kspace, calibration(kspace, acs, 1, centred))
    coils = images.shape[-3]
    both = torch.einsum("...cyx,...dyx->...cdyx", images, images.conj())
    summed = torch.view_as_real(both).movedim(-1, -3)
    summed = torch.nn.functional.avg_pool2d(
        summed.reshape(-1, 1, *images.shape[-2:]), window, 1, window // 2, count_include_pad=False
    ).reshape(summed.shape)
    matrices = torch.complex(summed[..., 0, :, :], summed[..., 1, :, :]).movedim((-4, -3), (-2, -1))
    vectors, _ = first_vectors(matrices.reshape(-1, coils, coils))
    maps = vectors.reshape(*images.shape[:-3], *images.shape[-2:], coils).movedim(-1, -3)
    maps = with_phase(maps, images)
    return maps if centred else torch.fft.ifftshift(maps, (-2, -1))


def first_vectors(matrices: Tensor, squarings: int = 5) -> tuple[Tensor, Tensor]:
    """First eigenvectors (n, coils) and eigenvalues of Hermitian positive semidefinite matrices.

    A power of each matrix, by squaring, is of rank one where the eigenvalues differ at all; its largest
    column is the eigenvector, which one product with the matrix itself makes exact and measures.
    """
    tiny = torch.finfo(matrices.real.dtype).tiny
    sizes = matrices.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    # What is nothing but rounding, of either sign, has no first eigenvector: any will do.
    there = (sizes > 4 * torch.finfo(sizes.dtype).eps * sizes.max().clamp_min(tiny))[:, None, None]
    whole = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    # Products of many small matrices want each of them in one piece.
    matrices = matrices.contiguous()
    power = _over(matrices, sizes.clamp_min(tiny))
    power = power if bool(there.all()) else torch.where(there, power, whole / len(whole))
    for number in range(squarings):
        power = power @ power
        # A trace of one is at least 1 / coils^3 two squarings later.
        if number % 2:
            power = _over(power, power.diagonal(dim1=-2, dim2=-1).real.sum(-1).clamp_min(tiny))
    largest = power.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    vectors = power.gather(-1, largest[:, None, None].expand(-1, power.shape[-2], 1))[..., 0]
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(tiny)
    there = torch.einsum("ncd,nd->nc", matrices, vectors)
    values = torch.linalg.vector_norm(there, dim=-1)
    return there / values.clamp_min(tiny)[:, None], values


def _over(matrices: Tensor, sizes: Tensor) -> Tensor:
    """Complex matrices over real numbers, without a complex division."""
    return torch.view_as_complex(torch.view_as_real(matrices) / sizes[:, None, None, None])


def with_phase(maps: Tensor, images: Tensor) -> Tensor:
    """Maps turned so that the combination of the coils that has most of the signal has no phase."""
    flat = images.flatten(-2)
    covariance = flat @ flat.mH
    first = torch.linalg.eigh(covariance)[1][..., -1]
    combined = torch.einsum("...c,...cyx->...yx", first.conj(), maps)
    turn = torch.where(combined == 0, 1, combined / combined.abs().clamp_min(1e-30))
    return maps * turn.conj().unsqueeze(-3)


def whiten(kspace: Tensor, covariance: Tensor) -> Tensor:
    """Coils mixed so that their noise has covariance one.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    covariance : (coils, coils) complex Tensor
        Of the noise, Hermitian and positive definite.

    Raises
    ------
    ValueError
        The covariance is not positive definite, or not of so many coils.

    Examples
    --------
    >>> import torch
    >>> whiten(torch.ones(1, 1, 1, dtype=torch.complex64), torch.tensor([[4.0 + 0j]])).item()
    (0.5+0j)
    """
    coils = kspace.shape[-3]
    if covariance.shape != (coils, coils):
        raise ValueError(f"covariance is {tuple(covariance.shape)}; {(coils, coils)} is accepted")
    root, failed = torch.linalg.cholesky_ex(covariance.to(kspace.dtype))
    if int(failed) or not torch.isfinite(torch.view_as_real(root)).all():
        raise ValueError("covariance is not Hermitian and positive definite")
    flat = torch.linalg.solve_triangular(root, kspace.flatten(-2), upper=False)
    return flat.reshape(kspace.shape)


def compress(kspace: Tensor, coils: int) -> tuple[Tensor, Tensor]:
    """Fewer virtual coils: the first principal components.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    coils : int

    Returns
    -------
    kspace : (..., fewer, height, width) Tensor
    mixing : (fewer, coils) Tensor
        With orthonormal rows.

    Raises
    ------
    ValueError
        There are not so many coils.

    Examples
    --------
    >>> import torch
    >>> fewer, _ = compress(torch.ones(4, 3, 3, dtype=torch.complex64), 1)
    >>> fewer.abs()[0, 0, 0].item()
    2.0
    """
    have = kspace.shape[-3]
    if not 1 <= coils <= have:
        raise ValueError(f"coils is {coils}; 1 to {have} are accepted")
    samples = kspace.movedim(-3, 0).flatten(1)
    mixing = torch.linalg.eigh(samples @ samples.mH)[1][:, -coils:].flip(-1).mH
    return torch.einsum("vc,...cyx->...vyx", mixing, kspace), mixing
