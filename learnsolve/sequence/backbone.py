"""A model of sequences: embedding, blocks of a mixing layer and an MLP, and a head."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.sequence.layers import (
    LSSL,
    LSTM,
    TCNCA,
    Attention,
    DeltaNet,
    GatedLinearAttention,
    LightNet,
    LinearAttention,
    Linformer,
    Longformer,
    Mega,
    MixtureOfMemories,
    Performer,
    Reformer,
    SeqBoat,
)
from learnsolve.training.shipped import load_network, save_network

KIND = "sequence"


@dataclass(frozen=True)
class BackboneOptions:
    """What a `Backbone` is made of.

    Parameters
    ----------
    vocabulary : int
        Of tokens; zero for sequences of vectors.
    classes : int
        Of answers after each token.
    width, layers, heads : int
    mixers : tuple of str
        Of `MIXERS`, one for each layer by turns: ``("deltanet", "window")`` alternates.
    mlp : float
        Hidden width of the MLPs over the width; zero for none.
    features : int
        Of the vectors, where the vocabulary is zero.
    embedding : float
        Standard deviation of the tokens' vectors at first: what layers add to large ones is little.
    expand_k, expand_v, beta_max, beta_slope, conv, gated, householders
        As of `DeltaNet`; ``beta_max`` of "memories" and "gated-linear-attention" too.
    window : int
        Of the mixers "window", "seqboat", "longformer" and "reformer", the chunks of "chunks", "mega" and
        "tcnca", and the blocks of "linformer", of which a quarter is left.
    averages : int
        Of the mixers "mega" and "seqboat", for each channel.
    taps, levels, dilation : int
        Of the convolutions of "tcnca" and "plain-tcnca".
    state : int
        Of the mixer "lssl", for each channel.
    memories, active
        Of the mixer "memories", as of `MixtureOfMemories`.
    balance : float
        What the imbalance of memories weighs in the loss.

    Raises
    ------
    ValueError
        A number is out of range, or a mixer is unknown.

    Examples
    --------
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> BackboneOptions(vocabulary=2, classes=2, width=16).build().parameters_count
    4806
    """

    vocabulary: int
    classes: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    mixers: tuple[str, ...] = ("deltanet",)
    mlp: float = 2.0
    features: int = 0
    embedding: float = 0.02
    expand_k: float = 1.0
    expand_v: float = 1.0
    beta_max: float = 1.0
    beta_slope: float = 1.0
    conv: int = 4
    gated: bool = False
    householders: int = 1
    window: int = 64
    averages: int = 16
    taps: int = 17
    levels: int = 4
    dilation: int = 8
    state: int = 32
    memories: int = 4
    active: int = 2
    balance: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixers", tuple(self.mixers))
        unknown = [name for name in self.mixers if name not in MIXERS]
        if unknown or not self.mixers:
            raise ValueError(f"mixers are {self.mixers}; one or more of {', '.join(MIXERS)} are accepted")
        if min(self.width, self.layers, self.heads, self.classes) < 1 or min(self.mlp, self.embedding) < 0:
            raise ValueError(
                f"{self}; width, layers, heads and classes must be positive, mlp and embedding at least zero"
            )
        if (self.vocabulary < 1) == (self.features < 1):
            raise ValueError(
                f"vocabulary is {self.vocabulary} and features {self.features}; one of them must be positive"
            )

    def build(self) -> "Backbone":
        """The network, with random weights."""
        return Backbone(self)


MIXERS: dict[str, Callable[[BackboneOptions], nn.Module]] = {
    "deltanet": lambda o: DeltaNet(
        o.width, o.heads, expand_k=o.expand_k, expand_v=o.expand_v, conv=o.conv, beta_max=o.beta_max,
        beta_slope=o.beta_slope, gated=o.gated, householders=o.householders,
    ),
    "attention": lambda o: Attention(o.width, o.heads),
    "window": lambda o: Attention(o.width, o.heads, window=o.window),
    "chunks": lambda o: Attention(o.width, o.heads, chunk=o.window),
    "mega": lambda o: Mega(o.width, o.window, averages=o.averages),
    "tcnca": lambda o: TCNCA(o.width, o.window, taps=o.taps, levels=o.levels, dilation=o.dilation),
    "plain-tcnca": lambda o: TCNCA(
        o.width, o.window, taps=o.taps, levels=o.levels, dilation=o.dilation, plain=True
    ),
    "seqboat": lambda o: SeqBoat(o.width, o.window, averages=o.averages),
    "longformer": lambda o: Longformer(o.width, o.heads, o.window),
    "reformer": lambda o: Reformer(o.width, o.heads, o.window),
    "linformer": lambda o: Linformer(o.width, o.heads, o.window, max(1, o.window // 4)),
    "performer": lambda o: Performer(o.width, o.heads),
    "memories": lambda o: MixtureOfMemories(
        o.width, o.heads, memories=o.memories, active=o.active, conv=o.conv, beta_max=o.beta_max,
        rule="gated-delta" if o.gated else "delta",
    ),
    "lightnet": lambda o: LightNet(o.width, o.heads),
    "gated-linear-attention": lambda o: GatedLinearAttention(o.width, o.heads, beta_max=o.beta_max),
    "linear-attention": lambda o: LinearAttention(o.width, o.heads),
    "lssl": lambda o: LSSL(o.width, o.state),
    "lstm": lambda o: LSTM(o.width),
}  # fmt: skip


class _Block(nn.Module):
    """Residual steps: mixing over time, then an MLP for each token."""

    def __init__(self, options: BackboneOptions, mixer: nn.Module) -> None:
        super().__init__()
        self.norm, self.mixer = nn.RMSNorm(options.width), mixer
        wide, hidden = options.width, round(options.mlp * options.width)
        self.mlp: nn.Module | None = None
        if hidden:
            inner = nn.Linear(wide, hidden), nn.SiLU(), nn.Linear(hidden, wide)
            self.mlp = nn.Sequential(nn.RMSNorm(wide), *inner)

    def forward(self, x: Tensor, state: Any, cu_seqlens: Tensor | None) -> tuple[Tensor, Any]:
        mixed, state = self.mixer(self.norm(x), state, cu_seqlens=cu_seqlens)
        x = x + mixed
        return (x if self.mlp is None else x + self.mlp(x)), state


class Backbone(nn.Module):
    """What comes after each token: logits, in parallel or one token at a time.

    Parameters
    ----------
    options : BackboneOptions

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.backbone import BackboneOptions
    >>> network = BackboneOptions(vocabulary=5, classes=5, width=8).build()
    >>> logits, states = network(torch.zeros(1, 7, dtype=torch.int64))
    >>> logits.shape, network.generate(torch.zeros(1, 3, dtype=torch.int64), 4).shape
    (torch.Size([1, 7, 5]), torch.Size([1, 4]))
    """

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.options = options
        self.enter: nn.Module
        if options.vocabulary:
            self.enter = nn.Embedding(options.vocabulary, options.width)
            nn.init.normal_(self.enter.weight, std=options.embedding)
        else:
            self.enter = nn.Linear(options.features, options.width)
        names = [options.mixers[number % len(options.mixers)] for number in range(options.layers)]
        self.blocks = nn.ModuleList(_Block(options, MIXERS[name](options)) for name in names)
        self.head = nn.Sequential(nn.RMSNorm(options.width), nn.Linear(options.width, options.classes))

    @property
    def metadata(self) -> dict[str, Any]:
        """The options, as JSON holds them."""
        return {
            name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self.options).items()
        }

    def balance(self) -> Tensor | float:
        """How unevenly memories were used in the last call, weighed; zero where there are none."""
        found = [block.mixer.balance for block in self.blocks if isinstance(block.mixer, MixtureOfMemories)]
        return self.options.balance * torch.stack(found).mean() if found else 0.0

    def activation(self) -> list[float]:
        """Share of the tokens that were active in the last call, of each layer that lets tokens choose.

        Examples
        --------
        >>> import torch
        >>> from learnsolve.sequence.backbone import BackboneOptions
        >>> network = BackboneOptions(2, 2, width=8, mixers=("seqboat", "lstm")).build()
        >>> network(torch.zeros(1, 5, dtype=torch.int64))[0].shape, len(network.activation())
        (torch.Size([1, 5, 2]), 1)
        """
        return [block.mixer.rate for block in self.blocks if isinstance(block.mixer, SeqBoat)]

    @property
    def parameters_count(self) -> int:
        """How many numbers are learned."""
        return sum(one.numel() for one in self.parameters())

    def forward(
        self, tokens: Tensor, states: Sequence[Any] | None = None, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Logits and states after tokens.

        Parameters
        ----------
        tokens : (B, T) int64 Tensor, or (B, T, features) Tensor
        states : list, optional
            Of an earlier call, which this one goes on from.
        cu_seqlens : (N + 1,) int Tensor, optional
            Where packed sequences begin and end; then B is 1.

        Returns
        -------
        logits : (B, T, classes) Tensor
        states : list
            One for each layer.

        Raises
        ------
        ValueError
            A token is not in the vocabulary, or shapes do not fit.
        """
        options = self.options
        if options.vocabulary:
            if tokens.ndim != 2 or tokens.dtype != torch.int64:
                found = f"{tokens.dtype} of shape {tuple(tokens.shape)}"
                raise ValueError(f"tokens are {found}; int64 of shape (B, T) are accepted")
            if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < options.vocabulary:
                found = f"{int(tokens.min())} to {int(tokens.max())}"
                raise ValueError(f"tokens are {found}; 0 to {options.vocabulary - 1} are accepted")
        elif tokens.ndim != 3 or tokens.shape[2] != options.features:
            raise ValueError(
                f"vectors have shape {tuple(tokens.shape)}; (B, T, {options.features}) is accepted"
            )
        x = self.enter(tokens)
        after = []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks), strict=True):
            x, state = block(x, state, cu_seqlens)
            after.append(state)
        return self.head(x), after

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What follows: (B, count) tokens, each from the states that the last one left.

        Parameters
        ----------
        tokens : (B, T) int64 Tensor
            At least one of each.
        count : int
        temperature : float
            Zero for the likeliest.
        generator : torch.Generator, optional

        Raises
        ------
        ValueError
            There is nothing to go on from, or classes are no tokens.
        """
        kinds, classes = self.options.vocabulary, self.options.classes
        if classes != kinds or tokens.ndim != 2 or tokens.shape[1] < 1:
            raise ValueError(
                f"there are {classes} classes, {kinds} kinds of tokens, and tokens of shape "
                f"{tuple(tokens.shape)}; as many classes as kinds, and (B, T) of one or more, are accepted"
            )
        logits, states = self(tokens)
        found = []
        for _ in range(count):
            last = logits[:, -1]
            if temperature > 0:
                chances = torch.softmax(last / temperature, -1)
                following = torch.multinomial(chances, 1, generator=generator)
            else:
                following = last.argmax(-1, keepdim=True)
            found.append(following)
            logits, states = self(following, states)
        return torch.cat(found, 1) if found else tokens[:, :0]


def load(weights: str | Path) -> Backbone:
    """The network of a file that `save` wrote.

    Raises
    ------
    WeightsError
        The file is damaged or holds something else.
    FileNotFoundError
        There is no such file.
    """
    found: Backbone = load_network(KIND, weights, lambda **options: BackboneOptions(**options).build())
    return found


def save(path: str | Path, network: Backbone, **metadata: Any) -> None:
    """Write a network, with what it takes to build it again."""
    save_network(path, KIND, network, **metadata)
