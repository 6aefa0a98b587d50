"""Where tokens stand, along one axis or several: rotations of channels, and averages along each axis."""

import torch
from torch import Tensor, nn

from learnsolve.sequence.functional import linear_recurrence


def grid(shape: tuple[int, ...]) -> Tensor:
    """Places of a grid in the order of its memory, (places, axes).

    Examples
    --------
    >>> grid((2, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape))


def rotation(places: Tensor, heads: int, channels: int, base: float = 10000.0) -> Tensor:
    r"""Unit complex numbers that turn pairs of channels by their place (MD-LRPE).

    The pairs of a head are shared out among the axes; all heads' pairs together have frequencies
    :math:`\text{base}^{-2j / (\text{heads} \cdot \text{channels})}`.

    Parameters
    ----------
    places : (n, axes) Tensor
    heads, channels : int
        Channels are even, with at least one pair for each axis.
    base : float

    Returns
    -------
    (n, heads, channels // 2) complex128 Tensor

    Raises
    ------
    ValueError
        There are fewer pairs than axes, or an odd number of channels.

    References
    ----------
    Qin and others, *You only scan once: efficient multi-dimension sequential modeling with LightNet*, 2024,
    section 4.3; Su and others, *RoFormer*, 2021, section 3.2.2.

    Examples
    --------
    >>> rotation(grid((2, 3)), heads=2, channels=4).shape
    torch.Size([6, 2, 2])
    """
    pairs, axes = channels // 2, places.shape[1]
    if channels % 2 or pairs < axes:
        raise ValueError(
            f"{channels} channels are no pairs for {axes} axes; an even number of at least {2 * axes} is"
        )
    numbers = torch.arange(heads * pairs, dtype=torch.float64, device=places.device)
    rates = base ** (-2.0 * numbers / (heads * channels))
    # Pair j of a head goes with axis j * axes // pairs.
    axis = torch.arange(pairs) * axes // pairs
    angles = places[:, axis].unsqueeze(1) * rates.reshape(heads, pairs)
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: Tensor, rotation: Tensor, *, halves: bool = False) -> Tensor:
    """Pairs of channels of (B, places, heads, channels), turned.

    Parameters
    ----------
    x : (B, places, heads, channels) Tensor
    rotation : (places, heads or one, channels // 2) complex Tensor
    halves : bool
        Whether a channel of the first half is paired with that of the second, and not with its neighbour.

    Examples
    --------
    >>> x, quarter = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4), torch.full((1, 1, 2), 1j)
    >>> turned(x, quarter).flatten().tolist(), turned(x, quarter, halves=True).flatten().tolist()
    ([-2.0, 1.0, -4.0, 3.0], [-3.0, -4.0, 1.0, 2.0])
    """
    cos, sin = rotation.real.to(x), rotation.imag.to(x)
    shape, axis = ((2, -1), -2) if halves else ((-1, 2), -1)
    a, b = x.unflatten(-1, shape).unbind(axis)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], axis).flatten(-2)


def turned_from(first: int, *tensors: Tensor) -> list[Tensor]:
    """Queries and keys (B, T, heads, channels), turned by their places from a first one on.

    All heads have the same frequencies.

    Examples
    --------
    >>> q, k = turned_from(5, torch.ones(1, 3, 2, 4), torch.ones(1, 3, 2, 4))
    >>> q.shape
    torch.Size([1, 3, 2, 4])
    """
    one = tensors[0]
    places = torch.arange(first, first + one.shape[1], device=one.device)
    turns = rotation(places[:, None], 1, one.shape[-1])
    return [turned(x, turns, halves=True) for x in tensors]


class PlaceEncoding(nn.Module):
    r"""What stands before, along each axis, added to what comes in (MD-TPE).

    Along an axis that is the Toeplitz product :math:`y_t = \sum_{s \le t} c \, \lambda^{t - s} x_s`: a
    first-order recurrence of each channel, whose decay a head shares.

    Parameters
    ----------
    width, heads : int
    axes : int
        Of the places of what comes in: (B, places along each axis, width).

    References
    ----------
    Qin and others, *You only scan once: efficient multi-dimension sequential modeling with LightNet*, 2024,
    section 4.3.

    Examples
    --------
    >>> import torch
    >>> PlaceEncoding(8, heads=2, axes=2)(torch.zeros(1, 3, 4, 8)).shape
    torch.Size([1, 3, 4, 8])
    """

    def __init__(self, width: int, heads: int = 4, axes: int = 1) -> None:
        super().__init__()
        if heads < 1 or width % heads or axes < 1:
            raise ValueError(f"{heads} heads do not share {width} channels, or axes is {axes}")
        self.axes, self.channels = axes, width // heads
        self.decay = nn.Parameter(torch.linspace(0, 4, heads).repeat(axes, 1))
        self.weight = nn.Parameter(torch.full((axes, width), 1.0))
        self.norm = nn.RMSNorm(width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add to (B, places along each axis, width)."""
        if x.ndim != self.axes + 2:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; a batch, {self.axes} axes and channels are accepted"
            )
        found = torch.zeros_like(x)
        for axis in range(self.axes):
            rows = x.movedim(axis + 1, -2)
            a = torch.sigmoid(self.decay[axis]).repeat_interleave(self.channels)
            # An average, so that long decays do not make large numbers.
            mean, _ = linear_recurrence(a, (1 - a) * rows.flatten(0, -3))
            found = found + (self.weight[axis] * mean).reshape(rows.shape).movedim(-2, axis + 1)
        return x + self.out(self.norm(found))
