"""Images from k-space without anything learned: zero-filling, CG-SENSE, wavelets, total variation."""

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learnsolve.linear import solve
from learnsolve.mri.coils import acs_region, images_of, rss
from learnsolve.mri.model import Model, model, noise_level
from learnsolve.mri.proximal import accelerated, alternating, iterated, shrinking, smoothing
from learnsolve.mri.rows import separable
from learnsolve.operators import Identity
from learnsolve.result import Result

Weight = float | Literal["auto"]
# Of the noise, for each penalty its share; all three were chosen on a scan of a sphere.
TIKHONOV, WAVELET, VARIATION = 0.2, 0.06, 0.04
# The heaviest weight of CG-SENSE, where the model's norm is one: no signal is seen outside of the middle.
HEAVY = 0.02
# Iterations with momentum, where each has another shift of the wavelets: momentum would shake them on and on.
MOMENTUM = 80


def zero_filled(kspace: Tensor, *, centred: bool = True) -> Tensor:
    """Root of the sum of squares of the coils' images, zeros where nothing was sampled.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
    centred : bool
        Of `Fourier`.

    Returns
    -------
    (..., height, width) real Tensor

    Examples
    --------
    >>> import torch
    >>> zero_filled(torch.ones(1, 2, 2, dtype=torch.complex64), centred=False)
    tensor([[2., 0.],
            [0., 0.]])
    """
    return rss(images_of(kspace, centred=centred))


