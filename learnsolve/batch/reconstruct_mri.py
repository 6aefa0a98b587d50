"""A scan, in a file or in memory, to its images."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from learnsolve.batch.scans import placed, read_mask
from learnsolve.datasets.kspace import open_kspace
from learnsolve.files import check_folder, check_room, replacing
from learnsolve.mri import Sampling, reconstruct
from learnsolve.mri.reconstruct import Method
from learnsolve.result import (
    ConvergenceWarning,
    Result,
    SolveError,
    Status,
    without_convergence_warnings,
)


def reconstruct_mri(
    scan: Any,
    *,
    method: Method = "auto",
    mask: Any = None,
    maps: Any = "espirit",
    out: str | os.PathLike | None = None,
    key: str | None = None,
    axes: str | None = None,
    progress: Callable[[int, int], Any] | None = None,
    check: bool = False,
    **options: Any,
) -> Result:
    """Images of a scan: from a file of k-space, a slice at a time, or from an array.

    Parameters
    ----------
    scan : path, or (..., coils, height, width) complex array
        A file as of `learnsolve.datasets.kspace.open_kspace`, or k-space in numpy or torch, with its origin
        in the middle.
    method : {"auto", "l1-wavelet", "total-variation", "cg-sense", "recurrentvarnet", "zero-filled"}
        See `learnsolve.mri.reconstruct`.
    mask : (height, width) or (width,) bool array, path, or `learnsolve.mri.Sampling`, optional
        What is used; by default what the file says, or what is not zero. A rule undersamples a full scan, to
        judge a method by.
    maps : {"espirit", "walsh", "low-resolution"} or array
        Sensitivities.
    out : path, optional
        An HDF5 file for the sizes of the images, as dataset ``reconstruction``; written when all are there.
    key, axes : str, optional
        Of `learnsolve.datasets.kspace.open_kspace`.
    progress : callable, optional
        Called with how many slices are there, and how many there are.
    check : bool
        Raise `SolveError` instead of returning what did not converge.
    **options
        Of the method.

    Returns
    -------
    Result
        ``x`` has the images, (slices, height, width) of a file; ``status`` is the first that is not
        CONVERGED, ``iterations`` and ``relative_residual`` are the largest; ``extras["slices"]`` are the
        results of the slices.

    Raises
    ------
    OSError, TypeError, ValueError
        The scan, the mask or an option is not as described.
    SolveError
        With ``check``.

    Warns
    -----
    ConvergenceWarning
        Of slices that have not converged, once.

    Examples
    --------
    >>> import learnsolve
    >>> from learnsolve.mri import Sampling
    >>> from learnsolve.problems.scans import Volume
    >>> full = Volume((48, 48), coils=4, slices=1, seed=0)[0].kspace
    >>> mask = Sampling("random", 2, centre=12)
    >>> res = learnsolve.reconstruct_mri(full, method="total-variation", mask=mask)
    >>> res.x.shape, res.method
    ((48, 48), 'total-variation')
    """
    began = time.perf_counter()
    if out is not None:
        check_folder(out)
    given = {"maps": maps, **options}
    if not isinstance(scan, (str, os.PathLike)):
        shape = tuple(np.shape(scan))
        with without_convergence_warnings():
            found = [reconstruct(scan, method, sampled=_sampled(mask, shape[-2:], True), **given)]
        return _finished(found, found[0].x, out, began, check)
    with open_kspace(Path(scan), key=key, axes=axes) as kspace:
        sampled = _sampled(mask, kspace.shape[2:], kspace.centred)
        sampled = kspace.sampled if sampled is None else sampled
        found = []
        for index in range(len(kspace)):
            with without_convergence_warnings():
                one = reconstruct(kspace[index], method, sampled=sampled, centred=kspace.centred, **given)
            found.append(one)
            if progress is not None:
                progress(index + 1, len(kspace))
    return _finished(found, np.stack([one.x for one in found]), out, began, check)


def _sampled(mask: Any, shape: Iterable[int], centred: bool) -> Any:
    """Where k-space is used, with its origin where k-space has it."""
    height, width = shape
    if isinstance(mask, Sampling):
        found = mask.mask((height, width))
    elif isinstance(mask, (str, os.PathLike)):
        found = read_mask(Path(mask), (height, width))
    else:
        return mask
    return placed(found, centred)


def _finished(
    found: list[Result], x: Any, out: str | os.PathLike | None, began: float, check: bool
) -> Result:
    statuses = [one.status for one in found]
    methods = sorted({one.method for one in found})
    # As of several right-hand sides: a column each, whose last value is repeated.
    longest = max(len(one.residuals) for one in found)
    residuals = [np.pad(one.residuals, (0, longest - len(one.residuals)), "edge") for one in found]
    result = Result(
        x,
        next((status for status in statuses if status is not Status.CONVERGED), Status.CONVERGED),
        max(one.iterations for one in found),
        residuals[0] if len(found) == 1 else np.stack(residuals, axis=1),
        max(one.relative_residual for one in found),
        time.perf_counter() - began,
        ", ".join(methods),
        {"slices": found},
    )
    if out is not None:
        images = np.abs(np.asarray(torch.as_tensor(x).cpu())).astype(np.float32)
        check_room(out, images.nbytes)
        with replacing(out) as part, h5py.File(part, "w") as file:
            file["reconstruction"] = images.reshape(-1, *images.shape[-2:])
            file.attrs["learnsolve"] = json.dumps(
                {"methods": methods, "statuses": [s.name for s in statuses]}
            )
    if not result.success:
        if check:
            raise SolveError(result)
        warnings.warn(f"{result!r}: {result.status.value}", ConvergenceWarning, stacklevel=3)
    return result
