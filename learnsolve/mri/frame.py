"""K-space without shifts, and, where whole lines are sampled, along lines only."""

import torch
from torch import Tensor


class Frame:
    """How k-space of one mask is held while a solver or a network works on it.

    The origin is at index 0. Where whole lines are sampled, they are made the last but one axis, and the
    transform along them, which does not depend on what was sampled, is done once, on entering: k-space is
    then an image along one axis, and a product needs transforms across the lines only.

    Parameters
    ----------
    sampled : bool Tensor
        (height, width), or anything that broadcasts to k-space, of which lines are not looked for.
    centred : bool
        Outside, the origin is at ``n // 2``, otherwise at 0.

    Attributes
    ----------
    sampled : bool Tensor
        As it is inside.
    lines : (width,) bool Tensor or None
        Where along the last axis whole lines are sampled.
    axes : tuple of int
        Those of the transform between k-space inside and images.

    Examples
    --------
    >>> import torch
    >>> frame = Frame(torch.tensor([True, False]).expand(2, 2), centred=False)
    >>> frame.axes, frame.lines.tolist()
    ((-1,), [True, False])
    """

    def __init__(self, sampled: Tensor, centred: bool) -> None:
        self.centred, self.turned = centred, False
        self.axes: tuple[int, ...] = (-2, -1)
        self.lines: Tensor | None = None
        shifted = [axis for axis in (-2, -1) if sampled.ndim >= -axis and sampled.shape[axis] > 1]
        inside = torch.fft.ifftshift(sampled, shifted) if centred and shifted else sampled
        if inside.ndim == 2:
            self.turned = not bool((inside == inside[:1]).all()) and bool((inside == inside[:, :1]).all())
            inside = inside.mT if self.turned else inside
            if bool((inside == inside[:1]).all()):
                self.axes, self.lines = (-1,), inside[0]
        self.sampled = inside

    def enter(self, kspace: Tensor) -> Tensor:
        """K-space from outside."""
        k = self.origin(kspace)
        return k if self.lines is None else torch.fft.ifft(k, dim=-2, norm="ortho")

    def leave(self, kspace: Tensor) -> Tensor:
        """K-space for the outside."""
        k = kspace if self.lines is None else torch.fft.fft(kspace, dim=-2, norm="ortho")
        return self.seen(k)

    def origin(self, array: Tensor) -> Tensor:
        """An image, or maps, as they are inside."""
        array = torch.fft.ifftshift(array, (-2, -1)) if self.centred else array
        return (array.mT if self.turned else array).contiguous()

    def seen(self, array: Tensor) -> Tensor:
        """An image, or maps, as they are outside."""
        array = array.mT if self.turned else array
        return (torch.fft.fftshift(array, (-2, -1)) if self.centred else array).contiguous()

    def images(self, kspace: Tensor) -> Tensor:
        """Images of k-space, both inside."""
        return torch.fft.ifftn(kspace, dim=self.axes, norm="ortho")

    def kspace(self, images: Tensor) -> Tensor:
        """K-space of images, both inside."""
        return torch.fft.fftn(images, dim=self.axes, norm="ortho")
