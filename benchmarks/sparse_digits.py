"""Perceptrons that tell digits with few of their weights: pruned in cycles, or sparse from the beginning."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from learnsolve.training import FitOptions

# Widths of the perceptron that is pruned, and of the one that learns a stream.
PRUNED, SPARSE = (64, 100, 100, 10), (64, 128, 128, 10)
# Weights of the second one: by default all get masks, or each task has the last layer for itself.
HIDDEN = ("0.weight", "2.weight")


def perceptron(widths: tuple[int, ...], seed: int) -> "nn.Sequential":
    """A perceptron of ReLU units, with random weights of a seed."""
    import torch
    from torch import nn

    from learnsolve.training.seeding import seed_of, seeded

    with seeded(seed_of(seed, "perceptron", 0), torch.device("cpu")):
        layers = [
            part for before, after in pairwise(widths) for part in (nn.Linear(before, after), nn.ReLU())
        ]
        return nn.Sequential(*layers[:-1])


@cache
def images_of(validate: bool) -> "tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]":
    """What is learned from and what is judged by: pixels from 0 to 1, and classes.

    To choose settings, by every sixth of the images that are else learned from.
    """
    import torch

    from learnsolve.problems.digits import digits

    images, classes = digits("learned")
    pixels = (images.flatten(1) + 1) / 2
    if validate:
        judged = torch.arange(len(pixels)) % 6 == 0
        return (pixels[~judged], classes[~judged]), (pixels[judged], classes[judged])
    images, answers = digits("judged")
    return (pixels, classes), ((images.flatten(1) + 1) / 2, answers)


def prune_digits(
    fit_options: "FitOptions", *, cycles: int, share: float, activate: float, batch: int,
    validate: bool = False,
) -> list[dict[str, float]]:  # fmt: skip
    """Iterative magnitude pruning with rewinding to the initial weights.

    Parameters
    ----------
    fit_options : FitOptions
        Of each training; its seed is also that of the weights. Runs of one seed are the same until they are
        pruned.
    cycles : int
        Prunings; there is one more training.
    share : float
        Pruned in each.
    activate : float
        The part of ``share`` that activate-while-pruning takes; zero for none.
    batch : int
        Images in one step.
    validate : bool
        Judge by a part of the images that are else learned from (see `images_of`).

    Returns
    -------
    list of dict
        Of each training: ``density``; and on images held out ``accuracy``, and ``dynamic`` and ``static``,
        the rates of dead units.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from learnsolve.training import fit
    from learnsolve.training.dead_neurons import dead_neuron_rate
    from learnsolve.training.pruning import ActivateWhilePruning, prune_iteratively
    from learnsolve.training.seeding import seed_of

    seed, ((images, classes), (judged, answers)) = fit_options.seed, images_of(validate)

    def batches(number: int, generator: Any) -> Any:
        chosen = torch.randint(len(images), (batch,), generator=generator)
        return images[chosen], classes[chosen]

    def loss(network: "nn.Module", some: Any) -> "Tensor":
        return cross_entropy(network(some[0]), some[1])

    def train(network: "nn.Module", cycle: int) -> dict[str, float]:
        fit(network, loss, batches, replace(fit_options, seed=seed_of(seed, "cycle", cycle)))
        with torch.no_grad():
            accuracy = float((network(judged).argmax(1) == answers).double().mean())
        dead = dead_neuron_rate(network, [judged])
        return {"accuracy": accuracy, "dynamic": dead.dynamic, "static": dead.static}

    companion = ActivateWhilePruning(activate) if activate else None
    records = prune_iteratively(
        perceptron(PRUNED, seed), train, cycles=cycles, share=share, companion=companion
    )
    return [{"density": record.density, **record.metrics} for record in records]


def learn_digits(
    fit_options: "FitOptions", *, density: float, distribution: str, growth: str | None, every: int,
    own_heads: bool,
) -> dict[str, Any]:  # fmt: skip
    """Five tasks of two digits each, one after the other, each with a mask of its own.

    Parameters
    ----------
    fit_options : FitOptions
        Of each task's training; its seed is also that of the weights and the masks.
    density, distribution, growth, every
        As of `IsolatedMasks`.
    own_heads : bool
        Whether each task has the whole last layer for itself, instead of a part of it by its mask.

    Returns
    -------
    dict
        ``accuracy``, the mean over the tasks after the last; ``last``, that of the last task;
        ``backward_transfer``; ``used``, the share of the masked weights that tasks have; ``matrix``.
    """
    from learnsolve.problems.digit_streams import digit_loss, split_digits
    from learnsolve.training.continual import TaskStream, learn_stream
    from learnsolve.training.isolated_masks import IsolatedMasks, MaskLearner

    method = IsolatedMasks(density, distribution, growth, every, names=HIDDEN if own_heads else None)
    stream = TaskStream(split_digits(), digit_loss)
    result = learn_stream(perceptron(SPARSE, fit_options.seed), stream, method, fit_options)
    assert isinstance(result.learner, MaskLearner)
    scores = result.scores
    return {
        "accuracy": scores.average, "last": float(scores.matrix[-1, -1]), "used": result.learner.masks.used,
        "backward_transfer": scores.backward_transfer, "matrix": scores.matrix.tolist(),
    }  # fmt: skip
