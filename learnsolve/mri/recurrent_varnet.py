"""RecurrentVarNet: unrolled descent in k-space, each step's correction from a recurrent network."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learnsolve.mri.coils import kspace_of, rss
from learnsolve.mri.frame import Frame
from learnsolve.mri.model import noise_level
from learnsolve.mri.rows import correction
from learnsolve.mri.unet import UNet

# Channels and dilations of what makes the first hidden states, of which the last three are seen.
PARTS = ("weight", "bias")
INITIAL_CHANNELS, DILATIONS, SEEN = (32, 32, 64, 64), (1, 1, 2, 4), 3


@dataclass(frozen=True)
class RecurrentVarNetOptions:
    r"""Sizes of a `RecurrentVarNet`.

    Parameters
    ----------
    steps : int
        T, of the descent.
    hidden : int
        Channels of a hidden state.
    layers : int
        Hidden states of a step.
    shared : bool
        All steps have the same weights.
    initialiser : bool
        The first hidden states come from a network, and are not zero.
    refine : bool
        The sensitivities are refined by a U-Net.
    percentile : float
        K-space is divided by that percentile of its magnitudes, zeros of what was not sampled among them.
    coupling : float
        If positive, each step adds, where nothing is sampled, what `learnsolve.mri.rows.correction` finds for
        the corrected image, with a :math:`\rho` of so many times the variance of a sample's noise over the
        mean energy of a pixel. Zero is the paper's network.

    Raises
    ------
    ValueError
        A number is out of range.

    Examples
    --------
    >>> network = RecurrentVarNetOptions(steps=2, hidden=8, layers=2).build()
    >>> sum(parameter.numel() for parameter in network.parameters())
    556664
    """

    steps: int = 8
    hidden: int = 128
    layers: int = 4
    shared: bool = False
    initialiser: bool = True
    refine: bool = True
    percentile: float = 99.0
    coupling: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a positive number is accepted")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}; a number above 0, at most 100, is accepted")
        if not 0 <= self.coupling < float("inf"):
            raise ValueError(f"coupling is {self.coupling}; a number that is not negative is accepted")

    def build(self) -> "RecurrentVarNet":
        """The network, of random weights."""
        return RecurrentVarNet(self)


def _convolution(inputs: int, outputs: int, width: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, with the rim repeated outside."""
    pad = dilation * (width // 2)
    return nn.Sequential(nn.ReplicationPad2d(pad), nn.Conv2d(inputs, outputs, width, dilation=dilation))


class ConvGRU(nn.Module):
    """Convolutions, each followed by a gated recurrent unit over pixels.

    Parameters
    ----------
    hidden, layers : int

    References
    ----------
    Yiasemis, Sonke, Sanchez and Teuwen, *Recurrent variational network: a deep learning inverse problem
    solver applied to the task of accelerated MRI reconstruction*, CVPR 2022, section 3; Lonning and others,
    *Recurrent inference machines for reconstructing heterogeneous MRI data*, Medical Image Analysis 53,
    2019.

    Examples
    --------
    >>> unit = ConvGRU(4, 2)
    >>> correction, states = unit(torch.zeros(1, 2, 8, 8), None)
    >>> correction.shape, len(states), states[0].shape
    (torch.Size([1, 2, 8, 8]), 2, torch.Size([1, 4, 8, 8]))
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.hidden = hidden
        blocks = []
        for layer in range(layers + 1):
            width, dilation = (5, 1) if layer == 0 else (3, 2) if layer == 1 else (3, 1)
            inputs, outputs = 2 if layer == 0 else hidden, 2 if layer == layers else hidden
            blocks.append(_convolution(inputs, outputs, width, dilation))
        self.blocks = nn.ModuleList(blocks)
        gates: dict[str, list[nn.Conv2d]] = {"reset": [], "update": [], "proposal": []}
        for name, bias in (("reset", -1.0), ("update", 0.0), ("proposal", 0.0)):
            for _ in range(layers):
                gate = nn.Conv2d(2 * hidden, hidden, 1)
                nn.init.orthogonal_(gate.weight)
                assert gate.bias is not None
                nn.init.constant_(gate.bias, bias)
                gates[name].append(gate)
        self.reset, self.update, self.proposal = (nn.ModuleList(gates[name]) for name in gates)

    def forward(self, x: Tensor, states: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """What an image (N, 2, height, width) is corrected by, and the next states of as many pixels."""
        if states is None:
            states = [x.new_zeros(len(x), self.hidden, *x.shape[2:]) for _ in self.reset]
        found = []
        for block, reset, update, proposal, h in zip(
            self.blocks[:-1], self.reset, self.update, self.proposal, states, strict=True
        ):
            c = torch.relu(block(x))
            both = torch.cat([c, h], 1)
            # Both gates see the same, so that one convolution makes them.
            weight, bias = (torch.cat([getattr(gate, part) for gate in (update, reset)]) for part in PARTS)
            u, r = torch.sigmoid(nn.functional.conv2d(both, weight, bias)).chunk(2, 1)
            new = torch.tanh(proposal(torch.cat([c, h * r], 1)))
            h = h * (1 - u) + new * u
            found.append(h)
            x = torch.relu(h)
        return self.blocks[-1](x), found


class Initialiser(nn.Module):
    """The first hidden states, from the k-space of the coils' combination.

    Parameters
    ----------
    hidden, layers : int

    Examples
    --------
    >>> states = Initialiser(4, 2)(torch.zeros(1, 2, 8, 8))
    >>> len(states), states[0].shape
    (2, torch.Size([1, 4, 8, 8]))
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        inputs = (2, *INITIAL_CHANNELS[:-1])
        sizes = zip(inputs, INITIAL_CHANNELS, DILATIONS, strict=True)
        self.blocks = nn.ModuleList([_convolution(a, b, 3, dilation) for a, b, dilation in sizes])
        seen = sum(INITIAL_CHANNELS[-SEEN:])
        self.heads = nn.ModuleList([nn.Conv2d(seen, hidden, 1) for _ in range(layers)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """States (N, hidden, height, width) from k-space (N, 2, height, width)."""
        features = []
        for block in self.blocks:
            x = torch.relu(block(x))
            features.append(x)
        seen = torch.cat(features[-SEEN:], 1)
        return [torch.relu(head(seen)) for head in self.heads]


class Step(nn.Module):
    """A step of the descent.

    Parameters
    ----------
    hidden, layers : int

    Examples
    --------
    >>> sum(parameter.numel() for parameter in Step(128, 4).parameters())
    846339
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.unit = ConvGRU(hidden, layers)

    def forward(
        self,
        y: Tensor,
        samples: Tensor,
        maps: Tensor,
        frame: Frame,
        states: list[Tensor] | None,
        add: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The next k-space and states; ``add`` is what the data wants of an image."""
        image = (maps.conj() * frame.images(y)).sum(-3)
        change, states = self.unit(_two(frame.seen(image)), states)
        # Convolutions may be of mixed precision; transforms are not.
        w = frame.origin(_one(change.to(image.real.dtype)))
        learned = frame.kspace(maps * w.unsqueeze(-3))
        if add is not None:
            wanted = frame.kspace(maps * add(image + w).unsqueeze(-3))
            learned = learned + torch.where(frame.sampled, 0, wanted)
        return y - self.alpha * torch.where(frame.sampled, y - samples, 0) + learned, states


def _two(image: Tensor) -> Tensor:
    """Real and imaginary part as channels: (N, height, width) to (N, 2, height, width)."""
    return torch.view_as_real(image).movedim(-1, 1).contiguous()


def _one(channels: Tensor) -> Tensor:
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


class RecurrentVarNet(nn.Module):
    r"""Images from undersampled k-space by T steps of a learned descent.

    .. math:: y_{t+1} = y_t - \alpha_t U (y_t - \tilde y) + F (S w_t),
        \qquad w_t, h_{t+1} = G_t(S^H F^{-1} y_t, h_t)

    with the mask :math:`U`, the Fourier transform :math:`F`, the sensitivities :math:`S`, and a recurrent
    network :math:`G_t`. The image is the root of the sum of squares of the last k-space's coils.

    Parameters
    ----------
    options : RecurrentVarNetOptions
        Whose ``build`` makes it, too.

    References
    ----------
    Yiasemis, Sonke, Sanchez and Teuwen, *Recurrent variational network: a deep learning inverse problem
    solver applied to the task of accelerated MRI reconstruction*, CVPR 2022, section 3.

    Examples
    --------
    >>> network = RecurrentVarNetOptions(steps=1, hidden=4, layers=1, refine=False).build()
    >>> k = torch.ones(1, 3, 8, 6, dtype=torch.complex64)
    >>> network(k, torch.ones(8, 6, dtype=torch.bool), k / 3**0.5).shape
    torch.Size([1, 8, 6])
    """

    def __init__(self, options: RecurrentVarNetOptions) -> None:
        super().__init__()
        self.options = options
        hidden, layers = options.hidden, options.layers
        own = 1 if options.shared else options.steps
        self.blocks = nn.ModuleList([Step(hidden, layers) for _ in range(own)])
        self.initialiser = Initialiser(hidden, layers) if options.initialiser else None
        self.refinement = UNet() if options.refine else None

    @property
    def metadata(self) -> dict[str, object]:
        """Options, as JSON can hold them."""
        return asdict(self.options)

    def forward(
        self,
        kspace: Tensor,
        sampled: Tensor,
        maps: Tensor,
        *,
        centred: bool = True,
        start: Tensor | None = None,
        save_memory: bool = False,
        as_kspace: bool = False,
    ) -> Tensor:
        """Images of a batch.

        Parameters
        ----------
        kspace : (N, coils, height, width) complex Tensor
        sampled : bool Tensor
            Broadcasts to k-space; of networks with a coupling, one for all.
        maps : (N, coils, height, width) complex Tensor
        centred : bool
            The origin is at ``n // 2``, otherwise at 0.
        start : (N, height, width) complex Tensor, optional
            An image, by whose k-space the descent begins where nothing is sampled; by default by zero.
        save_memory : bool
            Of each step only the ends are kept for the gradient, and the rest is computed again.
        as_kspace : bool
            K-space is returned, not images.

        Returns
        -------
        (N, height, width) real Tensor, or (N, coils, height, width) complex Tensor

        Raises
        ------
        ValueError
            Shapes or dtypes do not fit.
        """
        if kspace.ndim != 4 or not kspace.is_complex() or maps.shape != kspace.shape or not maps.is_complex():
            found = f"k-space {kspace.dtype} {tuple(kspace.shape)}, maps {maps.dtype} {tuple(maps.shape)}"
            raise ValueError(f"{found}: complex (N, coils, height, width) are accepted, both of one shape")
        if sampled.dtype != torch.bool:
            raise ValueError(f"the mask is of {sampled.dtype}; booleans are accepted")
        samples = torch.where(sampled, kspace, 0)
        magnitudes = samples.abs().flatten(1)
        place = max(1, round(self.options.percentile / 100 * magnitudes.shape[1]))
        scale = magnitudes.kthvalue(place).values[:, None, None, None]
        scale = torch.where(scale > 0, scale, magnitudes.amax(1)[:, None, None, None].clamp_min(1e-30))
        samples = samples / scale
        frame = Frame(sampled, centred)
        shift = self._shift(samples, sampled, centred) if self.options.coupling else None
        maps, samples = frame.origin(self._refined(maps)), frame.enter(samples)
        states = None
        if self.initialiser is not None:
            image = frame.seen((maps.conj() * frame.images(samples)).sum(-3))
            states = self.initialiser(_two(kspace_of(image.unsqueeze(-3), centred=centred)[:, 0]))
        add = None if shift is None else correction(frame, samples, maps, shift)
        y = samples
        if start is not None:
            begun = frame.origin(start / scale[..., 0])
            y = torch.where(frame.sampled, samples, frame.kspace(maps * begun.unsqueeze(-3)))
        for t in range(self.options.steps):
            step = self.blocks[t % len(self.blocks)]
            arguments = (y, samples, maps, frame, states, add)
            y, states = checkpoint(step, *arguments, use_reentrant=False) if save_memory else step(*arguments)
        return frame.leave(y) * scale if as_kspace else frame.seen(rss(frame.images(y))) * scale[..., 0]

    def _shift(self, samples: Tensor, sampled: Tensor, centred: bool) -> Tensor:
        """How near a correction must stay to each image: by the noise, over the mean energy of a pixel."""
        if sampled.ndim > 2:
            raise ValueError(
                f"the mask has shape {tuple(sampled.shape)}; one for all, (height, width), is accepted"
            )
        where = sampled.expand(samples.shape[-2:])
        moved, there = samples.detach(), where
        if not centred:
            moved, there = (torch.fft.fftshift(part, (-2, -1)) for part in (moved, where))
        noise = samples.new_tensor([noise_level(one, there) for one in moved], dtype=samples.real.dtype)
        energy = moved.abs().square().sum((-3, -2, -1)) / where.numel()
        return (self.options.coupling * noise.square() / energy.clamp_min(1e-30))[:, None, None].clamp_min(
            1e-4
        )

    def _refined(self, maps: Tensor) -> Tensor:
        if self.refinement is not None:
            refined = self.refinement(_two(maps.flatten(0, 1))).to(maps.real.dtype)
            maps = _one(refined).reshape(maps.shape)
        return maps / rss(maps).clamp_min(1e-12).unsqueeze(-3)
