"""The forward model of magnetic resonance imaging: coil sensitivities, the Fourier transform, a mask."""

import torch
from torch import Tensor

from learnsolve.operators.base import Operator


class Fourier(Operator):
    """The unitary discrete Fourier transform over the last axes.

    Parameters
    ----------
    shape : tuple of int
        Of the arrays; axes before the transformed ones are a batch.
    axes : int
        How many axes are transformed.
    centred : bool
        The origin of image and k-space is in the middle (index ``n // 2``), as in fastMRI's files, and not at
        index 0, as in Calgary-Campinas'.
    dtype : torch.dtype
        complex64 or complex128.
    device : torch.device or str

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import Fourier
    >>> F = Fourier((2, 2), centred=False, dtype=torch.complex64)
    >>> (F @ torch.ones(2, 2)).real
    tensor([[2., 0.],
            [0., 0.]])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        axes: int = 2,
        *,
        centred: bool = True,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not dtype.is_complex:
            raise TypeError(f"a Fourier transform is complex; dtype is {dtype}")
        if not 1 <= axes <= len(shape):
            raise ValueError(f"axes is {axes}; 1 to {len(shape)} are accepted for the shape {tuple(shape)}")
        super().__init__(shape, shape, dtype, device)
        self.axes, self.centred = tuple(range(-axes, 0)), centred

    def _apply(self, x: Tensor) -> Tensor:
        x = torch.fft.ifftshift(x, self.axes) if self.centred else x
        x = torch.fft.fftn(x, dim=self.axes, norm="ortho")
        return torch.fft.fftshift(x, self.axes) if self.centred else x

    def _adjoint(self, y: Tensor) -> Tensor:
        y = torch.fft.ifftshift(y, self.axes) if self.centred else y
        y = torch.fft.ifftn(y, dim=self.axes, norm="ortho")
        return torch.fft.fftshift(y, self.axes) if self.centred else y

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "Fourier":
        return Fourier(self.domain_shape, len(self.axes), centred=self.centred, dtype=dtype, device=device)


class Coils(Operator):
    """What each coil sees of an image: the image times its sensitivity.

    Parameters
    ----------
    maps : (..., coils, height, width) complex Tensor
        Sensitivities; axes before the coils are a batch, of slices for instance.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import Coils
    >>> C = Coils(torch.tensor([1.0, 2.0], dtype=torch.complex64).reshape(2, 1, 1))
    >>> (C.H @ (C @ torch.ones(1, 1))).real
    tensor([[5.]])
    """

    def __init__(self, maps: Tensor) -> None:
        if maps.ndim < 3 or not maps.is_complex():
            found = f"{maps.dtype} of shape {tuple(maps.shape)}"
            raise ValueError(f"maps are {found}; complex (..., coils, height, width) are accepted")
        super().__init__((*maps.shape[:-3], *maps.shape[-2:]), maps.shape, maps.dtype, maps.device)
        self.maps = maps

    def _apply(self, x: Tensor) -> Tensor:
        return self.maps * x.unsqueeze(-3)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.maps.conj() * y).sum(-3)

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.maps,)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> "Coils":
        return Coils(parameters[0])

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (y * x.conj().unsqueeze(-3),)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "Coils":
        return Coils(self.maps.to(device, dtype))


class Mask(Operator):
    """Zero where nothing was sampled.

    Parameters
    ----------
    sampled : bool Tensor
        Of a shape that broadcasts to the arrays': ``(width,)`` for whole lines.
    shape : tuple of int
        Of the arrays.
    dtype : torch.dtype

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import Mask
    >>> (Mask(torch.tensor([True, False]), (2, 2)) @ torch.ones(2, 2)).real
    tensor([[1., 0.],
            [1., 0.]])
    """

    def __init__(self, sampled: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.complex64) -> None:
        if sampled.dtype != torch.bool:
            raise TypeError(f"a mask is of booleans, not of {sampled.dtype}")
        try:
            fits = torch.broadcast_shapes(sampled.shape, tuple(shape)) == tuple(shape)
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(f"a mask of shape {tuple(sampled.shape)} does not broadcast to {tuple(shape)}")
        super().__init__(shape, shape, dtype, sampled.device, hermitian=True, positive_definite=True)
        self.sampled = sampled
        self.singular = not bool(sampled.all())

    def _apply(self, x: Tensor) -> Tensor:
        return torch.where(self.sampled, x, 0)

    def diagonal(self) -> Tensor:
        return self.sampled.expand(self.domain_shape).to(self.dtype)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "Mask":
        return Mask(self.sampled.to(device), self.domain_shape, dtype)


def sense(maps: Tensor, sampled: Tensor, *, centred: bool = True) -> Operator:
    """The forward model ``U F S``: sensitivities, Fourier transform, mask.

    Its least squares with a Tikhonov penalty are CG-SENSE:
    ``learnsolve.solve(E.H @ E + lam * Identity(...), E.H @ y)``.

    Parameters
    ----------
    maps : (..., coils, height, width) complex Tensor
    sampled : bool Tensor
        Broadcasts to the maps.
    centred : bool
        Of `Fourier`.

    Returns
    -------
    Operator
        From images ``(..., height, width)`` to k-space ``(..., coils, height, width)``.

    References
    ----------
    Pruessmann, Weiger, Boernert and Boesiger, *Advances in sensitivity encoding with arbitrary k-space
    trajectories*, Magnetic Resonance in Medicine 46, 2001, equation 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.operators import sense
    >>> E = sense(torch.ones(3, 4, 4, dtype=torch.complex64), torch.arange(4) % 2 == 0)
    >>> E.domain_shape, E.range_shape
    ((4, 4), (3, 4, 4))
    """
    shape = tuple(maps.shape)
    coils = Coils(maps)
    transform = Fourier(shape, centred=centred, dtype=maps.dtype, device=maps.device)
    return Mask(sampled.to(maps.device), shape, maps.dtype) @ (transform @ coils)
