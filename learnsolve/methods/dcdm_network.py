"""Networks that propose a search direction for a residual on a grid."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnsolve.training.narrowing import narrowed


@dataclass(frozen=True)
class NetworkOptions:
    """Which network, and how large.

    Parameters
    ----------
    dims : {2, 3}
        Axes of the grid.
    architecture : {"recursive", "paper"}
        ``"paper"`` is the network of the paper: one pooling, so that it sees some 20 cells far.
        ``"recursive"`` applies one block with the same weights on every coarser level down to ``coarsest``
        cells, so that it sees the whole grid at any size, at less cost.
    channels : int
        Of every convolution.
    full, half : int
        Pairs of convolutions on the full grid, before the pooling and again after it; and on a pooled
        grid (``"paper"``: all of them; ``"recursive"``: before its own pooling and again after it).
    coarsest : int
        ``"recursive"`` pools no axis of at most so many cells.

    Examples
    --------
    >>> NetworkOptions(dims=2).build()(torch.ones(1, 1, 12, 9)).shape
    torch.Size([1, 1, 12, 9])
    """

    dims: int = 3
    architecture: Literal["recursive", "paper"] = "recursive"
    channels: int = 16
    full: int = 1
    half: int = 2
    coarsest: int = 4

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise ValueError(f"dims is {self.dims}; 2 and 3 are accepted")
        if self.architecture not in ("recursive", "paper"):
            raise ValueError(f"architecture is {self.architecture!r}; 'recursive' and 'paper' are accepted")
        for name in ("channels", "full", "half", "coarsest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a positive number is accepted")

    def build(self) -> "DirectionNetwork":
        """A network with fresh weights."""
        return DirectionNetwork(self)

    @classmethod
    def paper(cls, dims: int = 3, size: int = 64) -> "NetworkOptions":
        """The paper's network for grids of 64 (or fewer) or of 128 cells along an axis."""
        deep = size > 64
        return cls(dims, "paper", 16, 3 if deep else 2, 5 if deep else 3)


class _Pair(nn.Module):
    """``h + relu(conv(relu(conv(h))))`` as in the paper, or without the outer function and the biases."""

    def __init__(self, conv: Any, channels: int, recursive: bool) -> None:
        super().__init__()
        self.recursive = recursive
        self.first = conv(channels, channels, 3, padding=1, bias=not recursive)
        self.second = conv(channels, channels, 3, padding=1, bias=not recursive)
        if recursive:
            nn.init.zeros_(self.second.weight)

    def forward(self, h: Tensor) -> Tensor:
        if self.recursive:
            return h + self.second(functional.leaky_relu(self.first(h), 0.2))
        return h + functional.relu(self.second(functional.relu(self.first(h))))


class DirectionNetwork(nn.Module):
    """A convolutional network from a normalised residual to a direction, on grids of any size.

    Parameters
    ----------
    options : NetworkOptions
        Architecture and size.

    References
    ----------
    Kaneda, Akar, Chen, Kala, Hyde and Teran, *A Deep Conjugate Direction Method for Iteratively Solving
    Linear Systems*, ICML 2023, section 5.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        conv: Any = nn.Conv3d if options.dims == 3 else nn.Conv2d
        channels = options.channels

        def pairs(count: int) -> nn.Sequential:
            return nn.Sequential(*(_Pair(conv, channels, recursive) for _ in range(count)))

        recursive = options.architecture == "recursive"
        self.enter = conv(1, channels, 3, padding=1, bias=not recursive)
        self.before, self.after = pairs(options.full), pairs(options.full)
        self.down = pairs(options.half)
        self.up = pairs(options.half) if recursive else nn.Identity()
        # Level by level the inverse of the operator grows by the square of the spacing.
        self.gain = nn.Parameter(torch.full((channels,), 4.0 if recursive else 1.0))
        self.leave = conv(channels, 1, 1, bias=not recursive)
        if recursive:
            nn.init.zeros_(self.leave.weight)

    def forward(self, r: Tensor) -> Tensor:
        """Directions ``(B, 1, ...)`` for residuals ``(B, 1, ...)`` of unit norm."""
        h = self.entered(r)
        return self.left(r, self._below(h))

    @property
    def reach(self) -> int:
        """How many cells far the layers of the full grid see."""
        return 1 + 4 * self.options.full

    def entered(self, r: Tensor) -> Tensor:
        """Features of the full grid, before any pooling."""
        return self.before(self.enter(r))

    def pooled(self, sizes: Sequence[int]) -> list[int]:
        """How many cells of a grid become one along each axis; ones where nothing is pooled any more."""
        coarsest = self.options.coarsest if self.options.architecture == "recursive" else 1
        return [2 if n > coarsest else 1 for n in sizes]

    def pool(self, h: Tensor, steps: list[int]) -> Tensor:
        """Means over blocks of cells."""
        pool = functional.avg_pool3d if self.options.dims == 3 else functional.avg_pool2d
        return pool(h, steps, ceil_mode=True, count_include_pad=False)

    def coarse(self, pooled: Tensor) -> Tensor:
        """What the coarser grids make of pooled features."""
        h = self.down(pooled)
        return self.up(self._below(h)) if self.options.architecture == "recursive" else h

    def joined(self, h: Tensor, coarse: Tensor, steps: list[int]) -> Tensor:
        """Features with what the coarser grids add."""
        sizes = h.shape[2:]
        return h + self.gain.reshape(-1, *[1] * len(sizes)) * _enlarged(coarse, steps, sizes)

    def left(self, r: Tensor, h: Tensor) -> Tensor:
        """The direction for a residual, from features of the full grid."""
        y = self.leave(self.after(h))
        return r + y if self.options.architecture == "recursive" else y

    def _below(self, h: Tensor) -> Tensor:
        """``h`` with what the coarser grids add."""
        steps = self.pooled(h.shape[2:])
        if max(steps) == 1:
            return h
        return self.joined(h, self.coarse(self.pool(h, steps)), steps)

    def narrowed(self, share: float) -> "DirectionNetwork":
        """A network without a share of the channels, those of the smallest weights; to be trained again.

        Half of the channels are a quarter of the work. See `learnsolve.training.narrowing.narrowed`.

        Parameters
        ----------
        share : float
            In (0, 1), of the channels along the network, and of those inside of each pair of convolutions.

        Raises
        ------
        ValueError
            The share is not in (0, 1), or there is but one channel.

        Examples
        --------
        >>> NetworkOptions(dims=2, channels=16).build().narrowed(0.75).options.channels
        4
        """
        example = torch.ones(1, 1, *[2 * self.options.coarsest] * self.options.dims)
        example = example.to(next(self.parameters()))
        cut = narrowed(self, example, share)
        small = replace(self.options, channels=len(cut.get_parameter("gain"))).build().to(example)
        small.load_state_dict(cut.state_dict())
        return small

    @property
    def metadata(self) -> dict[str, Any]:
        """What a file of weights says about the network."""
        return asdict(self.options)


def _enlarged(h: Tensor, steps: list[int], sizes: torch.Size) -> Tensor:
    """Each cell repeated along the axes that were pooled."""
    for axis, (step, size) in enumerate(zip(steps, sizes, strict=True)):
        if step == 2:
            h = h.repeat_interleave(2, axis + 2).narrow(axis + 2, 0, size)
    return h
