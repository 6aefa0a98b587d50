"""Pruning by masks, once or in cycles with training, and activate-while-pruning."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from learnsolve.training.criteria import (
    Criterion,
    Magnitude,
    Structured,
    alive,
    masked_weights,
    prune_lowest,
)
from learnsolve.training.masks import density, mask_weights, masks_of, values_but_masks

Scope = Literal["global", "layer"]


@dataclass(frozen=True)
class ActivateWhilePruning:
    r"""AP: of the weights that are to go, a part is taken from the negative ones that have moved least.

    A companion of any criterion. Where that would prune a share ``p`` of the ``n`` weights that are left, it
    prunes the share ``p - q`` alone; then, of all negative weights that are still left, the ``q n`` with the
    smallest :math:`|w - w_0|` go, :math:`w_0` being the value at the start of the cycle. Without negative
    weights that lead to it, a ReLU unit is dead for fewer inputs. Where there are fewer negative weights
    than ``q n``, fewer go.

    Parameters
    ----------
    share : float
        The share ``q`` of the weights that are left at the start of the pruning.

    Raises
    ------
    ValueError
        ``share`` is not in (0, 1).

    References
    ----------
    Liu, Ghosh, Tan and Motani, *AP: Selective Activation for De-sparsifying Pruned Networks*, TMLR 2023.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.pruning import ActivateWhilePruning, prune
    >>> network = torch.nn.Linear(5, 1)
    >>> start = {"weight": torch.tensor([[0.0, 0.0, -4.0, -1.0, 0.0]])}
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[0.1, 2.0, -5.0, -3.0, 4.0]]))
    >>> prune(network, 0.4, companion=ActivateWhilePruning(0.2), start=start)
    0.6
    >>> network.weight.tolist()
    [[0.0, 2.0, 0.0, -3.0, 4.0]]
    """

    share: float = 0.02

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def prune(self, network: nn.Module, start: Mapping[str, Tensor], count: int) -> None:
        """Prune so many weights, in place.

        Parameters
        ----------
        network : torch.nn.Module
            With masks.
        start : mapping of Tensor
            For each masked weight its value at the start of the cycle.
        count : int
            How many.
        """
        masks = masked_weights(network)
        missing = [
            name for name in masks if name not in start or start[name].shape != masks[name].weight.shape
        ]
        if missing:
            raise ValueError(
                f"start has no values of the right shape for {', '.join(missing)}; activate-while-pruning "
                "compares the weights with those at the start of the cycle"
            )
        moved = {
            name: (masked.weight - start[name].to(masked.weight)).abs().where(masked.weight < 0, math.inf)
            for name, masked in masks.items()
        }
        negative = sum(int((masked.weight < 0).sum()) for masked in masks.values())
        prune_lowest(masks, moved, min(count, negative))


def prune(
    network: nn.Module,
    share: float,
    criterion: Criterion | None = None,
    *,
    scope: Scope = "global",
    companion: ActivateWhilePruning | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> float:
    """Prune a share of what is left, in place, by masks on the network.

    The masks are those of `learnsolve.training.masks`: forward passes, `fit` and every optimizer respect
    them, and they survive in the ``state_dict``. `remove_masks` makes plain weights with zeros again. Of
    ``n`` weights, or units, ``round(share * n)`` go, and of each layer the most important one stays.

    Parameters
    ----------
    network : torch.nn.Module
        Gets masks where it has none.
    share : float
        In (0, 1), of the weights, or of the units, that are left.
    criterion : Criterion, optional
        `Magnitude`, the default, `Gradient` or `Structured`.
    scope : {"global", "layer"}
        Whether all layers are compared with each other, or each loses the share by itself.
    companion : ActivateWhilePruning, optional
        Takes over a part of the share.
    start : mapping of Tensor, optional
        What the weights were before training, by their names; the companion needs it.

    Returns
    -------
    float
        The share of the masked weights that is left.

    Raises
    ------
    ValueError
        A share or the scope is not accepted, the network has nothing to prune, or its weights are not finite.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.pruning import prune
    >>> network = torch.nn.Linear(10, 10)
    >>> prune(network, 0.2), prune(network, 0.25)
    (0.8, 0.6)
    """
    criterion = criterion or Magnitude()
    _check(share, scope, companion)
    if companion and start is None:
        raise ValueError("companion needs start, the weights at the start of the cycle")
    mask_weights(network, criterion.weights(network))
    left = sum(int(masked.mask.mask.sum()) for masked in masked_weights(network).values())
    scores = criterion.scores(network)
    broken = [name for name, score in scores.items() if not bool(score.isfinite().all())]
    if broken:
        raise ValueError(f"{', '.join(broken)}: weights or their gradients are not finite")
    masks = {name: masked for name, masked in masks_of(network).items() if name in scores}
    own = share - (companion.share if companion else 0.0)
    for names in [list(scores)] if scope == "global" else [[name] for name in scores]:
        group = {name: masks[name] for name in names}
        pieces = sum(int(alive(masks[name], scores[name]).sum()) for name in names)
        prune_lowest(group, {name: scores[name] for name in names}, round(own * pieces))
    if isinstance(criterion, Structured):
        _mask_along(network, criterion)
    if companion and start is not None:
        companion.prune(network, start, round(companion.share * left))
    return density(network)


@dataclass(frozen=True)
class PruneCycle:
    """What came out of one training among those between prunings.

    Attributes
    ----------
    cycle : int
        Zero for the training before the first pruning.
    density : float
        Share of the masked weights that was left.
    metrics : Any
        What ``train`` returned.
    """

    cycle: int
    density: float
    metrics: Any


def prune_iteratively(
    network: nn.Module,
    train: Callable[[nn.Module, int], Any],
    *,
    cycles: int,
    share: float = 0.2,
    criterion: Criterion | None = None,
    scope: Scope = "global",
    companion: ActivateWhilePruning | None = None,
    rewind: bool = True,
) -> list[PruneCycle]:
    """Train, prune, rewind; and again, in place.

    A cycle trains the network, prunes it, and puts all parameters and buffers but the masks back to what they
    were at its start. Since that is where the next cycle begins, a training is both the second one of a
    cycle, whose result counts, and the first of the next. After the last pruning the network is trained once
    more, so that there are ``cycles + 1`` trainings and the network that is left is a trained one.

    Parameters
    ----------
    network : torch.nn.Module
        Gets masks.
    train : callable
        ``train(network, cycle)``, trains in place and returns what shall be recorded: for example
        ``fit(network, loss, batches, options, validate=validate).metrics``.
    cycles : int
        Prunings.
    share, criterion, scope, companion
        As for `prune`, at each.
    rewind : bool
        If False, training goes on from the weights that are left, and the companion compares with those.

    Returns
    -------
    list of PruneCycle
        One of each training, the dense one first.

    Raises
    ------
    ValueError
        As `prune`, before anything is trained; or ``cycles`` is less than one.

    References
    ----------
    Frankle and Carbin, *The lottery ticket hypothesis: finding sparse, trainable neural networks*, ICLR 2019.
    Renda, Frankle and Carbin, *Comparing rewinding and fine-tuning in neural network pruning*, ICLR 2020, for
    ``rewind=False`` with the whole schedule at each training.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.pruning import prune_iteratively
    >>> network = torch.nn.Linear(10, 10)
    >>> [round(cycle.density, 3) for cycle in prune_iteratively(network, lambda net, cycle: None, cycles=3)]
    [1.0, 0.8, 0.64, 0.51]
    """
    criterion = criterion or Magnitude()
    _check(share, scope, companion)
    if cycles < 1:
        raise ValueError(f"cycles is {cycles}; at least 1 is accepted")
    mask_weights(network, criterion.weights(network))
    records = []
    for cycle in range(cycles + 1):
        if cycle == 0 or not rewind:
            values = {name: value.clone() for name, value in values_but_masks(network).items()}
            start = {name: masked.original.detach().clone() for name, masked in masks_of(network).items()}
        metrics = train(network, cycle)
        records.append(PruneCycle(cycle, density(network), metrics))
        if cycle == cycles:
            break
        prune(network, share, criterion, scope=scope, companion=companion, start=start)
        if rewind:
            for name, value in values_but_masks(network).items():
                value.copy_(values[name])
    return records


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} is {share}; a share in (0, 1) is accepted")


def _check(share: float, scope: str, companion: ActivateWhilePruning | None) -> None:
    _check_share("share", share)
    if scope not in ("global", "layer"):
        raise ValueError(f"scope is {scope!r}; 'global' and 'layer' are accepted")
    if companion and companion.share >= share:
        raise ValueError(f"the companion's share {companion.share} must be less than the share {share}")


def _mask_along(network: nn.Module, criterion: Structured) -> None:
    """Mask what each unit has one of, where no weight leads to it."""
    masks = masks_of(network)
    for weight, others in criterion.along(network).items():
        left = masks[weight].mask.mask.flatten(1).any(1)
        for name in others:
            masks[name].mask.mask &= left
