"""K-space without shifts, and, where whole lines are sampled, along lines only."""

import torch
from torch import Tensor


class Frame:
    """How k-space of one mask is held while a network works on it.

    The origin is at index 0. Where whole lines are sampled, the transform along them does not depend on what
    was sampled: it is done once, on entering, so that k-space is an image along one axis, and a product needs
    half of the transforms.

    Parameters
    ----------
    sampled : bool Tensor
        (height, width), or anything that broadcasts to k-space, of which lines are not looked for.
    centred : bool
        Outside, the origin is at ``n // 2``, otherwise at 0.

    Attributes
    ----------
    sampled : bool Tensor
        Without shifts.
    lines : bool Tensor or None
        Which positions along the transformed axis, where whole lines are sampled.
    axis : int
        That axis.

    Examples
    --------
    >>> import torch
    >>> frame = Frame(torch.tensor([True, False]).expand(2, 2), centred=False)
    >>> frame.axis, frame.lines.tolist()
    (-1, [True, False])
    """

    def __init__(self, sampled: Tensor, centred: bool) -> None:
        self.centred = centred
        shifted = [axis for axis in (-2, -1) if sampled.ndim >= -axis and sampled.shape[axis] > 1]
        self.sampled = torch.fft.ifftshift(sampled, shifted) if centred and shifted else sampled
        self.axis, self.lines = -1, None
        self.axes: tuple[int, ...] = (-2, -1)
        self.along: int | None = None
        if sampled.ndim == 2:
            if bool((self.sampled == self.sampled[:1]).all()):
                self.axis, self.axes, self.along, self.lines = -1, (-1,), -2, self.sampled[0]
            elif bool((self.sampled == self.sampled[:, :1]).all()):
                self.axis, self.axes, self.along, self.lines = -2, (-2,), -1, self.sampled[:, 0]

    def enter(self, kspace: Tensor) -> Tensor:
        """K-space from outside."""
        k = self.origin(kspace)
        return k if self.along is None else torch.fft.ifft(k, dim=self.along, norm="ortho")

    def leave(self, kspace: Tensor) -> Tensor:
        """K-space for the outside."""
        k = kspace if self.along is None else torch.fft.fft(kspace, dim=self.along, norm="ortho")
        return self.seen(k)

    def origin(self, array: Tensor) -> Tensor:
        """An image, or k-space, with its origin at index 0."""
        return torch.fft.ifftshift(array, (-2, -1)) if self.centred else array

    def seen(self, array: Tensor) -> Tensor:
        """An image, or k-space, as it is outside."""
        return torch.fft.fftshift(array, (-2, -1)) if self.centred else array

    def images(self, kspace: Tensor) -> Tensor:
        """Images of k-space."""
        return torch.fft.ifftn(kspace, dim=self.axes, norm="ortho")

    def kspace(self, images: Tensor) -> Tensor:
        """K-space of images."""
        return torch.fft.fftn(images, dim=self.axes, norm="ortho")
