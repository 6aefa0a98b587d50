"""Forecasts by Chimera: a linear part, and what state spaces on the grid of variates and times add to it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.forecasting.ridge import Ridge
from learnsolve.sequence.layers.chimera import Chimera
from learnsolve.training.shipped import load_network, save_network

KIND = "forecast"


@dataclass(frozen=True)
class ChimeraOptions:
    """What a `ChimeraForecaster` is made of.

    Parameters
    ----------
    variates, look_back, horizon : int
    patch : int
        Times that make one place of the grid; of the look-back the last whole patches count.
    width, layers : int
    state : int
        Size of each channel's states.
    expand : float
        Inner channels of a layer, by width.
    coupled, groups
        As of `learnsolve.sequence.layers.chimera.Chimera`.
    dropout : float
        Of what a layer adds, and of what is read in the end.
    linear : {"fixed", "learned"}
        Whether the linear part stays as it began.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> from learnsolve.forecasting import ChimeraOptions
    >>> ChimeraOptions(variates=3, look_back=48, horizon=12, patch=12).build().parameters_count
    5644
    """

    variates: int
    look_back: int
    horizon: int
    patch: int = 24
    width: int = 16
    layers: int = 1
    state: int = 4
    expand: float = 1.0
    coupled: bool = True
    groups: int = 0
    dropout: float = 0.2
    linear: str = "fixed"

    def __post_init__(self) -> None:
        if min(self.variates, self.look_back, self.horizon, self.patch, self.layers) < 1:
            raise ValueError(f"{self}; variates, look_back, horizon, patch and layers must be positive")
        if self.patch > self.look_back:
            raise ValueError(f"patch is {self.patch}; up to the look-back, {self.look_back}, is accepted")
        if not 0 <= self.dropout < 1 or self.linear not in ("fixed", "learned"):
            raise ValueError(
                f"dropout is {self.dropout} and linear {self.linear!r}; a share in [0, 1), and fixed or "
                "learned, are accepted"
            )

    def build(self) -> "ChimeraForecaster":
        """The network, with random weights, and a linear part that repeats the last value."""
        return ChimeraForecaster(self)


class ChimeraEncoder(nn.Module):
    """Windows cut into patches, and layers of `Chimera` over variates and patches.

    Parameters
    ----------
    variates, patch, width, layers : int
    state, expand, coupled, groups
        As of `learnsolve.sequence.layers.chimera.Chimera`.
    dropout : float

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting.chimera import ChimeraEncoder
    >>> ChimeraEncoder(3, 4, width=8)(torch.zeros(2, 3, 20)).shape
    torch.Size([2, 3, 5, 8])
    """

    def __init__(
        self,
        variates: int,
        patch: int,
        *,
        width: int = 16,
        layers: int = 1,
        state: int = 4,
        expand: float = 1.0,
        coupled: bool = True,
        groups: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.enter = nn.Linear(patch, width)
        self.variate = nn.Parameter(0.5 * torch.randn(variates, 1, width))
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(layers))
        self.mixers = nn.ModuleList(
            Chimera(width, state, expand=expand, coupled=coupled, groups=groups) for _ in range(layers)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Of (B, V, L) places (B, V, L // patch, width), of the last whole patches."""
        whole = x.shape[-1] // self.patch * self.patch
        h = self.enter(x[..., x.shape[-1] - whole :].unflatten(-1, (-1, self.patch))) + self.variate
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            h = h + self.drop(mixer(norm(h))[0])
        return h


class ChimeraForecaster(nn.Module):
    r"""A linear forecast of each variate, and what a `ChimeraEncoder` of all variates adds.

    .. math:: \hat y = x_L + W^T (x - x_L) + \sigma \, W_o \, \mathrm{enc}((x - x_L) / \sigma)

    :math:`x_L` is the last value and :math:`\sigma` the deviation of a window. :math:`W` begins at the ridge
    solution and :math:`W_o` at zero: before the first step the forecast is that of `Ridge`.

    Parameters
    ----------
    options : ChimeraOptions

    References
    ----------
    Behrouz, Santacatterina and Zabih, *Chimera: effectively modeling multivariate time series with
    2-dimensional state space models*, NeurIPS 2024, for the layers.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting import ChimeraOptions
    >>> network = ChimeraOptions(variates=3, look_back=48, horizon=12, patch=12).build()
    >>> network(torch.ones(2, 3, 48)).unique().tolist()
    [1.0]
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, options: ChimeraOptions) -> None:
        super().__init__()
        self.options = options
        o = options
        self.linear = nn.Parameter(torch.zeros(o.look_back, o.horizon), requires_grad=o.linear == "learned")
        self.encoder = ChimeraEncoder(
            o.variates, o.patch, width=o.width, layers=o.layers, state=o.state, expand=o.expand,
            coupled=o.coupled, groups=o.groups, dropout=o.dropout,
        )  # fmt: skip
        self.drop = nn.Dropout(o.dropout)
        self.out = nn.Linear(o.width, o.horizon)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("mean", torch.zeros(o.variates))
        self.register_buffer("scale", torch.ones(o.variates))

    @property
    def metadata(self) -> dict[str, Any]:
        """The options, as JSON holds them."""
        return asdict(self.options)

    @property
    def parameters_count(self) -> int:
        """How many numbers are learned."""
        return sum(one.numel() for one in self.parameters() if one.requires_grad)

    @torch.no_grad()
    def begin(self, line: Ridge) -> None:
        """Take a line for the linear part.

        Raises
        ------
        ValueError
            It is of another look-back or horizon.
        """
        if line.weights.shape != self.linear.shape:
            raise ValueError(
                f"the line has shape {tuple(line.weights.shape)}; {tuple(self.linear.shape)} is accepted"
            )
        self.linear.copy_(line.weights)

    @torch.no_grad()
    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Note what values were divided by, and what was taken off before, for `forecast`."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Of standardised windows (B, V, L) what follows, (B, V, H).

        Raises
        ------
        ValueError
            ``x`` has another shape.
        """
        if x.ndim != 3 or x.shape[1:] != (self.options.variates, self.options.look_back):
            wanted = (self.options.variates, self.options.look_back)
            raise ValueError(f"x has shape {tuple(x.shape)}; (B, {wanted[0]}, {wanted[1]}) is accepted")
        last = x[..., -1:]
        moved = x - last
        spread = moved.std(-1, keepdim=True, correction=0) + 1e-2
        h = self.encoder(moved / spread)
        added = self.out(self.drop(h[:, :, -1]))
        found: Tensor = last + moved @ self.linear + spread * added
        return found

    @torch.no_grad()
    def forecast(self, values: Tensor) -> Tensor:
        """Of values (V, T) in their own units, T at least the look-back, what follows, (V, H).

        Raises
        ------
        ValueError
            There are too few times, or other variates.
        """
        recent = values[:, -self.options.look_back :]
        mean, scale = self.mean.unsqueeze(1), self.scale.unsqueeze(1)
        found: Tensor = self((recent.to(mean) - mean).div(scale).unsqueeze(0))[0] * scale + mean
        return found


def load(weights: str | Path) -> ChimeraForecaster:
    """The network of a file that `save` wrote.

    Raises
    ------
    WeightsError
        The file is damaged or holds something else.
    FileNotFoundError
        There is no such file.
    """
    found: ChimeraForecaster = load_network(KIND, weights, lambda **o: ChimeraOptions(**o).build())
    return found


def save(path: str | Path, network: ChimeraForecaster, **metadata: Any) -> None:
    """Write a network, with what it takes to build it again."""
    save_network(path, KIND, network, **metadata)