def _begun(
    kspace: Tensor, sampled: Tensor, maps: Tensor, weight: Weight, maxiter: int, rtol: float, centred: bool
) -> tuple[Model, float]:
    """The model, and the noise of a sample."""
    if weight != "auto" and not (isinstance(weight, float | int) and np.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight is {weight!r}; 'auto' and numbers that are not negative are accepted")
    if maxiter < 1 or not rtol > 0:
        raise ValueError(f"maxiter is {maxiter} and rtol {rtol}; positive numbers are accepted")
    arranged = model(kspace, sampled, maps, centred=centred)
    if centred:
        return arranged, noise_level(kspace, sampled)
    shifted = (torch.fft.fftshift(part, (-2, -1)) for part in (kspace, sampled))
    return arranged, noise_level(*shifted)


def cg_sense(
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    *,
    weight: Weight = "auto",
    rtol: float = 2e-3,
    maxiter: int = 30,
    x0: Tensor | None = None,
    centred: bool = True,
    callback: Callable[..., Any] | None = None,
) -> Result:
    r"""Least squares with a Tikhonov penalty: :math:`|E x - y|^2 + \lambda |x|^2`, by conjugate gradients.

    Parameters
    ----------
    kspace : (..., coils, height, width) complex Tensor
        Axes before the coils are a batch of slices.
    sampled : (height, width) bool Tensor
    maps : (..., coils, height, width) complex Tensor
        Sensitivities, of `espirit` for instance.
    weight : float or "auto"
        :math:`\lambda`; by default proportional to the variance of the noise over that of the signal, outside
        of the fully sampled middle of k-space, and at most 0.02.
    rtol, maxiter, x0, callback
        Of `learnsolve.solve`, which does the work.
    centred : bool
        The origin is at ``n // 2``, otherwise at 0.

    Returns
    -------
    Result
        ``x`` is the (..., height, width) complex image; ``extras["weight"]`` and ``extras["noise"]``.

    Raises
    ------
    ValueError
        Shapes do not fit, a number is not finite, or an option is out of range.

    References
    ----------
    Pruessmann, Weiger, Boernert and Boesiger, *Advances in sensitivity encoding with arbitrary k-space
    trajectories*, Magnetic Resonance in Medicine 46, 2001.

    Examples
    --------
    >>> import torch
    >>> image = torch.eye(8, dtype=torch.complex64)
    >>> k = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image), norm="ortho"))[None]
    >>> res = cg_sense(k, torch.ones(8, 8, dtype=torch.bool), torch.ones_like(k), weight=0.0)
    >>> res.success, bool(torch.allclose(res.x, image, atol=1e-4))
    (True, True)
    """
    began = time.perf_counter()
    arranged, noise = _begun(kspace, sampled, maps, weight, maxiter, rtol, centred)
    E = arranged.operator
    b = E._adjoint(arranged.samples)
    penalty = float(weight) if weight != "auto" else 0.0
    if weight == "auto":
        penalty = min(TIKHONOV * noise**2 / _undecided(kspace, sampled, noise, centred), HEAVY)
    A = E.H @ E + penalty * Identity(E.domain_shape, E.dtype, E.device)
    start = None if x0 is None else arranged.frame.origin(x0)
    found = solve(A, b, method="cg", rtol=rtol, maxiter=maxiter, x0=start, callback=callback)
    image = arranged.frame.seen(found.x)
    return Result(
        image, found.status, found.iterations, found.residuals, found.relative_residual,
        time.perf_counter() - began, "cg-sense", {"weight": penalty, "noise": noise},
    )  # fmt: skip


def _undecided(kspace: Tensor, sampled: Tensor, noise: float, centred: bool) -> float:
    """Variance of the signal of a position of k-space, where some are missed."""
    if not centred:
        kspace, sampled = (torch.fft.fftshift(part, (-2, -1)) for part in (kspace, sampled))
    height, width = sampled.shape
    tall, wide = acs_region(sampled)
    y, x = height // 2 - tall // 2, width // 2 - wide // 2
    outside = sampled.clone()
    outside[y : y + tall, x : x + wide] = False
    if not outside.any():
        outside = sampled
    power = kspace[..., outside].abs().square().double().sum(-2).mean()
    noisy = kspace.shape[-3] * noise**2
    return max(float(power) - noisy, 1e-3 * float(power), 1e-300)


def l1_wavelet(
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    *,
    weight: Weight = "auto",
    rtol: float = 1e-3,
    maxiter: int = 200,
    x0: Tensor | None = None,
    centred: bool = True,
    seed: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> Result:
    r"""Compressed sensing: :math:`\frac12 |E x - y|^2 + \lambda |W x|_1`, by accelerated proximal gradients.

    The image is shifted at random before each threshold (cycle spinning), so that no grid of the wavelets is
    seen; the approximation of the coarsest level is not thresholded. The momentum ends after 80 iterations,
    from which on the answer is the mean of the images that follow.

    Parameters
    ----------
    kspace, sampled, maps, x0, centred
        As for `cg_sense`.
    weight : float or "auto"
        :math:`\lambda`; by default proportional to the noise of a sample, which k-space's rim tells.
    rtol : float
        Ends where the image has changed by so little in an iteration, in the mean of five.
    maxiter : int
    seed : int
        Of the shifts.
    callback : callable, optional
        Gets the number of the iteration and the residual; a true return value stops the run.

    Returns
    -------
    Result
        As from `cg_sense`; ``residuals`` are those of the data, :math:`|E x - y|`.

    Raises
    ------
    ValueError
        As by `cg_sense`.

    References
    ----------
    Lustig, Donoho and Pauly, *Sparse MRI*, Magnetic Resonance in Medicine 58, 2007; Beck and Teboulle, *A
    fast iterative shrinkage-thresholding algorithm*, SIAM Journal on Imaging Sciences 2, 2009, section 4.

    Examples
    --------
    >>> import torch
    >>> k = torch.ones(1, 16, 16, dtype=torch.complex64)
    >>> res = l1_wavelet(k, torch.ones(16, 16, dtype=torch.bool), torch.ones_like(k), weight=0.0)
    >>> res.success, res.x.shape
    (True, torch.Size([16, 16]))
    """
    began = time.perf_counter()
    arranged, noise = _begun(kspace, sampled, maps, weight, maxiter, rtol, centred)
    weight = WAVELET * noise if weight == "auto" else float(weight)
    steps = accelerated(arranged, shrinking(arranged.operator, weight, seed), x0, MOMENTUM)
    name = "l1-wavelet"
    return iterated(arranged, steps, rtol, maxiter, callback, began, name, {"weight": weight, "noise": noise})


def total_variation(
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    *,
    weight: Weight = "auto",
    rtol: float = 1e-3,
    maxiter: int = 300,
    x0: Tensor | None = None,
    centred: bool = True,
    callback: Callable[[int, float], Any] | None = None,
) -> Result:
    r"""Piecewise smooth images: :math:`\frac12 |E x - y|^2 + \lambda \sum |\nabla x|`, by proximal gradients.

    Parameters
    ----------
    kspace, sampled, maps, weight, rtol, maxiter, x0, centred, callback
        As for `l1_wavelet`. Differences are taken to the next pixel, around the rim.

    Returns
    -------
    Result
        As from `l1_wavelet`.

    Raises
    ------
    ValueError
        As by `cg_sense`.

    References
    ----------
    Beck and Teboulle, *Fast gradient-based algorithms for constrained total variation image denoising and
    deblurring problems*, IEEE Transactions on Image Processing 18, 2009, section 5; Block, Uecker and
    Frahm, *Undersampled radial MRI with multiple coils*, Magnetic Resonance in Medicine 57, 2007.

    Examples
    --------
    >>> import torch
    >>> k = torch.ones(1, 8, 8, dtype=torch.complex64)
    >>> total_variation(k, torch.ones(8, 8, dtype=torch.bool), torch.ones_like(k), weight=0.0).success
    True
    """
    began = time.perf_counter()
    arranged, noise = _begun(kspace, sampled, maps, weight, maxiter, rtol, centred)
    weight = VARIATION * noise if weight == "auto" else float(weight)
    near = smoothing(arranged.operator, weight)
    exact = separable(arranged.frame, arranged.operator.parameters()[0])
    steps = (alternating if exact else accelerated)(arranged, near, x0)
    name = "total-variation"
    return iterated(arranged, steps, rtol, maxiter, callback, began, name, {"weight": weight, "noise": noise})
