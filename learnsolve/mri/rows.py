"""Where whole lines are sampled, each row of an image is a system of its own, small enough to be solved."""

from collections.abc import Callable

import torch
from torch import Tensor

from learnsolve.mri.frame import Frame

# Richardson's steps where rows are no systems of their own: points condition a system well.
STEPS = 4
# Bytes that the inverses of rows may have.
LARGEST = 1 << 28


def separable(frame: Frame, maps: Tensor) -> bool:
    """Whether rows of an image are systems of their own, and their inverses fit into memory."""
    size = maps.dtype.itemsize * maps[..., 0, :, :].numel() * maps.shape[-1]
    return frame.lines is not None and size <= LARGEST


def row_inverses(maps: Tensor, lines: Tensor, shift: float | Tensor) -> Tensor:
    r"""For each row the inverse of :math:`E^H E + \rho`, where lines are sampled along the last axis.

    Parameters
    ----------
    maps : (..., coils, height, width) complex Tensor
    lines : (width,) bool Tensor
        With the origin at index 0; images may be shifted, since differences of places alone count.
    shift : float or (..., 1, 1) Tensor
        :math:`\rho`.

    Returns
    -------
    (..., height, width, width) complex Tensor

    Examples
    --------
    >>> import torch
    >>> maps = torch.ones(1, 2, 3, dtype=torch.complex64)
    >>> inverses = row_inverses(maps, torch.ones(3, dtype=torch.bool), 1.0)
    >>> bool(torch.allclose(inverses, torch.eye(3) / 2 + 0j, atol=1e-6))
    True
    """
    width = maps.shape[-1]
    kernel = torch.fft.ifft(lines.to(maps.dtype))
    places = torch.arange(width, device=maps.device)
    across = maps.movedim(-3, -1)
    normal = (across.conj() @ across.mT) * kernel[(places[:, None] - places) % width]
    normal.diagonal(dim1=-2, dim2=-1).add_(shift)
    return torch.cholesky_inverse(torch.linalg.cholesky(normal))


def correction(
    frame: Frame, samples: Tensor, maps: Tensor, shift: float | Tensor
) -> Callable[[Tensor], Tensor]:
    r"""What to add to an image for the data's sake: :math:`(E^H E + \rho)^{-1} E^H (y - E x)`.

    Exact where whole lines are sampled and their inverses fit into memory; otherwise by four steps of
    Richardson's iteration. A gradient goes through what it is called with.

    Parameters
    ----------
    frame : Frame
        In which all that follows is held.
    samples, maps : (..., coils, height, width) complex Tensor
        K-space, zero where nothing was sampled; of maps the sum of squares is at most one.
    shift : float or (..., 1, 1) Tensor
        :math:`\rho`, the larger the smaller the correction.

    References
    ----------
    Aggarwal, Mani and Jacob, *MoDL: model-based deep learning architecture for inverse problems*, IEEE
    Transactions on Medical Imaging 38, 2019.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.mri.frame import Frame
    >>> maps = torch.ones(1, 4, 4, dtype=torch.complex64)
    >>> frame = Frame(torch.ones(4, 4, dtype=torch.bool), centred=True)
    >>> add = correction(frame, frame.enter(maps), maps, 1.0)
    >>> round(add(torch.zeros(4, 4, dtype=torch.complex64)).abs().max().item(), 3)
    2.0
    """

    def adjoint(k: Tensor) -> Tensor:
        return (maps.conj() * frame.images(k)).sum(-3)

    b = adjoint(samples)
    if not separable(frame, maps):

        def steps(x: Tensor) -> Tensor:
            def normal(x: Tensor) -> Tensor:
                return adjoint(torch.where(frame.sampled, frame.kspace(maps * x.unsqueeze(-3)), 0))

            # No eigenvalue of the system is above one and the shift.
            left, most = b - normal(x), 1 + shift
            c = left / most
            for _ in range(STEPS - 1):
                c = c + (left - normal(c) - shift * c) / most
            return c

        return steps
    assert frame.lines is not None
    with torch.no_grad():
        inverses = row_inverses(maps, frame.lines, shift)

    def exact(x: Tensor) -> Tensor:
        # Of x, what the inverse leaves is the shift's share.
        return (inverses @ (b + shift * x).unsqueeze(-1))[..., 0] - x

    return exact
