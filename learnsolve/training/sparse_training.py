"""Dynamic sparse training: a network that has few weights from the start, and changes which."""

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.training.fit import Loss
from learnsolve.training.masks import Masked, mask_weights, masks_of
from learnsolve.training.processes import Processes
from learnsolve.training.seeding import seed_of

# How the weights that are left are shared out among the layers.
DISTRIBUTIONS = ("erk", "uniform")
# By what a weight that comes in is chosen.
GROWTHS = ("random", "unfired", "gradient", "momentum")
# Decays of the averages for growth by momentum, those of Adam; and what keeps its quotient finite.
MEAN_DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-8


def weights_per_layer(
    shapes: Mapping[str, Sequence[int]], density: float, distribution: str = "erk"
) -> dict[str, int]:
    r"""How many weights each layer gets, ``round(density * all)`` in total.

    Uniform: the same share of each. ERK (Erdős-Rényi kernel): the share of a layer whose weight has the axes
    :math:`n_1, \dots, n_k` is :math:`\varepsilon \sum_i n_i / \prod_i n_i`; layers where that is more than
    one are dense, and :math:`\varepsilon` is such that the total is right. Parts of weights go to the layers
    with the largest remainders.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        Of the layers' weights.
    density : float
        In (0, 1].
    distribution : {"erk", "uniform"}
        The rule.

    Returns
    -------
    dict of str to int

    Raises
    ------
    ValueError
        There is no such rule, the density is not accepted, or so low that a layer gets no weight.

    References
    ----------
    Evci, Gale, Menick, Castro and Elsen, *Rigging the lottery: making all tickets winners*, ICML 2020; for
    layers without kernels Mocanu and others, *Scalable training of artificial neural networks with adaptive
    sparse connectivity inspired by network science*, Nature Communications 2018.

    Examples
    --------
    >>> from learnsolve.training.sparse_training import weights_per_layer
    >>> weights_per_layer({"first": (100, 10), "last": (2, 100)}, 0.25)
    {'first': 156, 'last': 144}
    >>> weights_per_layer({"first": (100, 10), "last": (2, 100)}, 0.25, "uniform")
    {'first': 250, 'last': 50}
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"there is no distribution {distribution!r}; there are {', '.join(DISTRIBUTIONS)}")
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; a number in (0, 1] is accepted")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    proportions = sizes if distribution == "uniform" else {name: sum(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = {name: part for name, part in proportions.items() if name not in dense}
        left = total - sum(sizes[name] for name in dense)
        exact = {name: Fraction(left * part, sum(rest.values())) for name, part in rest.items()}
        full = {name for name, count in exact.items() if count > sizes[name]}
        if not full:
            break
        dense |= full
    exact |= {name: Fraction(sizes[name]) for name in dense}
    counts = {name: math.floor(exact[name]) for name in sizes}
    by_remainder = sorted(sizes, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise ValueError(
            f"density {density} leaves {', '.join(empty)} without a weight, and nothing gets through: "
            "raise it, or mask fewer layers"
        )
    return counts


def sparsify(
    network: nn.Module,
    density: float,
    distribution: str = "erk",
    *,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, Masked]:
    """Keep a share of a network's weights, at random places, by masks on the network, in place.

    Parameters
    ----------
    network : torch.nn.Module
        Masks that it has are drawn anew.
    density : float
        In (0, 1]; as many weights as `weights_per_layer` says are left in each layer, exactly.
    distribution : {"erk", "uniform"}
        How they are shared out among the layers.
    names : iterable of str, optional
        Which weights get masks, as for `mask_weights`.
    seed : int
        Of the places.

    Returns
    -------
    dict of Masked
        As `learnsolve.training.masks.masks_of`.

    Raises
    ------
    ValueError
        As `weights_per_layer` and `mask_weights`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.sparse_training import sparsify
    >>> network = torch.nn.Linear(10, 10)
    >>> int(sparsify(network, 0.2)["weight"].mask.mask.sum())
    20
    """
    masks = mask_weights(network, names)
    draw_masks(masks, density, distribution, seed_of(seed, "masks", 0))
    return masks


def draw_masks(masks: Mapping[str, Masked], density: float, distribution: str, seed: int) -> None:
    """Draw all masks anew: exact counts at random places."""
    shapes = {name: masked.mask.mask.shape for name, masked in masks.items()}
    counts = weights_per_layer(shapes, density, distribution)
    generator = torch.Generator().manual_seed(seed)
    for name, masked in masks.items():
        mask = masked.mask.mask
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[torch.randperm(mask.numel(), generator=generator)[: counts[name]]] = True
        mask.copy_(flat.reshape(mask.shape))


class SparseTraining:
    r"""Changes which weights there are, every so many steps, as many in as out.

    At the start of step :math:`t`, if ``every`` divides it, each layer drops the share

    .. math::
        \frac{s}{2} \left(1 + \cos \frac{\pi t}{T}\right), \quad t < T = \text{stop} \cdot \text{steps},

    of its weights, those of the smallest :math:`|w|`, and takes in as many of those that are then masked: at
    ``"random"``; ``"unfired"``, at random among those that never were in, while there are any; by
    ``"gradient"``, the largest :math:`|\partial L / \partial w|` in the step before; or by ``"momentum"``,
    the largest :math:`|m| / \sqrt{v}` with the averages of Adam, taken of the dense gradient. New weights
    start at zero; one that is dropped and taken in at once keeps its value.

    Parameters
    ----------
    network : torch.nn.Module
        With masks, from `sparsify`, pruning or `TaskMasks`.
    steps : int
        Of the training.
    growth : {"gradient", "random", "unfired", "momentum"}
        By what new weights are chosen.
    every : int
        Steps between two changes.
    drop : float
        The share :math:`s`, in (0, 1].
    stop : float
        From which part of the steps on the masks stay, in (0, 1].
    seed : int
        Of what is random.

    Attributes
    ----------
    carried : dict of str to Tensor
        Changed in place: ``fit(..., carried=sparse.carried)`` keeps it in checkpoints. Together with the
        masks, which the network's ``state_dict`` holds, a run that goes on is the same to the bit.

    Raises
    ------
    ValueError
        The network has no masks, there is no such growth, or a number is not accepted.

    Notes
    -----
    The optimizer keeps its moments, of a weight that comes back those from before. Gradients of masked
    weights cost a dense gradient: in the step before a change, and with momentum in each. Of several
    processes of ``torch.distributed``, the mean counts. An update is left out if a gradient is not finite.

    References
    ----------
    Evci, Gale, Menick, Castro and Elsen, *Rigging the lottery: making all tickets winners*, ICML 2020
    (gradient); Mocanu and others, *Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science*, Nature Communications 2018 (random); Liu, Yin, Mocanu and
    Pechenizkiy, *Do we actually need dense over-parameterization? In-time over-parameterization in sparse
    training*, ICML 2021 (unfired); Dettmers and Zettlemoyer, *Sparse networks from scratch: faster training
    without losing performance*, 2019 (momentum).

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training import FitOptions, fit
    >>> from learnsolve.training.sparse_training import SparseTraining, sparsify
    >>> network = torch.nn.Linear(20, 1)
    >>> masks = sparsify(network, 0.1)
    >>> sparse = SparseTraining(network, steps=300, every=10)
    >>> def batches(number, generator):
    ...     x = torch.randn(32, 20, generator=generator)
    ...     return x, x[:, 3:4] - x[:, 8:9]
    >>> def loss(network, batch):
    ...     return torch.nn.functional.mse_loss(network(batch[0]), batch[1])
    >>> options = FitOptions(steps=300, learning_rate=0.1)
    >>> result = fit(network, sparse.loss(loss), batches, options, carried=sparse.carried)
    >>> masks["weight"].mask.mask[0].nonzero().flatten().tolist(), result.loss < 1e-4
    ([3, 8], True)
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        steps: int,
        growth: str = "gradient",
        every: int = 100,
        drop: float = 0.5,
        stop: float = 0.8,
        seed: int = 0,
    ) -> None:
        if growth not in GROWTHS:
            raise ValueError(f"there is no growth {growth!r}; there are {', '.join(GROWTHS)}")
        for name, count in (("steps", steps), ("every", every)):
            if count < 1:
                raise ValueError(f"{name} is {count}; at least 1 is accepted")
        for name, share in (("drop", drop), ("stop", stop)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} is {share}; a number in (0, 1] is accepted")
        self.masks = masks_of(network)
        if not self.masks:
            raise ValueError("the network has no masks: call sparsify first")
        self.growth, self.every, self.drop, self.seed = growth, every, drop, seed
        self.end = stop * steps
        self.carried: dict[str, Tensor] = {"sparse.step": torch.zeros(1, dtype=torch.int64)}
        self._fired = self._carry("fired", torch.bool)
        self._gradients = self._carry("gradient") if growth in ("gradient", "momentum") else {}
        self._means = self._carry("mean") if growth == "momentum" else {}
        self._squares = self._carry("square") if growth == "momentum" else {}
        for name, fired in self._fired.items():
            fired.copy_(self.masks[name].mask.mask)

    def _carry(self, what: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Zeros like each weight, under names of their own in `carried`."""
        tensors = {
            name: torch.zeros_like(masked.original.detach(), dtype=dtype)
            for name, masked in self.masks.items()
        }
        self.carried |= {f"sparse.{what}.{name}": tensor for name, tensor in tensors.items()}
        return tensors

    @property
    def step(self) -> int:
        """How many steps have begun."""
        return int(self.carried["sparse.step"])

    @property
    def explored(self) -> float:
        """Share of the weights that have ever been in."""
        fired = self._fired.values()
        return sum(int(one.sum()) for one in fired) / sum(one.numel() for one in fired)

    def share(self, step: int) -> float:
        """The share of its weights that a layer would change at a step."""
        return self.drop / 2 * (1 + math.cos(math.pi * step / self.end)) if step < self.end else 0.0

    def loss(self, loss: Loss) -> Loss:
        """The loss for `fit`, which calls it once in each step: it begins the step.

        So ``FitOptions.parts`` must not be more than there are processes.

        Parameters
        ----------
        loss : callable
            ``loss(network, batch)``.

        Returns
        -------
        callable
        """

        def begun(network: nn.Module, batch: Any) -> Tensor:
            self.begin_step()
            return loss(network, batch)

        return begun

    @torch.no_grad()
    def begin_step(self) -> bool:
        """What a training loop of one's own calls before each forward pass: change the masks if it is time.

        Returns
        -------
        bool
            Whether weights were changed.
        """
        step = self.step
        finite = self._take_in_gradients(step)
        changes = self._due(step) and finite
        if changes:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "growth", step))
            for name, masked in self.masks.items():
                self._change(name, masked, self.share(step), generator)
        for name, masked in self.masks.items():
            watched = (self.growth == "momentum" and step < self.end) or self._due(step + 1)
            masked.mask.gradient = self._gradients[name].zero_() if self._gradients and watched else None
        self.carried["sparse.step"] += 1
        return changes

    def _due(self, step: int) -> bool:
        return step > 0 and step % self.every == 0 and step < self.end

    def _take_in_gradients(self, step: int) -> bool:
        """Average the dense gradients of the step before; whether they are finite."""
        if not self._gradients or not (self.growth == "momentum" or self._due(step)):
            return True
        processes = Processes(next(iter(self._gradients.values())).device)
        for gradient in self._gradients.values():
            processes.mean(gradient)
        finite = all(bool(gradient.isfinite().all()) for gradient in self._gradients.values())
        if self.growth == "momentum" and finite and step:
            for name, gradient in self._gradients.items():
                self._means[name].lerp_(gradient, 1 - MEAN_DECAY)
                self._squares[name].lerp_(gradient.square(), 1 - SQUARE_DECAY)
        return finite

    def _change(self, name: str, masked: Masked, share: float, generator: torch.Generator) -> None:
        """Drop a share of a layer's weights, and take in as many."""
        before = masked.mask.mask.clone()
        count = round(share * int(before.sum()))
        size = masked.weight.abs().where(before, math.inf).flatten()
        kept = before.flatten().clone()
        kept[torch.argsort(size, stable=True)[:count]] = False
        worth = self._worth(name, generator).flatten().where(~kept, -math.inf)
        after = kept.clone()
        after[torch.argsort(worth, descending=True, stable=True)[:count]] = True
        after = after.reshape(before.shape)
        masked.original[after & ~before] = 0
        masked.mask.mask.copy_(after)
        self._fired[name] |= after

    def _worth(self, name: str, generator: torch.Generator) -> Tensor:
        """What speaks for taking in each weight of a layer."""
        if self.growth == "gradient":
            return self._gradients[name].abs()
        if self.growth == "momentum":
            # Without Adam's corrections for the first steps: they are the same for all weights.
            return self._means[name].abs() / (self._squares[name].sqrt() + TINY)
        fired = self._fired[name]
        drawn = torch.rand(fired.shape, generator=generator).to(fired.device)
        return drawn + ~fired if self.growth == "unfired" else drawn
