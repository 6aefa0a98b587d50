"""Streams of tasks on handwritten digits: pixels permuted anew, or a few classes at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from learnsolve.problems.digits import PIXELS, digits

CLASSES = 10
SCENARIOS = ("task", "domain", "class")


class DigitBatch(NamedTuple):
    """Images, and which of a network's answers are right.

    Attributes
    ----------
    images : (B, 64) float32 Tensor
        From -1 to 1.
    labels : (B,) int64 Tensor
        Places in ``classes``.
    classes : (K,) int64 Tensor
        The outputs of the network among which it chooses.
    """

    images: Tensor
    labels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DigitTask:
    """One task of a stream of digits.

    Parameters
    ----------
    name : str
    digits : tuple of int
        The classes of the images that there are.
    classes : tuple of int
        The outputs of the network among which it chooses, for each image that of ``labels``.
    labels : tuple of int
        For each of ``digits`` its place in ``classes``.
    batch : int
        Images in one batch.
    permutation : tuple of int
        The pixel that stands at each place.
    """

    name: str
    digits: tuple[int, ...]
    classes: tuple[int, ...]
    labels: tuple[int, ...]
    batch: int
    permutation: tuple[int, ...] = field(repr=False)

    def batches(self, number: int, generator: torch.Generator) -> DigitBatch:
        """Images to learn from, drawn with repetition.

        Parameters
        ----------
        number : int
            Of the step; not used.
        generator : torch.Generator
            On the CPU.

        Returns
        -------
        DigitBatch
        """
        whole = self._images("learned")
        chosen = torch.randint(len(whole.images), (self.batch,), generator=generator)
        return DigitBatch(whole.images[chosen], whole.labels[chosen], whole.classes)

    def score(self, network: Callable[[Tensor], Tensor]) -> float:
        """The share of held-out images that a network names rightly, from zero to one.

        Parameters
        ----------
        network : callable
            From (B, 64) float32 images to at least as many outputs as the largest of ``classes`` asks for.

        Returns
        -------
        float
        """
        images, labels, classes = self._images("judged")
        return float((network(images)[:, classes].argmax(1) == labels).double().mean())

    def _images(self, part: Literal["learned", "judged"]) -> DigitBatch:
        """All images of the task."""
        images, names = digits(part)
        places = torch.full((CLASSES,), -1)
        places[list(self.digits)] = torch.tensor(self.labels)
        labels = places[names]
        there = labels >= 0
        pixels = images[there].flatten(1)[:, list(self.permutation)]
        return DigitBatch(pixels, labels[there], torch.tensor(self.classes))


def digit_loss(network: Callable[[Tensor], Tensor], batch: DigitBatch) -> Tensor:
    """Mean cross-entropy over a batch, among the outputs that count.

    Parameters
    ----------
    network : callable
        From (B, 64) images to (B, outputs).
    batch : DigitBatch

    Returns
    -------
    () Tensor
    """
    return cross_entropy(network(batch.images)[:, batch.classes], batch.labels)


def permuted_digits(tasks: int, *, batch: int = 32, seed: int = 0) -> tuple[DigitTask, ...]:
    """All ten digits in every task, each task with an order of the pixels of its own.

    The first has the pixels where they are. All tasks have the same ten answers: a network is not told
    which task an image is from.

    Parameters
    ----------
    tasks : int
    batch : int
        Images in one batch.
    seed : int
        Of the orders.

    Returns
    -------
    tuple of DigitTask

    Raises
    ------
    ValueError
        A number is too small.

    References
    ----------
    Goodfellow, Mirza, Xiao, Courville and Bengio, *An empirical investigation of catastrophic forgetting in
    gradient-based neural networks*, 2013, on larger digits.

    Examples
    --------
    >>> from learnsolve.problems.digit_streams import permuted_digits
    >>> [task.name for task in permuted_digits(3)]
    ['pixels-1', 'pixels-2', 'pixels-3']
    """
    if tasks < 1 or batch < 1:
        raise ValueError(f"tasks is {tasks} and batch {batch}; at least 1 is accepted for both")
    generator = torch.Generator().manual_seed(seed)
    every = tuple(range(CLASSES))
    orders = [tuple(range(PIXELS * PIXELS))]
    orders += [tuple(torch.randperm(PIXELS * PIXELS, generator=generator).tolist()) for _ in range(tasks - 1)]
    return tuple(
        DigitTask(f"pixels-{number}", every, every, every, batch, order)
        for number, order in enumerate(orders, 1)
    )


def split_digits(
    classes_per_task: int = 2,
    *,
    scenario: Literal["task", "domain", "class"] = "task",
    batch: int = 32,
    order: Sequence[int] = tuple(range(CLASSES)),
) -> tuple[DigitTask, ...]:
    """A few digits in each task, until all ten were there.

    Parameters
    ----------
    classes_per_task : int
        That divides ten.
    scenario : {"task", "domain", "class"}
        Ten outputs, of which only those of the task count; as many outputs as digits in a task, which
        every task names anew; or ten outputs, which all count always.
    batch : int
        Images in one batch.
    order : sequence of int
        Of the digits.

    Returns
    -------
    tuple of DigitTask

    Raises
    ------
    ValueError
        A number or the scenario is not accepted.

    References
    ----------
    van de Ven and Tolias, *Three scenarios for continual learning*, 2019.

    Examples
    --------
    >>> from learnsolve.problems.digit_streams import split_digits
    >>> [task.name for task in split_digits()]
    ['digits-01', 'digits-23', 'digits-45', 'digits-67', 'digits-89']
    >>> split_digits(scenario="domain")[1].classes
    (0, 1)
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; at least 1 is accepted")
    if not 1 <= classes_per_task <= CLASSES or CLASSES % classes_per_task:
        raise ValueError(f"classes_per_task is {classes_per_task}; 1, 2, 5 and 10 are accepted")
    if scenario not in SCENARIOS:
        raise ValueError(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if sorted(order) != list(range(CLASSES)):
        raise ValueError(f"order is {list(order)}; the ten digits, each once, are accepted")
    tasks = []
    for begin in range(0, CLASSES, classes_per_task):
        there = tuple(order[begin : begin + classes_per_task])
        within = tuple(range(classes_per_task))
        classes, labels = {
            "task": (there, within),
            "domain": (within, within),
            "class": (tuple(range(CLASSES)), there),
        }[scenario]
        name = "digits-" + "".join(map(str, there))
        tasks.append(DigitTask(name, there, classes, labels, batch, tuple(range(PIXELS * PIXELS))))
    return tuple(tasks)
