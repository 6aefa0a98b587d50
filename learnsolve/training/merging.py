"""Averages of networks, made only where the loss on data held out of the training allows it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from learnsolve.training.connectivity import Loss, averaged, judged, layers_of, must_fit
from learnsolve.training.matching import match, permuted


@dataclass(frozen=True)
class MergeReport:
    """What an average is made of, and what it costs.

    Attributes
    ----------
    barrier : float
        The loss of the average above the weighted mean of the losses of the networks.
    loss : float
        Of the average; where no layer was averaged, of the first network.
    losses : tuple of float
        Of the networks.
    weights : tuple of float
        Of the networks; they sum to one.
    layers : tuple of str
        Those that were averaged; all others are the first network's.
    layer_barriers : dict of str to float
        What each layer by itself would cost, where that was asked for.
    """

    barrier: float
    loss: float
    losses: tuple[float, ...]
    weights: tuple[float, ...]
    layers: tuple[str, ...]
    layer_barriers: dict[str, float]


class MergeError(ValueError):
    """An average is worse than was accepted; ``report`` says by how much."""

    def __init__(self, report: MergeReport, accept: float) -> None:
        super().__init__(report, accept)
        self.report = report
        self.accept = accept

    def __str__(self) -> str:
        found = f"the barrier of the average is {self.report.barrier:.3g}"
        if not self.report.layers:
            found = f"the least barrier of a layer is {min(self.report.layer_barriers.values()):.3g}"
        losses = ", ".join(f"{loss:.3g}" for loss in self.report.losses)
        return (
            f"{found}, and at most {self.accept:.3g} is accepted; the losses of the networks are {losses}. "
            "Align them, average fewer layers with layers='auto', or let them part later in the training"
        )


def merge(
    networks: Sequence[nn.Module],
    *,
    loss: Loss,
    accept: float,
    align: bool = True,
    weights: Sequence[float] | None = None,
    layers: Literal["all", "auto"] = "all",
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, MergeReport]:
    r"""Average networks, unless that raises the loss by more than is accepted.

    The barrier of an average with weights w of networks :math:`\theta_i` is its loss above
    :math:`\sum_i w_i L(\theta_i)`. With ``layers="auto"``, what is averaged are layers whose barrier by
    themselves is accepted: from the least barrier on, each is added if the barrier of all so far is accepted
    too, for layers that cost nothing alone may cost much together.

    What is refused is an error, and not a flag beside a network that who overlooks it would use.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        At least two of the same parameters and buffers. They are left alone.
    loss : callable
        As that of `barrier`, on data held out of the training of all.
    accept : float
        The largest barrier, in units of the loss.
    align : bool
        Bring the units of each network into the order of the first by `match`. For that, ``loss`` must call
        the network with positional arguments. Networks that parted from one late in the training need it
        least.
    weights : sequence of float, optional
        Of the networks, positive; their sum does not matter. By default all are equal.
    layers : {"all", "auto"}
    generator : torch.Generator, optional
        As that of `match`.

    Returns
    -------
    network : torch.nn.Module
        With the buffers averaged too. Where ``loss`` makes statistics anew, do the same with it.
    report : MergeReport

    Raises
    ------
    MergeError
        The barrier is not accepted, or with ``"auto"`` that of no layer.
    ValueError
        Fewer than two networks, or they do not fit; weights, ``accept`` or ``layers`` are not accepted; the
        loss of a network is not finite; or `symmetries` refuses to align.

    Examples
    --------
    A network, and the same with its units in another order:

    >>> from dataclasses import replace
    >>> import torch
    >>> from learnsolve.training.matching import permuted
    >>> from learnsolve.training.merging import MergeError, merge
    >>> from learnsolve.training.symmetries import symmetries
    >>> x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    >>> for parameter in network.parameters():
    ...     _ = parameter.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(parameter.numel()))
    >>> right = network(x).detach()
    >>> units = symmetries(network, x)["0"]
    >>> turned = permuted(network, {"0": replace(units, order=torch.tensor([4, 0, 1, 2, 3]))})
    >>> def loss(network):
    ...     return (network(x) - right).square().mean()
    >>> try:
    ...     merge([network, turned], loss=loss, accept=1e-6, align=False)
    ... except MergeError as refused:
    ...     print(refused.report.barrier > 1e-6)
    True
    >>> merged, report = merge([network, turned], loss=loss, accept=1e-6)
    >>> report.layers, torch.allclose(merged(x), right, atol=1e-5)
    (('0', '2'), True)
    """
    shares = _shares(networks, weights)
    if not accept >= 0:
        raise ValueError(f"accept is {accept}; a number of at least 0 is accepted")
    if layers not in ("all", "auto"):
        raise ValueError(f"layers is {layers!r}; 'all' and 'auto' are accepted")
    for other in networks[1:]:
        must_fit(networks[0], other)
    losses = tuple(judged(network, loss) for network in networks)
    if not all(math.isfinite(value) for value in losses):
        raise ValueError(f"the losses of the networks are {losses}; all must be finite")
    if align:
        example = _called_with(networks[0], loss)
        found = [match(networks[0], other, example, generator=generator) for other in networks[1:]]
        networks = [networks[0], *map(permuted, networks[1:], found)]
    level = sum(share * value for share, value in zip(shares, losses, strict=True))

    def cost(some: Sequence[str]) -> float:
        """The barrier of an average of some layers."""
        value = judged(averaged(networks, shares, layers=some), loss) - level
        return value if math.isfinite(value) else math.inf

    chosen, alone = list(layers_of(networks[0])), {}
    if layers == "auto":
        alone = {layer: cost([layer]) for layer in chosen}
        chosen = []
        for layer in sorted(alone, key=alone.__getitem__):
            if alone[layer] <= accept and cost([*chosen, layer]) <= accept:
                chosen.append(layer)
    barrier = cost(chosen)
    report = MergeReport(barrier, level + barrier, losses, shares, tuple(chosen), alone)
    if not chosen or barrier > accept:
        raise MergeError(report, accept)
    return averaged(networks, shares, layers=chosen), report


def _shares(networks: Sequence[nn.Module], weights: Sequence[float] | None) -> tuple[float, ...]:
    """Weights that sum to one."""
    if len(networks) < 2:
        raise ValueError(f"there are {len(networks)} networks; at least 2 are merged")
    given = [1.0] * len(networks) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(networks) or not all(0 < weight < math.inf for weight in given):
        raise ValueError(f"weights are {given}; {len(networks)} positive numbers are accepted")
    return tuple(weight / sum(given) for weight in given)


def _called_with(network: nn.Module, loss: Loss) -> tuple[Any, ...]:
    """What a loss calls a network with, the first time."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    probe = copy.deepcopy(network)
    probe.register_forward_pre_hook(lambda _, args, named: calls.append((args, named)), with_kwargs=True)
    judged(probe, loss)
    if not calls or calls[0][1]:
        raise ValueError(
            "loss does not call the network, or names its arguments, and does not show what it takes: align "
            "by match and permuted, and merge with align=False"
        )
    return calls[0][0]
