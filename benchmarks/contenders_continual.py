"""Methods of continual learning on permuted digits: five of the digits in one phase, five in the other.

So no image and no order of pixels is in both. The hypernetwork and the masks are told which task an image is
from; the other methods are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.contenders import Kind, Phase, data_seed, part_of
from learnsolve.problems.digit_streams import digit_loss, permuted_digits
from learnsolve.training import FitOptions
from learnsolve.training.continual import Method, TaskStream, learn_stream
from learnsolve.training.continual_methods import EWC, FineTune, Replay, TaskHypernetwork
from learnsolve.training.isolated_masks import IsolatedMasks
from learnsolve.training.protocol import Choice, Contender, LogUniform
from learnsolve.training.seeding import seed_of, seeded

DIGITS: dict[Phase, tuple[int, ...]] = {"tune": (0, 1, 2, 3, 4), "evaluate": (5, 6, 7, 8, 9)}
# Of a stream, of a task's training, of a step, and of the perceptron's hidden layer.
TASKS, STEPS, BATCH, WIDTH = 4, 100, 16, 40
# Steps after which masks change.
EVERY = 10
RATE = LogUniform(3e-4, 3e-2)


def data(phase: Phase, seeds: Sequence[int], share: float) -> dict[int, TaskStream]:
    """A stream for each seed, each with orders of the pixels of its own."""
    there = DIGITS[phase]
    classes = tuple(range(len(there)))

    def stream(seed: int) -> TaskStream:
        # The first task of a stream has the pixels where they are, in both phases: it is left out.
        tasks = permuted_digits(TASKS + 1, batch=BATCH, seed=data_seed(phase, seed))[1:]
        return TaskStream(
            [replace(task, digits=there, classes=classes, labels=classes) for task in tasks], digit_loss
        )

    return {seed: stream(seed) for seed in seeds}


def learning(method: Callable[..., Method], steps: int) -> Callable[[dict[str, Any], Any, int], float]:
    """A run of a method with its settings: the mean accuracy over all tasks after the last one."""

    def run(settings: dict[str, Any], streams: Any, seed: int) -> float:
        rate = settings.pop("rate")
        with seeded(seed_of(seed, "perceptron", 0), torch.device("cpu")):
            network = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 5))
        options = FitOptions(steps, rate, seed=seed)
        return learn_stream(network, streams[seed], method(**settings), options).scores.average

    return run


def contenders(share: float) -> dict[str, Contender]:
    """The methods."""
    steps = part_of(STEPS, share)
    masks = partial(IsolatedMasks, every=part_of(EVERY, share))
    methods: dict[str, tuple[Callable[..., Method], dict[str, Any]]] = {
        "fine-tune": (FineTune, {}),
        "ewc": (EWC, {"strength": LogUniform(1.0, 1e4)}),
        "replay": (Replay, {"memory": Choice(8, 16, 32), "weight": LogUniform(0.1, 10.0)}),
        "hypernetwork": (
            TaskHypernetwork,
            {"beta": LogUniform(1e-2, 10.0), "generator": Choice("lstm", "mlp")},
        ),
        "isolated masks": (
            masks,
            {
                "density": LogUniform(0.05, 0.5),
                "distribution": Choice("uniform", "erk"),
                "growth": Choice("gradient", "random"),
            },
        ),
    }
    return {
        name: Contender(learning(method, steps), {"rate": RATE, **space})
        for name, (method, space) in methods.items()
    }


KIND = Kind("ACC", "more", contenders, data)
