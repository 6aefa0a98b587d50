"""What a training run carries from step to step, and a checkpoint from run to run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from learnsolve.training.joined import JoinedRAdam
from learnsolve.training.options import FitOptions
from learnsolve.training.weights import mismatch

COUNTERS = ("step", "skipped", "skipped_in_a_row", "loss", "metrics", "seconds")


class State:
    """Network, moments of the optimizer, average of the weights, and counters.

    Parameters
    ----------
    network : torch.nn.Module
        Trained in place.
    options : FitOptions
        Which optimizer, and whether there is an average.
    carried : mapping of Tensor
        What else a checkpoint keeps.

    Raises
    ------
    ValueError
        No parameter of the network requires a gradient.
    """

    def __init__(
        self, network: torch.nn.Module, options: FitOptions, carried: Mapping[str, Tensor] | None = None
    ) -> None:
        self.network = network
        self.carried = carried or {}
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError("the network has no parameter that requires a gradient: nothing to train")
        self.optimizer = _optimizer(options, list(self.trained.values()))
        self.decay = options.ema
        # Zeros: the first update, which has weight one, replaces them.
        self.average = {n: torch.zeros_like(p) for n, p in self.trained.items()} if self.decay else {}
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.loss = math.nan
        self.metrics: dict[str, float] = {}
        self.seconds = 0.0

    def update(self, rate: float) -> None:
        """One step of the optimizer, and of the average, along the gradients."""
        self.skipped_in_a_row = 0
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        updates = self.step + 1 - self.skipped
        with torch.no_grad():
            # The recursive form of the average in FitOptions.
            for name, mean in self.average.items():
                mean.lerp_(self.trained[name], (1 - self.decay) / (1 - self.decay**updates))

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights, if there are any, into the network."""
        if self.step > self.skipped:
            for name, mean in self.average.items():
                self.trained[name].copy_(mean)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in the network for a while."""
        own = {name: self.trained[name].detach().clone() for name in self.average}
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weights in own.items():
                    self.trained[name].copy_(weights)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, named ``network.*``, ``average.*``, ``carried.*`` and ``optimizer.<index>.*``."""
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.items()}
        tensors |= {f"carried.{name}": t for name, t in self.carried.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{n}": t for n, t in moments.items() if isinstance(t, Tensor)}
        return tensors

    def counters(self) -> dict[str, Any]:
        """All that is not a tensor."""
        return {name: getattr(self, name) for name in COUNTERS}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `counters` gave; unchanged if they do not fit.

        Raises
        ------
        ValueError
            The tensors are those of another network; the message says in what.
        """
        expected = {name: t for name, t in self.tensors().items() if not name.startswith("optimizer.")}
        moments = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
        found = {name: t for name, t in tensors.items() if name not in moments}
        what = mismatch(expected, found)
        if what is not None:
            raise ValueError(what)
        for name, tensor in expected.items():
            if found[name].dtype != tensor.dtype:
                raise ValueError(f"{name} has dtype {found[name].dtype}, expected {tensor.dtype}")
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(found[name])
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in moments.items():
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for name in COUNTERS:
            setattr(self, name, counters[name])


def _optimizer(options: FitOptions, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9)
    if options.optimizer == "radam":
        return JoinedRAdam(parameters, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay)
