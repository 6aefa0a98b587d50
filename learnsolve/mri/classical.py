"""Images from k-space without anything learned: zero-filling, CG-SENSE, wavelets, total variation."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learnsolve.linear import solve
from learnsolve.mri.coils import acs_region, images_of, rss
from learnsolve.mri.model import Model, model, noise_level
from learnsolve.operators import Identity, Operator, Wavelet
from learnsolve.result import ConvergenceWarning, Result, Status

Weight = float | Literal["auto"]
# Of the noise, for each penalty its share; all three were chosen on a scan of a sphere.
TIKHONOV, WAVELET, VARIATION = 0.2, 0.06, 0.04
LEVELS = 4
# The heaviest weight of CG-SENSE, where the model's norm is one: no signal is seen outside of the middle.
HEAVY = 0.02
# Iterations with momentum, where each has another shift of the wavelets: momentum would shake them on and on.
MOMENTUM = 80
# Iterations over which the image must rest.
WINDOW = 5


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
    start = None if x0 is None else arranged.there(x0)
    found = solve(A, b, method="cg", rtol=rtol, maxiter=maxiter, x0=start, callback=callback)
    return Result(
        arranged.back(found.x), found.status, found.iterations, found.residuals, found.relative_residual,
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
    steps = _accelerated(arranged, _shrinking(arranged.operator, weight, seed), x0, MOMENTUM)
    name = "l1-wavelet"
    return _iterated(
        arranged, steps, rtol, maxiter, callback, began, name, {"weight": weight, "noise": noise}
    )


def _accelerated(
    arranged: Model,
    near: Callable[[Tensor, float], Tensor],
    x0: Tensor | None,
    momentum: float = float("inf"),
) -> Iterator[tuple[Tensor, float]]:
    """Proximal gradients with momentum: images, and the residuals where their gradients were taken.

    ``near`` minimises half the squared distance from an image and a step's share of the penalty; ``momentum``
    is for how many iterations there is one, after which the images are means of all that follow.
    """
    E = arranged.operator
    # The gradient's constant: no image gains more than the largest sum of squares of the maps.
    step = 1 / _largest(E)
    x = E._adjoint(arranged.samples) if x0 is None else arranged.there(x0).to(E.dtype)
    z, t, count = x, 1.0, 0
    while True:
        left = E._apply(z) - arranged.samples
        new = near(z - step * E._adjoint(left), step)
        count += 1
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        if count < momentum:
            z = new + (before - 1) / t * (new - x)
            x = new
        else:
            z = new
            x = x + (new - x) / (count - momentum + 1)
        yield x, _norm(left)


def _shrinking(E: Operator, weight: float, seed: int) -> Callable[[Tensor, float], Tensor]:
    """Thresholds of wavelet coefficients, at a random shift of their grid each time."""
    height, width = E.domain_shape[-2:]
    levels = max(0, min(LEVELS, min(height, width).bit_length() - 3))
    block = 1 << levels
    padded = (*E.domain_shape[:-2], *(-(-n // block) * block for n in (height, width)))
    W = Wavelet(padded, levels, dtype=E.dtype, device=E.device)
    coarse = (..., slice(padded[-2] >> levels), slice(padded[-1] >> levels))
    generator = torch.Generator().manual_seed(seed)

    def near(s: Tensor, step: float) -> Tensor:
        shift = torch.randint(0, block, (2,), generator=generator).tolist()
        s = torch.nn.functional.pad(s, (0, padded[-1] - width, 0, padded[-2] - height))
        c = W._apply(s.roll(shift, (-2, -1)))
        found = _shrunk(c, step * weight)
        found[coarse] = c[coarse]
        return W._adjoint(found).roll([-n for n in shift], (-2, -1))[..., :height, :width]

    return near


def _smoothing(E: Operator, weight: float, inner: int = 5) -> Callable[[Tensor, float], Tensor]:
    """The proximal map of total variation by its dual, which goes on from the last time's."""
    u = torch.zeros(2, *E.domain_shape, dtype=E.dtype, device=E.device)

    def near(s: Tensor, step: float) -> Tensor:
        nonlocal u
        bound = max(step * weight, torch.finfo(s.real.dtype).tiny)
        x = s - _divergence(u)
        for _ in range(inner):
            # The squared norm of the differences is at most 8.
            u = u + torch.stack([x.roll(-1, -1) - x, x.roll(-1, -2) - x]) / 8
            u = u * (bound / u.abs().square().sum(0).sqrt().clamp_min(bound))
            x = s - _divergence(u)
        return x

    return near


def _divergence(u: Tensor) -> Tensor:
    """The adjoint of the differences to the next pixels."""
    return u[0].roll(1, -1) - u[0] + u[1].roll(1, -2) - u[1]


def _largest(E: Operator) -> float:
    """A bound of the model's squared norm: of the largest sum of squares of the sensitivities."""
    maps = E.parameters()[0]
    return max(float(maps.abs().square().sum(-3).max()), torch.finfo(maps.real.dtype).tiny)


def _norm(x: Tensor) -> float:
    # Of real numbers the norm is many times faster than of complex ones.
    return float(torch.linalg.vector_norm(torch.view_as_real(x)))


def _shrunk(c: Tensor, threshold: float) -> Tensor:
    size = c.abs()
    return c * ((size - threshold).clamp_min(0) / size.clamp_min(torch.finfo(size.dtype).tiny))


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
    steps = _accelerated(arranged, _smoothing(arranged.operator, weight), x0)
    name = "total-variation"
    return _iterated(
        arranged, steps, rtol, maxiter, callback, began, name, {"weight": weight, "noise": noise}
    )


def _iterated(
    arranged: Model,
    steps: Iterator[tuple[Tensor, float]],
    rtol: float,
    maxiter: int,
    callback: Callable[[int, float], Any] | None,
    began: float,
    method: str,
    extras: dict[str, Any],
) -> Result:
    """Step until the image rests."""
    E, y = arranged.operator, arranged.samples
    residuals: list[float] = []
    status, change = Status.MAXITER, float("nan")
    x = torch.zeros(E.domain_shape, dtype=E.dtype, device=E.device)
    trail: deque[Tensor] = deque(maxlen=WINDOW)
    for number in range(1, maxiter + 1):
        x, left = next(steps)
        residuals.append(left)
        size = _norm(x)
        if not np.isfinite(size):
            status = Status.NONFINITE
            break
        if len(trail) == WINDOW:
            change = _norm(x - trail[0]) / (WINDOW * max(size, 1e-300))
        trail.append(x)
        if callback is not None and callback(number, left):
            status = Status.STOPPED
            break
        if change <= rtol:
            status = Status.CONVERGED
            break
    residuals.append(_norm(E._apply(x) - y))
    relative = residuals[-1] / _norm(y)
    result = Result(
        arranged.back(x), status, len(residuals) - 1, np.array(residuals), relative,
        time.perf_counter() - began, method, {**extras, "change": change},
    )  # fmt: skip
    if not result.success:
        warnings.warn(f"{result!r}: {status.value}", ConvergenceWarning, stacklevel=3)
    return result
